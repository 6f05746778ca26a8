# SPDX-License-Identifier: Apache-2.0
"""The generic netlink family psample: PSAMPLE_ATTR_* (include/uapi/linux/psample.h of Linux 6.12)."""

from __future__ import annotations

from asap2.netlink.body import Body
from asap2.netlink.codec import Table, binary, flag, nested, u16, u32, u64
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.tables.ovs import TUNNEL_KEY

PSAMPLE_CMD_SAMPLE = 0
PSAMPLE_CMD_GET_GROUP = 1
PSAMPLE_CMD_NEW_GROUP = 2
PSAMPLE_CMD_DEL_GROUP = 3

TUNNEL = Table("psample_tunnel", TUNNEL_KEY.fields | {0: ("id", binary), 11: ("vxlan_opts", binary)})
"""As Open vSwitch's, but for an *id* of eight octets, in network order, and opaque options of VXLAN."""
PSAMPLE_ATTRS = Table(
    "psample",
    {
        0: ("iifindex", u16),
        1: ("oifindex", u16),
        2: ("origsize", u32),
        3: ("sample_group", u32),
        4: ("group_seq", u32),
        5: ("sample_rate", u32),
        6: ("data", binary),
        7: ("group_refcount", u32),
        8: ("tunnel", nested(TUNNEL)),
        9: ("pad", binary),
        10: ("out_tc", u16),
        11: ("out_tc_occ", u64),
        12: ("latency", u64),
        13: ("timestamp", u64),
        14: ("proto", u16),
        15: ("user_cookie", binary),
        16: ("sample_probability", flag),
    },
)
PSAMPLE: Body[GenlHdr] = Body(GenlHdr, "=BBH", PSAMPLE_ATTRS)
"""The payload of a message of the family."""
