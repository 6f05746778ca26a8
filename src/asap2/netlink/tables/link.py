# SPDX-License-Identifier: Apache-2.0
"""Links: struct ifinfomsg with IFLA_*, virtual functions among them (include/uapi/linux/if_link.h)."""

from __future__ import annotations

from typing import NamedTuple

from asap2.netlink.body import Body
from asap2.netlink.codec import (
    Kind,
    Table,
    be16,
    be32,
    binary,
    flag,
    ipv4,
    ipv6,
    nested,
    nested_by,
    numbers,
    repeated,
    s32,
    string,
    struct,
    u8,
    u16,
    u32,
    u64,
)

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTNLGRP_LINK = 1

RTEXT_FILTER_VF = 1
"""Bit of IFLA_EXT_MASK: the request wants IFLA_VFINFO_LIST."""
RTEXT_FILTER_SKIP_STATS = 8

IFLA_VF_LINK_STATE_AUTO = 0
IFLA_VF_LINK_STATE_ENABLE = 1
IFLA_VF_LINK_STATE_DISABLE = 2


class Ifinfomsg(NamedTuple):
    """struct ifinfomsg; *index* is signed."""

    family: int = 0
    type: int = 0
    index: int = 0  # type: ignore[assignment]
    flags: int = 0
    change: int = 0


class VfMac(NamedTuple):
    """struct ifla_vf_mac; *mac* is 32 bytes, the address first."""

    vf: int
    mac: bytes


class VfBroadcast(NamedTuple):
    """struct ifla_vf_broadcast; 32 bytes, the address first."""

    broadcast: bytes


class VfVlan(NamedTuple):
    """struct ifla_vf_vlan; *vlan* 0 is none."""

    vf: int
    vlan: int
    qos: int


class VfVlanInfo(NamedTuple):
    """struct ifla_vf_vlan_info; *proto* is 16 bits as they lie on the wire: use :func:`socket.ntohs`."""

    vf: int
    vlan: int
    qos: int
    proto: int


class VfTxRate(NamedTuple):
    """struct ifla_vf_tx_rate, in Mbit/s; 0 is no limit."""

    vf: int
    rate: int


class VfRate(NamedTuple):
    """struct ifla_vf_rate, in Mbit/s; 0 is no limit."""

    vf: int
    min_tx_rate: int
    max_tx_rate: int


class VfSetting(NamedTuple):
    """struct ifla_vf_spoofchk, _trust, _rss_query_en, _link_state: a VF and its setting."""

    vf: int
    setting: int


class VfGuid(NamedTuple):
    """struct ifla_vf_guid."""

    vf: int
    guid: int


class Ifmap(NamedTuple):
    """struct rtnl_link_ifmap."""

    mem_start: int
    mem_end: int
    base_addr: int
    irq: int
    dma: int
    port: int


VF_STATS = Table(
    "vf_stats",
    {
        0: ("rx_packets", u64),
        1: ("tx_packets", u64),
        2: ("rx_bytes", u64),
        3: ("tx_bytes", u64),
        4: ("broadcast", u64),
        5: ("multicast", u64),
        6: ("pad", binary),
        7: ("rx_dropped", u64),
        8: ("tx_dropped", u64),
    },
)
VF_VLAN_LIST = Table("vf_vlan_list", {1: ("info", repeated(struct(VfVlanInfo, "=IIIHxx")))})
VF_INFO = Table(
    "vf_info",
    {
        1: ("mac", struct(VfMac, "=I32s")),
        2: ("vlan", struct(VfVlan, "=III")),
        3: ("tx_rate", struct(VfTxRate, "=II")),
        4: ("spoofchk", struct(VfSetting, "=II")),
        5: ("link_state", struct(VfSetting, "=II")),
        6: ("rate", struct(VfRate, "=III")),
        7: ("rss_query_en", struct(VfSetting, "=II")),
        8: ("stats", nested(VF_STATS)),
        9: ("trust", struct(VfSetting, "=II")),
        10: ("ib_node_guid", struct(VfGuid, "=I4xQ")),
        11: ("ib_port_guid", struct(VfGuid, "=I4xQ")),
        12: ("vlan_list", nested(VF_VLAN_LIST)),
        13: ("broadcast", struct(VfBroadcast, "=32s")),
    },
)
"""IFLA_VF_*: one virtual function."""
VFINFO_LIST = Table("vfinfo_list", {1: ("vf_info", repeated(nested(VF_INFO)))})

VXLAN = Table(
    "vxlan",
    {
        1: ("id", u32),
        2: ("group", ipv4),
        3: ("link", u32),
        4: ("local", ipv4),
        5: ("ttl", u8),
        6: ("tos", u8),
        7: ("learning", u8),
        8: ("ageing", u32),
        9: ("limit", u32),
        10: ("port_range", numbers(">H")),
        11: ("proxy", u8),
        12: ("rsc", u8),
        13: ("l2miss", u8),
        14: ("l3miss", u8),
        15: ("port", be16),
        16: ("group6", ipv6),
        17: ("local6", ipv6),
        18: ("udp_csum", u8),
        19: ("udp_zero_csum6_tx", u8),
        20: ("udp_zero_csum6_rx", u8),
        21: ("remcsum_tx", u8),
        22: ("remcsum_rx", u8),
        23: ("gbp", binary),
        24: ("remcsum_nopartial", binary),
        25: ("collect_metadata", u8),
        26: ("label", u32),
        27: ("gpe", binary),
        28: ("ttl_inherit", u8),
        29: ("df", u8),
        30: ("vnifilter", u8),
    },
)
GENEVE = Table(
    "geneve",
    {
        1: ("id", u32),
        2: ("remote", ipv4),
        3: ("ttl", u8),
        4: ("tos", u8),
        5: ("port", be16),
        6: ("collect_metadata", flag),
        7: ("remote6", ipv6),
        8: ("udp_csum", u8),
        9: ("udp_zero_csum6_tx", u8),
        10: ("udp_zero_csum6_rx", u8),
        11: ("label", be32),
        12: ("ttl_inherit", u8),
        13: ("df", u8),
        14: ("inner_proto_inherit", flag),
    },
)


def _gre(name: str, address: Kind) -> Table:
    """IFLA_GRE_*, of tunnels between addresses of one version."""
    return Table(
        name,
        {
            1: ("link", u32),
            2: ("iflags", be16),
            3: ("oflags", be16),
            4: ("ikey", be32),
            5: ("okey", be32),
            6: ("local", address),
            7: ("remote", address),
            8: ("ttl", u8),
            9: ("tos", u8),
            10: ("pmtudisc", u8),
            11: ("encap_limit", u8),
            12: ("flowinfo", be32),
            13: ("flags", u32),
            14: ("encap_type", u16),
            15: ("encap_flags", u16),
            16: ("encap_sport", be16),
            17: ("encap_dport", be16),
            18: ("collect_metadata", flag),
            19: ("ignore_df", u8),
            20: ("fwmark", u32),
            21: ("erspan_index", u32),
            22: ("erspan_ver", u8),
            23: ("erspan_dir", u8),
            24: ("erspan_hwid", u16),
        },
    )


GRETAP, IP6GRETAP = _gre("gretap", ipv4), _gre("ip6gretap", ipv6)


BAREUDP = Table(
    "bareudp", {1: ("port", be16), 2: ("ethertype", be16), 3: ("srcport_min", u16), 4: ("multiproto", flag)}
)


class VlanFlags(NamedTuple):
    """struct ifla_vlan_flags."""

    flags: int
    mask: int


class VlanQos(NamedTuple):
    """struct ifla_vlan_qos_mapping: ``one`` is mapped to ``other``."""

    one: int
    other: int


_VLAN_QOS = Table("vlan_qos", {1: ("mapping", repeated(struct(VlanQos, "=II")))})
VLAN = Table(
    "vlan",
    {
        1: ("id", u16),
        2: ("flags", struct(VlanFlags, "=II")),
        3: ("egress_qos", nested(_VLAN_QOS)),
        4: ("ingress_qos", nested(_VLAN_QOS)),
        5: ("protocol", be16),
    },
)
BOND_AD = Table(
    "bond_ad",
    {
        1: ("aggregator", u16),
        2: ("num_ports", u16),
        3: ("actor_key", u16),
        4: ("partner_key", u16),
        5: ("partner_mac", binary),
    },
)
BOND = Table(
    "bond",
    {
        1: ("mode", u8),
        2: ("active_slave", u32),
        3: ("miimon", u32),
        4: ("updelay", u32),
        5: ("downdelay", u32),
        6: ("use_carrier", u8),
        7: ("arp_interval", u32),
        8: ("arp_ip_target", binary),
        9: ("arp_validate", u32),
        10: ("arp_all_targets", u32),
        11: ("primary", u32),
        12: ("primary_reselect", u8),
        13: ("fail_over_mac", u8),
        14: ("xmit_hash_policy", u8),
        15: ("resend_igmp", u32),
        16: ("num_peer_notif", u8),
        17: ("all_slaves_active", u8),
        18: ("min_links", u32),
        19: ("lp_interval", u32),
        20: ("packets_per_slave", u32),
        21: ("lacp_rate", u8),
        22: ("ad_select", u8),
        23: ("ad_info", nested(BOND_AD)),
        24: ("ad_actor_sys_prio", u16),
        25: ("ad_user_port_key", u16),
        26: ("ad_actor_system", binary),
        27: ("tlb_dynamic_lb", u8),
        28: ("peer_notif_delay", u32),
        29: ("lacp_active", u8),
        30: ("arp_missed_max", u8),
        31: ("ns_ip6_target", binary),
    },
)
BOND_SLAVE = Table(
    "bond_slave",
    {
        1: ("state", u8),
        2: ("mii_status", u8),
        3: ("link_failure_count", u32),
        4: ("perm_hwaddr", binary),
        5: ("queue_id", u16),
        6: ("ad_aggregator_id", u16),
        7: ("ad_actor_oper_port_state", u8),
        8: ("ad_partner_oper_port_state", u16),
        9: ("prio", s32),
    },
)
MACVLAN = Table(
    "macvlan",
    {
        1: ("mode", u32),
        2: ("flags", u16),
        3: ("macaddr_mode", u32),
        4: ("macaddr", binary),
        5: ("macaddr_data", binary),
        6: ("macaddr_count", u32),
        7: ("bc_queue_len", u32),
        8: ("bc_queue_len_used", u32),
        9: ("bc_cutoff", s32),
    },
)
IPTUN = Table(
    "iptun",
    {
        1: ("link", u32),
        2: ("local", ipv4),
        3: ("remote", ipv4),
        4: ("ttl", u8),
        5: ("tos", u8),
        6: ("encap_limit", u8),
        7: ("flowinfo", be32),
        8: ("flags", be16),
        9: ("proto", u8),
        10: ("pmtudisc", u8),
        11: ("6rd_prefix", binary),
        12: ("6rd_relay_prefix", binary),
        13: ("6rd_prefixlen", u16),
        14: ("6rd_relay_prefixlen", u16),
        15: ("encap_type", u16),
        16: ("encap_flags", u16),
        17: ("encap_sport", be16),
        18: ("encap_dport", be16),
        19: ("collect_metadata", flag),
        20: ("fwmark", u32),
    },
)
"""IFLA_IPTUN_*: IPv4 and IPv6 in IPv4 (include/uapi/linux/if_tunnel.h)."""
VRF = Table("vrf", {1: ("table", u32)})
VRF_PORT = Table("vrf_port", {1: ("table", u32)})
OF_KINDS = {
    "vxlan": VXLAN,
    "geneve": GENEVE,
    "gretap": GRETAP,
    "ip6gretap": IP6GRETAP,
    "gre": GRETAP,
    "bareudp": BAREUDP,
    "erspan": GRETAP,
    "ip6erspan": IP6GRETAP,
    "vlan": VLAN,
    "bond": BOND,
    "macvlan": MACVLAN,
    "vrf": VRF,
    "ipip": IPTUN,
    "sit": IPTUN,
}
"""IFLA_INFO_DATA by kind."""
LINKINFO = Table(
    "linkinfo",
    {
        1: ("kind", string),
        2: ("data", nested_by("kind", OF_KINDS)),
        3: ("xstats", binary),
        4: ("slave_kind", string),
        5: ("slave_data", binary),
    },
)
PROP_LIST = Table("prop_list", {53: ("alt_ifname", repeated(string))})
LINK_ATTRS = Table(
    "link",
    {
        1: ("address", binary),
        2: ("broadcast", binary),
        3: ("ifname", string),
        4: ("mtu", u32),
        5: ("link", u32),
        6: ("qdisc", string),
        7: ("stats", numbers("=I")),
        8: ("cost", binary),
        9: ("priority", binary),
        10: ("master", u32),
        11: ("wireless", binary),
        12: ("protinfo", binary),
        13: ("txqlen", u32),
        14: ("map", struct(Ifmap, "=QQQHBB4x")),
        15: ("weight", u32),
        16: ("operstate", u8),
        17: ("linkmode", u8),
        18: ("linkinfo", nested(LINKINFO)),
        19: ("net_ns_pid", u32),
        20: ("ifalias", string),
        21: ("num_vf", u32),
        22: ("vfinfo_list", nested(VFINFO_LIST)),
        23: ("stats64", numbers("=Q")),
        24: ("vf_ports", binary),
        25: ("port_self", binary),
        26: ("af_spec", binary),
        27: ("group", u32),
        28: ("net_ns_fd", u32),
        29: ("ext_mask", u32),
        30: ("promiscuity", u32),
        31: ("num_tx_queues", u32),
        32: ("num_rx_queues", u32),
        33: ("carrier", u8),
        34: ("phys_port_id", binary),
        35: ("carrier_changes", u32),
        36: ("phys_switch_id", binary),
        37: ("link_netnsid", s32),
        38: ("phys_port_name", string),
        39: ("proto_down", u8),
        40: ("gso_max_segs", u32),
        41: ("gso_max_size", u32),
        42: ("pad", binary),
        43: ("xdp", binary),
        44: ("event", u32),
        45: ("new_netnsid", s32),
        46: ("target_netnsid", s32),
        47: ("carrier_up_count", u32),
        48: ("carrier_down_count", u32),
        49: ("new_ifindex", s32),
        50: ("min_mtu", u32),
        51: ("max_mtu", u32),
        52: ("prop_list", nested(PROP_LIST, flagged=True)),
        53: ("alt_ifname", string),
        54: ("perm_address", binary),
        55: ("proto_down_reason", binary),
        56: ("parent_dev_name", string),
        57: ("parent_dev_bus_name", string),
        58: ("gro_max_size", u32),
        59: ("tso_max_size", u32),
        60: ("tso_max_segs", u32),
        61: ("allmulti", u32),
    },
)
LINK: Body[Ifinfomsg] = Body(Ifinfomsg, "=BxHiII", LINK_ATTRS, short=True)
"""The payload of RTM_{NEW,DEL,GET,SET}LINK; some programs dump with struct rtgenmsg, 4 bytes, for a header."""
