# SPDX-License-Identifier: Apache-2.0
"""ctnetlink: connections are listed, found, changed and removed as by the kernel, to the octet and the errno."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.request import Message
from asap2.netlink.tables.ctnetlink import (
    CT,
    CT_DELETE,
    CT_GET,
    CT_GET_DYING,
    CT_GET_STATS,
    CT_GET_STATS_CPU,
    CT_NEW,
    CT_REQUEST,
    FILTER,
    STATS,
    TUPLE,
    TcpFlags,
)
from asap2.netlink.tables.nfnetlink import Nfgenmsg
from asap2.netlink.wire import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_MULTI,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    build,
)
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Tcp, Tuple
from asap2.nic.faces.conntrack import messages, tuples
from asap2.nic.silicon.abi import CtEvent
from tests.unit.netlink.dispatching import Mailbox, client
from tests.unit.nic.faces.conntrack_node import (
    A6,
    B6,
    GRE,
    ICMPV6,
    MADE,
    OTHER,
    SCTP,
    TCP4,
    UDP,
    A,
    B,
    C,
    Node,
    back,
    policy,
    request,
)

RECORDED = Path(__file__).parents[3] / "data" / "conntrack-messages.txt"
NOT_OURS = ("timestamp_event", 24, 27)
"""What Linux 6.12 does not say, or not of connections of the datapath: CTA_SYNPROXY and CTA_TIMESTAMP_EVENT."""


def recorded(kind: str) -> Iterator[Message]:
    for line in RECORDED.read_text().splitlines():
        if line.startswith(kind):
            _kind, type_, flags, payload = line.split()
            yield Message(int(type_, 16), bytes.fromhex(payload), int(flags, 16))


def without_newer(message: Message) -> tuple[Message, dict[Any, Any]]:
    header, attrs = CT.decode(message.payload)
    for name in NOT_OURS:
        attrs.pop(name, None)
    return message._replace(payload=CT.encode(header, attrs)), attrs


@pytest.mark.parametrize("message", list(recorded("dump")))
def test_a_connection_is_listed_as_by_the_kernel(message: Message) -> None:
    expected, attrs = without_newer(message)
    made = replace(MADE[attrs["tuple_orig"]["proto"]["num"]], id=attrs["id"], started=attrs["timestamp"]["start"])
    assert messages.answer(made) == expected


@pytest.mark.parametrize("message", list(recorded("event")))
def test_a_connection_is_announced_as_by_the_kernel(message: Message) -> None:
    expected, attrs = without_newer(message)
    status, timeout = attrs["status"], attrs["timeout"]
    made = replace(MADE[attrs["tuple_orig"]["proto"]["num"]], id=attrs["id"], status=status, timeout=timeout)
    if message.type == CT_DELETE:
        stamps = attrs["timestamp"]
        made, events = replace(made, started=stamps["start"], stopped=stamps["stop"]), CtEvent.DESTROY
    else:
        events = messages.CHANGED_BY_A_PROGRAM | (CtEvent.NEW if message.flags else CtEvent(0))
    group, said = messages.event(made, events)
    assert said == expected
    assert group == {(CT_NEW, True): 1, (CT_NEW, False): 2, (CT_DELETE, False): 3}[message.type, bool(message.flags)]


@pytest.mark.parametrize("tuple_", [TCP4, ICMPV6, GRE, SCTP, OTHER, Tuple(10, 17, A6, B6, 1, 65535), UDP])
def test_a_tuple_is_packed_as_its_tables_say(tuple_: Tuple) -> None:
    assert tuples.packed(tuple_) == TUPLE.encode(tuples.shown(tuple_))
    assert tuples.parsed(tuples.packed(tuple_), tuple_.family) == (tuple_, None)


def test_a_connection_is_found_by_either_tuple_in_its_zone() -> None:
    node = Node(replace(MADE[6]))
    for asked in (
        request(tuple_orig=TCP4, zone=5),
        request(tuple_reply=back(TCP4), zone=5),
        request(tuple_orig=back(TCP4), zone=5),
    ):
        message, acknowledged = node.ask(CT_GET, asked)
        assert message.flags == NLM_F_MULTI
        assert CT.decode(message.payload)[1]["mark"] == 7
        assert acknowledged.type == NLMSG_ERROR
    assert node.error(CT_GET, request(tuple_orig=TCP4)) == "ENOENT"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (request(), "EINVAL"),
        (request(7, tuple_orig=TCP4), "EOPNOTSUPP"),
        (request(0, tuple_orig=TCP4), "EOPNOTSUPP"),
        (request(tuple_orig=TUPLE.encode({"ip": {"v4_src": A, "v4_dst": B}})), "EINVAL"),
        (request(tuple_orig=TUPLE.encode({"proto": {"num": 6}})), "EINVAL"),
        (request(tuple_orig=TUPLE.encode({"ip": {"v4_src": A}, "proto": {"num": 6}})), "EINVAL"),
        (request(tuple_orig=TUPLE.encode({"ip": {"v4_src": b"\1"}, "proto": {"num": 6}})), "ERANGE"),
        (request(tuple_orig=TUPLE.encode({**tuples.shown(TCP4), "proto": {"num": 6, "src_port": 1}})), "EINVAL"),
        (request(tuple_orig=TUPLE.encode({**tuples.shown(TCP4), "proto": {"num": b""}})), "ERANGE"),
        (request(tuple_orig=TCP4, mark=b"\1"), "ERANGE"),
        (request(tuple_orig=Tuple(2, 1, A, B, 5, 3 << 8)), "EINVAL"),
        (request(10, tuple_orig=ICMPV6), "ENOENT"),
    ],
)
def test_a_tuple_that_names_no_connection_is_refused(payload: bytes, expected: str) -> None:
    assert Node().error(CT_GET, payload) == expected


def test_a_list_has_what_its_filter_lets_through() -> None:
    node = Node(*MADE.values())
    marks = FILTER.encode({"orig_flags": tuples.NUM | tuples.DST_PORT})
    cases = {
        request(0): 5,
        request(10): 1,
        request(2): 4,
        request(0, zone=5): 1,
        request(0, zone=0): 4,
        request(0, mark=7): 1,
        request(0, mark=3, mark_mask=3): 1,
        request(0, status=int(Status.ASSURED)): 1,
        request(0, status=0, status_mask=int(Status.ASSURED)): 4,
    }
    for payload, count in cases.items():
        assert len(node.listed(payload)) == count, payload.hex()
    nested = CT_REQUEST.table.numbers["filter"] | 0x8000
    filtered = request(tuple_orig=TCP4._replace(src=C)) + build_attribute(nested, marks)
    assert [one["tuple_orig"]["proto"]["num"] for one in node.listed(filtered)] == [6]


def build_attribute(type_: int, value: bytes) -> bytes:
    return (len(value) + 4).to_bytes(2, "little") + type_.to_bytes(2, "little") + value + bytes(-len(value) % 4)


@pytest.mark.parametrize(
    "payload",
    [request(0, status=0), request(status_mask=1), request(mark_mask=1), request(filter=FILTER.encode({}))],
)
def test_a_filter_that_contradicts_itself_is_refused_before_the_list_begins(payload: bytes) -> None:
    assert Node().error(CT_GET, payload, NLM_F_DUMP) == "EINVAL"


def test_one_connection_is_removed_by_its_tuple_and_id() -> None:
    node = Node(*MADE.values())
    (id_,) = [one.id for one in node.table if one.zone == 5]
    assert node.error(CT_DELETE, request(tuple_orig=TCP4)) == "ENOENT"
    assert node.error(CT_DELETE, request(tuple_orig=TCP4, zone=5, id=id_ + 1)) == "ENOENT"
    assert node.error(CT_DELETE, request(tuple_orig=TCP4, zone=5, id=id_)) == ""
    assert node.error(CT_DELETE, request(tuple_orig=TCP4, zone=5)) == "ENOENT"
    ((group, said),) = node.told
    assert (group, said["status"], said["protoinfo"]) == (3, 14 | Status.DYING, {"tcp": {"state": 3}})
    assert node.table.count() == 4


def test_a_flush_takes_all_or_a_zone_or_a_family_of_a_newer_program() -> None:
    for payload, left in (
        (request(2), 0),
        (request(0, zone=5), 4),
        (CT_REQUEST.encode(Nfgenmsg(10, version=1), {}), 4),
    ):
        node = Node(*MADE.values())
        assert node.error(CT_DELETE, payload) == ""
        assert node.table.count() == left
        assert len(node.told) == 5 - left


def test_a_program_makes_a_connection() -> None:
    node = Node()
    new = request(tuple_orig=UDP, tuple_reply=back(UDP), timeout=20, mark=3, zone=9, labels=bytes(15) + b"\1")
    assert node.error(CT_NEW, new) == "ENOENT"
    assert node.error(CT_NEW, new, NLM_F_CREATE | NLM_F_EXCL) == ""
    assert node.error(CT_NEW, new, NLM_F_CREATE | NLM_F_EXCL) == "EEXIST"
    (made,) = node.table
    assert (made.original, made.reply, made.timeout, made.mark, made.zone) == (UDP, back(UDP), 20, 3, 9)
    assert node.told[0][0] == 1
    assert node.told[0][1]["labels"] == bytes(15) + b"\1"
    for wrong in (
        request(tuple_orig=TCP4, tuple_reply=back(TCP4)),
        request(tuple_orig=TCP4, timeout=1),
        request(tuple_orig=TCP4, tuple_reply=back(UDP), timeout=1),
    ):
        assert node.error(CT_NEW, wrong, NLM_F_CREATE) == "EINVAL"


def test_a_program_changes_a_connection() -> None:
    node = Node(MADE[6])
    protoinfo = CT.table.fields[4][1].encode({"tcp": {"state": 5, "flags_original": TcpFlags(4, 6)}})
    change = request(tuple_orig=TCP4, zone=5, mark=0x100, mark_mask=0x100, timeout=50, protoinfo=protoinfo, status=14)
    assert node.error(CT_NEW, change) == ""
    (changed,) = node.table
    assert (changed.mark, changed.timeout, changed.tcp) == (0x107, 50, Tcp(5, flags=(12, 10)))
    assert [group for group, _ in node.told] == [2]


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"status": 0}, "EBUSY"),
        ({"status": 8}, "EBUSY"),
        ({"status": 14 | Status.EXPECTED}, "EBUSY"),
        ({"nat_src": b""}, "EOPNOTSUPP"),
        ({"tuple_master": b""}, "EOPNOTSUPP"),
        ({"help": b""}, "EINVAL"),
        ({"help": b"\x08\0\1\0ftp\0"}, "EOPNOTSUPP"),
        ({"labels": b"\1\2\3"}, "EINVAL"),
        ({"labels": bytes(4), "labels_mask": bytes(8)}, "EINVAL"),
        ({"protoinfo": CT.table.fields[4][1].encode({"tcp": {"state": 14}})}, "EINVAL"),
    ],
)
def test_what_cannot_be_set_changes_nothing(attrs: dict[str, Any], expected: str) -> None:
    node = Node(MADE[6])
    before = list(node.table)
    assert node.error(CT_NEW, request(tuple_orig=TCP4, zone=5, mark=1, **attrs)) == expected
    assert list(node.table) == before
    assert not node.told


def test_counts_are_told() -> None:
    node = Node(*MADE.values())
    message, _ack = node.ask(CT_GET_STATS, bytes(4))
    assert STATS.decode(message.payload)[1] == {"entries": 5, "max": node.table.limit}
    assert node.error(CT_GET_STATS_CPU, bytes(4)) == ""
    assert node.error(CT_GET_DYING, bytes(4)) == "EOPNOTSUPP"
    (last,) = node.ask(CT_GET_DYING, bytes(4), NLM_F_DUMP)
    assert last.type == NLMSG_DONE


VALID = (
    request(tuple_orig=TCP4, zone=5),
    request(tuple_orig=TCP4, tuple_reply=back(TCP4), timeout=20, mark=3, zone=5, labels=bytes(16), status=14),
    request(10, tuple_orig=ICMPV6, tuple_reply=back(ICMPV6), timeout=20),
    request(tuple_orig=SCTP, tuple_reply=back(SCTP), timeout=9, labels=bytes(8), labels_mask=bytes(8)),
    request(
        tuple_orig=TCP4,
        tuple_reply=back(TCP4),
        timeout=1,
        protoinfo=CT.table.fields[4][1].encode({"tcp": {"state": 3, "flags_reply": TcpFlags(8, 8)}}),
    ),
    request(0, mark=3, mark_mask=3, status=4, zone=5, filter=FILTER.encode({"orig_flags": 3, "reply_flags": 8})),
    policy("x", 6, {1: 5}),
    policy("x", 132, {9: 5}),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with some octets changed, cut, or put in."""
    raw = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        match draw(st.integers(0, 2)):
            case 0 if at < len(raw):
                raw[at] = draw(st.integers(0, 255))
            case 1:
                del raw[at : at + draw(st.integers(0, 8))]
            case _:
                raw[at:at] = draw(st.binary(max_size=8))
    return bytes(raw)


@given(
    st.lists(
        st.tuples(
            st.sampled_from((*range(0x100, 0x10A), *range(0x800, 0x806))),
            st.sampled_from((0, NLM_F_CREATE, NLM_F_CREATE | NLM_F_EXCL, NLM_F_REPLACE, NLM_F_DUMP)),
            damaged(),
        ),
        max_size=6,
    )
)
def test_a_damaged_request_is_answered_and_harms_nothing(asked: list[tuple[int, int, bytes]]) -> None:
    node = Node(*MADE.values())
    with unlogged():
        for type_, flags, payload in asked:
            mailbox = Mailbox()
            raw = build(type_, flags | NLM_F_REQUEST | NLM_F_ACK, 3, 0, payload)
            consumed, passed = node.dispatcher.submit(mailbox, client(NETLINK_NETFILTER), raw)
            assert consumed + passed == len(raw)
            assert passed or mailbox.messages[-1].type in (NLMSG_ERROR, NLMSG_DONE)
        for connection in node.listed():
            assert {"tuple_orig", "tuple_reply", "status", "id"} <= connection.keys()


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Nothing unexpected is logged."""
    told = queue.SimpleQueue[logging.LogRecord]()
    handler = logging.handlers.QueueHandler(told)
    log = logging.getLogger("asap2.netlink.dispatch")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
    assert told.empty(), told.get().getMessage()
