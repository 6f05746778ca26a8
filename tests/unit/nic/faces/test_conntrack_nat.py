# SPDX-License-Identifier: Apache-2.0
"""A program makes a connection with NAT, with a helper, or one that belongs to another."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from asap2.netlink.tables.ctnetlink import CT_NEW, NAT, NAT_PROTO, TUPLE
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_EXCL
from asap2.nic.conntrack.states import NAT_DONE_MASK, Status
from asap2.nic.conntrack.view import Connection, Tuple
from asap2.nic.faces.conntrack import tuples
from tests.unit.nic.faces.conntrack_node import A6, B6, MADE, TCP4, UDP, A, B, C, Node, back, request

OUTSIDE = bytes((192, 0, 2, 1))
UDP6 = Tuple(socket.AF_INET6, socket.IPPROTO_UDP, A6, B6, 1000, 53)
DONE = int(Status.CONFIRMED | NAT_DONE_MASK)


def to(low: bytes, high: bytes | None = None, ports: tuple[int, ...] = ()) -> bytes:
    """CTA_NAT_SRC or CTA_NAT_DST."""
    version = 4 if len(low) == 4 else 6
    named = dict(zip(("port_min", "port_max"), ports, strict=False))
    attrs: dict[str, Any] = {f"v{version}_min": low}
    if high is not None:
        attrs[f"v{version}_max"] = high
    return NAT.encode(attrs | ({"proto": NAT_PROTO.encode(named)} if ports else {}))


def made(node: Node, tuple_: Tuple = UDP, **attrs: Any) -> Connection:
    new = request(int(tuple_.family), tuple_orig=tuple_, tuple_reply=back(tuple_), timeout=20, **attrs)
    assert node.error(CT_NEW, new, NLM_F_CREATE | NLM_F_EXCL) == ""
    return list(node.table)[-1]


@pytest.mark.parametrize(
    ("attrs", "reply", "status"),
    [
        ({"nat_src": to(OUTSIDE)}, (B, OUTSIDE, 53, 1000), Status.SRC_NAT),
        ({"nat_src": to(OUTSIDE, OUTSIDE, (5000,))}, (B, OUTSIDE, 53, 5000), Status.SRC_NAT),
        ({"nat_dst": to(C)}, (C, A, 53, 1000), Status.DST_NAT),
        ({"nat_dst": to(C, ports=(8053, 8053))}, (C, A, 8053, 1000), Status.DST_NAT),
        ({"nat_dst": to(C), "nat_src": to(OUTSIDE)}, (C, OUTSIDE, 53, 1000), Status.SRC_NAT | Status.DST_NAT),
        ({"nat_src": to(A)}, (B, A, 53, 1000), Status.NONE),
        ({"nat_src": b""}, (B, A, 53, 1000), Status.NONE),
    ],
)
def test_a_connection_is_made_with_its_translation(
    attrs: dict[str, Any], reply: tuple[Any, ...], status: Status
) -> None:
    node = Node()
    one = made(node, **attrs)
    assert (one.original, one.reply[2:]) == (UDP, reply)
    assert one.status == DONE | status
    assert node.told[0][1]["tuple_reply"] == tuples.shown(one.reply)


def test_a_translation_over_ipv6() -> None:
    one = made(Node(), UDP6, nat_src=to(B6[:-1] + b"\x09"))
    assert one.reply == (*back(UDP6)[:3], B6[:-1] + b"\x09", 53, 1000)


def test_a_range_of_ports_avoids_what_is_taken() -> None:
    node = Node()
    ports = set()
    for client in range(1, 4):
        one = made(node, UDP._replace(src=bytes((10, 0, 1, client))), nat_src=to(OUTSIDE, ports=(5000, 5002)))
        ports.add(one.reply.dst_port)
    assert ports == {5000, 5001, 5002}


def test_where_no_port_is_left_nothing_is_made() -> None:
    node = Node()
    made(node, nat_src=to(OUTSIDE, ports=(5000, 5000)))
    other = UDP._replace(src=C)
    new = request(tuple_orig=other, tuple_reply=back(other), timeout=20, nat_src=to(OUTSIDE, ports=(5000, 5000)))
    assert node.error(CT_NEW, new, NLM_F_CREATE | NLM_F_EXCL) == "EEXIST"
    assert node.table.count() == 1


def test_a_connection_belongs_to_another() -> None:
    node = Node(MADE[6])
    one = made(node, zone=5, tuple_master=TUPLE.encode(tuples.shown(TCP4)))
    assert one.master == TCP4
    assert one.status & Status.EXPECTED


def test_a_connection_has_a_helper() -> None:
    one = made(Node(), help=b"\x09\0\1\0tftp\0\0\0\0")
    assert (one.helper, one.status & Status.HELPER) == ("tftp", Status.HELPER)


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"nat_src": b"\x06\0\1\0\0\0\0\0"}, "ERANGE"),
        ({"nat_dst": to(C) + b"\x0c\0\3\0\5\0\1\0\1\0\0\0"}, "ERANGE"),
        ({"tuple_master": TUPLE.encode(tuples.shown(TCP4))}, "ENOENT"),
        ({"tuple_master": b""}, "EINVAL"),
        ({"help": b"\x08\0\1\0ftp\0"}, "EOPNOTSUPP"),
        ({"help": b"\x08\0\1\0sip\0"}, "EOPNOTSUPP"),
        ({"help": b""}, "EINVAL"),
    ],
)
def test_what_is_wrong_makes_nothing(attrs: dict[str, Any], expected: str) -> None:
    node = Node()
    new = request(tuple_orig=UDP, tuple_reply=back(UDP), timeout=20, **attrs)
    assert node.error(CT_NEW, new, NLM_F_CREATE | NLM_F_EXCL) == expected
    assert node.table.count() == 0
    assert not node.told
