# SPDX-License-Identifier: Apache-2.0
"""Connection tracking helpers for FTP and TFTP, whose connections announce further ones that belong to them.

A helper reads the data of a packet and says which connection to expect. If NAT has changed the addresses of its own
connection, it writes the translated address and port into the packet. Sources: net/netfilter/nf_conntrack_ftp.c,
nf_nat_ftp.c, nf_conntrack_tftp.c, nf_conntrack_seqadj.c.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from asap2.nic.checksums import checksum
from asap2.nic.conntrack.ftp import Lines, NoPortError, announced
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.tcp import after
from asap2.nic.conntrack.tuples import length_of, transport
from asap2.nic.conntrack.view import Connection, Tuple

_SEQUENCE: Final = 1 << 32
_TFTP_REQUESTS: Final = (1, 2)
_HIGHEST_PORT: Final = 65535
_MAX_ATTEMPTS: Final = 128


class Expected(NamedTuple):
    """An expected connection: its *tuple*, whose source port is 0 (any), and, if NAT is to change it (else None), the
    tuple of its *reply*, whose destination port is 0 (any)."""

    tuple: Tuple
    reply: Tuple | None


@dataclass(slots=True)
class _Adjustment:
    """By how much the sequence numbers of one direction are shifted, before and after a place in the stream."""

    place: int = 0
    before: int = 0
    after: int = 0


class Sequence:
    """Shifts of a TCP connection's sequence numbers, and where its *lines* begin, by direction: 0 original, 1 reply.

    With *picked_up*, nobody has seen the connection's first packets.
    """

    def __init__(self, *, picked_up: bool = False) -> None:
        self._ways = (_Adjustment(), _Adjustment())
        self.lines = Lines([picked_up, picked_up])

    def changed(self, way: int, place: int, by: int) -> None:
        """Note that data at sequence number *place* has grown by *by* octets (nf_ct_seqadj_set())."""
        this = self._ways[way]
        if this.before == this.after or after(place, this.place):
            this.place, this.before, this.after = place, this.after, this.after + by

    def adjust(self, segment: bytearray, way: int) -> None:
        """Write the shifted sequence and acknowledgement numbers into a TCP header (nf_ct_seq_adjust())."""
        this, other = self._ways[way], self._ways[1 - way]
        sequence, acknowledged = struct.unpack_from("!II", segment, 4)
        more = this.after if after(sequence, this.place) else this.before
        less = other.after if after(acknowledged - other.before, other.place) else other.before
        struct.pack_into("!II", segment, 4, (sequence + more) % _SEQUENCE, (acknowledged - less) % _SEQUENCE)


class ClashError(Exception):
    """Raised if another connection expects what this one announces: the packet has to be dropped."""


Taken = Callable[[Tuple], bool]
"""Whether another connection expects a connection with this tuple (EBUSY of nf_ct_expect_related())."""


def _free(_expected: Tuple) -> bool:
    return False


def ftp(data: bytes, connection: Connection, way: int, taken: Taken = _free) -> tuple[bytes, Expected] | None:
    """The *data* of direction *way*, the start of a line, as the other end must see it, and the connection that it
    announces; None if it announces none. With NAT, another port is announced if the same one is *taken*.

    Raises:
        IncompleteError, ClashError: the packet has to be dropped.
    """
    told = announced(data, way, ipv4=connection.original.family == socket.AF_INET)
    if told is None:
        return None
    tuples = connection.original, connection.reply
    this, other = tuples[way], tuples[1 - way]
    if told.address is not None and told.address != this.src:
        return None  # an end may announce only its own address
    expected = Tuple(this.family, socket.IPPROTO_TCP, other.src, other.dst, 0, told.port)
    if not connection.status & (Status.SRC_NAT | Status.DST_NAT):
        return data, Expected(_not_taken(expected, taken), None)
    expected = expected._replace(dst_port=_port(expected, taken))
    reply = Tuple(this.family, socket.IPPROTO_TCP, this.src, this.dst, told.port, 0)
    text = _text(told.form, expected.dst, expected.dst_port)
    return data[: told.start] + text + data[told.end :], Expected(expected, _changed(expected, reply))


def _not_taken(expected: Tuple, taken: Taken) -> Tuple:
    if taken(expected):
        raise ClashError("cannot add expectation")
    return expected


def _port(expected: Tuple, taken: Taken) -> int:
    """The announced port, or else one above it at random (nf_nat_exp_find_port())."""
    port = first = expected.dst_port
    for _ in range(min(_HIGHEST_PORT - first, _MAX_ATTEMPTS) + 1):
        if port and not taken(expected._replace(dst_port=port)):
            return port
        if not first or first == _HIGHEST_PORT:
            break
        port = first + random.randrange(_HIGHEST_PORT - first)
    raise NoPortError("NAT finds no port")


def tftp(data: bytes, connection: Connection, taken: Taken = _free) -> Expected | None:
    """The connection that the server opens after a TFTP request, which may go in either direction; None if *data* is
    not a request.

    Raises:
        ClashError: the packet has to be dropped.
    """
    if len(data) < 2 or int.from_bytes(data[:2], "big") not in _TFTP_REQUESTS:
        return None
    original, reply = connection.original, connection.reply
    expected = Tuple(reply.family, socket.IPPROTO_UDP, reply.src, reply.dst, 0, reply.dst_port)
    _not_taken(expected, taken)
    if not connection.status & (Status.SRC_NAT | Status.DST_NAT):
        return Expected(expected, None)
    back = Tuple(original.family, socket.IPPROTO_UDP, original.src, original.dst, original.src_port, 0)
    return Expected(expected, _changed(expected, back))


def _changed(expected: Tuple, reply: Tuple) -> Tuple | None:
    """The *reply*, or None if it is the same without NAT."""
    same = (expected.src, expected.dst, expected.dst_port) == (reply.dst, reply.src, reply.src_port)
    return None if same else reply


def _text(form: str, address: bytes, port: int) -> bytes:
    """Format an address and port as nf_nat_ftp_fmt_cmd() does."""
    if form in ("PORT", "227"):
        return ",".join(map(str, (*address, port >> 8, port & 0xFF))).encode()
    if form == "229":
        return f"|||{port}|".encode()
    return f"|{1 if len(address) == 4 else 2}|{ipaddress.ip_address(address).exploded}|{port}|".encode()


@dataclass(slots=True)
class Helped:
    """A *frame* after its helper, and the connection that the helper *expects* within *seconds*, if any."""

    frame: bytes
    expects: Expected | None = None
    seconds: int = 300
    """The same for both helpers."""
    lengthened: int = 0
    """By how many octets the frame has grown (negative: shrunk)."""


def help_with(
    frame: bytes,
    at: int,
    connection: Connection,
    way: int,
    sequence: Sequence,
    *,
    established: bool = True,
    taken: Taken = _free,
) -> Helped:
    """Apply the helper of *connection* to a *frame* of direction *way* whose IP header is *at* this octet.

    *sequence* holds the connection's shifts so far; this frame's is added. Before the connection is *established*,
    FTP's helper reads nothing. What follows the datagram in its frame is none of its data.

    Raises:
        IncompleteError, ClashError: the packet has to be dropped.
    """
    family = 4 if connection.original.family == socket.AF_INET else 6
    found = transport(frame, family, at)
    if found is None or found.proto != connection.original.protocol:
        return Helped(frame)
    end = at + length_of(frame, family, at)
    if found.proto == socket.IPPROTO_UDP:
        return Helped(
            frame, tftp(frame[found.at + 8 : end], connection, taken) if connection.helper == "tftp" else None
        )
    header = (frame[found.at + 12] >> 4) * 4 if len(frame) > found.at + 12 else 0
    if found.proto != socket.IPPROTO_TCP or header < 20 or not found.at + header <= end <= len(frame):
        return Helped(frame)
    segment = bytearray(frame[found.at : found.at + header])
    data, expects = frame[found.at + header : end], None
    longer, number = 0, int.from_bytes(segment[4:8], "big")
    if connection.helper == "ftp" and data and established:
        behind = number + len(data) if data.endswith(b"\n") else None
        try:
            made = ftp(data, connection, way, taken) if sequence.lines.begins(way, number) else None
        except (NoPortError, ClashError):
            sequence.lines.ended(way, behind)
            raise
        sequence.lines.ended(way, behind)
        if made is not None:
            longer = len(made[0]) - len(data)
            data, expects = made
            if longer:
                sequence.changed(way, number, longer)
    sequence.adjust(segment, way)
    head = bytearray(frame[: found.at])
    _set_length(head, at, found.at - at + header + len(data), family)
    _set_tcp_checksum(segment, data, head[at + 12 : at + 20] if family == 4 else head[at + 8 : at + 40])
    return Helped(bytes(head) + bytes(segment) + data, expects, lengthened=longer)


def _set_length(head: bytearray, at: int, length: int, family: int) -> None:
    if family == 6:
        struct.pack_into("!H", head, at + 4, length - 40)
        return
    struct.pack_into("!H", head, at + 2, length)
    struct.pack_into("!H", head, at + 10, 0)
    struct.pack_into("!H", head, at + 10, checksum(head[at : at + (head[at] & 15) * 4]))


def _set_tcp_checksum(segment: bytearray, data: bytes, addresses: bytearray) -> None:
    struct.pack_into("!H", segment, 16, 0)
    pseudo = bytes(addresses) + struct.pack("!II", len(segment) + len(data), socket.IPPROTO_TCP)
    struct.pack_into("!H", segment, 16, checksum(pseudo + bytes(segment) + data))
