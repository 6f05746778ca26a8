# SPDX-License-Identifier: Apache-2.0
"""The attributes of a flow key by number, their lengths, and numbers of protocols that decide which ones there are.

Attributes are those of :mod:`asap2.netlink.tables.ovs`.
"""

from __future__ import annotations

from typing import Final

from asap2.netlink.codec import Table
from asap2.netlink.sequence import Sequence
from asap2.netlink.tables.ovs import (
    KEY,
    NSH_KEY,
    OVS_FRAG_TYPE_FIRST,
    OVS_FRAG_TYPE_LATER,
    OVS_FRAG_TYPE_NONE,
    TUNNEL_KEY,
    VXLAN_EXT,
)

_KEY = KEY.numbers
ENCAP: Final = _KEY["encap"]
PRIORITY: Final = _KEY["priority"]
IN_PORT: Final = _KEY["in_port"]
ETHERNET: Final = _KEY["ethernet"]
VLAN: Final = _KEY["vlan"]
ETHERTYPE: Final = _KEY["ethertype"]
IPV4: Final = _KEY["ipv4"]
IPV6: Final = _KEY["ipv6"]
TCP: Final = _KEY["tcp"]
UDP: Final = _KEY["udp"]
ICMP: Final = _KEY["icmp"]
ICMPV6: Final = _KEY["icmpv6"]
ARP: Final = _KEY["arp"]
ND: Final = _KEY["nd"]
SKB_MARK: Final = _KEY["skb_mark"]
TUNNEL: Final = _KEY["tunnel"]
SCTP: Final = _KEY["sctp"]
TCP_FLAGS: Final = _KEY["tcp_flags"]
DP_HASH: Final = _KEY["dp_hash"]
RECIRC_ID: Final = _KEY["recirc_id"]
MPLS: Final = _KEY["mpls"]
CT_STATE: Final = _KEY["ct_state"]
CT_ZONE: Final = _KEY["ct_zone"]
CT_MARK: Final = _KEY["ct_mark"]
CT_LABELS: Final = _KEY["ct_labels"]
CT_ORIG_TUPLE_IPV4: Final = _KEY["ct_orig_tuple_ipv4"]
CT_ORIG_TUPLE_IPV6: Final = _KEY["ct_orig_tuple_ipv6"]
NSH: Final = _KEY["nsh"]
PACKET_TYPE: Final = _KEY["packet_type"]
IPV6_EXTHDRS: Final = _KEY["ipv6_exthdrs"]

_TUNNEL = TUNNEL_KEY.numbers
TUN_ID: Final = _TUNNEL["id"]
TUN_IPV4_SRC: Final = _TUNNEL["ipv4_src"]
TUN_IPV4_DST: Final = _TUNNEL["ipv4_dst"]
TUN_IPV6_SRC: Final = _TUNNEL["ipv6_src"]
TUN_IPV6_DST: Final = _TUNNEL["ipv6_dst"]
TUN_TOS: Final = _TUNNEL["tos"]
TUN_TTL: Final = _TUNNEL["ttl"]
TUN_ATTR_DONT_FRAGMENT: Final = _TUNNEL["dont_fragment"]
TUN_ATTR_CSUM: Final = _TUNNEL["csum"]
TUN_ATTR_OAM: Final = _TUNNEL["oam"]
TUN_GENEVE_OPTS: Final = _TUNNEL["geneve_opts"]
TUN_TP_SRC: Final = _TUNNEL["tp_src"]
TUN_TP_DST: Final = _TUNNEL["tp_dst"]
TUN_PAD: Final = _TUNNEL["pad"]
TUN_VXLAN_OPTS: Final = _TUNNEL["vxlan_opts"]
TUN_ERSPAN_OPTS: Final = _TUNNEL["erspan_opts"]
VXLAN_GBP: Final = VXLAN_EXT.numbers["gbp"]

NSH_BASE: Final = NSH_KEY.numbers["base"]
NSH_MD1: Final = NSH_KEY.numbers["md1"]
NSH_MD2: Final = NSH_KEY.numbers["md2"]

MAX_PORTS: Final = 65535
"""DP_MAX_PORTS (net/openvswitch/datapath.h); as ``in_port``: none."""
NEIGHBOUR: Final = (135, 136)
"""ICMPv6 types of neighbour discovery whose target and addresses a key has."""
FRAG_NONE, FRAG_FIRST, FRAG_LATER = OVS_FRAG_TYPE_NONE, OVS_FRAG_TYPE_FIRST, OVS_FRAG_TYPE_LATER
LABEL_BITS: Final = 0xFFFFF
"""The flow label of IPv6 in its 32 bits."""

VARIABLE: Final = -1


def lengths(table: Table | Sequence, unknown: frozenset[str]) -> dict[int, int]:
    """Length in bytes of each attribute of *table* that the datapath knows; another length is EINVAL."""
    return {
        number: VARIABLE if kind.size is None else kind.size
        for number, (name, kind) in table.fields.items()
        if name not in unknown
    }


LENGTHS: Final = {0: 0} | lengths(KEY, frozenset({"packet_type", "nd_extensions", "tunnel_info"}))
"""Length in bytes of each attribute; another length is EINVAL."""
TUNNEL_LENGTHS: Final = lengths(TUNNEL_KEY, frozenset({"ipv4_info_bridge"})) | {TUN_PAD: 0}
"""As :data:`LENGTHS`, of OVS_TUNNEL_KEY_ATTR_*; flags have none."""
