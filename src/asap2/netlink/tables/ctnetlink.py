# SPDX-License-Identifier: Apache-2.0
"""Connections: NFNL_SUBSYS_CTNETLINK, CTA_* (include/uapi/linux/netfilter/nfnetlink_conntrack.h).

All numbers are in network order.
"""

from __future__ import annotations

from typing import NamedTuple

from asap2.netlink.body import Body
from asap2.netlink.codec import Table, be16, be32, be64, binary, exactly, ipv4, ipv6, nested, string, struct, u8, u32
from asap2.netlink.tables.nfnetlink import NFGENMSG, NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_CTNETLINK_EXP, Nfgenmsg

_CT, _EXP = NFNL_SUBSYS_CTNETLINK << 8, NFNL_SUBSYS_CTNETLINK_EXP << 8
CT_NEW = _CT
CT_GET = _CT | 1
CT_DELETE = _CT | 2
CT_GET_CTRZERO = _CT | 3
CT_GET_STATS_CPU = _CT | 4
CT_GET_STATS = _CT | 5
CT_GET_DYING = _CT | 6
CT_GET_UNCONFIRMED = _CT | 7
EXP_NEW = _EXP
EXP_GET = _EXP | 1
EXP_DELETE = _EXP | 2
EXP_GET_STATS_CPU = _EXP | 3

LABELS_SIZE = 16
"""NF_CT_LABELS_MAX_SIZE."""


class TcpFlags(NamedTuple):
    """struct nf_ct_tcp_flags: IP_CT_TCP_FLAG_*."""

    flags: int
    mask: int = 0


IP = Table("cta_ip", {1: ("v4_src", ipv4), 2: ("v4_dst", ipv4), 3: ("v6_src", ipv6), 4: ("v6_dst", ipv6)})
PROTO = Table(
    "cta_proto",
    {
        1: ("num", u8),
        2: ("src_port", be16),
        3: ("dst_port", be16),
        4: ("icmp_id", be16),
        5: ("icmp_type", u8),
        6: ("icmp_code", u8),
        7: ("icmpv6_id", be16),
        8: ("icmpv6_type", u8),
        9: ("icmpv6_code", u8),
    },
)
TUPLE = Table(
    "cta_tuple", {1: ("ip", nested(IP, flagged=True)), 2: ("proto", nested(PROTO, flagged=True)), 3: ("zone", be16)}
)
TUPLE_PARTS = Table("cta_tuple", {1: ("ip", binary), 2: ("proto", binary), 3: ("zone", be16)})
"""A tuple whose parts are looked at one after the other, as the kernel does."""
PROTOINFO_TCP = Table(
    "cta_protoinfo_tcp",
    {
        1: ("state", u8),
        2: ("wscale_original", u8),
        3: ("wscale_reply", u8),
        4: ("flags_original", struct(TcpFlags, "=BB")),
        5: ("flags_reply", struct(TcpFlags, "=BB")),
    },
)
PROTOINFO_SCTP = Table("cta_protoinfo_sctp", {1: ("state", u8), 2: ("vtag_original", be32), 3: ("vtag_reply", be32)})
PROTOINFO = Table(
    "cta_protoinfo",
    {1: ("tcp", nested(PROTOINFO_TCP, flagged=True)), 3: ("sctp", nested(PROTOINFO_SCTP, flagged=True))},
)
COUNTERS = Table("cta_counters", {1: ("packets", be64), 2: ("bytes", be64)})
TIMESTAMP = Table("cta_timestamp", {1: ("start", be64), 2: ("stop", be64)})
HELP = Table("cta_help", {1: ("name", string), 2: ("info", binary)})
NAT = Table(
    "cta_nat",
    {1: ("v4_min", ipv4), 2: ("v4_max", ipv4), 3: ("proto", binary), 4: ("v6_min", ipv6), 5: ("v6_max", ipv6)},
)
NAT_PROTO = Table("cta_protonat", {1: ("port_min", be16), 2: ("port_max", be16)})
FILTER = Table("cta_filter", {1: ("orig_flags", u32), 2: ("reply_flags", u32)})

_NUMBERS = {
    3: ("status", be32),
    7: ("timeout", be32),
    8: ("mark", be32),
    11: ("use", be32),
    12: ("id", be32),
    18: ("zone", be16),
    21: ("mark_mask", be32),
    26: ("status_mask", be32),
}
CT: Body[Nfgenmsg] = Body(
    Nfgenmsg,
    NFGENMSG,
    Table(
        "cta",
        {
            1: ("tuple_orig", nested(TUPLE, flagged=True)),
            2: ("tuple_reply", nested(TUPLE, flagged=True)),
            4: ("protoinfo", nested(PROTOINFO, flagged=True)),
            5: ("help", nested(HELP, flagged=True)),
            9: ("counters_orig", nested(COUNTERS, flagged=True)),
            10: ("counters_reply", nested(COUNTERS, flagged=True)),
            14: ("tuple_master", nested(TUPLE, flagged=True)),
            20: ("timestamp", nested(TIMESTAMP, flagged=True)),
            22: ("labels", exactly(LABELS_SIZE)),
            **_NUMBERS,
        },
    ),
)
"""A connection as the kernel shows it."""
CT_REQUEST: Body[Nfgenmsg] = Body(
    Nfgenmsg,
    NFGENMSG,
    Table(
        "cta",
        {
            **{
                number: (name, binary)
                for number, name in {
                    1: "tuple_orig",
                    2: "tuple_reply",
                    4: "protoinfo",
                    5: "help",
                    6: "nat_src",
                    13: "nat_dst",
                    14: "tuple_master",
                    15: "seq_adj_orig",
                    16: "seq_adj_reply",
                    22: "labels",
                    23: "labels_mask",
                    24: "synproxy",
                    25: "filter",
                }.items()
            },
            **_NUMBERS,
        },
    ),
)
"""A request: nests are looked at when they are needed, as the kernel does."""

EXPECT_NAT = Table("cta_expect_nat", {1: ("dir", be32), 2: ("tuple", nested(TUPLE, flagged=True))})
_EXPECT_NUMBERS = {4: ("timeout", be32), 5: ("id", be32), 7: ("zone", be16), 8: ("flags", be32), 9: ("class", be32)}
EXPECT: Body[Nfgenmsg] = Body(
    Nfgenmsg,
    NFGENMSG,
    Table(
        "cta_expect",
        {
            1: ("master", nested(TUPLE, flagged=True)),
            2: ("tuple", nested(TUPLE, flagged=True)),
            3: ("mask", nested(TUPLE, flagged=True)),
            6: ("help_name", string),
            10: ("nat", nested(EXPECT_NAT, flagged=True)),
            11: ("fn", string),
            **_EXPECT_NUMBERS,
        },
    ),
)
"""An expectation as the kernel shows it."""
EXPECT_REQUEST: Body[Nfgenmsg] = Body(
    Nfgenmsg,
    NFGENMSG,
    Table(
        "cta_expect",
        {
            **{number: (name, binary) for number, name in {1: "master", 2: "tuple", 3: "mask", 10: "nat"}.items()},
            6: ("help_name", string),
            **_EXPECT_NUMBERS,
        },
    ),
)
"""A request about expectations."""

STATS_CPU: Body[Nfgenmsg] = Body(
    Nfgenmsg,
    NFGENMSG,
    Table(
        "cta_stats",
        {
            2: ("found", be32),
            4: ("invalid", be32),
            8: ("insert", be32),
            9: ("insert_failed", be32),
            10: ("drop", be32),
            11: ("early_drop", be32),
            12: ("error", be32),
            13: ("search_restart", be32),
            14: ("clash_resolve", be32),
            15: ("chain_toolong", be32),
        },
    ),
)
"""What one CPU has counted; the header's *res_id* is its number."""
STATS: Body[Nfgenmsg] = Body(Nfgenmsg, NFGENMSG, Table("cta_stats_global", {1: ("entries", be32), 2: ("max", be32)}))
EXP_STATS_CPU: Body[Nfgenmsg] = Body(
    Nfgenmsg, NFGENMSG, Table("cta_stats_exp", {1: ("new", be32), 2: ("create", be32), 3: ("delete", be32)})
)
