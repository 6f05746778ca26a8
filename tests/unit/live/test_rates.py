# SPDX-License-Identifier: Apache-2.0
"""Rates are differences of two snapshots."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asap2.live import Counters, Detail, Drops, Flow, Nic, Node, Port, PortKind, Snapshot, rates

FLOW = Flow("u1", "eth0", ("eth1",), "in_port(eth0)", "eth1", 10, 1000, "yes", "offloaded", "", "", "")


def moment(taken: float, counters: Counters, *, dropped: int = 0, flow: Flow | None = None) -> Snapshot:
    """A node with one port."""
    port = Port("n/p", "p", PortKind.OTHER, counters=counters)
    drops = (Drops("rule", dropped),) if dropped else ()
    nic = Nic("nic0", "ConnectX-5", "0000:03:00.0", "switchdev", ("p",), drops)
    detail = Detail(taken, (flow,)) if flow is not None else None
    return Snapshot(taken, "lab", "x", (Node("n", "up", (nic,), (port,), (), detail),))


def test_a_rate_is_per_second_and_tells_hardware_from_software() -> None:
    before = moment(100.0, Counters(hardware_in_packets=10, software_out_bytes=5))
    found = rates(
        before, moment(100.5, Counters(hardware_in_packets=40, software_out_bytes=25, software_in_packets=10))
    )
    rate = found.ports["n/p"]
    assert (rate.hardware_in_packets, rate.software_out_bytes, rate.software_in_packets) == (60.0, 40.0, 20.0)
    assert (rate.packets, rate.bytes, rate.hardware_share) == (80.0, 40.0, 0.75)


def test_a_port_that_is_still_has_no_share() -> None:
    found = rates(moment(1.0, Counters()), moment(2.0, Counters()))
    assert found.ports["n/p"].hardware_share is None


def test_a_counter_that_started_again_has_the_rate_0() -> None:
    found = rates(moment(1.0, Counters(hardware_in_packets=9)), moment(2.0, Counters(hardware_in_packets=2)))
    assert found.ports["n/p"].hardware_in_packets == 0


def test_a_port_that_is_new_has_no_rate_yet() -> None:
    before = moment(1.0, Counters())
    assert rates(replace(before, nodes=()), moment(2.0, Counters())).ports == {}


def test_drops_and_flows_have_rates() -> None:
    more = replace(FLOW, packets=30, bytes=2000)
    found = rates(moment(1.0, Counters(), dropped=1, flow=FLOW), moment(3.0, Counters(), dropped=5, flow=more))
    assert found.drops == {("n", "nic0", "rule"): 2.0}
    rate = found.flows["n", "u1"]
    assert (rate.packets, rate.bytes) == (10.0, 500.0)


def test_flows_that_were_not_read_again_have_no_rate() -> None:
    first = moment(1.0, Counters(), flow=FLOW)
    again = replace(moment(2.0, Counters(), flow=FLOW), nodes=first.nodes)
    assert rates(first, again).flows == {}


def test_snapshots_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="later"):
        rates(moment(2.0, Counters()), moment(1.0, Counters()))
