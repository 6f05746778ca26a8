# SPDX-License-Identifier: Apache-2.0
"""Where a filter goes that names the device by which packets come in."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_NEWTFILTER
from asap2.nic.faces.tc.qdiscs import PARENT_INGRESS
from asap2.nic.rules import UNREACHED
from tests.unit.nic.faces.tc_node import NEW, OTHER, REPRESENTOR, Node
from tests.unit.nic.faces.tc_requests import mirred

SKIP_HW, SKIP_SW = 1, 2
NAMES = {"eth0": REPRESENTOR, "eth1": OTHER}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr("socket.if_indextoname", {index: name for name, index in NAMES.items()}.__getitem__)
    monkeypatch.setattr("socket.if_nametoindex", NAMES.__getitem__)
    return Node(tmp_path)


def add(node: Node, indev: str, flags: int) -> bytes:
    """Put a filter on eth0; all that is said."""
    header = tables.Tcmsg(0, REPRESENTOR, 0, PARENT_INGRESS, tables.info(1, 0x0800))
    options = {"indev": indev, "key_eth_type": 0x0800, "act": [mirred(OTHER)], "flags": flags}
    return b"".join(
        node.ask(RTM_NEWTFILTER, NEW, tables.TC.encode(header, {"kind": "flower", "chain": 0, "options": options}))
    )


def test_hardware_takes_a_filter_that_names_its_own_device_alone(node: Node) -> None:
    add(node, "eth0", SKIP_SW)
    assert [rule.in_port for rule in node.silicon.rules.values()]
    assert b"mlx5_core: Can't match on the ingress filter port" in add(node, "eth1", SKIP_SW)
    assert len(node.silicon.rules) == 1


def test_in_software_no_packet_finds_a_filter_that_names_another_device(node: Node) -> None:
    for indev in ("eth0", "eth1"):
        add(node, indev, SKIP_HW)
    assert [(rule.table, rule.in_port) for rule in node.pipeline.rules.values()] == [
        (0, REPRESENTOR),
        (UNREACHED, OTHER),
    ]
