# SPDX-License-Identifier: Apache-2.0
"""Devices share a block of filters: each has their rules, and they go with the last device."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER
from asap2.netlink.wire import NLMSG_ERROR, split
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.qdiscs import PARENT_INGRESS, RTM_DELQDISC, RTM_NEWQDISC
from asap2.nic.faces.tc.spec import IN_HW
from asap2.nic.journal import Journal
from tests.unit.nic.faces.tc_node import DUMP, NEW, OTHER, REPRESENTOR, UPLINK, Node
from tests.unit.nic.faces.tc_requests import mirred

BLOCK = 0x8000_0007
SKIP_HW, SKIP_SW = 1, 2
DROP: dict[str, Any] = {"kind": "gact", "options": {"parms": ta.Generic(action=2)}}


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.if_indextoname", lambda ifindex: f"eth{ifindex}")
        patch.setattr("time.monotonic_ns", lambda: 1_000_000_000_000)
        yield


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Two devices with the block."""
    node = Node(tmp_path, True)
    assert unbind(node, REPRESENTOR) == 0
    assert bind(node, REPRESENTOR) == bind(node, OTHER) == 0
    return node


def error(told: list[bytes]) -> int:
    (answer,) = [m for m in told if len(m) > 21 and m[0] < 2 and int.from_bytes(m[5:7], "little") == NLMSG_ERROR]
    return -int.from_bytes(answer[17:21], "little", signed=True)


def bind(node: Node, ifindex: int) -> int:
    header = tables.Tcmsg(0, ifindex, 0xFFFF0000, 0xFFFFFFF1, 0)
    payload = tables.TC.encode(header, {"kind": "ingress", "ingress_block": BLOCK})
    return error(node.ask(RTM_NEWQDISC, NEW, payload))


def unbind(node: Node, ifindex: int) -> int:
    return error(node.ask(RTM_DELQDISC, 5, tables.TC.encode(tables.Tcmsg(0, ifindex, 0, 0xFFFFFFF1, 0), {})))


def add(node: Node, last: int, *actions: dict[str, Any], flags: int = 0, device: int = -1) -> int:
    keys = {"key_eth_type": 0x0800, "key_ipv4_dst": bytes((10, 0, 0, last)), "act": list(actions), "flags": flags}
    header = tables.Tcmsg(0, device, 0, BLOCK if device < 0 else PARENT_INGRESS, tables.info(1, 0x0800))
    return error(node.ask(RTM_NEWTFILTER, NEW, tables.TC.encode(header, {"kind": "flower", "options": keys})))


def shown(node: Node, device: int = -1) -> list[tuple[int, int, bool, int]]:
    """Of each filter: device, block, whether hardware has it, in how many places."""
    header = tables.Tcmsg(0, device, 0, BLOCK if device < 0 else PARENT_INGRESS, 0)
    found = []
    for told in node.ask(RTM_GETTFILTER, 1 | DUMP, tables.TC.encode(header, {})):
        for message in split(told[1:]):
            if message.type == RTM_NEWTFILTER:
                head, attrs = tables.TC.decode(message.payload)
                if head.handle:
                    options = attrs["options"]
                    found.append((head.ifindex, head.parent, bool(options["flags"] & IN_HW), options["in_hw_count"]))
    return found


def test_each_device_has_the_rules(node: Node) -> None:
    assert add(node, 1, DROP) == 0
    assert len(node.silicon.rules) == 2
    assert len({rule.in_port for rule in node.silicon.rules.values()}) == 2
    assert shown(node) == shown(node, OTHER) == [(-1, BLOCK, True, 2)]


def test_a_device_of_the_block_does_not_stand_for_it(node: Node) -> None:
    assert add(node, 1, DROP, device=OTHER) == errno.EOPNOTSUPP


def test_one_that_hardware_cannot_do_everywhere_software_does_there(node: Node) -> None:
    assert add(node, 1, mirred(OTHER)) == 0
    assert [len(at.rules) for at in (node.silicon, node.pipeline)] == [1, 1]
    assert shown(node) == [(-1, BLOCK, True, 1)]
    assert add(node, 2, mirred(OTHER), flags=SKIP_SW) == errno.EOPNOTSUPP
    assert [len(at.rules) for at in (node.silicon, node.pipeline)] == [1, 1]


def test_who_comes_later_gets_the_rules_and_who_goes_loses_them(node: Node) -> None:
    assert add(node, 1, DROP, flags=SKIP_SW) == 0
    node.pf.hw_tc_offload["uplink"] = False
    assert bind(node, UPLINK) == errno.EOPNOTSUPP
    node.pf.hw_tc_offload["uplink"] = True
    assert bind(node, UPLINK) == 0
    assert shown(node) == [(-1, BLOCK, True, 3)]
    assert unbind(node, REPRESENTOR) == unbind(node, UPLINK) == 0
    assert shown(node) == [(-1, BLOCK, True, 1)]
    assert unbind(node, OTHER) == 0
    assert not node.silicon.rules
    assert shown(node) == []
    assert add(node, 1, DROP) == errno.EINVAL


def test_a_restart_finds_the_block_as_it_was(node: Node, tmp_path: Path) -> None:
    assert add(node, 1, DROP) == add(node, 2, mirred(OTHER)) == add(node, 3, DROP, flags=SKIP_HW) == 0
    before = shown(node)
    again = Filters(node.filters.offloader, Journal(tmp_path / "tcTrue.journal"))
    nics: Any = {"nic0": node.devices[REPRESENTOR].nic}
    assert again.restore(nics) == [REPRESENTOR, OTHER]
    node.face._filters = again
    assert shown(node) == before
    for ifindex in (OTHER, REPRESENTOR):
        again.remove_qdisc(ifindex)
    assert not node.silicon.rules
    assert not node.pipeline.rules
    assert not again.blocks.shared


def test_what_was_counted_stays(node: Node) -> None:
    assert add(node, 1, DROP) == 0
    header = tables.Tcmsg(0, -1, 1, BLOCK, tables.info(1, 0x0800))
    ((*_, one),) = node.filters.all()
    counted = node.filters.counters([one])[0]
    assert counted.packets
    assert unbind(node, OTHER) == 0
    assert node.filters.counters([one])[0].packets == counted.packets
    assert error(node.ask(RTM_DELTFILTER, 5, tables.TC.encode(header, {"kind": "flower"}))) == 0
    assert not node.silicon.rules
