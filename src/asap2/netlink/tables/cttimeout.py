# SPDX-License-Identifier: Apache-2.0
"""Timeout policies of connections: CTA_TIMEOUT_* (include/uapi/linux/netfilter/nfnetlink_cttimeout.h)."""

from __future__ import annotations

from asap2.netlink.body import Body
from asap2.netlink.codec import Kind, Table, be16, be32, binary, string, u8
from asap2.netlink.tables.nfnetlink import NFGENMSG, NFNL_SUBSYS_CTNETLINK_TIMEOUT, Nfgenmsg
from asap2.netlink.wire import NLA_F_NESTED

_TIMEOUT = NFNL_SUBSYS_CTNETLINK_TIMEOUT << 8
TIMEOUT_NEW = _TIMEOUT
TIMEOUT_GET = _TIMEOUT | 1
TIMEOUT_DELETE = _TIMEOUT | 2
TIMEOUT_DEFAULT_SET = _TIMEOUT | 3
TIMEOUT_DEFAULT_GET = _TIMEOUT | 4

NAME_MAX = 32
"""CTNL_TIMEOUT_NAME_MAX, the NUL included."""

TIMEOUT: Body[Nfgenmsg] = Body(
    Nfgenmsg,
    NFGENMSG,
    Table(
        "cta_timeout",
        {
            1: ("name", string),
            2: ("l3proto", be16),
            3: ("l4proto", u8),
            4: ("data", Kind(binary.decode, bytes, bits=NLA_F_NESTED)),
            5: ("use", be32),
        },
    ),
)
"""*data* is a nest of the protocol's timeouts, numbered from 1, in seconds."""


def timeouts(count: int) -> Table:
    """The nest of a protocol that has so many timeouts; they are named by their numbers."""
    return Table("cta_timeout_data", {number: (str(number), be32) for number in range(1, count + 1)})
