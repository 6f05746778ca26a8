# SPDX-License-Identifier: Apache-2.0
"""The generic netlink family ovs_meter: a datapath's meters.

They are the pipeline's (:class:`asap2.nic.silicon.meters.Meters`), which keeps them when no daemon runs. Formats,
checks and errors: net/openvswitch/meter.c, Linux 6.12.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable
from typing import Final

from asap2.netlink.request import Answer, GenlFamily, GenlHeader, Message, Request
from asap2.netlink.wire import NetlinkError, attribute, attributes
from asap2.nic.faces.ovs.attributes import named, too_short
from asap2.nic.faces.ovs.datapath import Datapath
from asap2.nic.faces.ovs.numbers import ASK, CHANGE
from asap2.nic.silicon.abi import METERS
from asap2.nic.silicon.metering import NSEC_PER_SEC, Counting, Limit, Metered
from asap2.nic.silicon.meters import Meters, MeterUse

METER_ID: Final = 0x7014
METERS_GROUP: Final = 0x7014
FEATURES, SET, DEL, GET = 1, 2, 3, 4
ATTR_ID, ATTR_KBPS, ATTR_STATS, ATTR_BANDS, ATTR_USED, ATTR_CLEAR, ATTR_MAX_METERS, ATTR_MAX_BANDS = range(1, 9)
BAND_TYPE, BAND_RATE, BAND_BURST, BAND_STATS = 1, 2, 3, 4
TYPE_DROP: Final = 1
_OPS: Final = ((FEATURES, ASK), (SET, CHANGE), (DEL, CHANGE), (GET, ASK))
_MOST_BANDS: Final = 1  # DP_MAX_BANDS
_MOST: Final = METERS // 2
"""As many as there can be, the last of which the kernel never gives out; the others are for policing."""
_LEAST_SLOTS: Final = 1024  # DP_METER_ARRAY_SIZE_MIN
_FORGET, _BAND = 1, 2
"""Marks of a meter: what it has counted is told nobody when another takes its place; it has a band."""
_OCTETS_OF_KBPS: Final = 125
_NS_OF_MS: Final = 1_000_000

_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
_STATS = struct.Struct("=QQ")
"""struct ovs_flow_stats."""
_LENGTHS: Final = {ATTR_ID: 4, ATTR_STATS: _STATS.size, ATTR_USED: 8, ATTR_MAX_METERS: 4, ATTR_MAX_BANDS: 4}
_BAND_LENGTHS: Final = {BAND_TYPE: 4, BAND_RATE: 4, BAND_BURST: 4, BAND_STATS: _STATS.size}


class MeterFace:
    """The family; *of* gives the datapath that a request's header names."""

    def __init__(self, of: Callable[[bytes], Datapath]) -> None:
        self._of = of
        self.family = GenlFamily(
            "ovs_meter",
            METER_ID,
            1,
            4,
            8,
            _OPS,
            [("ovs_meter", METERS_GROUP)],
            {FEATURES: self._features, SET: self._set, DEL: self._del, GET: self._get},
        )

    def _message(self, genl: GenlHeader, body: bytes) -> Answer:
        return [Message(METER_ID, self.family.payload(genl.cmd, genl.header + body))]

    def _meters(self, genl: GenlHeader) -> Meters:
        """Those of the datapath that is named; ENODEV."""
        return self._of(genl.header).pipeline.meters

    def _features(self, _request: Request, genl: GenlHeader) -> Answer:
        _checked(genl.attrs, _LENGTHS)
        self._meters(genl)
        bands = attribute(ATTR_BANDS, attribute(0, attribute(BAND_TYPE, _U32.pack(TYPE_DROP))))
        most = attribute(ATTR_MAX_METERS, _U32.pack(_MOST)) + attribute(ATTR_MAX_BANDS, _U32.pack(_MOST_BANDS))
        return self._message(genl, most + bands)

    def _set(self, _request: Request, genl: GenlHeader) -> Answer:
        attrs = _checked(genl.attrs, _LENGTHS)
        number = _meter_id(attrs)
        limit = _limit(attrs)
        meters = self._meters(genl)
        told = attribute(ATTR_ID, attrs[ATTR_ID][:4])
        old = meters.find(MeterUse.OVS, number)
        if old is not None and not meters.mark(old) & _FORGET:
            told += _stats(number, meters.counted(old), bands=bool(meters.mark(old) & _BAND))
        if old is None:
            _check_room(meters, number)
        packets = octets = 0
        if ATTR_CLEAR not in attrs and ATTR_STATS in attrs:
            packets, octets = _STATS.unpack_from(attrs[ATTR_STATS])
        mark = (_FORGET if ATTR_CLEAR in attrs else 0) | (_BAND if any(attributes(attrs[ATTR_BANDS])) else 0)
        fresh = Metered(packets, octets, used_ns=time.monotonic_ns())
        try:
            meters.set(MeterUse.OVS, number, limit, fresh=fresh, mark=mark)
        except OSError:
            raise NetlinkError(errno.ENOMEM) from None
        return self._message(genl, told)

    def _get(self, _request: Request, genl: GenlHeader) -> Answer:
        number = _meter_id(_checked(genl.attrs, _LENGTHS))
        meters = self._meters(genl)
        at = meters.find(MeterUse.OVS, number)
        if at is None:
            raise NetlinkError(errno.ENOENT)
        return self._message(genl, _stats(number, meters.counted(at), bands=bool(meters.mark(at) & _BAND)))

    def _del(self, _request: Request, genl: GenlHeader) -> Answer:
        number = _meter_id(_checked(genl.attrs, _LENGTHS))
        meters = self._meters(genl)
        at = meters.find(MeterUse.OVS, number)
        if at is None:  # deleting none is no error
            return self._message(genl, b"")
        told = _stats(number, meters.counted(at), bands=bool(meters.mark(at) & _BAND))
        meters.clear(MeterUse.OVS, number)
        return self._message(genl, told)


def _stats(number: int, counted: Metered, *, bands: bool) -> bytes:
    """What tells of a meter; one without *bands* only counts."""
    over = attribute(0, attribute(BAND_STATS, _STATS.pack(counted.over_packets, counted.over_bytes)))
    return (
        attribute(ATTR_ID, _U32.pack(number))
        + attribute(ATTR_STATS, _STATS.pack(counted.packets, counted.bytes))
        + attribute(ATTR_USED, _U64.pack(counted.used_ns // _NS_OF_MS))
        + attribute(ATTR_BANDS, over if bands else b"")
    )


def _checked(payload: bytes, lengths: dict[int, int]) -> dict[int, bytes]:
    """Attributes by number; ERANGE for one that is too short (the kernel's policies)."""
    found = named(payload)
    if any(len(value) < lengths.get(kind, 0) for kind, value in found.items()):
        raise too_short()
    return found


def _meter_id(attrs: dict[int, bytes]) -> int:
    if ATTR_ID not in attrs:
        raise NetlinkError(errno.EINVAL)
    number: int = _U32.unpack_from(attrs[ATTR_ID])[0]
    return number


def _limit(attrs: dict[int, bytes]) -> Limit:
    """The limit that is asked for (dp_meter_create); EINVAL."""
    if ATTR_BANDS not in attrs:
        raise NetlinkError(errno.EINVAL)
    found = [bytes(band) for _, band in attributes(attrs[ATTR_BANDS])]
    if len(found) > _MOST_BANDS:
        raise NetlinkError(errno.EINVAL)
    if not found:
        return Limit(counting=Counting.OVS)
    try:
        band = _checked(found[0], _BAND_LENGTHS)
    except NetlinkError:
        raise NetlinkError(errno.ERANGE) from None
    if not {BAND_TYPE, BAND_RATE, BAND_BURST} <= band.keys():
        raise NetlinkError(errno.EINVAL)
    kind, rate, burst = (_U32.unpack_from(band[which])[0] for which in (BAND_TYPE, BAND_RATE, BAND_BURST))
    if not rate:
        raise NetlinkError(errno.EINVAL)
    if kind != TYPE_DROP:  # it would drop nothing
        return Limit(counting=Counting.OVS)
    octets = ATTR_KBPS in attrs
    holds = burst * NSEC_PER_SEC // rate
    return Limit(rate * _OCTETS_OF_KBPS if octets else rate, holds, not octets, counting=Counting.OVS)


def _check_room(meters: Meters, number: int) -> None:
    """The kernel has an array of meters, whose size is a power of two and grows with their count: EBUSY where another
    has the place, EFBIG where there are too many (attach_meter)."""
    there = meters.every(MeterUse.OVS)
    slots = _LEAST_SLOTS
    while len(there) >= slots or len({one % slots for one in there}) < len(there):
        slots *= 2
    if any(one % slots == number % slots for one in there):
        raise NetlinkError(errno.EBUSY)
    if len(there) + 1 >= _MOST:
        raise NetlinkError(errno.EFBIG)
