# SPDX-License-Identifier: Apache-2.0
"""Which connections a dump lists or a flush removes: ctnetlink_alloc_filter() and ctnetlink_filter_match()."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.ctnetlink import FILTER
from asap2.netlink.wire import NLA_F_NESTED, NetlinkError
from asap2.nic.conntrack.view import Connection, Tuple
from asap2.nic.faces.conntrack import nests, tuples

_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Filter:
    """A family (0: any), a zone (None: any), parts of tuples with their flags, and values under masks."""

    family: int
    zone: int | None = None
    original: tuple[Tuple, int] | None = None
    reply: tuple[Tuple, int] | None = None
    mark: tuple[int, int] = (0, 0)
    status: tuple[int, int] = (0, 0)

    def __call__(self, c: Connection) -> bool:
        """Whether the filter selects a connection."""
        if self.family and c.original.family != self.family:
            return False
        if self.zone is not None and c.zone != self.zone:
            return False
        for wanted, found in ((self.original, c.original), (self.reply, c.reply)):
            if wanted is not None and not tuples.matches(wanted[0], found, self.family, wanted[1]):
                return False
        return c.mark & self.mark[1] == self.mark[0] and c.status & self.status[1] == self.status[0]


def parsed(family: int, attrs: Attrs) -> Filter | None:
    """The filter in a request's attributes; None if it has none.

    Raises:
        NetlinkError: EINVAL if it contradicts itself; EOPNOTSUPP if it asks for something unsupported.
    """
    if not family and not any(name in attrs for name in ("mark", "filter", "status", "zone")):
        return None
    mark = _masked(attrs, "mark", _U32)
    status = _masked(attrs, "status", attrs.get("status", 0))
    if "status" in attrs and not status[1]:
        raise NetlinkError(errno.EINVAL)
    zone = attrs.get("zone")
    if "filter" not in attrs:
        return Filter(family, zone, mark=mark, status=status)
    if not (attrs.bits or {}).get("filter", 0) & NLA_F_NESTED:
        raise NetlinkError(errno.EINVAL)
    flags = nests.decoded(FILTER, attrs["filter"])
    given = [flags.get("orig_flags", 0), flags.get("reply_flags", 0)]
    if any(one & ~tuples.ALL for one in given):
        raise NetlinkError(errno.EOPNOTSUPP)
    parts: list[tuple[Tuple, int] | None] = [None, None]
    for way, name in enumerate(("tuple_orig", "tuple_reply")):
        if not given[way]:
            continue
        if name not in attrs:
            raise NetlinkError(errno.EINVAL)
        tuple_, in_zone = tuples.parsed(attrs[name], family, given[way])
        if in_zone is not None:
            if zone:
                raise NetlinkError(errno.EINVAL)
            zone = in_zone
        parts[way] = tuple_, given[way]
    return Filter(family, zone, parts[0], parts[1], mark, status)


def _masked(attrs: Attrs, name: str, usual: int) -> tuple[int, int]:
    if name in attrs:
        return attrs[name], attrs.get(f"{name}_mask", usual)
    if f"{name}_mask" in attrs:
        raise NetlinkError(errno.EINVAL)
    return 0, 0
