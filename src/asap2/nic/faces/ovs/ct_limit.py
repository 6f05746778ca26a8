# SPDX-License-Identifier: Apache-2.0
"""The generic netlink family ovs_ct_limit: limits on the connections that the datapath commits in each zone.

The limits belong to the network namespace, not to a datapath: there are some while there is no datapath. Formats and
errors: net/openvswitch/conntrack.c.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from asap2.netlink.request import Answer, GenlFamily, GenlHeader, Message, Request
from asap2.netlink.server import Server
from asap2.netlink.wire import NetlinkError, attribute
from asap2.nic.faces.ovs.attributes import named, too_short
from asap2.nic.faces.ovs.numbers import ASK, CHANGE
from asap2.nic.faces.refusal import as_netlink
from asap2.nic.journal import Journal

CT_LIMIT_ID: Final = 0x7015
LIMITS_GROUP: Final = 0x7015
SET, DEL, GET = 1, 2, 3
ATTR_ZONE_LIMIT: Final = 1
_OPS: Final = ((SET, CHANGE), (DEL, CHANGE), (GET, ASK))
DEFAULT_ZONE: Final = -1
"""OVS_ZONE_LIMIT_DEFAULT_ZONE: the limit of zones without their own."""
UNLIMITED: Final = 0
"""OVS_CT_LIMIT_UNLIMITED."""
_BUCKETS: Final = 512
"""CT_LIMIT_HASH_BUCKETS."""
_LAST_ZONE: Final = 0xFFFF
_HEADER: Final = 4
_RECORD = struct.Struct("=iII")
"""struct ovs_zone_limit: zone, limit, count."""


class Zones(Protocol):
    """The zones of a node's connections."""

    def limit_zones(self, default: int, limits: dict[int, int]) -> None:
        """Limit the number of connections that Open vSwitch may commit in each zone; 0 means no limit."""

    def connections_in(self, zone: int) -> int:
        """The number of connections in *zone*."""


class CtLimitFace:
    """The family, served by *server*; limits are kept in *journal*, and hold for *zones*."""

    def __init__(self, server: Server, journal: Journal, zones: Zones) -> None:
        self._journal = journal
        self._zones = zones
        self._limits: dict[int, int] = {}
        for key, value in journal.items():
            self._limits[_number(key)] = _number(value)
        self._default = self._limits.pop(DEFAULT_ZONE, UNLIMITED)
        self.family = GenlFamily(
            "ovs_ct_limit",
            CT_LIMIT_ID,
            1,
            _HEADER,
            1,
            _OPS,
            [("ovs_ct_limit", LIMITS_GROUP)],
            {SET: self._set, DEL: self._del, GET: self._get},
            netns=server.netns.cookie,
        )
        server.family(self.family)
        self._apply()

    def _apply(self) -> None:
        self._zones.limit_zones(self._default, dict(self._limits))

    def reset(self) -> None:
        """Forget all limits, as the kernel does when the module openvswitch is unloaded (ovs_ct_limit_exit)."""
        self._limits.clear()
        self._default = UNLIMITED
        self._journal.clear()
        self._apply()

    def _answer(self, genl: GenlHeader, body: bytes = b"") -> Answer:
        return [Message(CT_LIMIT_ID, self.family.payload(genl.cmd, genl.header + body))]

    def _set(self, _request: Request, genl: GenlHeader) -> Answer:
        given = list(_records(_required(genl)))
        with as_netlink():
            self._journal.reserve()
        for zone, limit in given:
            if zone == DEFAULT_ZONE:
                self._default = limit
            else:
                self._limits[zone] = limit
            self._journal.put(_kept(zone), _kept(limit))
        self._apply()
        return self._answer(genl)

    def _del(self, _request: Request, genl: GenlHeader) -> Answer:
        for zone, _limit in _records(_required(genl)):
            if zone == DEFAULT_ZONE:
                self._default = UNLIMITED
            else:
                self._limits.pop(zone, None)
            self._journal.delete(_kept(zone))
        self._apply()
        return self._answer(genl)

    def _get(self, _request: Request, genl: GenlHeader) -> Answer:
        asked = _zone_limits(genl)
        zones = self._all() if asked is None else (zone for zone, _limit in _records(asked))
        return self._answer(genl, attribute(ATTR_ZONE_LIMIT, b"".join(map(self._record, zones))))

    def _all(self) -> Iterable[int]:
        """The default, then each zone that has a limit, in the order of the kernel's hash table: the zones of a bucket
        that were added last come first."""
        last_first = list(reversed(self._limits))
        return (DEFAULT_ZONE, *sorted(last_first, key=lambda zone: zone % _BUCKETS))

    def _record(self, zone: int) -> bytes:
        """A zone's limit and number of connections. The kernel counts only in zones with a limit."""
        if zone == DEFAULT_ZONE:
            return _RECORD.pack(zone, self._default, 0)
        limit = self._limits.get(zone, self._default)
        return _RECORD.pack(zone, limit, 0 if limit == UNLIMITED else self._zones.connections_in(zone))


def _kept(number: int) -> bytes:
    return number.to_bytes(8, "little", signed=True)


def _number(kept: bytes) -> int:
    return int.from_bytes(kept, "little", signed=True)


def _zone_limits(genl: GenlHeader) -> bytes | None:
    found = named(genl.attrs).get(ATTR_ZONE_LIMIT)
    if found is not None and 0 < len(found) < 4:
        raise too_short()
    return found


def _required(genl: GenlHeader) -> bytes:
    found = _zone_limits(genl)
    if found is None:
        raise NetlinkError(errno.EINVAL)
    return found


def _records(payload: bytes) -> Iterator[tuple[int, int]]:
    """The zones and limits in an attribute; impossible zones and remaining octets are skipped."""
    payload += bytes(-len(payload) % 4)
    for at in range(0, len(payload) - _RECORD.size + 1, _RECORD.size):
        zone, limit, _count = _RECORD.unpack_from(payload, at)
        if DEFAULT_ZONE <= zone <= _LAST_ZONE:
            yield zone, limit
