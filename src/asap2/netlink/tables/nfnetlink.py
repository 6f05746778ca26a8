# SPDX-License-Identifier: Apache-2.0
"""nfnetlink: subsystems, multicast groups and the header of every message (include/uapi/linux/netfilter/nfnetlink.h).

A message's type is ``subsystem << 8 | message``.
"""

from __future__ import annotations

from typing import NamedTuple

NFNL_SUBSYS_CTNETLINK = 1
NFNL_SUBSYS_CTNETLINK_EXP = 2
NFNL_SUBSYS_CTNETLINK_TIMEOUT = 8

NFNLGRP_CONNTRACK_NEW = 1
NFNLGRP_CONNTRACK_UPDATE = 2
NFNLGRP_CONNTRACK_DESTROY = 3
NFNLGRP_CONNTRACK_EXP_NEW = 4
NFNLGRP_CONNTRACK_EXP_DESTROY = 6


class Nfgenmsg(NamedTuple):
    """struct nfgenmsg; *res_id* in network order."""

    family: int = 0
    version: int = 0
    res_id: int = 0


NFGENMSG = ">BBH"
"""The header as :mod:`struct` has it."""
