# SPDX-License-Identifier: Apache-2.0
"""Numbers and names of connection tracking: status bits, states of TCP and SCTP, timeouts."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

SECOND: Final = 1_000_000_000
"""Nanoseconds: the unit of all times here."""

ICMP, TCP, UDP, GRE, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 47, 58, 132, 136


class Status(enum.IntFlag):
    """IPS_* (include/uapi/linux/netfilter/nf_conntrack_common.h)."""

    NONE = 0
    EXPECTED = 1 << 0
    SEEN_REPLY = 1 << 1
    ASSURED = 1 << 2
    CONFIRMED = 1 << 3
    SRC_NAT = 1 << 4
    DST_NAT = 1 << 5
    SEQ_ADJUST = 1 << 6
    SRC_NAT_DONE = 1 << 7
    DST_NAT_DONE = 1 << 8
    DYING = 1 << 9
    FIXED_TIMEOUT = 1 << 10
    TEMPLATE = 1 << 11
    NAT_CLASH = 1 << 12
    HELPER = 1 << 13
    OFFLOAD = 1 << 14
    HW_OFFLOAD = 1 << 15


NAT_MASK: Final = Status.SRC_NAT | Status.DST_NAT
NAT_DONE_MASK: Final = Status.SRC_NAT_DONE | Status.DST_NAT_DONE


class Relation(enum.IntEnum):
    """A packet's relation to its connection (IP_CT_*), without its direction."""

    ESTABLISHED = 0
    RELATED = 1
    NEW = 2


class TcpState(enum.IntEnum):
    """TCP_CONNTRACK_* (include/uapi/linux/netfilter/nf_conntrack_tcp.h)."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9
    INVALID = 10
    """Not a state: the segment is invalid."""
    IGNORE = 11
    """Not a state: the segment is ignored."""


class TcpFlag(enum.IntFlag):
    """IP_CT_TCP_FLAG_* and IP_CT_EXP_*: facts about one side, or about the last ignored segment."""

    NONE = 0
    WINDOW_SCALE = 0x01
    SACK_PERM = 0x02
    CLOSE_INIT = 0x04
    BE_LIBERAL = 0x08
    DATA_UNACKNOWLEDGED = 0x10
    MAXACK_SET = 0x20
    CHALLENGE_ACK = 0x40
    SIMULTANEOUS_OPEN = 0x80


class Segment(enum.IntEnum):
    """The kind of a segment by its flags (enum tcp_bit_set, get_conntrack_index())."""

    SYN = 0
    SYNACK = 1
    FIN = 2
    ACK = 3
    RST = 4
    NONE = 5


_NO, _SS, _SR, _ES, _FW, _CW, _LA, _TW, _CL, _S2, _IV, _IG = TcpState
TCP_TRANSITIONS: Final = (
    # from:     NO,  SS,  SR,  ES,  FW,  CW,  LA,  TW,  CL,  S2
    {
        Segment.SYN: (_SS, _SS, _IG, _IG, _IG, _IG, _IG, _SS, _SS, _S2),
        Segment.SYNACK: (_IV, _IV, _SR, _IV, _IV, _IV, _IV, _IV, _IV, _SR),
        Segment.FIN: (_IV, _IV, _FW, _FW, _LA, _LA, _LA, _TW, _CL, _IV),
        Segment.ACK: (_ES, _IV, _ES, _ES, _CW, _CW, _TW, _TW, _CL, _IV),
        Segment.RST: (_IV, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL),
        Segment.NONE: (_IV,) * 10,
    },
    {
        Segment.SYN: (_IV, _S2, _IV, _IV, _IV, _IV, _IV, _SS, _IV, _S2),
        Segment.SYNACK: (_IV, _SR, _IG, _IG, _IG, _IG, _IG, _IG, _IG, _SR),
        Segment.FIN: (_IV, _IV, _FW, _FW, _LA, _LA, _LA, _TW, _CL, _IV),
        Segment.ACK: (_IV, _IG, _SR, _ES, _CW, _CW, _TW, _TW, _CL, _IG),
        Segment.RST: (_IV, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL),
        Segment.NONE: (_IV,) * 10,
    },
)
"""The next state, by direction (original, reply), segment and state (tcp_conntracks, nf_conntrack_proto_tcp.c)."""


class SctpState(enum.IntEnum):
    """SCTP_CONNTRACK_* (include/uapi/linux/netfilter/nf_conntrack_sctp.h)."""

    NONE = 0
    CLOSED = 1
    COOKIE_WAIT = 2
    COOKIE_ECHOED = 3
    ESTABLISHED = 4
    SHUTDOWN_SENT = 5
    SHUTDOWN_RECD = 6
    SHUTDOWN_ACK_SENT = 7
    HEARTBEAT_SENT = 8
    INVALID = 10
    """Not a state: the chunk is invalid."""


class Chunk(enum.IntEnum):
    """Chunk types that change an SCTP connection (RFC 9260, 3.2)."""

    DATA = 0
    INIT = 1
    INIT_ACK = 2
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    ABORT = 6
    SHUTDOWN = 7
    SHUTDOWN_ACK = 8
    ERROR = 9
    COOKIE_ECHO = 10
    COOKIE_ACK = 11
    SHUTDOWN_COMPLETE = 14


_N, _C, _W, _E, _U, _S, _R, _A, _H, _I = SctpState
SCTP_TRANSITIONS: Final = (
    # from:            NO, CL, CW, CE, ES, SS, SR, SA, HS
    {
        Chunk.INIT: (_C, _C, _W, _E, _U, _C, _C, _A, _W),
        Chunk.INIT_ACK: (_C, _C, _W, _E, _U, _S, _R, _A, _C),
        Chunk.ABORT: (_C, _C, _C, _C, _C, _C, _C, _C, _C),
        Chunk.SHUTDOWN: (_C, _C, _W, _E, _S, _S, _R, _A, _C),
        Chunk.SHUTDOWN_ACK: (_A, _C, _W, _E, _U, _A, _A, _A, _A),
        Chunk.ERROR: (_C, _C, _W, _E, _U, _S, _R, _A, _C),
        Chunk.COOKIE_ECHO: (_C, _C, _E, _E, _U, _S, _R, _A, _C),
        Chunk.COOKIE_ACK: (_C, _C, _W, _U, _U, _S, _R, _A, _C),
        Chunk.SHUTDOWN_COMPLETE: (_C, _C, _W, _E, _U, _S, _R, _C, _C),
        Chunk.HEARTBEAT: (_H, _C, _W, _E, _U, _S, _R, _A, _H),
        Chunk.HEARTBEAT_ACK: (_C, _C, _W, _E, _U, _S, _R, _A, _H),
    },
    {
        Chunk.INIT: (_I, _C, _W, _E, _U, _S, _R, _A, _I),
        Chunk.INIT_ACK: (_I, _W, _W, _E, _U, _S, _R, _A, _I),
        Chunk.ABORT: (_I, _C, _C, _C, _C, _C, _C, _C, _I),
        Chunk.SHUTDOWN: (_I, _C, _W, _E, _R, _S, _R, _A, _I),
        Chunk.SHUTDOWN_ACK: (_I, _C, _W, _E, _U, _A, _A, _A, _I),
        Chunk.ERROR: (_I, _C, _W, _C, _U, _S, _R, _A, _I),
        Chunk.COOKIE_ECHO: (_I, _C, _E, _E, _U, _S, _R, _A, _I),
        Chunk.COOKIE_ACK: (_I, _C, _W, _U, _U, _S, _R, _A, _I),
        Chunk.SHUTDOWN_COMPLETE: (_I, _C, _W, _E, _U, _S, _R, _C, _I),
        Chunk.HEARTBEAT: (_I, _C, _W, _E, _U, _S, _R, _A, _H),
        Chunk.HEARTBEAT_ACK: (_I, _C, _W, _E, _U, _S, _R, _A, _U),
    },
)
"""The next state, by direction, chunk and state (sctp_conntracks, nf_conntrack_proto_sctp.c)."""


def _tcp() -> dict[TcpState, int]:
    return {
        TcpState.SYN_SENT: 120,
        TcpState.SYN_RECV: 60,
        TcpState.ESTABLISHED: 432000,
        TcpState.FIN_WAIT: 120,
        TcpState.CLOSE_WAIT: 60,
        TcpState.LAST_ACK: 30,
        TcpState.TIME_WAIT: 120,
        TcpState.CLOSE: 10,
        TcpState.SYN_SENT2: 120,
    }


def _sctp() -> dict[SctpState, int]:
    return {
        SctpState.NONE: 10,
        SctpState.CLOSED: 10,
        SctpState.COOKIE_WAIT: 3,
        SctpState.COOKIE_ECHOED: 3,
        SctpState.ESTABLISHED: 210,
        SctpState.SHUTDOWN_SENT: 3,
        SctpState.SHUTDOWN_RECD: 3,
        SctpState.SHUTDOWN_ACK_SENT: 3,
        SctpState.HEARTBEAT_SENT: 30,
    }


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a connection lives after its last packet: the kernel's defaults, or a timeout policy's."""

    tcp: dict[TcpState, int] = field(default_factory=_tcp)
    tcp_retrans: int = 300
    """The maximum after :data:`MAX_RETRANS` retransmissions."""
    tcp_unacknowledged: int = 300
    """The maximum while data is unacknowledged."""
    udp: int = 30
    udp_stream: int = 120
    udplite: int = 30
    udplite_stream: int = 120
    icmp: int = 30
    icmpv6: int = 30
    gre: int = 30
    gre_stream: int = 180
    sctp: dict[SctpState, int] = field(default_factory=_sctp)
    generic: int = 600


MAX_RETRANS: Final = 3
"""nf_conntrack_tcp_max_retrans."""
