# SPDX-License-Identifier: Apache-2.0
"""The specification of meters in plain Python: limits, and the effect of a meter on a packet.

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
    """Like a NIC: as the packets that it becomes on the wire, each with its headers. The first of them decides."""
    TC = 1
    """Like TC: as one packet of its length on arrival, without the Ethernet header and the outer tag."""
    OVS = 2
    """Like Open vSwitch's datapath: as one packet of its current length, without the outer tag."""


class Price(NamedTuple):
    """The cost of one octet or packet: ``mult >> shift`` nanoseconds; a *mult* of 0 means no limit."""

    mult: int
    shift: int

    @classmethod
    def at(cls, rate: int) -> Price:
        """The price at *rate* per second, with 32 significant bits, as psched_ratecfg_precompute() calculates it."""
        if not rate:
            return cls(*_UNLIMITED)
        factor, shift = NSEC_PER_SEC, 0
        while True:
            mult = factor // rate
            if mult >> 31 or factor >> 63:
                return cls(mult & 0xFFFF_FFFF, shift)
            factor, shift = factor << 1, shift + 1

    def of(self, units: int) -> int:
        """The cost of that many, in nanoseconds."""
        return units * self.mult >> self.shift


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of a meter.

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
        """The cost of an octet, or a packet, in the first bucket."""
        return Price.at(self.rate)

    @property
    def peak_price(self) -> Price:
        """The cost of an octet in the second bucket."""
        return Price.at(self.peak)

    def charged(self, octets: int) -> int:
        """The octets charged for a packet of that many (psched_l2t_ns())."""
        octets = max(octets + self.overhead, self.least)
        return -(-octets // _ATM_PAYLOAD) * _ATM_CELL if self.cells else octets


class Metered(NamedTuple):
    """The counters of a meter: packets and octets, and those over the limit; how often it decided so; the time of last
    use in nanoseconds of CLOCK_MONOTONIC, 0 for never."""

    packets: int = 0
    bytes: int = 0
    over_packets: int = 0
    over_bytes: int = 0
    over: int = 0
    used_ns: int = 0

    def plus(self, other: Metered) -> Metered:
        """The sum of both."""
        packets, octets, over_packets, over_bytes, over, _ = (one + two for one, two in zip(self, other, strict=True))
        return Metered(packets, octets, over_packets, over_bytes, over, max(self.used_ns, other.used_ns))


class _Bucket:
    def __init__(self, holds: int, tokens: int, now: int) -> None:
        self.holds, self.tokens, self.since = holds, tokens, now

    def missing(self, cost: int, now: int) -> bool:
        """Whether there are fewer tokens than that *now*."""
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
        """Whether a packet is over the limit.

        It counts as *packets* packets of *octets* octets in all. *longest* is the length of the longest of them, with
        its Ethernet header and without a tag.
        """
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
