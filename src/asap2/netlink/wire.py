# SPDX-License-Identifier: Apache-2.0
"""Netlink messages as bytes: headers, attributes, acknowledgements (include/uapi/linux/netlink.h).

Headers and lengths are in host byte order, as the kernel has them. Nothing here does input or output.
"""

from __future__ import annotations

import errno as _errno
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
NETLINK_GENERIC: Final = 16

NLMSG_NOOP: Final = 1
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSG_MIN_TYPE: Final = 0x10

NLM_F_REQUEST: Final = 0x01
NLM_F_MULTI: Final = 0x02
NLM_F_ACK: Final = 0x04
NLM_F_ECHO: Final = 0x08
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP_FILTERED: Final = 0x20
NLM_F_ROOT: Final = 0x100
NLM_F_MATCH: Final = 0x200
NLM_F_DUMP: Final = NLM_F_ROOT | NLM_F_MATCH
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200

NLMSGERR_ATTR_MSG: Final = 1
NLMSGERR_ATTR_OFFS: Final = 2

NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_DROP_MEMBERSHIP: Final = 2
NETLINK_EXT_ACK: Final = 11
NETLINK_GET_STRICT_CHK: Final = 12

HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length (header included), type, flags, sequence number, port id."""
HEADER_LEN: Final = HEADER.size
_SUCCESS = struct.Struct("=IHHIIi16s")
_ATTRIBUTE = struct.Struct("=HH")
_S32 = struct.Struct("=i")
_U32 = struct.Struct("=I")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


class NetlinkError(OSError):
    """An error that the kernel answers, or that a handler wants answered: errno, extended acknowledgement, offset.

    *text* is the sentence of the extended acknowledgement (None: none), *offset* the position of the offending
    attribute in bytes from the start of the message header (None: none). *at_start* matters in dumps only: the
    kernel answers an error found before a dump started by NLMSG_ERROR, one found while dumping by NLMSG_DONE.
    """

    def __init__(
        self, errno: int, text: str | None = None, offset: int | None = None, *, at_start: bool = False
    ) -> None:
        super().__init__(errno, text or os.strerror(errno))
        self.text = text
        self.offset = offset
        self.at_start = at_start


class NlMsg(NamedTuple):
    """One netlink message; *pid* is the port id in its header, *payload* what follows the 16 bytes of the header."""

    type: int
    flags: int
    seq: int
    pid: int
    payload: bytes

    def pack(self) -> bytes:
        """The message on the wire, padded to 4 bytes."""
        return build(self.type, self.flags, self.seq, self.pid, self.payload)


def build(type: int, flags: int, seq: int, pid: int, payload: bytes) -> bytes:
    """A message on the wire, padded to 4 bytes (the length in the header is without the padding)."""
    length = HEADER_LEN + len(payload)
    return HEADER.pack(length, type, flags, seq, pid) + payload + _PAD[length & 3]


def split(data: bytes) -> list[NlMsg]:
    """The messages in a datagram; like the kernel, stops silently at the first with an impossible length."""
    return [message for _start, _end, message in spans(data)]


def spans(data: bytes) -> Iterator[tuple[int, int, NlMsg]]:
    """As :func:`split`, with where each message starts and where the next would (net/netlink/af_netlink.c)."""
    position, size = 0, len(data)
    while position + HEADER_LEN <= size:
        length, type_, flags, seq, pid = HEADER.unpack_from(data, position)
        if length < HEADER_LEN or position + length > size:
            return
        following = min(position + ((length + 3) & ~3), size)
        yield position, following, NlMsg(type_, flags, seq, pid, data[position + HEADER_LEN : position + length])
        position = following


def attribute(type: int, payload: bytes) -> bytes:
    """One attribute, padded; *type* includes the NLA_F_ bits."""
    length = 4 + len(payload)
    return _ATTRIBUTE.pack(length, type) + payload + _PAD[length & 3]


def attributes(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes in *data* from *start* as (type with the NLA_F_ bits, payload); stops where nla_ok() would."""
    size = len(data)
    while start + 4 <= size:
        length, type_ = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > size:
            return
        yield type_, data[start + 4 : start + length]
        start += (length + 3) & ~3


def acknowledgement(
    request: bytes,
    error: int,
    portid: int,
    *,
    ext_ack: bool = False,
    cap_ack: bool = False,
    text: str | None = None,
    offset: int | None = None,
) -> bytes:
    """NLMSG_ERROR as netlink_ack() builds it.

    *request* is the whole message answered, *error* a positive errno or 0. The request's payload is carried back for
    an error unless the client capped acknowledgements; the text and offset go to those who asked for them.
    """
    length, _type, _flags, seq, _pid = HEADER.unpack_from(request)
    if not error and text is None:  # most are: nothing to put together
        return _SUCCESS.pack(_SUCCESS.size, NLMSG_ERROR, NLM_F_CAPPED, seq, portid, 0, request[:HEADER_LEN])
    answer_flags = 0
    quoted = request[:HEADER_LEN]
    if error and not cap_ack:
        quoted = request[:length]
    else:
        answer_flags |= NLM_F_CAPPED
    extra = b""
    if ext_ack:
        if text is not None:
            extra += attribute(NLMSGERR_ATTR_MSG, text.encode(errors="surrogateescape") + b"\0")
        if error and offset is not None:
            extra += attribute(NLMSGERR_ATTR_OFFS, _U32.pack(offset))
        if extra:
            answer_flags |= NLM_F_ACK_TLVS
            quoted += _PAD[len(quoted) & 3]
    return build(NLMSG_ERROR, answer_flags, seq, portid, _S32.pack(-error) + quoted + extra)


def done(seq: int, portid: int, error: int = 0, *, ext_ack: bool = False, text: str | None = None) -> bytes:
    """NLMSG_DONE, the end of a dump; *error* is a positive errno, or 0."""
    flags, extra = NLM_F_MULTI, b""
    if text is not None and ext_ack:
        flags |= NLM_F_ACK_TLVS
        extra = attribute(NLMSGERR_ATTR_MSG, text.encode(errors="surrogateescape") + b"\0")
    return build(NLMSG_DONE, flags, seq, portid, _S32.pack(-error) + extra)


def error_of(message: NlMsg) -> NetlinkError | None:
    """What an NLMSG_ERROR or NLMSG_DONE says went wrong; None for an acknowledgement or any other message."""
    if message.type not in (NLMSG_ERROR, NLMSG_DONE) or len(message.payload) < 4:
        return None
    number = -_S32.unpack_from(message.payload)[0]
    if not number:
        return None
    text, offset = None, None
    if message.flags & NLM_F_ACK_TLVS:
        start = 4
        if message.type == NLMSG_ERROR and len(message.payload) >= 20:
            quoted = HEADER_LEN if message.flags & NLM_F_CAPPED else _U32.unpack_from(message.payload, 4)[0]
            start = 4 + ((quoted + 3) & ~3)
        for type_, value in attributes(message.payload, start):
            if type_ & NLA_TYPE_MASK == NLMSGERR_ATTR_MSG:
                text = value.rstrip(b"\0").decode(errors="replace")
            elif type_ & NLA_TYPE_MASK == NLMSGERR_ATTR_OFFS and len(value) == 4:
                offset = _U32.unpack(value)[0]
    if number < 0:
        return NetlinkError(_errno.EPROTO, text, offset)
    return NetlinkError(number, text, offset)
