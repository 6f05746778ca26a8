# SPDX-License-Identifier: Apache-2.0
"""Netlink messages as bytes: batches, acknowledgements, errors."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.wire import (
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NlMsg,
    acknowledgement,
    build,
    done,
    error_of,
    spans,
    split,
)
from tests.captures import CAPTURES, messages

REQUEST = build(20, NLM_F_REQUEST | NLM_F_ACK, 5, 77, b"abcde")


def test_messages_of_a_batch_are_split_with_their_padding() -> None:
    batch = build(1, 2, 3, 4, b"12345") + build(5, 6, 7, 8, b"")
    assert split(batch) == [NlMsg(1, 2, 3, 4, b"12345"), NlMsg(5, 6, 7, 8, b"")]
    assert [(start, end) for start, end, _message in spans(batch)] == [(0, 24), (24, 40)]
    assert b"".join(message.pack() for message in split(batch)) == batch


@pytest.mark.parametrize("tail", [b"", b"\1", b"\x0f\0\0\0" + bytes(12), b"\xff\0\0\0" + bytes(12)])
def test_a_batch_ends_where_the_kernel_would_stop(tail: bytes) -> None:
    assert len(split(REQUEST + tail)) == 1


@given(st.binary(max_size=100))
def test_any_bytes_can_be_split(raw: bytes) -> None:
    split(raw)


def test_an_acknowledgement_carries_the_header_alone() -> None:
    (answer,) = split(acknowledgement(REQUEST, 0, 99))
    assert (answer.type, answer.flags, answer.seq, answer.pid) == (NLMSG_ERROR, NLM_F_CAPPED, 5, 99)
    assert answer.payload == bytes(4) + REQUEST[:16]
    assert error_of(answer) is None


def test_an_error_quotes_the_request_unless_it_was_capped() -> None:
    (answer,) = split(acknowledgement(REQUEST, errno.ENOENT, 99))
    assert answer.payload == (-errno.ENOENT).to_bytes(4, "little", signed=True) + REQUEST[:21]
    (capped,) = split(acknowledgement(REQUEST, errno.ENOENT, 99, cap_ack=True))
    assert capped.payload[4:] == REQUEST[:16]
    assert capped.flags == NLM_F_CAPPED


@pytest.mark.parametrize("cap_ack", [False, True])
def test_text_and_offset_reach_those_who_asked_for_them(cap_ack: bool) -> None:
    raw = acknowledgement(REQUEST, errno.EINVAL, 1, ext_ack=True, cap_ack=cap_ack, text="no", offset=16)
    (answer,) = split(raw)
    assert answer.flags & NLM_F_ACK_TLVS
    error = error_of(answer)
    assert error is not None
    assert (error.errno, error.text, error.offset, str(error)) == (errno.EINVAL, "no", 16, "[Errno 22] no")
    (plain,) = split(acknowledgement(REQUEST, errno.EINVAL, 1, text="no", offset=16))
    assert not plain.flags & NLM_F_ACK_TLVS
    assert plain.payload[4:] == REQUEST[:21]


def test_text_may_quote_a_name_that_is_no_text() -> None:
    name = b"vl\xe9n".decode(errors="surrogateescape")
    assert b"no vl\xe9n\0" in acknowledgement(REQUEST, errno.ENOENT, 1, ext_ack=True, text=f"no {name}")
    assert b"no vl\xe9n\0" in done(1, 2, errno.ENOENT, ext_ack=True, text=f"no {name}")


def test_a_dumps_end_tells_its_error() -> None:
    (fine,) = split(done(1, 2))
    assert (fine.type, error_of(fine)) == (NLMSG_DONE, None)
    (failed,) = split(done(1, 2, errno.ENODEV, ext_ack=True, text="gone"))
    error = error_of(failed)
    assert error is not None
    assert (error.errno, error.text) == (errno.ENODEV, "gone")


@pytest.mark.parametrize("protocol", [NETLINK_ROUTE, NETLINK_GENERIC])
@pytest.mark.parametrize("capture", CAPTURES)
def test_acknowledgements_are_the_kernels_to_the_byte(capture: str, protocol: int) -> None:
    requests: dict[bytes, NlMsg] = {}
    compared = 0
    for message in messages(capture, protocol):
        if message.flags & NLM_F_REQUEST and message.type >= 16:
            requests[message.pack()[:16]] = message
        elif message.type == NLMSG_ERROR and message.payload[4:20] in requests:
            request = requests[message.payload[4:20]]
            error = error_of(message)
            again = acknowledgement(
                request.pack(),
                error.errno or 0 if error else 0,
                message.pid,
                ext_ack=True,
                text=error.text if error else None,
                offset=error.offset if error else None,
            )
            assert again == message.pack()
            compared += 1
    assert compared > 5
