# SPDX-License-Identifier: Apache-2.0
"""SCTP associations: states and verification tags (nf_conntrack_proto_sctp.c)."""

from __future__ import annotations

from typing import Final, NamedTuple

from asap2.nic.conntrack.connection import ORIGINAL, REPLY, Connection, SctpTrack
from asap2.nic.conntrack.states import SCTP_TRANSITIONS, Chunk, SctpState, Status
from asap2.nic.conntrack.tuples import word
from asap2.nic.conntrack.verdict import Verdict

_HEADER, _CHUNK_HEADER, _INIT = 12, 4, 16
_T_BIT = 1
"""SCTP_CHUNK_FLAG_T: the tag is the other direction's."""
_ALONE: Final = (Chunk.INIT, Chunk.INIT_ACK, Chunk.SHUTDOWN_COMPLETE)
"""Chunks that must be alone in a packet."""
_FIRST: Final = (Chunk.COOKIE_ACK, Chunk.COOKIE_ECHO)
_NEVER_NEW: Final = (Chunk.ABORT, Chunk.SHUTDOWN_COMPLETE, Chunk.COOKIE_ACK)
_OWN_TAG_CHECK: Final = (
    *(Chunk.INIT, Chunk.SHUTDOWN_COMPLETE, Chunk.COOKIE_ECHO, Chunk.ABORT, Chunk.SHUTDOWN_ACK),
    *(Chunk.HEARTBEAT, Chunk.HEARTBEAT_ACK),
)
MAX_CHUNKS: Final = 16
"""The most chunks that a packet may have; one with more is invalid."""


class _Chunk(NamedTuple):
    kind: int
    flags: int
    init_tag: int | None
    """The first octets of the body, if it is long enough to be that of INIT."""


def _chunks(data: bytes, at: int) -> list[_Chunk] | None:
    """The chunks after the header *at* this octet; ``None`` for an invalid packet (do_basic_checks())."""
    found: list[_Chunk] = []
    place, alone = at + _HEADER, False
    while place < len(data) and len(data) >= place + _CHUNK_HEADER:
        kind, flags, length = data[place], data[place + 1], word(data, place + 2)
        alone |= kind in _ALONE
        if ((alone or kind in _FIRST) and found) or not length or len(found) == MAX_CHUNKS:
            return None
        body = data[place + _CHUNK_HEADER : place + _CHUNK_HEADER + _INIT]
        found.append(_Chunk(kind, flags, int.from_bytes(body[:4], "big") if len(body) == _INIT else None))
        place += length + 3 & ~3
    return found or None


def _next(direction: int, state: SctpState, kind: int) -> SctpState:
    """The next state (sctp_new_state())."""
    return next((states[state] for chunk, states in SCTP_TRANSITIONS[direction].items() if chunk == kind), state)


def _begin(connection: Connection, chunks: list[_Chunk], tag: int) -> bool:
    """Begin an association with this packet; return whether it may (sctp_new())."""
    connection.sctp = sctp = SctpTrack()
    for chunk in chunks:
        if _next(ORIGINAL, SctpState.NONE, chunk.kind) in (SctpState.NONE, SctpState.INVALID):
            return False
        if chunk.kind == Chunk.INIT:
            if tag or chunk.init_tag is None:
                return False
            sctp.tags[REPLY] = chunk.init_tag
        elif chunk.kind == Chunk.HEARTBEAT:
            sctp.tags[ORIGINAL] = tag
        elif chunk.kind == Chunk.SHUTDOWN_ACK:
            sctp.tags[REPLY] = tag
    return True


def packet(connection: Connection, data: bytes, at: int, direction: int, now: int) -> Verdict:
    """Handle a packet of *connection* (nf_conntrack_sctp_packet())."""
    chunks = _chunks(data, at) if len(data) >= at + _HEADER else None
    if chunks is None:
        return Verdict.INVALID
    tag, kinds = int.from_bytes(data[at + 4 : at + 8], "big"), {chunk.kind for chunk in chunks}
    if not connection.confirmed and (not kinds.isdisjoint(_NEVER_NEW) or not _begin(connection, chunks, tag)):
        return Verdict.INVALID
    sctp = connection.sctp
    if kinds.isdisjoint(_OWN_TAG_CHECK) and tag != sctp.tags[direction]:
        return Verdict.INVALID

    silent, new = False, SctpState.NONE
    for chunk in chunks:
        counts, silent = _check_tag(sctp, chunk, tag, direction, has_data=Chunk.DATA in kinds, silent=silent)
        if counts is None:
            return Verdict.INVALID
        if not counts:
            continue
        old = sctp.state
        new = _next(direction, old, chunk.kind)
        if new is SctpState.INVALID or not _note_tag(sctp, chunk, direction):
            return Verdict.INVALID
        if chunk.kind == Chunk.INIT and old is new is SctpState.CLOSED and connection.confirmed:
            silent = True  # a retransmission does not keep it alive
        sctp.state = new
        if old is not new and new is SctpState.ESTABLISHED:
            connection.status |= Status.ASSURED
    if not silent:
        connection.refresh(direction, len(data), connection.timeouts.sctp[new], now)
    return Verdict.ACCEPT


def _check_tag(
    sctp: SctpTrack, chunk: _Chunk, tag: int, direction: int, *, has_data: bool, silent: bool
) -> tuple[bool | None, bool]:
    """Whether the tag is right for a chunk (RFC 9260, 8.5): ``None``: it is not, False: the chunk does not count; and
    whether the packet does not keep the connection alive."""
    own, other = sctp.tags[direction], sctp.tags[1 - direction]
    match chunk.kind:
        case Chunk.INIT:
            return (True if tag == 0 else None), silent
        case Chunk.ABORT | Chunk.SHUTDOWN_COMPLETE:
            return (True if tag == (other if chunk.flags & _T_BIT else own) else None), silent
        case Chunk.COOKIE_ECHO:
            return (True if tag == own else None), silent
        case Chunk.COOKIE_ACK:
            sctp.init[:] = [False, False]
        case Chunk.HEARTBEAT | Chunk.HEARTBEAT_ACK:
            if own == 0:
                sctp.tags[direction] = tag
            elif tag == own:
                sctp.heartbeat_failed = False
            elif has_data or silent:
                return None, silent
            elif chunk.kind == Chunk.HEARTBEAT:
                sctp.heartbeat_failed, sctp.last_dir = True, direction
                return False, True
            elif not sctp.heartbeat_failed or sctp.last_dir == direction:
                return None, silent
            else:
                sctp.heartbeat_failed = False
                sctp.tags[direction], sctp.tags[1 - direction] = tag, 0
    return True, silent


def _note_tag(sctp: SctpTrack, chunk: _Chunk, direction: int) -> bool:
    """Note the tag that INIT or INIT ACK demands of the other direction; return whether it is valid."""
    other = 1 - direction
    if chunk.kind == Chunk.INIT:
        if chunk.init_tag is None:
            return False
        if sctp.init[direction] and sctp.init[other]:
            sctp.init[other] = False
        sctp.init[direction] = True
        sctp.tags[other] = chunk.init_tag
    elif chunk.kind == Chunk.INIT_ACK:
        if chunk.init_tag is None:
            return False
        tag = sctp.tags[other]
        if (not sctp.init[other] and tag and tag != chunk.init_tag) or (
            sctp.init[direction] and sctp.init[other] and tag != chunk.init_tag
        ):
            return False
        sctp.tags[other] = chunk.init_tag
    return True
