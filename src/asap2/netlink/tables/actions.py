# SPDX-License-Identifier: Apache-2.0
"""TC actions: TCA_ACT_* and each action's options (include/uapi/linux/pkt_cls.h, tc_act/*.h, gen_stats.h).

:mod:`.software_actions` has the options of those that the kernel offers to no driver.
"""

from __future__ import annotations

import struct as _struct
from typing import Any, NamedTuple

from asap2.netlink.codec import (
    Kind,
    Table,
    array_of,
    at_most,
    be16,
    be32,
    binary,
    flag,
    ipv4,
    ipv6,
    mac,
    nested,
    nested_by,
    repeated,
    s32,
    string,
    struct,
    u8,
    u16,
    u32,
    u64,
)
from asap2.netlink.tables.action_base import Generic as Generic
from asap2.netlink.tables.action_base import Tcf as Tcf
from asap2.netlink.tables.action_base import tcf as tcf
from asap2.netlink.tables.software_actions import BPF, CONNMARK, CTINFO, IFE, NAT, SKBMOD
from asap2.netlink.wire import NetlinkError

TC_ACT_UNSPEC = -1
TC_ACT_OK = 0
TC_ACT_RECLASSIFY = 1
TC_ACT_SHOT = 2
TC_ACT_PIPE = 3
TC_ACT_STOLEN = 4
TC_ACT_QUEUED = 5
TC_ACT_REPEAT = 6
TC_ACT_REDIRECT = 7
TC_ACT_TRAP = 8
TC_ACT_JUMP = 0x10000000
TC_ACT_GOTO_CHAIN = 0x20000000
TC_ACT_EXT_VAL_MASK = 0x0FFFFFFF

TCA_EGRESS_REDIR = 1
TCA_EGRESS_MIRROR = 2
TCA_INGRESS_REDIR = 3
TCA_INGRESS_MIRROR = 4

TCA_VLAN_ACT_POP = 1
TCA_VLAN_ACT_PUSH = 2
TCA_VLAN_ACT_MODIFY = 3
TCA_VLAN_ACT_POP_ETH = 4
TCA_VLAN_ACT_PUSH_ETH = 5

TCA_TUNNEL_KEY_ACT_SET = 1
TCA_TUNNEL_KEY_ACT_RELEASE = 2

TCA_CT_ACT_COMMIT = 1
TCA_CT_ACT_FORCE = 2
TCA_CT_ACT_CLEAR = 4
TCA_CT_ACT_NAT = 8
TCA_CT_ACT_NAT_SRC = 16
TCA_CT_ACT_NAT_DST = 32

TCA_MPLS_ACT_POP = 1
TCA_MPLS_ACT_PUSH = 2
TCA_MPLS_ACT_MODIFY = 3
TCA_MPLS_ACT_DEC_TTL = 4
TCA_MPLS_ACT_MAC_PUSH = 5

TCA_ACT_MAX_PRIO = 32


def has_opcode(verdict: int, opcode: int) -> bool:
    """Whether a verdict is *opcode* with a value: TC_ACT_JUMP or TC_ACT_GOTO_CHAIN (TC_ACT_EXT_CMP())."""
    return verdict & ~TC_ACT_EXT_VAL_MASK == opcode


class Bitfield32(NamedTuple):
    """struct nla_bitfield32: the bits of *selector* count."""

    value: int
    selector: int


bitfield32 = struct(Bitfield32, "=II")


class Basic(NamedTuple):
    """struct gnet_stats_basic."""

    bytes: int
    packets: int


class Queue(NamedTuple):
    """struct gnet_stats_queue."""

    qlen: int = 0
    backlog: int = 0
    drops: int = 0
    requeues: int = 0
    overlimits: int = 0


class RateEstimate(NamedTuple):
    """struct gnet_stats_rate_est: bytes and packets a second."""

    bps: int
    pps: int


STATS = Table(
    "stats",
    {
        1: ("basic", struct(Basic, "=QI4x")),
        2: ("rate_est", struct(RateEstimate, "=II")),
        3: ("queue", struct(Queue, "=5I")),
        4: ("app", binary),
        5: ("rate_est64", struct(RateEstimate, "=QQ")),
        6: ("pad", binary),
        7: ("basic_hw", struct(Basic, "=QI4x")),
        8: ("pkt64", u64),
    },
)
"""TCA_STATS_*: what TCA_ACT_STATS and TCA_STATS2 hold."""


class Mirred(NamedTuple):
    """struct tc_mirred; *eaction* is TCA_EGRESS_REDIR and so on."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    eaction: int = 0
    ifindex: int = 0


class Vlan(NamedTuple):
    """struct tc_vlan; *v_action* is TCA_VLAN_ACT_*."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    v_action: int = 0


class TunnelKey(NamedTuple):
    """struct tc_tunnel_key; *t_action* is TCA_TUNNEL_KEY_ACT_*."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    t_action: int = 0


class Mpls(NamedTuple):
    """struct tc_mpls; *m_action* is TCA_MPLS_ACT_*."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    m_action: int = 0


class Csum(NamedTuple):
    """struct tc_csum; *update_flags* is TCA_CSUM_UPDATE_FLAG_*."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    update_flags: int = 0


class PeditKey(NamedTuple):
    """struct tc_pedit_key: *mask* is what stays, *val* is XORed (both as they lie in the packet), *off* in bytes."""

    mask: int
    val: int
    off: int
    at: int = 0
    offmask: int = 0
    shift: int = 0


class Pedit(NamedTuple):
    """struct tc_pedit_sel and its keys; *nkeys* as sent, which need not be the number of *keys*."""

    index: int = 0  # type: ignore[assignment]
    capab: int = 0
    action: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    nkeys: int = 0
    flags: int = 0
    keys: tuple[PeditKey, ...] = ()


_PEDIT_SEL = _struct.Struct("=IIiiiBB2x")
_PEDIT_KEY = _struct.Struct("=IIIIII")


def _decode_pedit(data: bytes, start: int, end: int) -> Pedit:
    count, rest = divmod(end - start - _PEDIT_SEL.size, _PEDIT_KEY.size)
    if rest or count < 0:
        raise NetlinkError(22, "Invalid size of pedit parameters")
    first = start + _PEDIT_SEL.size
    keys = tuple(PeditKey(*_PEDIT_KEY.unpack_from(data, first + i * _PEDIT_KEY.size)) for i in range(count))
    return Pedit._make((*_PEDIT_SEL.unpack_from(data, start), keys))


def _encode_pedit(value: Any) -> bytes:
    return _PEDIT_SEL.pack(*value[:7]) + b"".join(_PEDIT_KEY.pack(*key) for key in value.keys)


pedit = Kind(_decode_pedit, _encode_pedit)


class Police(NamedTuple):
    """struct tc_police: *rate* and *peakrate* (bytes a second) with their struct tc_ratespec's other fields."""

    index: int = 0  # type: ignore[assignment]
    action: int = 0
    limit: int = 0
    burst: int = 0
    mtu: int = 0
    rate_cell_log: int = 0
    rate_linklayer: int = 0
    rate_overhead: int = 0
    rate_cell_align: int = 0
    rate_mpu: int = 0
    rate: int = 0
    peakrate_cell_log: int = 0
    peakrate_linklayer: int = 0
    peakrate_overhead: int = 0
    peakrate_cell_align: int = 0
    peakrate_mpu: int = 0
    peakrate: int = 0
    refcnt: int = 0
    bindcnt: int = 0
    capab: int = 0


class GactProbability(NamedTuple):
    """struct tc_gact_p."""

    ptype: int
    pval: int
    paction: int


GACT = Table(
    "gact",
    {
        1: ("tm", tcf),
        2: ("parms", struct(Generic, "=IIiii")),
        3: ("prob", struct(GactProbability, "=HHi")),
        4: ("pad", binary),
    },
)
MIRRED = Table("mirred", {1: ("tm", tcf), 2: ("parms", struct(Mirred, "=IIiiiiI")), 3: ("pad", binary)})
VLAN = Table(
    "vlan",
    {
        1: ("tm", tcf),
        2: ("parms", struct(Vlan, "=IIiiii")),
        3: ("push_vlan_id", u16),
        4: ("push_vlan_protocol", be16),
        5: ("pad", binary),
        6: ("push_vlan_priority", u8),
        7: ("push_eth_dst", mac),
        8: ("push_eth_src", mac),
    },
)
SKBEDIT = Table(
    "skbedit",
    {
        1: ("tm", tcf),
        2: ("parms", struct(Generic, "=IIiii")),
        3: ("priority", u32),
        4: ("queue_mapping", u16),
        5: ("mark", u32),
        6: ("pad", binary),
        7: ("ptype", u16),
        8: ("mask", u32),
        9: ("flags", u64),
        10: ("queue_mapping_max", u16),
    },
)
GENEVE_OPT = Table("geneve_opt", {1: ("class", be16), 2: ("type", u8), 3: ("data", binary)})
VXLAN_OPT = Table("vxlan_opt", {1: ("gbp", u32)})
ERSPAN_OPT = Table("erspan_opt", {1: ("ver", u8), 2: ("index", be32), 3: ("dir", u8), 4: ("hwid", u8)})
GTP_OPT = Table("gtp_opt", {1: ("pdu_type", u8), 2: ("qfi", u8)})
ENC_OPTS = Table(
    "enc_opts",
    {
        1: ("geneve", repeated(nested(GENEVE_OPT))),
        2: ("vxlan", nested(VXLAN_OPT)),
        3: ("erspan", nested(ERSPAN_OPT)),
        4: ("gtp", nested(GTP_OPT)),
    },
)
"""Tunnel options, in flower's keys and in tunnel_key alike."""
TUNNEL_KEY = Table(
    "tunnel_key",
    {
        1: ("tm", tcf),
        2: ("parms", struct(TunnelKey, "=IIiiii")),
        3: ("enc_ipv4_src", ipv4),
        4: ("enc_ipv4_dst", ipv4),
        5: ("enc_ipv6_src", ipv6),
        6: ("enc_ipv6_dst", ipv6),
        7: ("enc_key_id", be32),
        8: ("pad", binary),
        9: ("enc_dst_port", be16),
        10: ("no_csum", u8),
        11: ("enc_opts", nested(ENC_OPTS)),
        12: ("enc_tos", u8),
        13: ("enc_ttl", u8),
        14: ("no_frag", flag),
    },
)
PEDIT_KEY_EX = Table("pedit_key_ex", {1: ("htype", u16), 2: ("cmd", u16)})
PEDIT_KEYS_EX = Table("pedit_keys_ex", {6: ("key_ex", repeated(nested(PEDIT_KEY_EX)))})
PEDIT = Table(
    "pedit",
    {
        1: ("tm", tcf),
        2: ("parms", pedit),
        3: ("pad", binary),
        4: ("parms_ex", pedit),
        5: ("keys_ex", nested(PEDIT_KEYS_EX)),
        6: ("key_ex", nested(PEDIT_KEY_EX)),
    },
)
CSUM = Table("csum", {1: ("parms", struct(Csum, "=IIiiiI")), 2: ("tm", tcf), 3: ("pad", binary)})
MPLS = Table(
    "mpls",
    {
        1: ("tm", tcf),
        2: ("parms", struct(Mpls, "=IIiiii")),
        3: ("pad", binary),
        4: ("proto", be16),
        5: ("label", u32),
        6: ("tc", u8),
        7: ("ttl", u8),
        8: ("bos", u8),
    },
)
POLICE = Table(
    "police",
    {
        1: ("tbf", struct(Police, "=IiIIIBBHhHIBBHhHIiiI")),
        2: ("rate", binary),
        3: ("peakrate", binary),
        4: ("avrate", u32),
        5: ("result", s32),
        6: ("tm", tcf),
        7: ("pad", binary),
        8: ("rate64", u64),
        9: ("peakrate64", u64),
        10: ("pktrate64", u64),
        11: ("pktburst64", u64),
    },
)
SAMPLE = Table(
    "sample",
    {
        1: ("tm", tcf),
        2: ("parms", struct(Generic, "=IIiii")),
        3: ("rate", u32),
        4: ("trunc_size", u32),
        5: ("psample_group", u32),
        6: ("pad", binary),
    },
)
CT = Table(
    "ct",
    {
        1: ("parms", struct(Generic, "=IIiii")),
        2: ("tm", tcf),
        3: ("action", u16),
        4: ("zone", u16),
        5: ("mark", u32),
        6: ("mark_mask", u32),
        7: ("labels", at_most(16)),
        8: ("labels_mask", at_most(16)),
        9: ("nat_ipv4_min", ipv4),
        10: ("nat_ipv4_max", ipv4),
        11: ("nat_ipv6_min", ipv6),
        12: ("nat_ipv6_max", ipv6),
        13: ("nat_port_min", be16),
        14: ("nat_port_max", be16),
        15: ("pad", binary),
        16: ("helper_name", string),
        17: ("helper_family", u8),
        18: ("helper_proto", u8),
    },
)

SIMPLE = Table(
    "simple", {1: ("tm", tcf), 2: ("parms", struct(Generic, "=IIiii")), 3: ("data", string), 4: ("pad", binary)}
)

OPTIONS = {
    "gact": GACT,
    "mirred": MIRRED,
    "vlan": VLAN,
    "skbedit": SKBEDIT,
    "tunnel_key": TUNNEL_KEY,
    "pedit": PEDIT,
    "csum": CSUM,
    "mpls": MPLS,
    "police": POLICE,
    "ct": CT,
    "sample": SAMPLE,
    "simple": SIMPLE,
    "skbmod": SKBMOD,
    "nat": NAT,
    "connmark": CONNMARK,
    "ctinfo": CTINFO,
    "ife": IFE,
    "bpf": BPF,
}
"""Each action kind's table of options."""

ACTION = Table(
    "action",
    {
        1: ("kind", string),
        2: ("options", nested_by("kind", OPTIONS)),
        3: ("index", u32),
        4: ("stats", nested(STATS)),
        5: ("pad", binary),
        6: ("cookie", binary),
        7: ("flags", bitfield32),
        8: ("hw_stats", bitfield32),
        9: ("used_hw_stats", bitfield32),
        10: ("in_hw_count", u32),
    },
)
"""TCA_ACT_*: one action."""

actions = array_of(ACTION)
"""Actions by their number, from 1: what TCA_FLOWER_ACT and TCA_ACT_TAB hold."""
