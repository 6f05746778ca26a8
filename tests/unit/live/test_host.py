# SPDX-License-Identifier: Apache-2.0
"""A host, and a host in a capture, as snapshots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from asap2.errors import UsageError
from asap2.host import capture
from asap2.host.inventory import Host
from asap2.live import PortKind, as_data, capture_snapshot
from asap2.live.counted import NOTHING, Read, Stats, StatsReader
from asap2.live.host import HostCollector, snapshot_of
from tests.schemas import answer
from tests.unit.host.hosts import offloading

FLOW = (
    "ufid:d3bbfb4f-09cb-4344-913c-0f266a6d9c1b, recirc_id(0),in_port(enp3s0f0_0),eth(src=00:00:00:00:00:00/"
    "00:00:00:00:00:00),eth_type(0x0800), packets:7, bytes:700, used:0.1s, offloaded:yes, dp:tc, actions:enp3s0f0"
)


class Given(StatsReader):
    """Counters that a test gives."""

    def __init__(self, read: Mapping[int, Read]) -> None:
        self.read = dict(read)

    def all(self) -> dict[int, Read]:
        return dict(self.read)

    def close(self) -> None:
        pass


def representor(host: Host) -> int:
    """The interface index of the first VF's representor."""
    return dict(host.representors(host.pfs[0]))[0].index


def test_what_the_cpu_did_not_see_was_in_hardware() -> None:
    host = offloading()
    read = Read(Stats(100, 50, 1000, 500, 1, 2), Stats(30, 10, 300, 100))
    found = snapshot_of(host, {representor(host): read}, taken=1.0, source="host")
    ports = {port.kind: port for port in found.nodes[0].ports if port.vf in (0, None)}
    counters = ports[PortKind.REPRESENTOR].counters
    assert (counters.hardware_in_packets, counters.software_in_packets) == (70, 30)
    assert (counters.hardware_out_bytes, counters.software_out_bytes) == (400, 100)
    assert counters.dropped_packets == 3
    assert ports[PortKind.VF].counters == counters
    assert ports[PortKind.VF].twin == ports[PortKind.REPRESENTOR].id
    assert ports[PortKind.UPLINK].bridge == ports[PortKind.REPRESENTOR].bridge


def test_without_a_word_of_the_driver_the_representor_has_what_the_cpu_saw() -> None:
    host = offloading()
    vf = replace(host.pfs[0].vfs[0], tx_packets=100, rx_packets=80)
    host = replace(host, pfs=(replace(host.pfs[0], vfs=(vf, *host.pfs[0].vfs[1:])),))
    found = snapshot_of(host, {representor(host): Read(Stats(30, 10), None)}, taken=1.0, source="host")
    counters = next(port.counters for port in found.nodes[0].ports if port.kind is PortKind.VF)
    assert (counters.hardware_in_packets, counters.software_in_packets) == (70, 30)
    assert (counters.hardware_out_packets, counters.software_out_packets) == (70, 10)


def test_a_collector_reads_the_host_again_only_if_devices_change() -> None:
    host = offloading()
    seen: list[Host] = []

    def see() -> Host:
        seen.append(host)
        return host

    stats = Given({netdev.index: Read(NOTHING, None) for netdev in host.netdevs})
    collector = HostCollector(flows_every=1.0, see=see, stats=stats)
    first = collector.sample()
    assert collector.sample().nodes == first.nodes
    assert (len(seen), collector.generation) == (1, 1)
    stats.read[999] = Read(NOTHING, None)
    collector.sample()
    assert (len(seen), collector.generation) == (2, 1)
    assert collector.nodes == (host.hostname,)
    with pytest.raises(LookupError, match="no host 'hv9'"):
        collector.want_flows(["hv9"])


def test_a_capture_is_a_snapshot_with_flows_and_reasons(tmp_path: Path) -> None:
    host = offloading()
    host = replace(host, openvswitch=replace(host.openvswitch, datapath_flows=(FLOW,)))
    capture.write(host, tmp_path / "host.json")
    found = capture_snapshot(tmp_path / "host.json")
    detail = found.nodes[0].detail
    assert detail is not None
    assert (detail.flows[0].code, detail.flows[0].packets) == ("offloaded", 7)
    assert "eth_type(0x0800)" in detail.flows[0].match
    assert "eth(" not in detail.flows[0].match
    assert (found.source, found.name) == ("capture", host.hostname)
    assert answer(json.dumps(as_data(found)))["schema"] == "urn:asap2:live:1"


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(UsageError, match="not a capture"):
        capture_snapshot(tmp_path / "x")


def test_the_kernel_tells_the_counters_of_every_device() -> None:
    reader = StatsReader(cpu=True)
    try:
        assert 1 in reader.all()
        assert reader.all()[1].all.rx_packets >= 0
        assert reader.one(1, 12345) is None
    finally:
        reader.close()
