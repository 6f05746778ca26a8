# SPDX-License-Identifier: Apache-2.0
"""The classifiers basic and u32, but only with filters that match every packet; policing uses them if hardware offload
is off (net/sched/cls_basic.c, cls_u32.c)."""

from __future__ import annotations

import errno
import struct
from typing import Final

from asap2.netlink.codec import Attrs
from asap2.netlink.wire import NetlinkError

KINDS: Final = ("basic", "u32")
FIRST_U32: Final = 0x8000_0800
U32_TABLE: Final = 0x8000_0000
"""The handle of the first u32 filter of a device, and that of the table that it is in."""
_SEL = struct.Struct("=BBBxHHhhI")
"""struct tc_u32_sel, whose keys follow."""
_KEY = struct.Struct("=IIii")


def check(kind: str, options: Attrs) -> None:
    """Check a filter's options.

    Raises:
        NetlinkError: EOPNOTSUPP if it does not match every packet; EINVAL if a u32 filter is malformed.
    """
    if options.get("ematches"):
        raise NetlinkError(errno.EOPNOTSUPP, "Extended matches are not supported")
    if kind != "u32":
        return
    selector = options.get("sel")
    if selector is None or len(selector) < _SEL.size:
        raise NetlinkError(errno.EINVAL, "Selector not specified")
    count = selector[2]
    if len(selector) < _SEL.size + count * _KEY.size:
        raise NetlinkError(errno.EINVAL)
    keys = (_KEY.unpack_from(selector, _SEL.size + at * _KEY.size) for at in range(count))
    if any(mask for mask, *_ in keys) or not options.keys().isdisjoint(("link", "divisor", "indev", "mark")):
        raise NetlinkError(errno.EOPNOTSUPP, "Matching by u32 is not supported")


def keys_of(kind: str, options: Attrs) -> Attrs:
    """The options that describe a filter's match: these kinds have none."""
    return Attrs() if kind in KINDS else options


def actions_of(options: Attrs) -> Attrs | None:
    """The actions of a filter, including a policer in the old form (tcf_exts_validate())."""
    police = options.get("police")
    if isinstance(police, Attrs):
        return Attrs({1: Attrs({"kind": "police", "options": police})})
    found = options.get("act")
    return found if isinstance(found, Attrs) else None
