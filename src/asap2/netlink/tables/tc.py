# SPDX-License-Identifier: Apache-2.0
"""TC messages: struct tcmsg with TCA_*, struct tcamsg with TCA_ROOT_* (include/uapi/linux/rtnetlink.h)."""

from __future__ import annotations

from typing import NamedTuple

from asap2.netlink.body import Body
from asap2.netlink.codec import Table, binary, nested, nested_by, numbers, string, struct, u8, u32, u64
from asap2.netlink.tables.actions import POLICE, STATS, actions, bitfield32
from asap2.netlink.tables.flower import FLOWER

RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTCLASS = 40
RTM_DELTCLASS = 41
RTM_GETTCLASS = 42
RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46
RTM_NEWACTION = 48
RTM_DELACTION = 49
RTM_GETACTION = 50
RTM_NEWCHAIN = 100
RTM_DELCHAIN = 101
RTM_GETCHAIN = 102

TC_H_ROOT = 0xFFFFFFFF
TC_H_INGRESS = 0xFFFFFFF1
TC_H_CLSACT = TC_H_INGRESS
TC_H_MIN_INGRESS = 0xFFFFFFF2
"""ffff:fff2, the parent of clsact's ingress filters."""
TC_H_MIN_EGRESS = 0xFFFFFFF3
"""ffff:fff3, the parent of clsact's egress filters."""
TC_INGRESS_PARENT = 0xFFFF0000
"""ffff:, the handle of ingress and clsact qdiscs, and the parent of ingress's filters."""
TCM_IFINDEX_MAGIC_BLOCK = 0xFFFFFFFF
"""In place of an interface index: the parent is a shared block's index."""

TCA_DUMP_FLAGS_TERSE = 1
TCA_ACT_FLAG_LARGE_DUMP_ON = 1
TCA_ACT_FLAG_TERSE_DUMP = 2
RTNLGRP_TC = 4


class Tcmsg(NamedTuple):
    """struct tcmsg; for filters *info* is the priority in the upper half, the protocol (network order) in the lower.

    *ifindex* is signed: -1 is TCM_IFINDEX_MAGIC_BLOCK.
    """

    family: int = 0
    ifindex: int = 0
    handle: int = 0
    parent: int = 0
    info: int = 0

    @property
    def prio(self) -> int:
        """A filter's priority (preference)."""
        return self.info >> 16

    @property
    def protocol(self) -> int:
        """A filter's Ethernet protocol as a host integer: 0x0800 is IPv4."""
        return (self.info & 0xFF) << 8 | (self.info >> 8 & 0xFF)


def info(prio: int, protocol: int) -> int:
    """The *info* of a filter from its priority and its Ethernet protocol as a host integer."""
    return prio << 16 | (protocol & 0xFF) << 8 | protocol >> 8 & 0xFF


class TcStats(NamedTuple):
    """struct tc_stats, of old."""

    bytes: int = 0
    packets: int = 0
    drops: int = 0
    overlimits: int = 0
    bps: int = 0
    pps: int = 0
    qlen: int = 0
    backlog: int = 0


FQ_CODEL = Table(
    "fq_codel",
    {
        1: ("target", u32),
        2: ("limit", u32),
        3: ("interval", u32),
        4: ("ecn", u32),
        5: ("flows", u32),
        6: ("quantum", u32),
        7: ("ce_threshold", u32),
        8: ("drop_batch_size", u32),
        9: ("memory_limit", u32),
    },
)
EMPTY = Table("empty", {})
MATCHALL = Table(
    "matchall",
    {1: ("classid", u32), 2: ("act", actions), 3: ("flags", u32), 4: ("pcnt", u64), 5: ("pad", binary)},
)


class BasicCount(NamedTuple):
    """struct tc_basic_pcnt: packets that were compared, and that matched."""

    rcnt: int
    rhit: int


BASIC = Table(
    "basic",
    {
        1: ("classid", u32),
        2: ("ematches", binary),
        3: ("act", actions),
        4: ("police", nested(POLICE)),
        5: ("pcnt", struct(BasicCount, "=QQ")),
        6: ("pad", binary),
    },
)
STAB = Table("stab", {1: ("base", binary), 2: ("data", numbers("=H"))})

U32 = Table(
    "u32",
    {
        1: ("classid", u32),
        2: ("hash", u32),
        3: ("link", u32),
        4: ("divisor", u32),
        5: ("sel", binary),
        6: ("police", nested(POLICE)),
        7: ("act", actions),
        8: ("indev", binary),
        9: ("pcnt", binary),
        10: ("mark", binary),
        11: ("flags", u32),
        12: ("pad", binary),
    },
)

TCA = Table(
    "tca",
    {
        1: ("kind", string),
        2: (
            "options",
            nested_by(
                "kind",
                {
                    "flower": FLOWER,
                    "matchall": MATCHALL,
                    "basic": BASIC,
                    "u32": U32,
                    "ingress": EMPTY,
                    "clsact": EMPTY,
                    "fq_codel": FQ_CODEL,
                },
            ),
        ),
        3: ("stats", struct(TcStats, "=Q7I4x")),
        4: ("xstats", binary),
        5: ("rate", binary),
        6: ("fcnt", u32),
        7: ("stats2", nested(STATS)),
        8: ("stab", nested(STAB)),
        9: ("pad", binary),
        10: ("dump_invisible", binary),
        11: ("chain", u32),
        12: ("hw_offload", u8),
        13: ("ingress_block", u32),
        14: ("egress_block", u32),
        15: ("dump_flags", bitfield32),
        16: ("ext_warn_msg", string),
    },
)
"""TCA_*: qdiscs, classes, filters and chains."""

TC: Body[Tcmsg] = Body(Tcmsg, "=B3xiIII", TCA)
"""The payload of RTM_{NEW,DEL,GET}{QDISC,TCLASS,TFILTER,CHAIN}."""


class Tcamsg(NamedTuple):
    """struct tcamsg."""

    family: int = 0


TCA_ROOT = Table(
    "tca_root",
    {
        1: ("tab", actions),
        2: ("flags", bitfield32),
        3: ("count", u32),
        4: ("time_delta", u32),
        5: ("ext_warn_msg", string),
    },
)
ACTION_BODY: Body[Tcamsg] = Body(Tcamsg, "=B3x", TCA_ROOT)
"""The payload of RTM_{NEW,DEL,GET}ACTION."""
