# SPDX-License-Identifier: Apache-2.0
"""The five paths that the benchmark compares are there, and packets pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.lab.bench import measure
from asap2.lab.bench.paths import NAMES, build
from asap2.lab.execute import run
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout


@pytest.mark.slow
def test_every_path_carries_packets_in_its_own_way(place: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "TCP_SECONDS", 1)
    lab = Lab(place)
    paths = build(lab)
    assert [path.name for path in paths] == list(NAMES)
    hosts = [path.host for path in paths if path.host]
    before = [host.lookups() for host in hosts]
    assert all(measure.tcp(path)["tcp_gbps"] > 0 for path in paths)
    offloaded, *seen = (host.lookups() - least for host, least in zip(hosts, before, strict=True))
    assert all(100 * offloaded < each for each in seen), (offloaded, seen)
    assert flows(place.bundle("offloaded"), "type=offloaded")
    assert not flows(place.bundle("software"), "type=offloaded")
    assert flows(place.bundle("software"), "type=ovs")
    lab.down()
    assert not place.root.exists()


def flows(bundle: Path, kind: str) -> list[str]:
    """The datapath flows of a node that carry TCP's packets."""
    lines = run(bundle, "ovs-appctl", "dpctl/dump-flows", kind).splitlines()
    return [line for line in lines if "eth_type(0x0800)" in line]
