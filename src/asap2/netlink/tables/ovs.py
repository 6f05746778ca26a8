# SPDX-License-Identifier: Apache-2.0
"""The Open vSwitch datapath protocol: OVS_* (include/uapi/linux/openvswitch.h).

Ports and numbers of packet headers are host integers; addresses are bytes in network order. Flow keys are
:class:`~asap2.netlink.codec.Attrs`; actions are :class:`~asap2.netlink.codec.Items`, since order is meaning there.
"""

from __future__ import annotations

from typing import NamedTuple

from asap2.netlink.body import Body
from asap2.netlink.codec import (
    Attrs,
    Kind,
    Table,
    be16,
    be32,
    be64,
    binary,
    exactly,
    flag,
    ipv4,
    ipv6,
    nested,
    numbers,
    string,
    struct,
    u8,
    u16,
    u32,
    u64,
)
from asap2.netlink.sequence import Items, Sequence, listed

OVS_DP_CMD_NEW = OVS_VPORT_CMD_NEW = OVS_FLOW_CMD_NEW = 1
OVS_DP_CMD_DEL = OVS_VPORT_CMD_DEL = OVS_FLOW_CMD_DEL = 2
OVS_DP_CMD_GET = OVS_VPORT_CMD_GET = OVS_FLOW_CMD_GET = 3
OVS_DP_CMD_SET = OVS_VPORT_CMD_SET = OVS_FLOW_CMD_SET = 4
OVS_PACKET_CMD_MISS = 1
OVS_PACKET_CMD_ACTION = 2
OVS_PACKET_CMD_EXECUTE = 3

OVS_DP_F_UNALIGNED = 1
OVS_DP_F_VPORT_PIDS = 2
OVS_DP_F_TC_RECIRC_SHARING = 4
OVS_DP_F_DISPATCH_UPCALL_PER_CPU = 8

OVS_VPORT_TYPE_NETDEV = 1
OVS_VPORT_TYPE_INTERNAL = 2
OVS_VPORT_TYPE_GRE = 3
OVS_VPORT_TYPE_VXLAN = 4
OVS_VPORT_TYPE_GENEVE = 5

OVS_UFID_F_OMIT_KEY = 1
OVS_UFID_F_OMIT_MASK = 2
OVS_UFID_F_OMIT_ACTIONS = 4

OVS_FRAG_TYPE_NONE = 0
OVS_FRAG_TYPE_FIRST = 1
OVS_FRAG_TYPE_LATER = 2


class OvsHeader(NamedTuple):
    """struct ovs_header, after the generic netlink header."""

    dp_ifindex: int = 0


class DpStats(NamedTuple):
    """struct ovs_dp_stats."""

    hit: int = 0
    missed: int = 0
    lost: int = 0
    flows: int = 0


class MegaflowStats(NamedTuple):
    """struct ovs_dp_megaflow_stats."""

    mask_hit: int = 0
    masks: int = 0
    cache_hit: int = 0


class VportStats(NamedTuple):
    """struct ovs_vport_stats."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


class FlowStats(NamedTuple):
    """struct ovs_flow_stats; *bytes* with the Ethernet header."""

    packets: int = 0
    bytes: int = 0


class Ethernet(NamedTuple):
    """struct ovs_key_ethernet."""

    src: bytes
    dst: bytes


class Ipv4(NamedTuple):
    """struct ovs_key_ipv4; *frag* is OVS_FRAG_TYPE_*."""

    src: bytes
    dst: bytes
    proto: int
    tos: int
    ttl: int
    frag: int


class Ipv6(NamedTuple):
    """struct ovs_key_ipv6."""

    src: bytes
    dst: bytes
    label: int
    proto: int
    tclass: int
    hlimit: int
    frag: int


class Ports(NamedTuple):
    """struct ovs_key_tcp, ovs_key_udp, ovs_key_sctp."""

    src: int
    dst: int


class Icmp(NamedTuple):
    """struct ovs_key_icmp, ovs_key_icmpv6."""

    type: int
    code: int


class Arp(NamedTuple):
    """struct ovs_key_arp."""

    sip: bytes
    tip: bytes
    op: int
    sha: bytes
    tha: bytes


class Nd(NamedTuple):
    """struct ovs_key_nd."""

    target: bytes
    sll: bytes
    tll: bytes


class CtTuple(NamedTuple):
    """struct ovs_key_ct_tuple_ipv4, ovs_key_ct_tuple_ipv6."""

    src: bytes
    dst: bytes
    src_port: int
    dst_port: int
    proto: int


class NshBase(NamedTuple):
    """struct ovs_nsh_key_base."""

    flags: int
    ttl: int
    mdtype: int
    np: int
    path: int


class PushVlan(NamedTuple):
    """struct ovs_action_push_vlan; *tci* with 0x1000 set."""

    tpid: int
    tci: int


class Hash(NamedTuple):
    """struct ovs_action_hash."""

    alg: int
    basis: int


class PushMpls(NamedTuple):
    """struct ovs_action_push_mpls."""

    lse: int
    ethertype: int


class AddMpls(NamedTuple):
    """struct ovs_action_add_mpls; *tun_flags* is in host order on the wire."""

    lse: int
    ethertype: int
    tun_flags: int


class _Later:
    """Stands for a table that is made further down (a key within a key, actions within an action)."""

    def __init__(self) -> None:
        self.table: Table | Sequence | None = None

    def _decode(self, data: bytes, start: int, end: int) -> Attrs | Items:
        assert self.table is not None
        return self.table._decode(data, start, end)

    def _encode(self, value: Attrs | Items) -> bytes:
        assert self.table is not None
        return self.table.encode(value)  # type: ignore[arg-type]

    def kind(self) -> Kind:
        return Kind(self._decode, self._encode)


DATAPATH_ATTRS = Table(
    "ovs_datapath",
    {
        1: ("name", string),
        2: ("upcall_pid", u32),
        3: ("stats", struct(DpStats, "=QQQQ")),
        4: ("megaflow_stats", struct(MegaflowStats, "=QI4xQ8x")),
        5: ("user_features", u32),
        6: ("pad", binary),
        7: ("masks_cache_size", u32),
        8: ("per_cpu_pids", numbers("=I")),
        9: ("ifindex", u32),
    },
)
TUNNEL_OPTIONS = Table("ovs_tunnel", {1: ("dst_port", u16), 2: ("extension", binary)})
VPORT_UPCALL_STATS = Table("ovs_vport_upcall", {0: ("success", u64), 1: ("fail", u64)})
VPORT_ATTRS = Table(
    "ovs_vport",
    {
        1: ("port_no", u32),
        2: ("type", u32),
        3: ("name", string),
        4: ("options", nested(TUNNEL_OPTIONS)),
        5: ("upcall_pid", numbers("=I")),
        6: ("stats", struct(VportStats, "=8Q")),
        7: ("pad", binary),
        8: ("ifindex", u32),
        9: ("netnsid", u32),
        10: ("upcall_stats", nested(VPORT_UPCALL_STATS)),
    },
)
VXLAN_EXT = Table("ovs_vxlan_ext", {1: ("gbp", u32)})
TUNNEL_KEY = Table(
    "ovs_tunnel_key",
    {
        0: ("id", be64),
        1: ("ipv4_src", ipv4),
        2: ("ipv4_dst", ipv4),
        3: ("tos", u8),
        4: ("ttl", u8),
        5: ("dont_fragment", flag),
        6: ("csum", flag),
        7: ("oam", flag),
        8: ("geneve_opts", binary),
        9: ("tp_src", be16),
        10: ("tp_dst", be16),
        11: ("vxlan_opts", nested(VXLAN_EXT)),
        12: ("ipv6_src", ipv6),
        13: ("ipv6_dst", ipv6),
        14: ("pad", binary),
        15: ("erspan_opts", binary),
        16: ("ipv4_info_bridge", flag),
    },
)
NSH_KEY = Table("ovs_nsh_key", {1: ("base", struct(NshBase, ">BBBBI")), 2: ("md1", exactly(16)), 3: ("md2", binary)})
"""What a key's ``nsh`` and the action push_nsh hold, as bytes."""
_encap = _Later()
KEY = Table(
    "ovs_key",
    {
        1: ("encap", _encap.kind()),
        2: ("priority", u32),
        3: ("in_port", u32),
        4: ("ethernet", struct(Ethernet, "=6s6s")),
        5: ("vlan", be16),
        6: ("ethertype", be16),
        7: ("ipv4", struct(Ipv4, "=4s4sBBBB")),
        8: ("ipv6", struct(Ipv6, ">16s16sIBBBB")),
        9: ("tcp", struct(Ports, ">HH")),
        10: ("udp", struct(Ports, ">HH")),
        11: ("icmp", struct(Icmp, "=BB")),
        12: ("icmpv6", struct(Icmp, "=BB")),
        13: ("arp", struct(Arp, ">4s4sH6s6s2x")),
        14: ("nd", struct(Nd, "=16s6s6s")),
        15: ("skb_mark", u32),
        16: ("tunnel", nested(TUNNEL_KEY)),
        17: ("sctp", struct(Ports, ">HH")),
        18: ("tcp_flags", be16),
        19: ("dp_hash", u32),
        20: ("recirc_id", u32),
        21: ("mpls", numbers(">I")),
        22: ("ct_state", u32),
        23: ("ct_zone", u16),
        24: ("ct_mark", u32),
        25: ("ct_labels", exactly(16)),
        26: ("ct_orig_tuple_ipv4", struct(CtTuple, ">4s4sHHB3x")),
        27: ("ct_orig_tuple_ipv6", struct(CtTuple, ">16s16sHHB3x")),
        28: ("nsh", binary),
        29: ("packet_type", be32),
        30: ("nd_extensions", binary),
        31: ("tunnel_info", binary),
        32: ("ipv6_exthdrs", u16),
    },
)
"""OVS_KEY_ATTR_*, a flow's key or its mask."""
_encap.table = KEY

_ACTIONS_LATER = _Later()
_nested_actions = _ACTIONS_LATER.kind()
NAT = Table(
    "ovs_nat",
    {
        1: ("src", flag),
        2: ("dst", flag),
        3: ("ip_min", binary),
        4: ("ip_max", binary),
        5: ("proto_min", u16),
        6: ("proto_max", u16),
        7: ("persistent", flag),
        8: ("proto_hash", flag),
        9: ("proto_random", flag),
    },
)
CT = Table(
    "ovs_ct",
    {
        1: ("commit", flag),
        2: ("zone", u16),
        3: ("mark", numbers("=I")),
        4: ("labels", exactly(32)),
        5: ("helper", string),
        6: ("nat", nested(NAT)),
        7: ("force_commit", flag),
        8: ("eventmask", u32),
        9: ("timeout", string),
    },
)
USERSPACE = Table(
    "ovs_userspace",
    {1: ("pid", u32), 2: ("userdata", binary), 3: ("egress_tun_port", u32), 4: ("actions", flag)},
)
SAMPLE = Table("ovs_sample", {1: ("probability", u32), 2: ("actions", _nested_actions)})
CHECK_PKT_LEN = Table(
    "ovs_check_pkt_len",
    {1: ("pkt_len", u16), 2: ("actions_if_greater", _nested_actions), 3: ("actions_if_less_equal", _nested_actions)},
)
DEC_TTL = Table("ovs_dec_ttl", {1: ("action", _nested_actions)})
"""What the action dec_ttl holds, as bytes."""
MASKED_KEY = Table("ovs_masked_key", {number: (name, binary) for number, (name, _kind) in KEY.fields.items()})
"""What OVS_ACTION_ATTR_SET_MASKED holds: each key's value and mask, one after the other, as bytes."""
PSAMPLE = Table("ovs_psample", {1: ("group", u32), 2: ("cookie", binary)})
ACTIONS = Sequence(
    "ovs_actions",
    {
        1: ("output", u32),
        2: ("userspace", nested(USERSPACE)),
        3: ("set", nested(KEY)),
        4: ("push_vlan", struct(PushVlan, ">HH")),
        5: ("pop_vlan", flag),
        6: ("sample", nested(SAMPLE)),
        7: ("recirc", u32),
        8: ("hash", struct(Hash, "=II")),
        9: ("push_mpls", struct(PushMpls, ">IHxx")),
        10: ("pop_mpls", be16),
        11: ("set_masked", nested(MASKED_KEY)),
        12: ("ct", nested(CT)),
        13: ("trunc", u32),
        14: ("push_eth", struct(Ethernet, "=6s6s")),
        15: ("pop_eth", flag),
        16: ("ct_clear", flag),
        17: ("push_nsh", binary),
        18: ("pop_nsh", flag),
        19: ("meter", u32),
        20: ("clone", _nested_actions),
        21: ("check_pkt_len", nested(CHECK_PKT_LEN)),
        22: ("add_mpls", struct(AddMpls, ">IHH")),
        23: ("dec_ttl", binary),
        24: ("drop", u32),
        25: ("psample", nested(PSAMPLE, flagged=True)),
    },
)
"""OVS_ACTION_ATTR_*."""
_ACTIONS_LATER.table = ACTIONS

FLOW_ATTRS = Table(
    "ovs_flow",
    {
        1: ("key", nested(KEY)),
        2: ("actions", listed(ACTIONS)),
        3: ("stats", struct(FlowStats, "=QQ")),
        4: ("tcp_flags", u8),
        5: ("used", u64),
        6: ("clear", flag),
        7: ("mask", nested(KEY)),
        8: ("probe", flag),
        9: ("ufid", binary),
        10: ("ufid_flags", u32),
        11: ("pad", binary),
    },
)
PACKET_ATTRS = Table(
    "ovs_packet",
    {
        1: ("packet", binary),
        2: ("key", nested(KEY)),
        3: ("actions", listed(ACTIONS)),
        4: ("userdata", binary),
        5: ("egress_tun_key", nested(TUNNEL_KEY)),
        8: ("probe", flag),
        9: ("mru", u16),
        10: ("len", u32),
        11: ("hash", u64),
        12: ("upcall_pid", u32),
    },
)

DATAPATH: Body[OvsHeader] = Body(OvsHeader, "=i", DATAPATH_ATTRS)
VPORT: Body[OvsHeader] = Body(OvsHeader, "=i", VPORT_ATTRS)
FLOW: Body[OvsHeader] = Body(OvsHeader, "=i", FLOW_ATTRS)
PACKET: Body[OvsHeader] = Body(OvsHeader, "=i", PACKET_ATTRS)
"""The payloads of the four families, from 4 bytes after the start: behind the generic netlink header."""
