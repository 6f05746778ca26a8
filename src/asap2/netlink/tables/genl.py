# SPDX-License-Identifier: Apache-2.0
"""The generic netlink controller, nlctrl: CTRL_ATTR_* (include/uapi/linux/genetlink.h)."""

from __future__ import annotations

from typing import NamedTuple

from asap2.netlink.body import Body
from asap2.netlink.codec import Table, array_of, binary, string, u16, u32

GENL_ID_CTRL = 0x10
CTRL_CMD_NEWFAMILY = 1
CTRL_CMD_DELFAMILY = 2
CTRL_CMD_GETFAMILY = 3
CTRL_CMD_GETPOLICY = 10
CTRL_VERSION = 2


class GenlHdr(NamedTuple):
    """struct genlmsghdr."""

    cmd: int
    version: int = 1
    reserved: int = 0


OP = Table("ctrl_op", {1: ("id", u32), 2: ("flags", u32)})
GROUP = Table("ctrl_mcast_group", {1: ("name", string), 2: ("id", u32)})
CTRL_ATTRS = Table(
    "ctrl",
    {
        1: ("family_id", u16),
        2: ("family_name", string),
        3: ("version", u32),
        4: ("hdrsize", u32),
        5: ("maxattr", u32),
        6: ("ops", array_of(OP)),
        7: ("mcast_groups", array_of(GROUP)),
        8: ("policy", binary),
        9: ("op_policy", binary),
        10: ("op", u32),
    },
)
CTRL: Body[GenlHdr] = Body(GenlHdr, "=BBH", CTRL_ATTRS)
"""The payload of a message to or from nlctrl."""
