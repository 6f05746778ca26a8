# SPDX-License-Identifier: Apache-2.0
"""What the server does around a handler, as af_netlink.c, rtnetlink.c and genetlink.c do around theirs."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.dispatch import DUMP_CHUNK, Dispatcher
from asap2.netlink.request import (
    PASS,
    Answer,
    GenlFamily,
    GenlHeader,
    Message,
    Proxy,
    Reply,
    Request,
)
from asap2.netlink.tables import devlink, link, ovs, tc
from asap2.netlink.wire import (
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    NLM_F_ACK,
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
from tests.unit.netlink.dispatching import DEL, GET, NEW, SET, Kernel, Mailbox, ask, client, number


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
