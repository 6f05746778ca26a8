# SPDX-License-Identifier: Apache-2.0
"""IP fragments: put together before a connection is looked for, and cut again where the packet leaves, as Linux does.

Which fragments are of one packet, what overlaps, and when a packet is given up: net/ipv4/ip_fragment.c,
net/ipv6/netfilter/nf_conntrack_reasm.c. How a packet is cut: ip_do_fragment, ip6_fragment.
"""

from __future__ import annotations

import enum
import struct
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from asap2.nic.checksums import checksum
from asap2.nic.ethertypes import ETH_P_IP, ETH_P_IPV6, VLAN_TYPES

_ETHERNET: Final = 14
_IPV6_HEADER: Final = 40
_FRAGMENT_HEADER: Final = 44
_SKIPPED: Final = (0, 43, 60)
"""IPv6 headers that may come before the fragment header: hop by hop, routing, destination options."""
_MORE, _DONT, _OFFSET = 0x2000, 0x4000, 0x1FFF
_LONGEST: Final = 65535
_LEAST_IPV6: Final = 1280
"""IPV6_MIN_MTU."""
_COPIED: Final = 0x80
_NOP: Final = 1
_CE: Final = 3
TIMEOUT_NS: Final = 30 * 10**9
"""IP_FRAG_TIME; IPV6_FRAG_TIMEOUT is twice that, and that of connection tracking (nf_conntrack_frag6_timeout) too."""
TIMEOUT_IPV6_NS: Final = 60 * 10**9
MOST_OCTETS: Final = 4 << 20
"""Octets of fragments that wait at most, of all packets (ipfrag_high_thresh)."""


class _Fragment(NamedTuple):
    """One fragment: which packet it is of, and its part of that; ``head`` is what comes before, link layer included."""

    packet: tuple[Hashable, ...]
    ipv6: bool
    start: int
    more: bool
    data: bytes
    head: bytes
    network: int
    size: int
    next_at: int
    """Of IPv6: where in the head the number of the header behind the fragment header belongs."""
    following: int
    ecn: int


class Whole(NamedTuple):
    """A *frame* that has been put together, and the size of the largest of its IP packets."""

    frame: bytes
    mru: int


class Place(enum.Enum):
    """What is where a fragment belongs."""

    FREE = enum.auto()
    TAKEN = enum.auto()
    """All of it is there already."""
    OVERLAPS = enum.auto()


@dataclass(slots=True)
class _Queue:
    until: int
    ipv6: bool
    parts: dict[int, _Fragment] = field(default_factory=dict)
    length: int | None = None
    """Octets of the whole packet's data, once the last fragment is there."""
    octets: int = 0
    end: int = 0
    """Behind the last octet that a fragment has told of."""
    runs: list[list[int]] = field(default_factory=list)
    """Begin and end of what is there without a gap, in order; fragments that have come in order are one run."""
    largest: int = 0
    largest_with_df: int = 0
    congested: bool = False

    def place_of(self, start: int, end: int) -> Place:
        """Whether octets *start* to *end* may be put in, and note them then (inet_frag_queue_insert())."""
        if self.runs and self.runs[-1][1] < end:
            if start < self.runs[-1][1]:
                return Place.OVERLAPS
            if start == self.runs[-1][1]:
                self.runs[-1][1] = end
                return Place.FREE
        for first, last in self.runs:
            if start < last and first < end:
                return Place.TAKEN if first <= start and end <= last else Place.OVERLAPS
        self.runs.append([start, end])
        self.runs.sort()
        return Place.FREE


class Fragments:
    """Fragments that wait for the rest of their packets."""

    def __init__(self) -> None:
        self._queues: OrderedDict[tuple[Hashable, ...], _Queue] = OrderedDict()
        self._octets = 0

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, frame: bytes, user: Hashable, now: int) -> Whole | None:
        """Take *frame*, which has a fragment; the whole packet, once all is there. *user* is who puts them together: a
        zone. *now* is in nanoseconds."""
        self.expire(now)
        found = _read(frame)
        if found is None:
            return None
        place = (user, *found.packet)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = _Queue(now + (TIMEOUT_IPV6_NS if found.ipv6 else TIMEOUT_NS), found.ipv6)
        if not self._insert(queue, found):
            self._drop(place)
            return None
        if queue.octets == queue.length:
            self._drop(place)
            return _joined(queue)
        while self._octets > MOST_OCTETS:
            self._drop(next(iter(self._queues)))
        return None

    def expire(self, now: int) -> None:
        """Give up the packets whose time is over."""
        for place in [place for place, queue in self._queues.items() if queue.until <= now]:
            self._drop(place)

    def forget_ipv6(self) -> None:
        """Give up all packets of IPv6."""
        for place in [place for place, queue in self._queues.items() if queue.ipv6]:
            self._drop(place)

    def _drop(self, place: tuple[Hashable, ...]) -> None:
        self._octets -= self._queues.pop(place).octets

    def _insert(self, queue: _Queue, found: _Fragment) -> bool:
        """Take a fragment; False: it is the end of the whole packet, because it overlaps others or says otherwise how
        long the packet is. One that adds nothing changes nothing (ip_frag_queue(), nf_ct_frag6_queue())."""
        end, known = found.start + len(found.data), queue.length is not None
        if not found.more:
            if end < queue.end or (known and end != queue.end):
                return queue.ipv6
        elif end % 8 and queue.ipv6:
            return False
        else:
            end &= ~7
            if end > queue.end and known:
                return queue.ipv6
        if not found.more:
            queue.length = end
        queue.end = max(queue.end, end)
        if end <= found.start:
            return queue.ipv6
        place = queue.place_of(found.start, end)
        if place is not Place.FREE:
            return place is Place.TAKEN
        queue.parts[found.start] = found._replace(data=found.data[: end - found.start])
        queue.octets += end - found.start
        self._octets += end - found.start
        queue.largest = max(queue.largest, found.size)
        queue.congested |= found.ecn == _CE
        if not found.ipv6 and _word(found.head, found.network + 6) & _DONT:
            queue.largest_with_df = max(queue.largest_with_df, found.size)
        return True


def _joined(queue: _Queue) -> Whole | None:
    parts = [queue.parts[start] for start in sorted(queue.parts)]
    first, at = parts[0], parts[0].network
    data = b"".join(part.data for part in parts)
    head = bytearray(first.head)
    if first.ipv6:
        if len(head) - at - _IPV6_HEADER + len(data) > _LONGEST:
            return None
        struct.pack_into("!H", head, at + 4, len(head) - at - _IPV6_HEADER + len(data))
        head[first.next_at] = first.following
        if queue.congested:
            head[at + 1] |= _CE << 4
        return Whole(bytes(head) + data, queue.largest)
    if len(head) - at + len(data) > _LONGEST:
        return None
    dont = _DONT if queue.largest_with_df == queue.largest else 0
    struct.pack_into("!H", head, at + 2, len(head) - at + len(data))
    struct.pack_into("!H", head, at + 6, dont)
    if queue.congested:
        head[at + 1] |= _CE
    _set_checksum(head, at)
    return Whole(bytes(head) + data, queue.largest)


def cut(frame: bytes, mru: int, ident: int) -> list[bytes]:
    """*frame* as fragments whose IP packets have at most *mru* octets; *ident*: the number that they have in IPv6.
    Nothing, where it cannot be cut."""
    at, ethertype = network_at(frame)
    if ethertype == ETH_P_IP and len(frame) >= at + 20:
        return _cut_ipv4(frame, at, mru)
    if ethertype == ETH_P_IPV6 and len(frame) >= at + _IPV6_HEADER:
        return _cut_ipv6(frame, at, max(mru, _LEAST_IPV6), ident)
    return []


def _cut_ipv4(frame: bytes, at: int, mru: int) -> list[bytes]:
    header, total = (frame[at] & 15) * 4, _word(frame, at + 2)
    room = mru - header & ~7
    if header < 20 or room <= 0 or not at + header < at + total <= len(frame):
        return []
    head, data = bytearray(frame[: at + header]), frame[at + header : at + total]
    dont = _word(frame, at + 6) & _DONT
    out = []
    for start in range(0, len(data), room):
        part = data[start : start + room]
        more = _MORE if start + len(part) < len(data) else 0
        struct.pack_into("!H", head, at + 2, header + len(part))
        struct.pack_into("!H", head, at + 6, dont | more | start >> 3)
        if start:
            _remove_options(head, at + 20)
        _set_checksum(head, at)
        out.append(bytes(head) + part)
    return out


def _cut_ipv6(frame: bytes, at: int, mru: int, ident: int) -> list[bytes]:
    end = at + _IPV6_HEADER + _word(frame, at + 4)
    next_at, behind = _unfragmentable(frame, at)
    room = mru - (behind - at) - 8 & ~7
    if room <= 0 or not behind < end <= len(frame):
        return []
    head, data, following = bytearray(frame[:behind]), frame[behind:end], frame[next_at]
    head[next_at] = _FRAGMENT_HEADER
    out = []
    for start in range(0, len(data), room):
        part = data[start : start + room]
        struct.pack_into("!H", head, at + 4, len(head) - at - _IPV6_HEADER + 8 + len(part))
        more = start + len(part) < len(data)
        out.append(bytes(head) + struct.pack("!BBHI", following, 0, start | more, ident) + part)
    return out


def _unfragmentable(frame: bytes, at: int) -> tuple[int, int]:
    """Where the number of the first header that is cut stands, and where that header begins (ip6_find_1stfragopt)."""
    next_at, here, routed = at + 6, at + _IPV6_HEADER, False
    while len(frame) >= here + 8:
        kind = frame[next_at]
        if kind == 43:
            routed = True
        elif (kind == 60 and routed) or kind not in _SKIPPED:
            break
        next_at, here = here, here + (frame[here + 1] + 1) * 8
    return next_at, here


def _read(frame: bytes) -> _Fragment | None:
    at, ethertype = network_at(frame)
    if ethertype == ETH_P_IP and len(frame) >= at + 20:
        return _read_ipv4(frame, at)
    if ethertype == ETH_P_IPV6 and len(frame) >= at + _IPV6_HEADER:
        return _read_ipv6(frame, at)
    return None


def _read_ipv4(frame: bytes, at: int) -> _Fragment | None:
    header, total, ident, place = (frame[at] & 15) * 4, *struct.unpack_from("!HHH", frame, at + 2)
    if header < 20 or not header <= total <= len(frame) - at:
        return None
    start = (place & _OFFSET) * 8
    if start + total - header > _LONGEST:
        return None
    packet = (ident, frame[at + 12 : at + 20], frame[at + 9])
    data, head = frame[at + header : at + total], frame[: at + header]
    more = bool(place & _MORE)
    return _Fragment(packet, False, start, more, data, head, at, total, 0, 0, frame[at + 1] & 3)


def _read_ipv6(frame: bytes, at: int) -> _Fragment | None:
    end = at + _IPV6_HEADER + _word(frame, at + 4)
    next_at, here = at + 6, at + _IPV6_HEADER
    while frame[next_at] in _SKIPPED and len(frame) >= here + 8:
        next_at, here = here, here + (frame[here + 1] + 1) * 8
    if frame[next_at] != _FRAGMENT_HEADER or not here + 8 <= end <= len(frame):
        return None
    following, place, ident = struct.unpack_from("!BxHI", frame, here)
    data, more = frame[here + 8 : end], bool(place & 1)
    if (place & ~7) + len(data) > _LONGEST or not data:
        return None
    packet = (ident, frame[at + 8 : at + _IPV6_HEADER])
    ecn = frame[at + 1] >> 4 & 3
    return _Fragment(packet, True, place & ~7, more, data, frame[:here], at, end - at, next_at, following, ecn)


def network_at(frame: bytes) -> tuple[int, int]:
    """Where the network header begins, and its ethertype; 0: there is none."""
    at = _ETHERNET
    for _ in range(2):
        if len(frame) >= at + 4 and _word(frame, at - 2) in VLAN_TYPES:
            at += 4
    return at, _word(frame, at - 2) if len(frame) >= at else 0


def _word(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _set_checksum(head: bytearray, at: int) -> None:
    struct.pack_into("!H", head, at + 10, 0)
    struct.pack_into("!H", head, at + 10, checksum(head[at:]))


def _remove_options(head: bytearray, at: int) -> None:
    """Put nothing in the place of options that are the first fragment's alone (ip_options_fragment)."""
    while at < len(head) and head[at]:
        if head[at] == _NOP:
            at += 1
            continue
        length = head[at + 1] if at + 1 < len(head) else 0
        if length < 2 or at + length > len(head):
            return
        if not head[at] & _COPIED:
            head[at : at + length] = bytes([_NOP]) * length
        at += length
