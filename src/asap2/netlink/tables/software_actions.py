# SPDX-License-Identifier: Apache-2.0
"""Options of the TC actions that the kernel offers to no driver
(include/uapi/linux/tc_act/tc_{skbmod,nat,connmark,ctinfo,ife,bpf}.h)."""

from __future__ import annotations

from typing import NamedTuple

from asap2.netlink.codec import Table, binary, mac, nested, string, struct, u16, u32, u64
from asap2.netlink.tables.action_base import Generic, tcf


class Skbmod(NamedTuple):
    """struct tc_skbmod; *flags* are SKBMOD_F_*."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    flags: int = 0


class Nat(NamedTuple):
    """struct tc_nat; addresses as on the wire, *flags* TCA_NAT_FLAG_EGRESS or 0."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    old_addr: bytes = bytes(4)
    new_addr: bytes = bytes(4)
    mask: bytes = bytes(4)
    flags: int = 0


class Connmark(NamedTuple):
    """struct tc_connmark."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    zone: int = 0


class Ife(NamedTuple):
    """struct tc_ife; *flags* are IFE_ENCODE or 0 (IFE_DECODE)."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    flags: int = 0


SKBMOD = Table(
    "skbmod",
    {
        1: ("tm", tcf),
        2: ("parms", struct(Skbmod, "=IIiii4xQ")),
        3: ("dmac", mac),
        4: ("smac", mac),
        5: ("etype", u16),
        6: ("pad", binary),
    },
)
NAT = Table("nat", {1: ("parms", struct(Nat, "=IIiii4s4s4sI")), 2: ("tm", tcf), 3: ("pad", binary)})
CONNMARK = Table("connmark", {1: ("parms", struct(Connmark, "=IIiiiH2x")), 2: ("tm", tcf), 3: ("pad", binary)})
CTINFO = Table(
    "ctinfo",
    {
        1: ("pad", binary),
        2: ("tm", tcf),
        3: ("parms", struct(Generic, "=IIiii")),
        4: ("zone", u16),
        5: ("dscp_mask", u32),
        6: ("dscp_statemask", u32),
        7: ("cpmark_mask", u32),
        8: ("dscp_set", u64),
        9: ("dscp_error", u64),
        10: ("cpmark_set", u64),
    },
)
IFE_METADATA = Table(
    "ife_metadata",
    {1: ("skbmark", binary), 2: ("hashid", binary), 3: ("prio", binary), 4: ("qmap", binary), 5: ("tcindex", binary)},
)
IFE = Table(
    "ife",
    {
        1: ("parms", struct(Ife, "=IIiiiH2x")),
        2: ("tm", tcf),
        3: ("dmac", mac),
        4: ("smac", mac),
        5: ("type", u16),
        6: ("metalst", nested(IFE_METADATA)),
        7: ("pad", binary),
    },
)
BPF = Table(
    "bpf",
    {
        1: ("tm", tcf),
        2: ("parms", struct(Generic, "=IIiii")),
        3: ("ops_len", u16),
        4: ("ops", binary),
        5: ("fd", u32),
        6: ("name", string),
        7: ("pad", binary),
        8: ("tag", binary),
        9: ("id", u32),
    },
)
