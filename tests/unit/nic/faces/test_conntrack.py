# SPDX-License-Identifier: Apache-2.0
"""ctnetlink: connections are listed, found, changed and removed as by the kernel, to the octet and the errno."""

from __future__ import annotations

import contextlib
import errno
import logging
import logging.handlers
import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.client import Connection as KernelConnection
from asap2.netlink.dispatch import Dispatcher
from asap2.netlink.request import Client, Message, Netns
from asap2.netlink.tables import cttimeout
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
from asap2.netlink.tables.cttimeout import (
    TIMEOUT,
    TIMEOUT_DEFAULT_GET,
    TIMEOUT_DELETE,
    TIMEOUT_GET,
    TIMEOUT_NEW,
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
    NlMsg,
    build,
    error_of,
    split,
)
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Connection, Counters, Sctp, Tcp, Tuple
from asap2.nic.faces.conntrack import announcer, messages, tuples
from asap2.nic.faces.conntrack.face import ConntrackFace
from asap2.nic.silicon.abi import CtEvent
from tests.connections import Table, Timeouts

RECORDED = Path(__file__).parents[3] / "data" / "conntrack-messages.txt"
A, B, C = (bytes((10, 0, 0, last)) for last in (1, 2, 9))
A6, B6 = (bytes((0xFD, *bytes(14), last)) for last in (1, 2))
TCP4 = Tuple(2, socket.IPPROTO_TCP, A, B, 1000, 80)
ICMPV6 = Tuple(10, socket.IPPROTO_ICMPV6, A6, B6, 5, 128 << 8)
GRE = Tuple(2, socket.IPPROTO_GRE, A, B, 0x1000, 0x2000)
SCTP = Tuple(2, socket.IPPROTO_SCTP, A, B, 1000, 53)
OTHER = Tuple(2, 99, A, C)
UDP = Tuple(2, socket.IPPROTO_UDP, A, B, 1000, 53)
NOTHING = Counters(), Counters()


def back(tuple_: Tuple) -> Tuple:
    """The reply's tuple without NAT."""
    family, protocol, src, dst, src_port, dst_port = tuple_
    if protocol == socket.IPPROTO_ICMPV6:
        return Tuple(family, protocol, dst, src, src_port, dst_port ^ 0x100)
    return Tuple(family, protocol, dst, src, dst_port, src_port)


def connection(tuple_: Tuple, **values: Any) -> Connection:
    return Connection(0, tuple_, back(tuple_), **{"timeout": 99, "counters": NOTHING, **values})


MADE = {
    6: connection(TCP4, zone=5, mark=7, status=14, tcp=Tcp(3, flags=(10, 10))),
    58: connection(ICMPV6),
    47: connection(GRE),
    132: connection(SCTP, sctp=Sctp(4, (0x05000000, 0x06000000))),
    99: connection(OTHER),
}
"""What the recorded commands made, by protocol."""
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


class Mailbox:
    """Where replies go."""

    def __init__(self) -> None:
        self.messages: list[NlMsg] = []

    def reply(self, _protocol: int, _portid: int, *messages: bytes, dump: bool = False) -> None:
        assert isinstance(dump, bool)
        for message in messages:
            self.messages += split(message)

    def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
        self.reply(protocol, portid, *chunks)

    def busy_dumping(self, _protocol: int, _portid: int) -> bool:
        return False

    def kernel(self, _protocol: int) -> KernelConnection:
        raise AssertionError


class Node:
    """A face over a table, without a kernel behind it; what it announces is kept."""

    def __init__(self, *connections: Connection) -> None:
        self.table = Table(*connections)
        self.told: list[tuple[int, dict[Any, Any]]] = []
        self.netns = Netns(1, -1)
        self._dispatcher = Dispatcher(threading.RLock())
        server: Any = self
        self.timeouts = Timeouts()
        self.face = ConntrackFace(server, self.table, self.timeouts)

    def netfilter(self, subsystems: list[int], handler: Any) -> None:
        self._dispatcher.netfilter.update(dict.fromkeys(subsystems, handler))

    def kernel(self, _netns: Netns, _protocol: int) -> KernelConnection:
        raise OSError(errno.EPROTONOSUPPORT, "")

    def notify(self, _netns: Netns, group: int, message: Message, protocol: int, portid: int) -> None:
        assert protocol == NETLINK_NETFILTER
        assert portid in (0, 9)
        self.told.append((group, CT.decode(message.payload)[1]))

    def ask(self, type: int, payload: bytes, flags: int = 0) -> list[NlMsg]:
        mailbox = Mailbox()
        client = Client(NETLINK_NETFILTER, 9, self.netns)
        raw = build(type, flags | NLM_F_REQUEST | NLM_F_ACK, 3, 0, payload)
        assert self._dispatcher.submit(mailbox, client, raw) == (len(raw), 0)
        return mailbox.messages

    def error(self, type: int, payload: bytes, flags: int = 0) -> str:
        """The errno's name, "" for success without a message."""
        (message,) = self.ask(type, payload, flags)
        assert message.type == NLMSG_ERROR
        error = error_of(message)
        return errno.errorcode[error.errno or 0].replace("ENOTSUP", "EOPNOTSUPP") if error else ""

    def listed(self, payload: bytes = bytes(4)) -> list[dict[Any, Any]]:
        *found, last = self.ask(CT_GET, payload, NLM_F_DUMP)
        assert last.type == NLMSG_DONE
        assert error_of(last) is None
        return [CT.decode(one.payload)[1] for one in found]


def request(family: int = 2, **attrs: Any) -> bytes:
    for name in ("tuple_orig", "tuple_reply"):
        if isinstance(attrs.get(name), tuple):
            attrs[name] = TUPLE.encode(tuples.shown(attrs[name]))
    return CT_REQUEST.encode(Nfgenmsg(family), attrs)


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


def policy(name: str | None, protocol: int = 6, seconds: dict[int, int] | None = None, family: int = 2) -> bytes:
    data = cttimeout.timeouts(11).encode({str(number): value for number, value in (seconds or {}).items()})
    return TIMEOUT.encode(Nfgenmsg(), {"name": name, "l3proto": family, "l4proto": protocol, "data": data})


def test_timeout_policies_are_kept_by_name() -> None:
    node = Node()
    new = NLM_F_CREATE
    assert node.error(TIMEOUT_NEW, policy("x", seconds={3: 33}), new | NLM_F_EXCL) == ""
    assert node.error(TIMEOUT_NEW, policy("x"), new | NLM_F_EXCL) == "EEXIST"
    assert node.error(TIMEOUT_NEW, policy("x"), new) == "EBUSY"
    assert node.error(TIMEOUT_NEW, policy("x", 17), new | NLM_F_REPLACE) == "EINVAL"
    assert node.error(TIMEOUT_NEW, policy("x", seconds={2: 34}), new | NLM_F_REPLACE) == ""
    assert node.error(TIMEOUT_NEW, policy("y", 99), new) == "EOPNOTSUPP"
    assert node.error(TIMEOUT_NEW, policy("n" * 32), new) == "EINVAL"
    assert node.error(TIMEOUT_NEW, policy(None), new) == "EINVAL"
    message, _ack = node.ask(TIMEOUT_GET, TIMEOUT.encode(Nfgenmsg(), {"name": "x"}))
    attrs = TIMEOUT.decode(message.payload)[1]
    assert list(attrs) == ["name", "l3proto", "l4proto", "use", "data"]
    assert list(cttimeout.timeouts(11).decode(attrs["data"]).values()) == [
        120, 34, 432000, 120, 60, 30, 120, 10, 120, 300, 300
    ]  # fmt: skip
    node.timeouts.put(replace(node.timeouts.named["x"], uses=1))
    named = TIMEOUT.encode(Nfgenmsg(), {"name": "x"})
    assert node.error(TIMEOUT_DELETE, named) == "EBUSY"
    node.timeouts.put(replace(node.timeouts.named["x"], uses=0))
    assert node.error(TIMEOUT_DELETE, named) == ""
    assert node.error(TIMEOUT_DELETE, named) == "ENOENT"
    assert [one.type for one in node.ask(TIMEOUT_GET, bytes(4), NLM_F_DUMP)] == [NLMSG_DONE]


def test_default_timeouts_are_told() -> None:
    asked = TIMEOUT.encode(Nfgenmsg(), {"l3proto": 2, "l4proto": 17})
    message, _ack = Node().ask(TIMEOUT_DEFAULT_GET, asked)
    assert list(cttimeout.timeouts(2).decode(TIMEOUT.decode(message.payload)[1]["data"]).values()) == [30, 120]


SOCKETS = """sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   0          00000001 0        0        0     2        0        6
0000000000000000 12  4711       {:08x} 0        0        0     2        0        7
"""


class Packets:
    """What packets have done."""

    def __init__(self) -> None:
        self.wanted = 0
        self.happened: list[tuple[Connection, int]] = []

    def listened(self, events: int) -> None:
        self.wanted = events

    def events(self) -> Iterator[tuple[Connection, int]]:
        return iter(self.happened)


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [(0, 0), (1, CtEvent.NEW | CtEvent.RELATED), (4, CtEvent.DESTROY), (0x10, 0), (7, CtEvent((1 << 12) - 1))],
)
def test_the_program_tells_only_what_somebody_listens_to(
    groups: int, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = tmp_path / "netlink"
    sockets.write_text(SOCKETS.format(groups))
    monkeypatch.setattr(announcer, "SOCKETS", sockets)
    node, packets = Node(), Packets()
    announcer.Announcer(node.face, packets).look()
    assert packets.wanted == wanted
    assert node.face.listened == bool(wanted)


def test_what_packets_do_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, packets = Node(), Packets()
    passing = announcer.Announcer(node.face, packets)
    packets.happened = [
        (MADE[6], CtEvent.NEW | CtEvent.PROTOINFO),
        (MADE[6], CtEvent.ASSURED | CtEvent.PROTOINFO),
        (replace(MADE[6], timeout=0), CtEvent.DESTROY),
    ]
    passing.pass_on()
    assert [group for group, _ in node.told] == [1, 2, 3]
    assert node.told[2][1]["status"] & Status.DYING
    assert "timeout" not in node.told[2][1]
    sockets = tmp_path / "netlink"
    sockets.write_text(SOCKETS.format(0))
    monkeypatch.setattr(announcer, "SOCKETS", sockets)
    passing.look()
    passing.pass_on()
    assert len(node.told) == 3


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
    client = Client(NETLINK_NETFILTER, 9, node.netns)
    with unlogged():
        for type_, flags, payload in asked:
            mailbox = Mailbox()
            raw = build(type_, flags | NLM_F_REQUEST | NLM_F_ACK, 3, 0, payload)
            consumed, passed = node._dispatcher.submit(mailbox, client, raw)
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
