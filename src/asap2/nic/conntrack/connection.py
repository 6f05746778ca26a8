# SPDX-License-Identifier: Apache-2.0
"""A tracked connection and its state."""

from __future__ import annotations

from dataclasses import dataclass, field

from asap2.nic.conntrack.states import SECOND, SctpState, Segment, Status, TcpFlag, TcpState, Timeouts
from asap2.nic.conntrack.tuples import Tuple

ORIGINAL, REPLY = 0, 1
"""Directions (IP_CT_DIR_*)."""


@dataclass(slots=True)
class Side:
    """What one side of a TCP connection has sent (struct ip_ct_tcp_state). Sequence numbers are modulo 2^32."""

    end: int = 0
    """The sequence number after the last octet sent."""
    maxend: int = 0
    """The highest sequence number that the other side's acknowledgements and windows allow."""
    maxwin: int = 0
    """The largest window that it has offered, in octets; 0 if none of its packets has been seen."""
    maxack: int = 0
    scale: int = 0
    flags: TcpFlag = TcpFlag.NONE

    def reset(self) -> None:
        """Reset everything except BE_LIBERAL (nf_ct_tcp_state_reset())."""
        self.end = self.maxend = self.maxwin = self.maxack = self.scale = 0
        self.flags &= TcpFlag.BE_LIBERAL


@dataclass(slots=True)
class TcpTrack:
    """struct ip_ct_tcp: the state, both sides, and the last segment."""

    state: TcpState = TcpState.NONE
    seen: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    retrans: int = 0
    last_dir: int = ORIGINAL
    last_index: Segment = Segment.SYN
    last_seq: int = 0
    last_ack: int = 0
    last_end: int = 0
    last_win: int = 0
    last_scale: int = 0
    last_flags: TcpFlag = TcpFlag.NONE


@dataclass(slots=True)
class SctpTrack:
    """struct ip_ct_sctp: the state, and the verification tag that each direction must carry."""

    state: SctpState = SctpState.NONE
    tags: list[int] = field(default_factory=lambda: [0, 0])
    init: list[bool] = field(default_factory=lambda: [False, False])
    last_dir: int = ORIGINAL
    heartbeat_failed: bool = False


@dataclass(slots=True, eq=False)
class Connection:
    """struct nf_conn. *tuples* are those of the original and the reply direction; *mark* and *labels* are numbers."""

    zone: int
    tuples: list[Tuple]
    timeouts: Timeouts
    status: Status = Status.NONE
    expires: int = 0
    """When it expires, in nanoseconds; until it is CONFIRMED, its remaining lifetime instead."""
    mark: int = 0
    labels: int = 0
    packets: list[int] = field(default_factory=lambda: [0, 0])
    bytes: list[int] = field(default_factory=lambda: [0, 0])
    tcp: TcpTrack = field(default_factory=TcpTrack)
    sctp: SctpTrack = field(default_factory=SctpTrack)
    stream_from: int = 0
    """From when on traffic in both directions makes UDP a stream, in nanoseconds."""
    master: Connection | None = None
    helper: str = ""
    """Name of the helper that reads its data; empty if it has none."""
    eventmask: int | None = None
    mapped: bool = False
    """Whether it counts among those that have its source's mapping (:class:`asap2.nic.conntrack.sources.Sources`)."""
    carried: int = 0
    """When hardware received the connection or last carried one of its packets, in nanoseconds."""

    @property
    def proto(self) -> int:
        """The IP protocol."""
        return self.tuples[ORIGINAL].proto

    @property
    def confirmed(self) -> bool:
        """Whether it has been committed."""
        return bool(self.status & Status.CONFIRMED)

    @property
    def established(self) -> bool:
        """nf_conntrack_tcp_established()."""
        return self.tcp.state is TcpState.ESTABLISHED and bool(self.status & Status.ASSURED)

    def refresh(self, direction: int, octets: int, seconds: int, now: int) -> None:
        """Count a packet of *octets*, and let the connection expire *seconds* after *now* (__nf_ct_refresh_acct())."""
        if not self.status & Status.FIXED_TIMEOUT:
            self.expires = seconds * SECOND + (now if self.confirmed else 0)
        self.account(direction, octets)

    def account(self, direction: int, octets: int) -> None:
        """Count a packet; *octets* is the length of its datagram."""
        self.packets[direction] += 1
        self.bytes[direction] += octets
