# SPDX-License-Identifier: Apache-2.0
"""The figures for Prometheus, and the dashboard that shows them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from asap2.host.connections import Connections
from asap2.host.explain.flow import Flow
from asap2.host.inventory import DatapathPort, FlowTrial, Host
from asap2.host.metrics import HostCollector, registry
from tests.unit.host.hosts import fresh, offloading, with_netdev, with_pf, with_switch

DASHBOARD = Path(__file__).resolve().parents[3] / "docs/grafana-dashboard.json"
FLOW = (
    "ufid:{}, recirc_id(0),in_port(eth0),eth_type(0x0800),ipv4(proto=17,frag=no), packets:5, bytes:9, dp:{}, actions:{}"
)


def busy() -> Host:
    """A host with a flow that is truncated, one that the NIC may refuse, and one in hardware."""
    lines = (FLOW.format("1", "ovs", "trunc(64),eth1"), FLOW.format("2", "tc", "eth1"))
    hardware = FLOW.format("3", "tc", "eth1").replace("dp:tc", "offloaded:yes, dp:tc")
    ports = tuple(DatapathPort(n, name) for n, name in enumerate(("eth0", "eth1")))
    host = with_switch(offloading(), datapath_flows=(*lines, hardware), datapath_ports=ports, flow_limit=10000)
    vf = dataclasses.replace(host.pfs[0].vfs[0], rx_packets=600, tx_packets=400)
    return with_pf(host, vfs=(vf, host.pfs[0].vfs[1]))


def figures(collector: HostCollector) -> dict[str, float]:
    """What is scraped: name and labels to value."""
    text = generate_latest(registry(collector)).decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}" if sample.labels else sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_flows_are_counted_by_place_and_reason() -> None:
    found = figures(HostCollector(trial=False, see=busy))
    assert found["asap2_flows[('place', 'hardware')]"] == 1
    assert found["asap2_flows_not_offloaded[('reason', 'action.truncate')]"] == 1
    assert found["asap2_flows_not_offloaded[('reason', 'nic.unexplained')]"] == 1
    assert not any("'offloaded'" in name for name in found)


def test_connections_are_counted_by_place() -> None:
    tracked = dataclasses.replace(busy(), connections=Connections(10, 65536, 4))
    found = figures(HostCollector(trial=False, see=lambda: tracked))
    places = [found[f"asap2_connections[('place', '{place}')]"] for place in ("hardware", "software")]
    assert (*places, found["asap2_connection_limit"]) == (4, 6, 65536)
    assert not any("connection" in name for name in figures(HostCollector(trial=False, see=busy)))


def test_packets_of_guests_and_the_host_and_upcalls_are_counted() -> None:
    found = figures(HostCollector(trial=False, see=busy))
    assert found["asap2_vf_packets_total[('direction', 'received'), ('pf', 'enp3s0f0'), ('vf', '0')]"] == 600
    assert found["asap2_representor_packets_total[('pf', 'enp3s0f0'), ('representor', 'eth0'), ('vf', '0')]"] == 0
    assert found["asap2_datapath_lookups_total[('result', 'missed')]"] == 3
    assert (found["asap2_flow_limit"], found["asap2_offload_in_force"]) == (10000, 1)


def test_each_flow_is_tried_once_and_forgotten_when_it_goes() -> None:
    asked: list[list[str]] = []

    def attempt(_host: Host, flows: list[Flow]) -> tuple[FlowTrial, ...]:
        asked.append([flow.ufid or "" for flow in flows])
        return tuple(FlowTrial(flow.ufid or "", True, 95, "Matching on TTL is not supported", True) for flow in flows)

    hosts = [busy(), busy(), with_switch(busy(), datapath_flows=()), busy()]
    collector = HostCollector(see=lambda: hosts.pop(0), attempt=attempt)
    assert figures(collector)["asap2_flows_not_offloaded[('reason', 'nic.match')]"] == 1
    for _ in range(3):
        figures(collector)
    assert asked == [["1", "2"], [], [], ["1", "2"]]


def test_a_flow_that_changed_is_tried_again() -> None:
    asked: list[list[str]] = []

    def attempt(_host: Host, flows: list[Flow]) -> tuple[FlowTrial, ...]:
        asked.append([flow.ufid or "" for flow in flows])
        return ()

    lines = busy().openvswitch.datapath_flows
    moved = tuple(line.replace("dp:tc", "dp:ovs") for line in lines)
    hosts = [busy(), with_switch(busy(), datapath_flows=moved)]
    collector = HostCollector(see=lambda: hosts.pop(0), attempt=attempt)
    for _ in range(2):
        figures(collector)
    assert asked[0] == ["1", "2"]
    assert len(asked[1]) == 1


def test_a_host_without_anything_has_figures_too() -> None:
    found = figures(HostCollector(see=lambda: with_switch(fresh(), running=False, flows=None)))
    assert found["asap2_openvswitch_up"] == 0
    assert found["asap2_switchdev[('address', '0000:03:00.0'), ('pf', 'enp3s0f0')]"] == 0


def test_the_dashboard_shows_figures_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    served = {name.partition("[")[0] for name in figures(HostCollector(trial=False, see=busy))}
    asked = set(re.findall(r"asap2_\w+", shown))
    assert asked
    assert asked <= served
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_a_name_that_is_no_utf_8_is_no_failure() -> None:
    host = with_netdev(offloading(), "eth0", name="\udcffrep\x1b")
    assert 'representor="\\\\xffrep\\\\x1b"' in generate_latest(registry(HostCollector(False, lambda: host))).decode()
