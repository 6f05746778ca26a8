# SPDX-License-Identifier: Apache-2.0
"""Actions have indices, are shared by them, and are the same after a restart."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import (
    RTM_DELACTION,
    RTM_DELTFILTER,
    RTM_GETACTION,
    RTM_GETTFILTER,
    RTM_NEWACTION,
    RTM_NEWTFILTER,
)
from asap2.netlink.wire import NLMSG_ERROR
from asap2.nic.faces.tc.action_table import ActionTable
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.qdiscs import PARENT_INGRESS
from asap2.nic.journal import Journal
from asap2.nic.rules import Drop, Pass
from tests.unit.nic.faces.tc_node import CREATE, DUMP, EXCL, NEW, OTHER, REPRESENTOR, Node
from tests.unit.nic.faces.tc_requests import gact, mirred

SKIP_HW = 1
REPLACE = 0x100


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.if_indextoname", lambda ifindex: f"eth{ifindex}")
        patch.setattr("time.monotonic_ns", lambda: 1_000_000_000_000)
        yield


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, True)


def add(node: Node, last: int, *actions: dict[str, Any], flags: int = 0) -> int:
    """Add a filter; the error."""
    keys = {"key_eth_type": 0x0800, "key_ipv4_dst": bytes((10, 0, 0, last)), "act": list(actions), "flags": flags}
    header = tables.Tcmsg(0, REPRESENTOR, 0, PARENT_INGRESS, tables.info(1, 0x0800))
    return error(node.ask(RTM_NEWTFILTER, NEW, tables.TC.encode(header, {"kind": "flower", "options": keys})))


def remove(node: Node, handle: int) -> int:
    header = tables.Tcmsg(0, REPRESENTOR, handle, PARENT_INGRESS, tables.info(1, 0x0800))
    return error(node.ask(RTM_DELTFILTER, 5, tables.TC.encode(header, {"kind": "flower"})))


def error(told: list[bytes]) -> int:
    """The errno of the acknowledgement."""
    (answer,) = [m for m in told if len(m) > 21 and m[0] < 2 and int.from_bytes(m[5:7], "little") == NLMSG_ERROR]
    return -int.from_bytes(answer[17:21], "little", signed=True)


def action(node: Node, kind: int, flags: int, *actions: dict[str, Any]) -> int:
    return error(node.ask(kind, flags, tables.ACTION_BODY.encode((0,), {"tab": list(actions)})))


def listed(node: Node, kind: str = "gact") -> list[tuple[int, int, int]]:
    """Index, references and bindings of each action of a kind."""
    asked = {"tab": [{"kind": kind}], "flags": ta.Bitfield32(1, 1)}
    told = node.ask(RTM_GETACTION, 1 | DUMP, tables.ACTION_BODY.encode((0,), asked))
    found = []
    for message in told:
        if int.from_bytes(message[5:7], "little") == RTM_GETACTION:
            _, attrs = tables.ACTION_BODY.decode(message[17:])
            found += [one["options"]["parms"] for one in attrs["tab"].values()]
    return [(one.index, one.refcnt, one.bindcnt) for one in found]


def dumped(node: Node) -> list[bytes]:
    """All filters."""
    header = tables.Tcmsg(0, REPRESENTOR, 0, PARENT_INGRESS, 0)
    return node.ask(RTM_GETTFILTER, 1 | DUMP, tables.TC.encode(header, {}))


def test_an_index_is_the_lowest_that_is_free() -> None:
    table = ActionTable()
    assert [table.take("gact") for _ in range(4)] == [1, 2, 3, 4]
    table.take("gact", 6)
    table.give("gact", 2)
    table.give("gact", 1)
    assert [table.take("gact") for _ in range(4)] == [1, 2, 5, 7]
    table.give("gact", 2)
    table.take("gact", 2)
    assert table.take("gact") == 8
    assert table.take("mirred") == 1


def test_a_filters_action_is_shared_by_who_names_it(node: Node) -> None:
    assert add(node, 1, gact(2)) == 0
    assert listed(node) == [(1, 1, 1)]
    assert add(node, 2, gact(0, index=1)) == 0
    assert listed(node) == [(1, 2, 2)]
    assert {rule.actions for rule in node.silicon.rules.values()} == {(Drop(),)}
    assert remove(node, 1) == 0
    assert listed(node) == [(1, 1, 1)]
    assert remove(node, 2) == 0
    assert listed(node) == []


def test_an_action_by_itself_is_there_until_it_is_deleted(node: Node) -> None:
    assert action(node, RTM_NEWACTION, 5 | CREATE | EXCL, gact(2, index=7)) == 0
    assert action(node, RTM_NEWACTION, 5 | CREATE | EXCL, gact(2, index=7)) == errno.EEXIST
    assert add(node, 1, gact(0, index=7), flags=SKIP_HW) == errno.EINVAL
    assert add(node, 1, gact(0, index=7)) == 0
    assert listed(node) == [(7, 2, 1)]
    assert action(node, RTM_DELACTION, 5, {"kind": "gact", "index": 7}) == errno.EPERM
    assert remove(node, 1) == 0
    assert listed(node) == [(7, 1, 0)]
    assert action(node, RTM_DELACTION, 5, {"kind": "gact", "index": 7}) == 0
    assert action(node, RTM_DELACTION, 5, {"kind": "gact", "index": 7}) == errno.ENOENT
    assert listed(node) == []


def test_an_action_that_changes_changes_what_software_does(node: Node) -> None:
    assert add(node, 1, gact(2), flags=SKIP_HW) == 0
    (rule,) = node.pipeline.rules.values()
    assert rule.actions == (Drop(),)
    assert action(node, RTM_NEWACTION, 5 | CREATE | REPLACE, gact(0, index=1)) == 0
    (rule,) = node.pipeline.rules.values()
    assert rule.actions == (Pass(),)


def test_what_is_refused_leaves_no_action(node: Node) -> None:
    assert add(node, 1, gact(3, index=7), gact(2, index=7)) == errno.EAGAIN
    assert listed(node) == []
    assert add(node, 1, gact(2), {"kind": "nosuch"}) == errno.ENOENT
    assert add(node, 1, mirred(OTHER), gact(1)) == 0
    assert add(node, 1, gact(2)) == errno.EEXIST
    assert listed(node) == [(1, 1, 1)]
    assert listed(node, "mirred") == [(1, 1, 1)]


def test_indices_and_what_is_shared_survive_a_restart(tmp_path: Path) -> None:
    node = Node(tmp_path, True)
    for last, actions in enumerate(([gact(2)], [mirred(OTHER)], [gact(2)], [gact(0, index=3)], [gact(0, index=9)])):
        if last == 4:
            assert action(node, RTM_NEWACTION, 5 | CREATE | EXCL, gact(2, index=9)) == 0
        if last == 3:
            assert add(node, 9, gact(2)) == 0
            assert remove(node, 1) == 0
        assert add(node, last, *actions) == 0
    before = listed(node), listed(node, "mirred"), dumped(node)
    again = Filters(node.filters.offloader, Journal(tmp_path / "tcTrue.journal"))
    nics: Any = {"nic0": node.devices[REPRESENTOR].nic}
    assert again.restore(nics) == [REPRESENTOR]
    node.face._filters.actions, node.face._filters.blocks = again.actions, again.blocks
    assert (listed(node), listed(node, "mirred"), dumped(node)) == before


def test_an_index_that_one_request_names_twice_is_refused_and_free_again(node: Node) -> None:
    assert add(node, 1, gact(3, index=7), gact(2, index=7)) == errno.EAGAIN
    assert listed(node) == []
    assert add(node, 1, gact(2, index=7)) == 0
    assert listed(node) == [(7, 1, 1)]


def test_whatever_stops_a_filter_its_actions_are_free_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asap2.nic.faces.tc.filters.parse_flower", lambda *_: 1 // 0)
    assert add(node, 1, gact(2)) == errno.EINVAL
    assert listed(node) == []
