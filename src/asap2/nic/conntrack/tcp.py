# SPDX-License-Identifier: Apache-2.0
"""TCP connections: states and windows (nf_conntrack_proto_tcp.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asap2.nic.conntrack.connection import ORIGINAL, REPLY, Connection, Side, TcpTrack
from asap2.nic.conntrack.states import (
    MAX_RETRANS,
    SECOND,
    TCP,
    TCP_TRANSITIONS,
    Segment,
    Status,
    TcpFlag,
    TcpState,
)
from asap2.nic.conntrack.tuples import word
from asap2.nic.conntrack.verdict import Verdict

_HEADER = 20
_FIN, _SYN, _RST, _ACK, _URG = 0x01, 0x02, 0x04, 0x10, 0x20
_VALID_FLAGS: Final = {
    *(_SYN, _SYN | _URG, _SYN | _ACK, _RST, _RST | _ACK, _FIN | _ACK, _FIN | _ACK | _URG, _ACK, _ACK | _URG),
}
"""tcp_valid_flags: PSH, ECE and CWR do not count."""
_EOL, _NOP, _WINDOW, _SACK_PERM, _SACK = 0, 1, 3, 4, 5
_MAX_SCALE = 14
_MAX_ACK_WINDOW = 66000
"""MAXACKWINCONST."""
_TIMESTAMP_ALONE = bytes((1, 1, 8, 10))
_32_BITS = 0xFFFF_FFFF
_MANY_SECONDS = 120
_CLOSING = (*(TcpState.FIN_WAIT, TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.TIME_WAIT, TcpState.CLOSE),)
"""tcp_can_early_drop()."""


def before(one: int, other: int) -> bool:
    """Whether a sequence number precedes another, modulo 2^32."""
    return (one - other & _32_BITS) >> 31 == 1


def after(one: int, other: int) -> bool:
    """Whether a sequence number follows another."""
    return before(other, one)


@dataclass(frozen=True, slots=True)
class Header:
    """A TCP header: *end* is the sequence number after the segment, *options* the octets of its options."""

    seq: int
    ack: int
    window: int
    flags: int
    end: int
    options: bytes

    @property
    def index(self) -> Segment:
        """The kind of the segment (get_conntrack_index())."""
        if self.flags & _RST:
            return Segment.RST
        if self.flags & _SYN:
            return Segment.SYNACK if self.flags & _ACK else Segment.SYN
        if self.flags & _FIN:
            return Segment.FIN
        return Segment.ACK if self.flags & _ACK else Segment.NONE


def header(data: bytes, at: int) -> Header | None:
    """The header *at* this octet of a datagram; ``None`` for an invalid one (tcp_error())."""
    if len(data) < at + _HEADER:
        return None
    length, flags = (data[at + 12] >> 4) * 4, data[at + 13]
    if length < _HEADER or len(data) < at + length or flags & 0x37 not in _VALID_FLAGS:
        return None
    seq = int.from_bytes(data[at + 4 : at + 8], "big")
    ends = len(data) - at - length + bool(flags & _SYN) + bool(flags & _FIN)
    return Header(
        seq,
        int.from_bytes(data[at + 8 : at + 12], "big"),
        word(data, at + 14),
        flags,
        seq + ends & _32_BITS,
        data[at + _HEADER : at + length],
    )


def _options(options: bytes) -> list[tuple[int, bytes]]:
    """Kinds and values of the options, up to the end or a truncated one."""
    found, at = [], 0
    while at < len(options) and options[at] != _EOL:
        if options[at] == _NOP:
            at += 1
            continue
        if len(options) < at + 2 or options[at + 1] < 2 or len(options) < at + options[at + 1]:
            break
        found.append((options[at], options[at + 2 : at + options[at + 1]]))
        at += options[at + 1]
    return found


def _take_options(side: Side, options: bytes) -> None:
    """Note the options that a SYN offers; without options, nothing changes (tcp_options())."""
    if not options:
        return
    side.scale = 0
    side.flags &= TcpFlag.BE_LIBERAL
    for kind, value in _options(options):
        if kind == _SACK_PERM and not value:
            side.flags |= TcpFlag.SACK_PERM
        elif kind == _WINDOW and len(value) == 1:
            side.scale = min(value[0], _MAX_SCALE)
            side.flags |= TcpFlag.WINDOW_SCALE


def _highest_sack(ack: int, options: bytes) -> int:
    """The right edge of the highest selectively acknowledged block (tcp_sack())."""
    if len(options) == 12 and options[:4] == _TIMESTAMP_ALONE:
        return ack
    for kind, value in _options(options):
        if kind == _SACK and value and len(value) % 8 == 0:
            for at in range(4, len(value), 8):
                edge = int.from_bytes(value[at : at + 4], "big")
                if after(edge, ack):
                    ack = edge
            break
    return ack


def _begin(connection: Connection, segment: Header) -> bool:
    """Begin a connection with this segment; return whether it may (tcp_new())."""
    connection.tcp = tcp = TcpTrack()
    first, second = tcp.seen
    state = TCP_TRANSITIONS[ORIGINAL][segment.index][TcpState.NONE]
    if state >= TcpState.INVALID:
        return False
    first.end, first.maxwin = segment.end, segment.window or 1
    first.maxend = first.end
    if state is TcpState.SYN_SENT:
        _take_options(first, segment.options)
    else:  # in the middle: window scaling is not known
        first.maxend = first.end + first.maxwin & _32_BITS
        first.flags = second.flags = TcpFlag.SACK_PERM | TcpFlag.BE_LIBERAL
    tcp.last_index = Segment.NONE
    return True


def _begin_side(sender: Side, receiver: Side, segment: Header, direction: int) -> None:
    """Note a SYN in the reply direction, or one that differs from the one before (tcp_init_sender())."""
    sender.end = sender.maxend = segment.end
    sender.maxwin = segment.window or 1
    _take_options(sender, segment.options)
    if direction == REPLY and not sender.flags & receiver.flags & TcpFlag.WINDOW_SCALE:
        sender.scale = receiver.scale = 0


def _in_window(tcp: TcpTrack, direction: int, segment: Header) -> Verdict:
    """Check whether a segment is within the windows, and update them (tcp_in_window())."""
    sender, receiver = tcp.seen[direction], tcp.seen[1 - direction]
    seq, ack, end, window = segment.seq, segment.ack, segment.end, segment.window
    has_syn, has_ack, has_rst = (bool(segment.flags & bit) for bit in (_SYN, _ACK, _RST))
    sack = _highest_sack(ack, segment.options) if receiver.flags & TcpFlag.SACK_PERM else ack

    if not sender.maxwin:
        if has_syn:
            _begin_side(sender, receiver, segment, direction)
            if not has_ack:
                return Verdict.ACCEPT  # simultaneous open
        else:
            sender.end = end
            sender.maxwin = window << sender.scale or 1
            sender.maxend = end + sender.maxwin & _32_BITS
            if not receiver.maxwin:
                receiver.end = receiver.maxend = sack
            elif sack == receiver.end + 1 & _32_BITS:  # likely the answer to a keepalive
                receiver.end = sack
    elif has_syn and after(end, sender.end) and tcp.state in (TcpState.SYN_SENT, TcpState.SYN_RECV):
        _begin_side(sender, receiver, segment, direction)
        if direction == REPLY and not has_ack:
            return Verdict.ACCEPT

    if not has_ack or (has_rst and ack == 0):
        ack = sack = receiver.end
    if has_rst and seq == 0 and tcp.state is TcpState.SYN_SENT:
        seq = end = sender.end

    liberal = bool(sender.flags & TcpFlag.BE_LIBERAL)
    lowest_end = sender.end - receiver.maxwin - 1
    lowest_ack = receiver.end - max(sender.maxwin, _MAX_ACK_WINDOW) - 1
    if not before(seq, sender.maxend + 1):
        overshot = end - sender.maxend + 1 & _32_BITS
        if (
            receiver.maxwin
            and after(end, lowest_end)
            and after(sack, lowest_ack)
            and overshot <= receiver.maxwin
            and before(sack, receiver.end + 1)
        ):
            sender.end = end
            sender.flags |= TcpFlag.DATA_UNACKNOWLEDGED
            return Verdict.ACCEPT if liberal else Verdict.IGNORE
        return Verdict.ACCEPT if liberal else Verdict.INVALID
    if not before(sack, receiver.end + 1):
        return Verdict.ACCEPT if liberal else Verdict.INVALID
    if (receiver.maxwin and not after(end, lowest_end)) or not after(sack, lowest_ack):
        return Verdict.ACCEPT if liberal else Verdict.IGNORE

    scaled = window if has_syn else window << sender.scale
    sender.maxwin = max(sender.maxwin, scaled + sack - ack & _32_BITS)
    if after(end, sender.end):
        sender.end = end
        sender.flags |= TcpFlag.DATA_UNACKNOWLEDGED
    if has_ack and (not sender.flags & TcpFlag.MAXACK_SET or after(ack, sender.maxack)):
        sender.maxack = ack
        sender.flags |= TcpFlag.MAXACK_SET

    if receiver.maxwin and after(end, sender.maxend):
        receiver.maxwin = receiver.maxwin + end - sender.maxend & _32_BITS
    if after(sack + scaled, receiver.maxend - 1):
        receiver.maxend = sack + (scaled or 1) & _32_BITS
    if ack == receiver.end:
        receiver.flags &= ~TcpFlag.DATA_UNACKNOWLEDGED

    if segment.index is Segment.ACK:
        last = tcp.last_dir, tcp.last_seq, tcp.last_ack, tcp.last_end, tcp.last_win
        if last == (direction, seq, ack, end, window):
            tcp.retrans = tcp.retrans + 1 & 0xFF
        else:
            tcp.last_dir, tcp.last_seq, tcp.last_ack, tcp.last_end, tcp.last_win = direction, seq, ack, end, window
            tcp.retrans = 0
    return Verdict.ACCEPT


def _hasten(connection: Connection, direction: int, segment: Segment, now: int) -> None:
    """Note a FIN or RST outside the windows; after one in each direction, shorten the timeout
    (nf_tcp_handle_invalid())."""
    tcp = connection.tcp
    if (
        not connection.status & Status.ASSURED
        or connection.status & Status.FIXED_TIMEOUT
        or segment not in (Segment.FIN, Segment.RST)
    ):
        return
    if tcp.last_dir != direction and tcp.last_index in (Segment.FIN, Segment.RST):
        left, most = connection.expires - now, connection.timeouts.tcp_unacknowledged * SECOND
        if left >= _MANY_SECONDS * SECOND and left > most:
            connection.expires = now + most
    else:
        tcp.last_index, tcp.last_dir = segment, direction


def _ignore(tcp: TcpTrack, direction: int, segment: Header, state: TcpState) -> None:
    """Note an ignored segment: the tracker may be out of sync, and the reply to the segment will tell."""
    tcp.last_index, tcp.last_dir = segment.index, direction
    tcp.last_seq, tcp.last_end, tcp.last_win = segment.seq, segment.end, segment.window
    if segment.index is Segment.SYN and direction == ORIGINAL:
        offered = Side()
        _take_options(offered, segment.options)
        tcp.last_flags = offered.flags
        tcp.last_scale = offered.scale
        if state is TcpState.LAST_ACK:
            tcp.last_flags |= TcpFlag.CHALLENGE_ACK
    if state is TcpState.SYN_SENT and segment.index is Segment.ACK and direction == REPLY:
        tcp.last_ack = segment.ack


def _resynchronize(tcp: TcpTrack, direction: int) -> None:
    """Handle the reply to an ignored SYN: both sides agree, and the tracker follows them."""
    sender = tcp.seen[tcp.last_dir]
    sender.end = sender.maxend = tcp.last_end
    sender.maxwin = tcp.last_win or 1
    sender.scale = tcp.last_scale
    tcp.last_flags &= ~TcpFlag.CHALLENGE_ACK
    sender.flags = tcp.last_flags
    tcp.seen[direction].reset()


@dataclass(slots=True)
class _Reset:
    """The effect of a RST on its connection."""

    valid: bool = True
    state: TcpState = TcpState.CLOSE
    checked: bool = False
    """Whether the windows need no check."""


def _reset(connection: Connection, direction: int, segment: Header, old: TcpState) -> _Reset:
    tcp, other = connection.tcp, connection.tcp.seen[1 - direction]
    if old in _CLOSING:
        return _Reset(checked=True)
    state = TcpState.CLOSE
    if other.flags & TcpFlag.MAXACK_SET and tcp.last_index is not Segment.SYN:
        established = connection.established
        if segment.seq == 0 and not established:
            return _Reset()
        if before(segment.seq, other.maxack):
            return _Reset(valid=False)
        in_train = tcp.last_index is Segment.ACK and tcp.last_dir == direction and segment.seq == tcp.last_end
        if not established or segment.seq == other.maxack or in_train:
            return _Reset()
        state = old  # its sequence number is not exact: a challenge ACK may follow
    answers_ignored = (
        connection.status & Status.SEEN_REPLY and tcp.last_index is Segment.SYN and tcp.last_dir != direction
    ) or (not connection.status & Status.ASSURED and tcp.last_index is Segment.ACK)
    if answers_ignored and segment.ack == tcp.last_end:
        return _Reset(state=state, checked=True)
    answers_challenge = (
        old is TcpState.SYN_SENT
        and tcp.last_index is Segment.ACK
        and tcp.last_dir == REPLY
        and segment.seq == tcp.last_ack
    )
    return _Reset(state=state, checked=answers_challenge)


def packet(connection: Connection, data: bytes, at: int, direction: int, now: int) -> Verdict:
    """A segment of *connection* (nf_conntrack_tcp_packet()). REPEAT: the connection is to go, and a new one begins.

    A connection that is DYING afterwards is to be removed.
    """
    segment = header(data, at)
    if segment is None or (not connection.confirmed and not _begin(connection, segment)):
        return Verdict.INVALID
    tcp = connection.tcp
    index, old = segment.index, tcp.state
    new = TCP_TRANSITIONS[direction][index][old]
    checked = False

    reopens = new is TcpState.SYN_SENT and old >= TcpState.TIME_WAIT
    if reopens and (
        (tcp.seen[0].flags | tcp.seen[1].flags) & TcpFlag.CLOSE_INIT
        or (tcp.last_dir == direction and tcp.last_index is Segment.RST)
    ):
        return Verdict.REPEAT
    if reopens or new is TcpState.IGNORE:
        answers = index is Segment.SYNACK and tcp.last_index is Segment.SYN and tcp.last_dir != direction
        if not (answers and segment.ack == tcp.last_end):
            _ignore(tcp, direction, segment, old)
            return Verdict.ACCEPT
        old, new = TcpState.SYN_SENT, TcpState.SYN_RECV
        _resynchronize(tcp, direction)
    elif new is TcpState.INVALID:
        return Verdict.INVALID
    elif new is TcpState.TIME_WAIT:
        if (
            old is TcpState.LAST_ACK
            and index is Segment.ACK
            and tcp.last_dir != direction
            and tcp.last_index is Segment.SYN
            and tcp.last_flags & TcpFlag.CHALLENGE_ACK
        ):
            tcp.last_flags &= ~TcpFlag.CHALLENGE_ACK
            return Verdict.ACCEPT
    elif new is TcpState.SYN_SENT2:
        tcp.last_flags |= TcpFlag.SIMULTANEOUS_OPEN
    elif new is TcpState.SYN_RECV:
        if direction == REPLY and index is Segment.ACK and tcp.last_flags & TcpFlag.SIMULTANEOUS_OPEN:
            new = TcpState.ESTABLISHED
    elif new is TcpState.CLOSE and index is Segment.RST:
        reset = _reset(connection, direction, segment, old)
        if not reset.valid:
            return Verdict.INVALID
        new, checked = reset.state, reset.checked

    if not checked:
        verdict = _in_window(tcp, direction, segment)
        if verdict is Verdict.INVALID:
            _hasten(connection, direction, index, now)
        if verdict is not Verdict.ACCEPT:
            return Verdict.ACCEPT if verdict is Verdict.IGNORE else verdict
    tcp.last_index, tcp.last_dir, tcp.state = index, direction, new
    if old is not new and new is TcpState.FIN_WAIT:
        tcp.seen[direction].flags |= TcpFlag.CLOSE_INIT
    _live_on(connection, direction, segment, old, len(data), now)
    return Verdict.ACCEPT


def _live_on(connection: Connection, direction: int, segment: Header, old: TcpState, octets: int, now: int) -> None:
    """Count a valid segment, and set how long the connection lives from *now* on."""
    tcp, timeouts = connection.tcp, connection.timeouts
    new, seconds = tcp.state, connection.timeouts.tcp[tcp.state]
    if tcp.retrans >= MAX_RETRANS and seconds > timeouts.tcp_retrans:
        seconds = timeouts.tcp_retrans
    elif segment.index is Segment.RST:
        seconds = timeouts.tcp[TcpState.CLOSE]
    elif (
        tcp.seen[0].flags | tcp.seen[1].flags
    ) & TcpFlag.DATA_UNACKNOWLEDGED and seconds > timeouts.tcp_unacknowledged:
        seconds = timeouts.tcp_unacknowledged
    elif tcp.last_win == 0 and seconds > timeouts.tcp_retrans:
        seconds = timeouts.tcp_retrans
    if not connection.status & Status.SEEN_REPLY:
        if segment.flags & _RST:
            connection.account(direction, octets)
            connection.status |= Status.DYING
            return
        if segment.index is Segment.SYN and old is TcpState.SYN_SENT:
            return  # a retransmission does not keep it alive
        if new is TcpState.ESTABLISHED:
            seconds = min(seconds, timeouts.tcp_unacknowledged)
    elif (
        not connection.status & Status.ASSURED
        and old in (TcpState.SYN_RECV, TcpState.ESTABLISHED)
        and new is TcpState.ESTABLISHED
    ):
        connection.status |= Status.ASSURED
    connection.refresh(direction, octets, seconds, now)


def is_closed(connection: Connection) -> bool:
    """Whether it is a connection of TCP that is over and only waits to expire."""
    return connection.proto == TCP and connection.tcp.state in (TcpState.TIME_WAIT, TcpState.CLOSE)


def may_replace(old: Connection, new: Connection) -> bool:
    """Whether NAT may give the port of *old*, which only waits to expire, to *new*: segments that go on where *new*
    begins are none of *old* (nf_nat_may_kill(), nf_seq_has_advanced()).

    Linux also ends an *old* one that hardware has, and then does not use its port: hardware has none that waits.
    """
    return (
        new.proto == old.proto == TCP
        and new.tcp.state is TcpState.SYN_SENT
        and old.tcp.state >= TcpState.TIME_WAIT
        and bool(old.status & Status.SRC_NAT)
        and not old.status & (Status.FIXED_TIMEOUT | Status.DYING | Status.OFFLOAD)
        and after(new.tcp.seen[ORIGINAL].end, old.tcp.seen[ORIGINAL].end)
    )


def be_liberal(connection: Connection) -> None:
    """Stop checking the windows of a connection (nf_ct_set_tcp_be_liberal())."""
    for side in connection.tcp.seen:
        side.flags |= TcpFlag.BE_LIBERAL
