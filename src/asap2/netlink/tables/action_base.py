# SPDX-License-Identifier: Apache-2.0
"""What the options of every TC action begin with, and its times (include/uapi/linux/pkt_cls.h).

Times in :class:`Tcf` are in USER_HZ ticks (1/100 s) since the event, as the kernel dumps them.
"""

from __future__ import annotations

from typing import NamedTuple

from asap2.netlink.codec import struct


class Tcf(NamedTuple):
    """struct tcf_t: ticks since installation, since last use, until expiry, since first use."""

    install: int
    lastuse: int
    expires: int
    firstuse: int


tcf = struct(Tcf, "=QQQQ")


class Generic(NamedTuple):
    """tc_gen, which begins the parameters of every action: *action* is the verdict TC_ACT_*."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
