# SPDX-License-Identifier: Apache-2.0
"""The collector of a lab: what it counts is what passed, where it passed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.errors import UsageError
from asap2.lab.layout import Layout
from asap2.live import Detail, Port, PortKind, Snapshot, as_data, lab_collector, rates
from asap2.live.lab import LabCollector
from asap2.testing import Lab
from tests.schemas import answer
from tests.system.offload.labs import until

pytestmark = pytest.mark.asap2_topology("one-node")


@pytest.fixture(scope="module")
def bridged(asap2_module_lab: Lab) -> Lab:
    """The lab with a bridge that offloads."""
    asap2_module_lab.node("hv1").add_bridge("br0")
    return asap2_module_lab


@pytest.fixture
def collector(bridged: Lab) -> Iterator[LabCollector]:
    """A collector of that lab."""
    with lab_collector(Layout(bridged.root)) as made:
        yield made


def port(snapshot: Snapshot, kind: PortKind, guest: str) -> Port:
    """A guest's VF or its representor."""
    vf = next(one for one in snapshot.nodes[0].ports if one.guest == guest)
    return vf if kind is PortKind.VF else next(one for one in snapshot.nodes[0].ports if one.id == vf.twin)


def test_what_there_is(bridged: Lab, collector: LabCollector) -> None:
    snapshot = collector.sample()
    node = snapshot.nodes[0]
    assert (node.name, node.state, [nic.mode for nic in node.nics]) == ("hv1", "up", ["switchdev"])
    assert [bridge.name for bridge in node.bridges] == ["br0"]
    for guest in snapshot.guests:
        representor = port(snapshot, PortKind.REPRESENTOR, guest.name)
        assert representor.name == bridged.node("hv1").representor(guest.name)
        assert representor.bridge == "br0"
        assert guest.port == port(snapshot, PortKind.VF, guest.name).id
    assert answer(json.dumps(as_data(snapshot)))["source"] == "lab"


def test_hardware_and_software_are_what_passed_there(bridged: Lab, collector: LabCollector) -> None:
    vm1, vm2 = bridged.guest("vm1"), bridged.guest("vm2")
    bridged.node("hv1").forget_flows()
    before = collector.sample()
    vm1.ping(vm2, count=20)
    shown = bridged.node("hv1").counters(bridged.node("hv1").representor("vm1"))
    after = collector.sample()
    new, old = (port(one, PortKind.VF, "vm1").counters for one in (after, before))
    into, out = new.hardware_in_packets - old.hardware_in_packets, new.hardware_out_packets - old.hardware_out_packets
    soft = new.software_in_packets - old.software_in_packets
    assert 15 <= into <= 20
    assert 15 <= out <= 20
    assert 1 <= soft <= 6
    assert new.hardware_in_packets + new.software_in_packets >= shown.rx_packets
    assert new.software_in_packets >= shown.cpu_rx_packets
    assert port(after, PortKind.REPRESENTOR, "vm1").counters == new
    found = rates(before, after).ports[port(after, PortKind.VF, "vm1").id]
    assert found.hardware_in_packets == pytest.approx(into / (after.taken - before.taken))


def test_flows_and_reasons_are_there_while_they_are_wanted(bridged: Lab, collector: LabCollector) -> None:
    assert collector.sample().nodes[0].detail is None
    collector.want_flows(["hv1"])
    bridged.guest("vm1").ping(bridged.guest("vm2"), count=3)

    seen: list[Detail] = []

    def read() -> bool:
        found = collector.sample().nodes[0].detail
        seen[:] = [found] if found is not None else []
        return found is not None and any("0x0800" in flow.match for flow in found.flows)

    until(read)
    (found,) = seen
    assert {flow.code for flow in found.flows if "0x0800" in flow.match} == {"offloaded"}
    refused = next(flow for flow in found.flows if "0x0806" in flow.match and flow.offloaded == "no")
    assert refused.why
    assert refused.fix
    (agent,) = collector.agents
    collector.want_flows([])
    assert collector.sample().nodes[0].detail is None
    assert not os.path.exists(f"/proc/{agent}")
    with pytest.raises(LookupError, match="no node 'hv9'"):
        collector.want_flows(["hv9"])


def test_a_new_bridge_and_a_moved_vf_are_followed(bridged: Lab, collector: LabCollector) -> None:
    collector.sample()
    before = collector.generation
    bridged.node("hv1").run("ovs-vsctl add-br br9")
    try:
        until(lambda: "br9" in [one.name for one in collector.sample().nodes[0].bridges])
        assert collector.generation > before
        internal = next(one for one in collector.sample().nodes[0].ports if one.name == "br9")
        assert (internal.kind, internal.bridge) == (PortKind.INTERNAL, "br9")
    finally:
        bridged.node("hv1").run("ovs-vsctl del-br br9")
    until(lambda: "br9" not in [one.name for one in collector.sample().nodes[0].ports])


def test_it_goes_on_while_the_daemon_is_dead(bridged: Lab, collector: LabCollector) -> None:
    before = collector.sample()
    killed = bridged.node("hv1").kill("daemon")
    assert len(collector.sample().nodes[0].ports) == len(before.nodes[0].ports)
    bridged.node("hv1").wait_for_restart("daemon", killed)


def test_a_sample_is_cheap(collector: LabCollector) -> None:
    collector.sample()
    began = time.process_time()
    for _ in range(50):
        collector.sample()
    assert (time.process_time() - began) / 50 < 0.0015, "32 nodes at 10 samples a second must be under half a core"


def test_without_a_lab_there_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="no lab is up as none-such"):
        lab_collector(Layout(Path("/run/asap2.none-such")))
