# SPDX-License-Identifier: Apache-2.0
"""The connections that helpers expect: listed, found, removed and announced as by Linux."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from asap2.netlink.tables.ctnetlink import EXP_DELETE, EXP_GET, EXP_NEW, EXPECT, EXPECT_REQUEST, TUPLE
from asap2.netlink.tables.nfnetlink import NFNLGRP_CONNTRACK_EXP_DESTROY, NFNLGRP_CONNTRACK_EXP_NEW, Nfgenmsg
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLMSG_DONE
from asap2.nic.conntrack.view import Expectation, Tuple
from asap2.nic.faces.conntrack import tuples
from tests.unit.nic.faces.conntrack_node import A6, B6, MADE, TCP4, A, B, Node

CONTROL = TCP4._replace(dst_port=21)
DATA = Expectation(7, Tuple(2, socket.IPPROTO_TCP, B, A, 0, 4660), 5, TCP4, "ftp", 290, 1, 4660)
READ = Expectation(8, Tuple(10, socket.IPPROTO_UDP, B6, A6, 0, 1000), 0, CONTROL, "tftp", 300)


def asked(family: int = 0, **attrs: Any) -> bytes:
    for name in ("tuple", "mask", "master"):
        if isinstance(attrs.get(name), tuple):
            attrs[name] = TUPLE.encode(tuples.shown(attrs[name]))
    return EXPECT_REQUEST.encode(Nfgenmsg(family), attrs)


@pytest.fixture
def node() -> Node:
    made = Node(MADE[6])
    made.table.expected = [DATA, READ]
    return made


def listed(node: Node, payload: bytes) -> list[Any]:
    *found, last = node.ask(EXP_GET, payload, NLM_F_DUMP)
    assert last.type == NLMSG_DONE
    return [EXPECT.decode(one.payload)[1] for one in found]


def test_an_expectation_is_shown_as_by_the_kernel(node: Node) -> None:
    first, second = listed(node, asked())
    assert list(first) == ["tuple", "mask", "master", "nat", "timeout", "id", "flags", "class", "help_name", "fn"]
    assert first["tuple"] == tuples.shown(DATA.tuple)
    assert first["mask"]["proto"] == {"num": 6, "src_port": 0, "dst_port": 0xFFFF}
    assert first["mask"]["ip"] == {"v4_src": b"\xff" * 4, "v4_dst": b"\xff" * 4}
    assert first["nat"]["dir"] == 1
    assert first["nat"]["tuple"]["proto"]["src_port"] == 4660
    assert (first["timeout"], first["help_name"], first["fn"]) == (290, "ftp", "nat-follow-master")
    assert list(second) == ["tuple", "mask", "master", "timeout", "id", "flags", "class", "help_name"]


def test_a_list_is_of_a_family_or_of_a_master(node: Node) -> None:
    assert [one["id"] for one in listed(node, asked(10))] == [8]
    assert [one["id"] for one in listed(node, asked(2, master=TCP4, zone=5))] == [7]


def test_one_is_found_by_its_tuple(node: Node) -> None:
    found, _ack = node.ask(EXP_GET, asked(2, tuple=DATA.tuple._replace(src_port=99), zone=5))
    assert EXPECT.decode(found.payload)[1]["id"] == 7


@pytest.mark.parametrize(
    ("type_", "payload", "flags", "expected"),
    [
        (EXP_GET, asked(2), 0, "EINVAL"),
        (EXP_GET, asked(2, tuple=DATA.tuple), 0, "ENOENT"),
        (EXP_GET, asked(2, tuple=DATA.tuple, zone=5, id=9), 0, "ENOENT"),
        (EXP_DELETE, asked(2, tuple=DATA.tuple), 0, "ENOENT"),
        (EXP_NEW, asked(2, tuple=DATA.tuple), NLM_F_CREATE, "EINVAL"),
        (EXP_NEW, asked(2, tuple=DATA.tuple, mask=DATA.tuple, master=TCP4, zone=5), NLM_F_EXCL, "EEXIST"),
        (EXP_NEW, asked(2, tuple=DATA.tuple, mask=DATA.tuple, master=TCP4, zone=5), 0, "EOPNOTSUPP"),
        (EXP_NEW, asked(2, tuple=TCP4, mask=TCP4, master=TCP4), NLM_F_CREATE, "EOPNOTSUPP"),
        (EXP_NEW, asked(2, tuple=TCP4, mask=TCP4, master=TCP4), 0, "ENOENT"),
    ],
)
def test_what_is_refused_changes_nothing(node: Node, type_: int, payload: bytes, flags: int, expected: str) -> None:
    assert node.error(type_, payload, flags) == expected
    assert node.table.expected == [DATA, READ]


@pytest.mark.parametrize(
    ("payload", "left"),
    [
        (asked(2, tuple=DATA.tuple, zone=5), [READ]),
        (asked(help_name="tftp"), [DATA]),
        (asked(help_name="sip"), [DATA, READ]),
        (asked(), []),
    ],
)
def test_expectations_are_removed(node: Node, payload: bytes, left: list[Expectation]) -> None:
    assert node.error(EXP_DELETE, payload) == ""
    assert node.table.expected == left
    assert [group for group, _attrs in node.told] == [NFNLGRP_CONNTRACK_EXP_DESTROY] * (2 - len(left))


def test_expectations_are_announced(node: Node) -> None:
    node.face.expectations.expected(DATA)
    node.face.expectations.gone(DATA)
    assert [group for group, _attrs in node.told] == [NFNLGRP_CONNTRACK_EXP_NEW, NFNLGRP_CONNTRACK_EXP_DESTROY]
