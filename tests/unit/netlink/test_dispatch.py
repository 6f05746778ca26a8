# SPDX-License-Identifier: Apache-2.0
"""What the server does around a handler, as af_netlink.c, rtnetlink.c and genetlink.c do around theirs."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.client import Connection
from asap2.netlink.dispatch import DUMP_CHUNK, Dispatcher
from asap2.netlink.request import (
    GENL_ADMIN_PERM,
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    PASS,
    Answer,
    Client,
    GenlFamily,
    GenlHeader,
    Message,
    Netns,
    Proxy,
    Reply,
    Request,
    Stream,
)
from asap2.netlink.tables import devlink, link, ovs, tc
from asap2.netlink.tables.genl import CTRL, CTRL_CMD_GETFAMILY, GENL_ID_CTRL, GenlHdr
from asap2.netlink.wire import (
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_EXCL,
    NLM_F_MULTI,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NLM_F_ROOT,
    NLMSG_DONE,
    NLMSG_ERROR,
    NetlinkError,
    NlMsg,
    acknowledgement,
    build,
    done,
    error_of,
    split,
)
from tests.captures import CAPTURES, messages

NEW, DEL, GET, SET = 16, 17, 18, 19
"""Types of rtnetlink; their last two bits tell the kind."""
FAMILY = 0x7000


class Kernel(Connection):
    """A kernel whose answers the test gives."""

    def __init__(self, answers: list[NlMsg]) -> None:
        self.answers = answers
        self.asked: list[tuple[int, int, bytes]] = []
        self._strict = False

    def exchange(self, type: int, flags: int, payload: bytes) -> list[NlMsg]:
        self.asked.append((type, flags, payload))
        return self.answers


class Mailbox:
    """Where replies go: datagrams in order."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.datagrams: list[bytes] = []
        self.dumping = False
        self._kernel = kernel

    def reply(self, protocol: int, portid: int, *messages: bytes, dump: bool = False) -> None:
        assert protocol in (NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER)
        assert portid == 9
        assert isinstance(dump, bool)
        self.datagrams.extend(messages)

    def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
        assert (protocol, portid) == (NETLINK_NETFILTER, 9)
        self.datagrams.extend(chunks)

    def busy_dumping(self, protocol: int, portid: int) -> bool:
        assert protocol in (NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER)
        assert portid == 9
        return self.dumping

    def kernel(self, protocol: int) -> Connection:
        assert protocol in (NETLINK_ROUTE, NETLINK_GENERIC)
        assert self._kernel is not None
        return self._kernel

    @property
    def messages(self) -> list[NlMsg]:
        return [message for datagram in self.datagrams for message in split(datagram)]


def client(protocol: int = NETLINK_ROUTE, **options: bool) -> Client:
    return Client(protocol, 9, Netns(1, -1), **options)


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher(threading.RLock())


def ask(dispatcher: Dispatcher, type: int, flags: int = 0, payload: bytes = b"\0" * 4, **options: bool) -> Mailbox:
    """Submit one rtnetlink request that must not be passed."""
    mailbox = Mailbox()
    raw = build(type, flags | NLM_F_REQUEST, 3, 0, payload)
    assert dispatcher.submit(mailbox, client(**options), raw) == (len(raw), 0)
    return mailbox


def number(mailbox: Mailbox) -> int:
    """The errno of the one message answered, 0 for an acknowledgement."""
    (message,) = mailbox.messages
    assert message.type == NLMSG_ERROR
    error = error_of(message)
    return error.errno or 0 if error else 0


def test_silence_when_no_acknowledgement_was_asked(dispatcher: Dispatcher) -> None:
    dispatcher.route[NEW] = lambda _request: None
    assert ask(dispatcher, NEW).datagrams == []


def test_an_acknowledgement_follows_the_object(dispatcher: Dispatcher) -> None:
    dispatcher.route[NEW] = lambda _request: [Message(NEW, b"12345")]
    mailbox = ask(dispatcher, NEW, NLM_F_ACK)
    assert [split(datagram)[0].type for datagram in mailbox.datagrams] == [NEW, NLMSG_ERROR]
    assert mailbox.messages[0] == NlMsg(NEW, 0, 3, 9, b"12345")
    assert mailbox.messages[1].payload[:4] == bytes(4)


def test_an_error_is_answered_though_no_acknowledgement_was_asked(dispatcher: Dispatcher) -> None:
    def handler(_request: Request) -> Answer:
        raise NetlinkError(errno.EEXIST, "Filter already exists", 20)

    dispatcher.route[NEW] = handler
    mailbox = ask(dispatcher, NEW, ext_ack=True)
    assert mailbox.datagrams == [
        acknowledgement(
            build(NEW, NLM_F_REQUEST, 3, 0, bytes(4)),
            errno.EEXIST,
            9,
            ext_ack=True,
            text="Filter already exists",
            offset=20,
        )
    ]


def test_a_failing_handler_is_logged_and_answered_einval(
    dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    nothing: dict[str, bytes] = {}
    dispatcher.route[NEW] = lambda _request: [Message(1, nothing["missing"])]
    assert number(ask(dispatcher, NEW)) == errno.EINVAL
    assert "KeyError" in caplog.text


def test_an_oserror_keeps_its_number(dispatcher: Dispatcher) -> None:
    def handler(_request: Request) -> Answer:
        raise OSError(errno.ENOSPC, "full")

    dispatcher.route[NEW] = handler
    assert number(ask(dispatcher, NEW)) == errno.ENOSPC


def test_a_warning_rides_on_the_acknowledgement(dispatcher: Dispatcher) -> None:
    dispatcher.route[NEW] = lambda _request: Reply(warning="not offloaded")
    mailbox = ask(dispatcher, NEW, NLM_F_ACK, ext_ack=True)
    assert number(mailbox) == 0
    assert b"not offloaded\0" in mailbox.datagrams[0]
    assert b"not offloaded" not in ask(dispatcher, NEW, NLM_F_ACK).datagrams[0]


def test_an_unprivileged_program_may_only_get(dispatcher: Dispatcher) -> None:
    for type_ in (NEW, DEL, GET, SET):
        dispatcher.route[type_] = lambda _request: None
    for type_, expected in ((NEW, errno.EPERM), (DEL, errno.EPERM), (SET, errno.EPERM), (GET, 0)):
        assert number(ask(dispatcher, type_, NLM_F_ACK, privileged=False)) == expected


@pytest.mark.parametrize("flags", [NLM_F_DUMP, NLM_F_ROOT, NLM_F_DUMP | NLM_F_ACK])
def test_a_dump_ends_by_done_and_no_acknowledgement(dispatcher: Dispatcher, flags: int) -> None:
    dispatcher.route[GET] = lambda _request: [Message(NEW, b"1"), Message(NEW, b"2", NLM_F_DUMP_INTR)]
    assert ask(dispatcher, GET, flags).messages == [
        NlMsg(NEW, NLM_F_MULTI, 3, 9, b"1"),
        NlMsg(NEW, NLM_F_MULTI | NLM_F_DUMP_INTR, 3, 9, b"2"),
        NlMsg(NLMSG_DONE, NLM_F_MULTI, 3, 9, bytes(4)),
    ]


def test_replace_and_exclusive_are_no_dump(dispatcher: Dispatcher) -> None:
    seen = []
    dispatcher.route[NEW] = lambda request: seen.append((request.dump, request.excl, request.replace))
    ask(dispatcher, NEW, NLM_F_REPLACE | NLM_F_EXCL)
    assert seen == [(False, True, True)]


def test_a_dumps_datagrams_fit_a_page(dispatcher: Dispatcher) -> None:
    payloads = [bytes(size) for size in (1500, 1500, 1500, 9000, 10, 10)]
    dispatcher.route[GET] = lambda _request: [Message(NEW, payload) for payload in payloads]
    mailbox = ask(dispatcher, GET, NLM_F_DUMP)
    assert [message.payload for message in mailbox.messages[:-1]] == payloads
    assert all(len(datagram) <= DUMP_CHUNK or len(split(datagram)) == 1 for datagram in mailbox.datagrams)


def test_an_error_while_dumping_ends_the_dump(dispatcher: Dispatcher) -> None:
    def handler(_request: Request) -> Iterator[Message]:
        yield Message(NEW, b"1")
        raise NetlinkError(errno.ENODEV, "gone")

    dispatcher.route[GET] = handler
    first, last = ask(dispatcher, GET, NLM_F_DUMP, ext_ack=True).messages
    assert (first.payload, last.type) == (b"1", NLMSG_DONE)
    error = error_of(last)
    assert error is not None
    assert (error.errno, error.text) == (errno.ENODEV, "gone")


def test_an_error_before_a_dump_is_an_error_message(dispatcher: Dispatcher) -> None:
    def handler(_request: Request) -> Answer:
        raise NetlinkError(errno.EINVAL, at_start=True)

    dispatcher.route[GET] = handler
    assert number(ask(dispatcher, GET, NLM_F_DUMP)) == errno.EINVAL


def test_a_second_dump_while_one_runs_is_refused(dispatcher: Dispatcher) -> None:
    dispatcher.route[GET] = lambda _request: []
    mailbox = Mailbox()
    mailbox.dumping = True
    dispatcher.submit(mailbox, client(), build(GET, NLM_F_REQUEST | NLM_F_DUMP, 3, 0, bytes(4)))
    assert number(mailbox) == errno.EBUSY


def test_a_message_that_is_no_request_is_only_acknowledged(dispatcher: Dispatcher) -> None:
    mailbox = Mailbox()
    raw = build(NEW, NLM_F_ACK, 3, 0, bytes(4)) + build(1, NLM_F_REQUEST, 4, 0, b"") + build(NEW, 0, 5, 0, bytes(4))
    assert dispatcher.submit(mailbox, client(), raw) == (len(raw), 0)
    assert [message.seq for message in mailbox.messages] == [3]


def test_a_batch_is_answered_in_order_and_split_where_the_kernel_comes_in(dispatcher: Dispatcher) -> None:
    dispatcher.route[NEW] = lambda _request: None
    dispatcher.route[SET] = lambda _request: PASS
    parts = [
        build(NEW, NLM_F_REQUEST | NLM_F_ACK, 1, 0, b"abcd1"),
        build(NEW, NLM_F_REQUEST | NLM_F_ACK, 2, 0, bytes(4)),
        build(SET, NLM_F_REQUEST | NLM_F_ACK, 3, 0, bytes(8)),
        build(20, NLM_F_REQUEST | NLM_F_ACK, 4, 0, bytes(8)),
        build(NEW, NLM_F_REQUEST | NLM_F_ACK, 5, 0, bytes(4)),
    ]
    raw = b"".join(parts)
    mailbox = Mailbox()
    consumed, passed = dispatcher.submit(mailbox, client(), raw)
    assert consumed == len(parts[0]) + len(parts[1])
    assert passed == len(parts[2]) + len(parts[3])
    assert dispatcher.submit(mailbox, client(), raw[consumed + passed :]) == (len(parts[4]), 0)
    assert [message.seq for message in mailbox.messages] == [1, 2, 5]


def test_a_batch_with_nothing_of_ours_is_passed_whole(dispatcher: Dispatcher) -> None:
    raw = build(20, NLM_F_REQUEST, 1, 0, bytes(4)) + build(21, NLM_F_REQUEST, 2, 0, bytes(4)) + b"\1\2"
    assert dispatcher.submit(Mailbox(), client(), raw) == (0, len(raw))


def test_a_proxied_dump_is_the_kernels_with_changes(dispatcher: Dispatcher) -> None:
    kernel = Kernel(
        [NlMsg(NEW, NLM_F_MULTI | NLM_F_DUMP_INTR, 1, 5, b"lo"), NlMsg(NEW, 2, 1, 5, b"drop"), split(done(1, 5))[0]]
    )
    mailbox = Mailbox(kernel)

    def rewrite(message: NlMsg) -> list[Message]:
        return [] if message.payload == b"drop" else [Message(message.type, message.payload + b"!")]

    dispatcher.route[GET] = lambda _request: Proxy(rewrite, [Message(NEW, b"more")])
    dispatcher.submit(mailbox, client(), build(GET, NLM_F_REQUEST | NLM_F_DUMP, 3, 0, b"wxyz"))
    assert kernel.asked == [(GET, NLM_F_REQUEST | NLM_F_DUMP, b"wxyz")]
    assert mailbox.messages == [
        NlMsg(NEW, NLM_F_MULTI | NLM_F_DUMP_INTR, 3, 9, b"lo!"),
        NlMsg(NEW, NLM_F_MULTI, 3, 9, b"more"),
        NlMsg(NLMSG_DONE, NLM_F_MULTI, 3, 9, bytes(4)),
    ]


def test_the_kernels_error_to_a_proxied_request_is_the_programs(dispatcher: Dispatcher) -> None:
    refusal = acknowledgement(build(GET, 1, 1, 5, b""), errno.ENODEV, 5, ext_ack=True, text="no such device")
    mailbox = Mailbox(Kernel(split(refusal)))
    dispatcher.route[GET] = lambda _request: Proxy(lambda message: [Message(message.type, b"")])
    dispatcher.submit(mailbox, client(ext_ack=True), build(GET, NLM_F_REQUEST, 3, 0, b"wxyz"))
    error = error_of(mailbox.messages[0])
    assert error is not None
    assert (error.errno, error.text) == (errno.ENODEV, "no such device")


def test_a_kernel_dump_that_ends_in_an_error_keeps_what_came_before(dispatcher: Dispatcher) -> None:
    mailbox = Mailbox(Kernel([NlMsg(NEW, NLM_F_MULTI, 1, 5, b"lo"), *split(done(1, 5, errno.EMSGSIZE))]))
    dispatcher.route[GET] = lambda _request: Proxy(lambda message: [Message(message.type, message.payload)])
    dispatcher.submit(mailbox, client(), build(GET, NLM_F_REQUEST | NLM_F_DUMP, 3, 0, b"wxyz"))
    first, last = mailbox.messages
    error = error_of(last)
    assert (first.payload, last.type) == (b"lo", NLMSG_DONE)
    assert error is not None
    assert error.errno == errno.EMSGSIZE


# Generic netlink


def family(**arguments: Any) -> GenlFamily:
    return GenlFamily("toy", FAMILY, version=2, hdrsize=4, maxattr=5, **arguments)


def ask_family(
    dispatcher: Dispatcher, payload: bytes, flags: int = NLM_F_ACK, type: int = FAMILY, **options: bool
) -> Mailbox:
    mailbox = Mailbox()
    raw = build(type, flags | NLM_F_REQUEST, 3, 0, payload)
    assert dispatcher.submit(mailbox, client(NETLINK_GENERIC, **options), raw) == (len(raw), 0)
    return mailbox


def test_a_family_handler_gets_its_header_and_attributes(dispatcher: Dispatcher) -> None:
    seen: list[GenlHeader] = []
    dispatcher.add_family(family(handlers={1: lambda _request, genl: seen.append(genl)}))
    assert number(ask_family(dispatcher, b"\1\2\0\0HEADattr")) == 0
    assert seen == [GenlHeader(1, 2, b"HEAD", b"attr")]


@pytest.mark.parametrize(
    ("payload", "flags", "expected"),
    [
        (b"\2\1\0\0HEAD", 0, errno.EOPNOTSUPP),
        (b"\1\1\0", 0, errno.EINVAL),
        (b"\1\1\0\0HEA", 0, errno.EINVAL),
        (b"", 0, errno.EINVAL),
        (b"\1\1\0\0HEAD", NLM_F_DUMP, errno.EOPNOTSUPP),
        (b"\3\1\0\0HEAD", 0, errno.EOPNOTSUPP),
        (b"\4\1\0\0HEAD", 0, errno.EPERM),
        (b"\5\1\0\0HEAD", 0, errno.EOPNOTSUPP),
    ],
)
def test_a_familys_requests_are_checked(dispatcher: Dispatcher, payload: bytes, flags: int, expected: int) -> None:
    ops = [(1, GENL_CMD_CAP_DO), (3, GENL_CMD_CAP_DUMP), (4, GENL_CMD_CAP_DO | GENL_ADMIN_PERM), (5, GENL_CMD_CAP_DO)]
    dispatcher.add_family(family(ops=ops, handlers=dict.fromkeys((1, 3, 4), lambda _request, _genl: None)))
    assert number(ask_family(dispatcher, payload, flags, privileged=False)) == expected


def test_an_unknown_emulated_family_does_not_exist(dispatcher: Dispatcher) -> None:
    assert number(ask_family(dispatcher, b"\1\1\0\0", type=0x70FF)) == errno.ENOENT


def test_a_kernel_family_is_served_for_some_commands_only(dispatcher: Dispatcher) -> None:
    dispatcher.add_family(GenlFamily("ethtool", 21, real=True, handlers={11: lambda _request, _genl: None}))
    assert number(ask_family(dispatcher, b"\x0b\1\0\0", type=21)) == 0
    raw = build(21, NLM_F_REQUEST, 3, 0, b"\x0c\1\0\0")
    assert dispatcher.submit(Mailbox(), client(NETLINK_GENERIC), raw) == (0, len(raw))


def get_family(name: str) -> bytes:
    return CTRL.encode(GenlHdr(CTRL_CMD_GETFAMILY), {"family_name": name})


@pytest.mark.parametrize("capture", CAPTURES)
def test_getfamily_answers_as_the_kernel_did(dispatcher: Dispatcher, capture: str) -> None:
    compared = set()
    for message in messages(capture, NETLINK_GENERIC):
        if message.type != GENL_ID_CTRL or message.payload[0] != 1 or message.flags:
            continue
        _header, said = CTRL.decode(message.payload)
        emulated = GenlFamily(
            said["family_name"],
            0x7000 + said["family_id"],
            said["version"],
            said["hdrsize"],
            said["maxattr"],
            [(op["id"], op["flags"]) for op in said["ops"].values()],
            [(group["name"], group["id"]) for group in said.get("mcast_groups", {}).values()],
        )
        dispatcher.families.clear()
        dispatcher.add_family(emulated)
        (answer,) = ask_family(dispatcher, get_family(emulated.name), 0, GENL_ID_CTRL).messages
        expected = CTRL.encode(_header, {**said, "family_id": emulated.id})
        assert (answer.type, answer.flags, answer.payload) == (GENL_ID_CTRL, 0, expected)
        compared.add(emulated.name)
    assert {"ovs_datapath", "ovs_vport", "ovs_flow", "ovs_packet"} <= compared


def test_a_family_that_is_not_ours_is_asked_of_the_kernel(dispatcher: Dispatcher) -> None:
    dispatcher.add_family(family())
    raw = build(GENL_ID_CTRL, NLM_F_REQUEST, 3, 0, get_family("nlctrl"))
    assert dispatcher.submit(Mailbox(), client(NETLINK_GENERIC), raw) == (0, len(raw))


def test_the_list_of_families_is_the_kernels_with_ours_in_place(dispatcher: Dispatcher) -> None:
    dispatcher.add_family(family())
    kernels = [CTRL.encode(GenlHdr(1, 2), {"family_name": name, "family_id": 30}) for name in ("nlctrl", "toy")]
    mailbox = Mailbox(Kernel([*(NlMsg(GENL_ID_CTRL, 2, 1, 5, payload) for payload in kernels), split(done(1, 5))[0]]))
    raw = build(GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_DUMP, 3, 0, b"\3\1\0\0")
    dispatcher.submit(mailbox, client(NETLINK_GENERIC), raw)
    found = [CTRL.decode(message.payload)[1] for message in mailbox.messages[:-1]]
    assert [(one["family_name"], one["family_id"]) for one in found] == [("nlctrl", 30), ("toy", FAMILY)]


# Whatever comes


def thorough(dispatcher: Dispatcher) -> None:
    """Handlers that look at all of a request."""

    def tc_(request: Request) -> Answer:
        header, attrs = tc.TC.decode(request.payload)
        return [Message(request.type, tc.TC.encode(header, attrs))]

    def link_(request: Request) -> Answer:
        header, attrs = link.LINK.decode(request.payload)
        return [Message(request.type, link.LINK.encode(header, attrs))]

    def ovs_(request: Request, _genl: GenlHeader) -> Answer:
        for body in (ovs.FLOW, ovs.PACKET, ovs.VPORT, ovs.DATAPATH):
            header, attrs = body.decode(request.payload, 4)
            body.encode(header, attrs)
        return None

    def devlink_(request: Request, _genl: GenlHeader) -> Answer:
        return [Message(request.type, devlink.DEVLINK.encode(*devlink.DEVLINK.decode(request.payload)))]

    for type_ in (16, 17, 18, 19):
        dispatcher.route[type_] = link_
    for type_ in (36, 37, 38, 44, 45, 46, 100, 101, 102):
        dispatcher.route[type_] = tc_
    for id_ in (0x20, 0x21, 0x22, 0x23):
        dispatcher.add_family(
            GenlFamily(f"f{id_}", id_, hdrsize=4, real=True, handlers=dict.fromkeys(range(256), ovs_))
        )
    dispatcher.add_family(GenlFamily("devlink", 0x7001, handlers=dict.fromkeys(range(256), devlink_)))


SAMPLES = [
    (protocol, message.pack())
    for protocol in (NETLINK_ROUTE, NETLINK_GENERIC)
    for message in messages(CAPTURES[0], protocol)
    if message.flags & NLM_F_REQUEST and len(message.payload) > 20
][::7]


def check_answers(mailbox: Mailbox, raw: bytes) -> None:
    for datagram in mailbox.datagrams:
        assert split(datagram)
    assert len(mailbox.datagrams) <= 2 * (len(raw) // 16 + 1)


@given(st.binary(max_size=300), st.sampled_from([NETLINK_ROUTE, NETLINK_GENERIC]))
def test_any_bytes_are_survived(raw: bytes, protocol: int) -> None:
    dispatcher, mailbox = Dispatcher(threading.RLock()), Mailbox(Kernel([split(done(1, 5))[0]]))
    thorough(dispatcher)
    consumed, passed = dispatcher.submit(mailbox, client(protocol), raw)
    assert 0 <= consumed + passed <= len(raw)
    check_answers(mailbox, raw)


@given(st.data())
def test_damaged_requests_are_answered(data: st.DataObject) -> None:
    logging.getLogger("asap2.netlink.dispatch").setLevel(logging.CRITICAL)
    dispatcher, mailbox = Dispatcher(threading.RLock()), Mailbox(Kernel([split(done(1, 5))[0]]))
    thorough(dispatcher)
    protocol, sample = data.draw(st.sampled_from(SAMPLES))
    raw = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    consumed, passed = dispatcher.submit(mailbox, client(protocol, ext_ack=True), bytes(raw))
    assert 0 <= consumed + passed <= len(raw)
    check_answers(mailbox, bytes(raw))


@pytest.mark.parametrize("cut", range(0, 400, 3))
def test_a_truncated_filter_is_refused_or_ignored(dispatcher: Dispatcher, cut: int) -> None:
    thorough(dispatcher)
    sample = max((raw for protocol, raw in SAMPLES if protocol == NETLINK_ROUTE), key=len)
    whole = split(sample)[0]
    mailbox = Mailbox()
    dispatcher.submit(mailbox, client(), sample[:cut])
    if cut < len(sample):
        assert mailbox.datagrams == []
    shortened = build(whole.type, whole.flags, whole.seq, 0, whole.payload[:cut])
    dispatcher.submit(mailbox, client(), shortened)
    if cut < 20:
        assert all(error_of(message) is not None for message in mailbox.messages)


def test_endless_nesting_is_refused(dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
    thorough(dispatcher)
    nest = b""
    while len(nest) < 60000:
        nest = (len(nest) + 4).to_bytes(2, "little") + b"\1\0" + nest
    payload = b"\1\1\0\0" + bytes(4) + (len(nest) + 4).to_bytes(2, "little") + b"\1\0" + nest
    mailbox = Mailbox()
    dispatcher.submit(mailbox, client(NETLINK_GENERIC), build(0x22, NLM_F_REQUEST, 1, 0, payload))
    assert number(mailbox) == errno.EINVAL
    assert len(caplog.text) < 1000


CT_NEW, CT_GET, CT_DELETE, NFT_GETTABLE = 0x100, 0x101, 0x102, 0xA01


def netfilter(
    dispatcher: Dispatcher, type: int, flags: int = 0, payload: bytes = b"\0" * 4, **options: bool
) -> tuple[Mailbox, bool]:
    """Submit one request of nfnetlink: what came of it, and whether it is the kernel's."""
    mailbox = Mailbox()
    raw = build(type, flags | NLM_F_REQUEST, 3, 0, payload)
    consumed, passed = dispatcher.submit(mailbox, client(NETLINK_NETFILTER, **options), raw)
    assert consumed + passed == len(raw)
    return mailbox, passed == len(raw)


def test_of_nfnetlink_only_the_subsystems_that_are_served_are_ours(dispatcher: Dispatcher) -> None:
    asked: list[int] = []
    dispatcher.netfilter[1] = lambda request: asked.append(request.type)
    assert not netfilter(dispatcher, CT_DELETE)[1]
    assert netfilter(dispatcher, NFT_GETTABLE)[1]
    assert asked == [CT_DELETE]


def test_who_may_not_ask_nfnetlink_is_left_to_the_kernel(dispatcher: Dispatcher) -> None:
    dispatcher.netfilter[1] = lambda _request: pytest.fail("asked")
    assert netfilter(dispatcher, CT_GET, privileged=False)[1]


def test_a_message_of_nfnetlink_without_its_header_does_nothing(dispatcher: Dispatcher) -> None:
    dispatcher.netfilter[1] = lambda _request: pytest.fail("asked")
    mailbox, passed = netfilter(dispatcher, CT_DELETE, NLM_F_ACK, b"\0\0")
    assert not passed
    assert number(mailbox) == 0


def test_what_creates_a_connection_is_no_dump_whatever_its_flags(dispatcher: Dispatcher) -> None:
    dispatcher.netfilter[1] = lambda request: [] if request.dump else None
    mailbox, _ = netfilter(dispatcher, CT_NEW, NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE)
    assert number(mailbox) == 0
    mailbox, _ = netfilter(dispatcher, CT_GET, NLM_F_ROOT)
    assert [one.type for one in mailbox.messages] == [NLMSG_DONE]


def test_a_long_dump_is_made_as_it_is_read(dispatcher: Dispatcher) -> None:
    made: list[int] = []

    def connections() -> Iterator[Message]:
        for number in range(100):
            made.append(number)
            yield Message(CT_NEW, bytes(200))

    class Slow(Mailbox):
        def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
            assert (protocol, portid) == (NETLINK_NETFILTER, 9)
            self.datagrams.append(next(chunks))

    dispatcher.netfilter[1] = lambda _request: Stream(connections())
    slow = Slow()
    dispatcher.submit(slow, client(NETLINK_NETFILTER), build(CT_GET, NLM_F_DUMP | NLM_F_REQUEST, 3, 0, bytes(4)))
    assert len(made) < 30
    mailbox, _ = netfilter(dispatcher, CT_GET, NLM_F_DUMP)
    assert [one.type for one in mailbox.messages] == [CT_NEW] * 100 + [NLMSG_DONE]
    assert {one.flags for one in mailbox.messages} == {NLM_F_MULTI}


def test_a_long_dump_that_breaks_off_says_so_at_its_end(dispatcher: Dispatcher) -> None:
    def connections() -> Iterator[Message]:
        yield Message(CT_NEW, bytes(200))
        raise NetlinkError(errno.EIO)

    dispatcher.netfilter[1] = lambda _request: Stream(connections())
    mailbox, _ = netfilter(dispatcher, CT_GET, NLM_F_DUMP)
    *_, last = mailbox.messages
    assert last.type == NLMSG_DONE
    error = error_of(last)
    assert error is not None
    assert error.errno == errno.EIO
