# SPDX-License-Identifier: Apache-2.0
"""Meters: what a limit is, and what a meter does with a packet, in plain Python (the specification).

A meter has a bucket of tokens, which are nanoseconds: a packet costs the time that its octets take at the rate (or one
packet, at a rate of packets). A packet that finds enough tokens is within the rate; one that does not is over it and
takes none. So do act_police (net/sched/act_police.c), Open vSwitch's datapath (net/openvswitch/meter.c, which counts in
milliseconds), and a NIC's flow meters.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

NSEC_PER_SEC: Final = 1_000_000_000
_UNLIMITED: Final = (0, 0)
_ATM_CELL, _ATM_PAYLOAD = 53, 48


class Counting(enum.IntEnum):
    """How a meter counts a packet, which may be a super-packet."""

    WIRE = 0
    """As the packets on the wire that it becomes, each with its headers: as a NIC does. Their first one decides."""
    TC = 1
    """As TC does: its length as it came in, without the Ethernet header and the outer tag; its cost is one packet."""
    OVS = 2
    """As Open vSwitch's datapath does: one packet of its length now, without the outer tag."""


class Price(NamedTuple):
    """What one octet or packet costs: ``mult >> shift`` nanoseconds; a *mult* of 0: nothing is limited."""

    mult: int
    shift: int

    @classmethod
    def at(cls, rate: int) -> Price:
        """The price at *rate* a second, as psched_ratecfg_precompute() finds it: 32 significant bits."""
        if not rate:
            return cls(*_UNLIMITED)
        factor, shift = NSEC_PER_SEC, 0
        while True:
            mult = factor // rate
            if mult >> 31 or factor >> 63:
                return cls(mult & 0xFFFF_FFFF, shift)
            factor, shift = factor << 1, shift + 1

    def of(self, units: int) -> int:
        """What so many cost, in nanoseconds."""
        return units * self.mult >> self.shift


@dataclass(frozen=True, slots=True)
class Limit:
    """What a meter lets through.

    *rate*: octets a second, or packets where *packets* says so; 0: any. *burst*: what the bucket holds, in nanoseconds
    of the rate. *peak* and *peak_burst* are those of a second bucket, for octets. A packet (each segment of a
    super-packet) of more than *most* octets, with its Ethernet header, is over the limit; 0: none is. Each counts
    *overhead* octets more, *least* at the least, and in *cells* of ATM where that is said. The bucket is full at first,
    unless it starts *empty*.
    """

    rate: int = 0
    burst: int = 0
    packets: bool = False
    peak: int = 0
    peak_burst: int = 0
    most: int = 0
    overhead: int = 0
    least: int = 0
    cells: bool = False
    counting: Counting = Counting.WIRE
    empty: bool = False

    @property
    def price(self) -> Price:
        """What an octet, or a packet, costs of the bucket."""
        return Price.at(self.rate)

    @property
    def peak_price(self) -> Price:
        """What an octet costs of the second bucket."""
        return Price.at(self.peak)

    def charged(self, octets: int) -> int:
        """The octets that a packet of so many is charged for (psched_l2t_ns)."""
        octets = max(octets + self.overhead, self.least)
        return -(-octets // _ATM_PAYLOAD) * _ATM_CELL if self.cells else octets


class Metered(NamedTuple):
    """What a meter has counted: packets and octets, and of them those over the rate; how often it decided so; the time
    of last use in nanoseconds of CLOCK_MONOTONIC, 0 for never."""

    packets: int = 0
    bytes: int = 0
    over_packets: int = 0
    over_bytes: int = 0
    over: int = 0
    used_ns: int = 0

    def plus(self, other: Metered) -> Metered:
        """What both have counted."""
        packets, octets, over_packets, over_bytes, over, _ = (one + two for one, two in zip(self, other, strict=True))
        return Metered(packets, octets, over_packets, over_bytes, over, max(self.used_ns, other.used_ns))


class _Bucket:
    def __init__(self, holds: int, tokens: int, now: int) -> None:
        self.holds, self.tokens, self.since = holds, tokens, now

    def missing(self, cost: int, now: int) -> bool:
        """Whether it has not so many tokens *now*."""
        self.tokens = min(self.holds, self.tokens + now - self.since)
        self.since = now
        return self.tokens < cost


class ReferenceMeter:
    """A meter with a *limit*, from *now* on (nanoseconds of any clock)."""

    def __init__(self, limit: Limit, now: int) -> None:
        self.limit = limit
        self.counted = Metered()
        self._bucket = _Bucket(limit.burst, 0 if limit.empty else limit.burst, now)
        self._peak = _Bucket(limit.peak_burst, limit.peak_burst, now)

    def over(self, packets: int, octets: int, longest: int, now: int) -> bool:
        """Whether a packet is over the rate: it stands for so many *packets* of so many *octets* in all, as the limit
        counts; the *longest* has so many with its Ethernet header and without a tag."""
        limit, done = self.limit, self.counted
        over = (limit.most > 0 and longest > limit.most) or self._take(packets, octets, now)
        self.counted = Metered(
            done.packets + packets,
            done.bytes + octets,
            done.over_packets + packets * over,
            done.over_bytes + octets * over,
            done.over + over,
            now,
        )
        return over

    def _take(self, packets: int, octets: int, now: int) -> bool:
        limit, peak = self.limit, 0
        if limit.packets:
            units, first = (packets, 1) if limit.counting is Counting.WIRE else (1, 1)
        else:
            units = limit.charged(octets)
            first = limit.charged(octets // packets) if limit.counting is Counting.WIRE else units
            peak = limit.peak_price.of(units)
        if limit.rate and self._bucket.missing(limit.price.of(first), now):
            return True
        if limit.peak and self._peak.missing(peak, now):
            return True
        self._bucket.tokens -= limit.price.of(units)
        self._peak.tokens -= peak
        return False
