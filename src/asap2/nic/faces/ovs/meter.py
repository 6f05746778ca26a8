# SPDX-License-Identifier: Apache-2.0
"""The generic netlink family ovs_meter of a datapath that has room for no meter.

Every openvswitch module since Linux 4.15 has the family, and Open vSwitch takes one without it for older than that. So
it is served, and says that there can be 0 meters; adding one is EFBIG, as in a kernel whose meters are used up.
Formats and errors: net/openvswitch/meter.c.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable
from typing import Final

from asap2.netlink.request import Answer, GenlFamily, GenlHeader, Message, Request
from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attribute, attributes

METER_ID: Final = 0x7014
METERS_GROUP: Final = 0x7014
FEATURES, SET, DEL, GET = 1, 2, 3, 4
ATTR_ID, ATTR_BANDS, ATTR_MAX_METERS, ATTR_MAX_BANDS = 1, 4, 7, 8
BAND_TYPE, BAND_RATE, BAND_BURST = 1, 2, 3
_OPS: Final = ((FEATURES, 0x0A), (SET, 0x0B), (DEL, 0x0B), (GET, 0x0A))
_MOST_BANDS: Final = 1  # DP_MAX_BANDS

_U32 = struct.Struct("=I")


class MeterFace:
    """The family; *datapath* gives the ifindex of the datapath, ``None`` when there is none."""

    def __init__(self, datapath: Callable[[], int | None]) -> None:
        self._datapath = datapath
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

    def _check_datapath(self, genl: GenlHeader) -> None:
        if int.from_bytes(genl.header, sys.byteorder) != self._datapath():
            raise NetlinkError(errno.ENODEV)

    def _features(self, _request: Request, genl: GenlHeader) -> Answer:
        none = _U32.pack(0)
        return self._message(genl, attribute(ATTR_MAX_METERS, none) + attribute(ATTR_MAX_BANDS, none))

    def _set(self, _request: Request, genl: GenlHeader) -> Answer:
        attrs = _named(genl.attrs)
        if ATTR_ID not in attrs:
            raise NetlinkError(errno.ENODEV)
        _check_bands(attrs.get(ATTR_BANDS))
        self._check_datapath(genl)
        raise NetlinkError(errno.EFBIG)

    def _get(self, _request: Request, genl: GenlHeader) -> Answer:
        _meter_id(genl)
        self._check_datapath(genl)
        raise NetlinkError(errno.ENOENT)

    def _del(self, _request: Request, genl: GenlHeader) -> Answer:
        number = _meter_id(genl)
        self._check_datapath(genl)
        return self._message(genl, attribute(ATTR_ID, number))  # deleting none is no error


def _named(payload: bytes) -> dict[int, bytes]:
    return {kind & NLA_TYPE_MASK: bytes(value) for kind, value in attributes(payload)}


def _meter_id(genl: GenlHeader) -> bytes:
    number = _named(genl.attrs).get(ATTR_ID)
    if number is None:
        raise NetlinkError(errno.EINVAL)
    if len(number) < _U32.size:
        raise NetlinkError(errno.ERANGE, "Attribute failed policy validation")
    return number[: _U32.size]


def _check_bands(bands: bytes | None) -> None:
    """EINVAL for bands that no meter can have."""
    if bands is None:
        raise NetlinkError(errno.EINVAL)
    found = [_named(bytes(band)) for _, band in attributes(bands)]
    if len(found) > _MOST_BANDS:
        raise NetlinkError(errno.EINVAL)
    for band in found:
        if not {BAND_TYPE, BAND_RATE, BAND_BURST} <= band.keys() or not any(band[BAND_RATE]):
            raise NetlinkError(errno.EINVAL)
