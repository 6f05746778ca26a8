# SPDX-License-Identifier: Apache-2.0
"""The eSwitch's match fields: one row for each, from which every other table of fields is derived.

A row says how wide the field is; where it lies in the packed key that rules and packets are compared by (``struct
fields`` of the eBPF program, which :mod:`asap2.nic.silicon.generate` writes from here); which keys of TC's flower and
which octets of Open vSwitch's key attributes carry it; where a rewrite finds it in a packet; and what mlx5 makes of it.
What a field means, and in which packets it is not 0, :class:`asap2.nic.rules.Match` says, and
:mod:`asap2.nic.silicon.packet` defines.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache
from typing import Final

from asap2.nic.ethertypes import ARP_TYPES, ETH_P_IPV6, ETH_P_MPLS, ETH_P_NSH

KEY_SIZE: Final = 192
"""Octets of the packed key."""
TRACKED_AT: Final = 128
"""Octet of the packed key from which on lies what connection tracking says of the packet."""


class Header(enum.IntEnum):
    """A header that a rewrite looks for in a packet; the numbers are those of the eBPF program's ``enum layer``."""

    ETHERNET = 0
    IPV4 = 1
    IPV6 = 2
    L4 = 3
    """TCP or UDP, or SCTP without its checksum."""
    ADDRESS_LOW = 4
    """Not a header: the last 32 bits of an IPv4 or IPv6 address, whichever the packet has."""
    MPLS = 5
    SCTP = 6
    """With its checksum."""


class Depth(enum.IntEnum):
    """How deep mlx5 has to look for a field: the inline mode that it takes (DEVLINK_ESWITCH_INLINE_MODE_*)."""

    NONE = 0
    LINK = 1
    NETWORK = 2
    TRANSPORT = 3


@dataclass(frozen=True, slots=True)
class Location:
    """Where a field lies in a *header*: in so many *octets* at *offset*, with *shift* bits to the right of it."""

    header: Header
    offset: int
    octets: int
    shift: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """One match field of *bits* bits, which lies *at* this octet of the packed key, big-endian."""

    name: str
    bits: int
    at: int
    octets: int = 0
    """Its size in the packed key; 0: as many as the bits take."""
    ethertypes: tuple[int, ...] = ()
    """Where it shares its place with others: a rule that matches on it matches on one of these ethertypes."""
    tunnel: bool = False
    """Whether it is one of a packet in a tunnel; those lie over fields that cannot be matched in a tunnel."""
    hidden: bool = False
    """Whether it lies where a packet in a tunnel has a field of the tunnel."""
    flower: tuple[str, ...] = ()
    """Flower keys with a mask that are compared with it (:data:`asap2.netlink.tables.flower.FLOWER`)."""
    ovs: tuple[tuple[str, int, int], ...] = ()
    """Attributes of an Open vSwitch key (:data:`asap2.netlink.tables.ovs.KEY`) that have it: name, offset, octets. One
    within another has both names, with a dot between them."""
    found: tuple[Location, ...] = ()
    """Where a rewrite finds it; nothing: it cannot be rewritten in a packet."""
    meta: int | None = None
    """Its number in the eBPF program's OP_SET_META, if it is the packet's in the kernel and can be set."""
    depth: Depth | None = Depth.LINK
    """How deep mlx5 looks for it; None: its driver has no use for such a key."""
    parts: tuple[int, ...] = (0,)
    """The fields that it is in mlx5's hardware: where each begins, bits counted from the right."""

    @property
    def size(self) -> int:
        """Octets that it takes in the packed key."""
        return self.octets or (self.bits + 7) // 8


_ETHERNET, _IPV4, _IPV6, _L4, _SCTP = Header.ETHERNET, Header.IPV4, Header.IPV6, Header.L4, Header.SCTP
_NETWORK, _TRANSPORT = Depth.NETWORK, Depth.TRANSPORT
_MAC_PARTS, _ADDRESS_PARTS = (0, 16), (0, 32, 64, 96)


def _flower(*names: str) -> tuple[str, ...]:
    return tuple(f"key_{name}" for name in names)


def _address(name: str, at: int, end: str, ipv4: int, ipv6: int, ovs: tuple[int, int, int]) -> Field:
    """An IP address; it is ARP's protocol address, too. *ovs*: where IPv4's, IPv6's and ARP's attributes have it."""
    arp = "sip" if end == "src" else "tip"
    return Field(
        name,
        128,
        at,
        flower=_flower(f"ipv4_{end}", f"ipv6_{end}", f"arp_{arp}"),
        ovs=(("ipv4", ovs[0], 4), ("ipv6", ovs[1], 16), ("arp", ovs[2], 4)),
        found=(Location(_IPV4, ipv4, 4), Location(_IPV6, ipv6, 16)),
        depth=_NETWORK,
        parts=_ADDRESS_PARTS,
    )


def _port(name: str, at: int, end: str, icmp: str, number: int) -> Field:
    """A port; it is ICMP's type or code, too. *number*: whether it is the first or the second."""
    return Field(
        name,
        16,
        at,
        flower=_flower(
            *(f"{protocol}_{end}" for protocol in ("tcp", "udp", "sctp")), f"icmpv4_{icmp}", f"icmpv6_{icmp}"
        ),
        ovs=(
            *((protocol, 2 * number, 2) for protocol in ("tcp", "udp", "sctp")),
            *((protocol, number, 1) for protocol in ("icmp", "icmpv6")),
        ),
        found=(Location(_L4, 2 * number, 2),),
        depth=_TRANSPORT,
    )


def _tunnel_address(end: str, at: int) -> Field:
    """An outer IP address."""
    return Field(
        *(f"tun_{end}", 128, at),
        tunnel=True,
        flower=_flower(f"enc_ipv4_{end}", f"enc_ipv6_{end}"),
        ovs=((f"tunnel.ipv4_{end}", 0, 4), (f"tunnel.ipv6_{end}", 0, 16)),
    )


def _original(name: str, at: int, ipv4: int, ipv6: int, bits: int) -> Field:
    """A field of the tuple of the packet's connection. *ipv4*, *ipv6*: where the attributes have it."""
    octets = (4, 16) if bits == 128 else (bits // 8, bits // 8)
    places = (("ct_orig_tuple_ipv4", ipv4, octets[0]), ("ct_orig_tuple_ipv6", ipv6, octets[1]))
    return Field(f"ct_{name}", bits, at, ovs=places)


FIELDS: Final = (
    Field(
        *("eth_dst", 48, 0),
        flower=_flower("eth_dst"),
        ovs=(("ethernet", 6, 6),),
        found=(Location(_ETHERNET, 0, 6),),
        parts=_MAC_PARTS,
    ),
    Field(
        *("eth_src", 48, 8),
        flower=_flower("eth_src"),
        ovs=(("ethernet", 0, 6),),
        found=(Location(_ETHERNET, 6, 6),),
        parts=_MAC_PARTS,
    ),
    Field("eth_type", 16, 6, ovs=(("ethertype", 0, 2),)),
    Field("vlan_tpid", 16, 14),
    Field("vlan_tci", 16, 16, ovs=(("vlan", 0, 2),)),
    Field("cvlan_tpid", 8, 24),
    Field("cvlan_tci", 16, 18),
    _address("ip_src", 32, "src", ipv4=12, ipv6=8, ovs=(0, 0, 0)),
    _address("ip_dst", 48, "dst", ipv4=16, ipv6=24, ovs=(4, 16, 4)),
    Field(
        *("ip_proto", 8, 20),
        flower=_flower("arp_op"),
        ovs=(("ipv4", 8, 1), ("ipv6", 36, 1), ("arp", 8, 2)),
        depth=_NETWORK,
    ),
    Field(
        *("ip_tos", 8, 21),
        flower=_flower("ip_tos"),
        ovs=(("ipv4", 9, 1), ("ipv6", 37, 1)),
        found=(Location(_IPV4, 1, 1), Location(_IPV6, 0, 4, 20)),
        depth=_NETWORK,
    ),
    Field("ipv6_label", 20, 25, ovs=(("ipv6", 32, 4),), found=(Location(_IPV6, 0, 4),), depth=None),
    Field(
        *("ip_ttl", 8, 22),
        flower=_flower("ip_ttl"),
        ovs=(("ipv4", 10, 1), ("ipv6", 38, 1)),
        found=(Location(_IPV4, 8, 1), Location(_IPV6, 7, 1)),
        depth=_NETWORK,
    ),
    Field("ip_frag", 8, 23, ovs=(("ipv4", 11, 1), ("ipv6", 39, 1))),
    _port("l4_src", 28, "src", "type", 0),
    _port("l4_dst", 30, "dst", "code", 1),
    Field("tcp_flags", 12, 70, flower=_flower("tcp_flags"), ovs=(("tcp_flags", 0, 2),), depth=_TRANSPORT),
    Field(
        *("arp_sha", 48, 32),
        ethertypes=ARP_TYPES,
        flower=_flower("arp_sha"),
        ovs=(("arp", 10, 6),),
        depth=None,
    ),
    Field(
        *("arp_tha", 48, 48),
        ethertypes=ARP_TYPES,
        flower=_flower("arp_tha"),
        ovs=(("arp", 16, 6),),
        depth=None,
    ),
    Field("nd_sll", 48, 64, ethertypes=(ETH_P_IPV6,), hidden=True, ovs=(("nd", 16, 6),), depth=None),
    Field("nd_tll", 48, 72, ethertypes=(ETH_P_IPV6,), hidden=True, ovs=(("nd", 22, 6),), depth=None),
    Field("nd_target", 128, 80, ethertypes=(ETH_P_IPV6,), hidden=True, ovs=(("nd", 0, 16),), depth=None),
    Field(
        *("mpls_lse1", 32, 80),
        ethertypes=ETH_P_MPLS,
        hidden=True,
        ovs=(("mpls", 0, 4),),
        found=(Location(Header.MPLS, 0, 4),),
    ),
    Field("mpls_lse2", 32, 84, ethertypes=ETH_P_MPLS, hidden=True, ovs=(("mpls", 4, 4),)),
    Field("mpls_lse3", 32, 88, ethertypes=ETH_P_MPLS, hidden=True, ovs=(("mpls", 8, 4),)),
    Field("mpls_labels", 8, 92, ethertypes=ETH_P_MPLS, hidden=True),
    Field("nsh_flags", 8, 80, ethertypes=(ETH_P_NSH,), hidden=True, ovs=(("nsh.base", 0, 1),)),
    Field("nsh_ttl", 8, 81, ethertypes=(ETH_P_NSH,), hidden=True, ovs=(("nsh.base", 1, 1),)),
    Field("nsh_mdtype", 8, 82, ethertypes=(ETH_P_NSH,), hidden=True, ovs=(("nsh.base", 2, 1),)),
    Field("nsh_np", 8, 83, ethertypes=(ETH_P_NSH,), hidden=True, ovs=(("nsh.base", 3, 1),)),
    Field("nsh_path", 32, 84, ethertypes=(ETH_P_NSH,), hidden=True, ovs=(("nsh.base", 4, 4),)),
    Field("nsh_context", 128, 88, ethertypes=(ETH_P_NSH,), hidden=True, ovs=(("nsh.md1", 0, 16),)),
    Field("dp_hash", 32, 112, ovs=(("dp_hash", 0, 4),)),
    Field("skb_mark", 32, 116, ovs=(("skb_mark", 0, 4),), meta=0),
    Field("skb_priority", 32, 120, ovs=(("priority", 0, 4),), meta=1),
    _tunnel_address("src", 80),
    _tunnel_address("dst", 96),
    Field("tun_id", 64, 66, octets=4, tunnel=True, ovs=(("tunnel.id", 0, 8),)),
    Field("tun_tp_dst", 16, 78, tunnel=True, flower=_flower("enc_udp_dst_port"), ovs=(("tunnel.tp_dst", 0, 2),)),
    Field("tun_tos", 8, 64, tunnel=True, flower=_flower("enc_ip_tos"), ovs=(("tunnel.tos", 0, 1),)),
    Field("tun_ttl", 8, 65, tunnel=True, flower=_flower("enc_ip_ttl"), ovs=(("tunnel.ttl", 0, 1),)),
    Field("tun_flags", 16, 72, tunnel=True),
    Field("tun_opts_len", 8, 126, tunnel=True),
    Field("tun_option_kind", 8, 127, tunnel=True),
    Field("tun_option", 32, 74, tunnel=True),
    Field("ct_state", 8, 128, ovs=(("ct_state", 0, 4),)),
    Field("ct_zone", 16, 130, flower=_flower("ct_zone"), ovs=(("ct_zone", 0, 2),)),
    Field("ct_mark", 32, 132, flower=_flower("ct_mark"), ovs=(("ct_mark", 0, 4),)),
    Field("ct_labels", 128, 144, flower=_flower("ct_labels"), ovs=(("ct_labels", 0, 16),)),
    _original("src", 160, 0, 0, 128),
    _original("dst", 176, 4, 16, 128),
    _original("tp_src", 136, 8, 32, 16),
    _original("tp_dst", 138, 10, 34, 16),
    _original("proto", 129, 12, 36, 8),
)
"""Every match field. The order is that in which flower and Open vSwitch list them, within one header."""

REWRITE_ONLY: Final = (
    Field("sctp_src", 16, -1, ovs=(("sctp", 0, 2),), found=(Location(_SCTP, 0, 2),)),
    Field("sctp_dst", 16, -1, ovs=(("sctp", 2, 2),), found=(Location(_SCTP, 2, 2),)),
)
"""What can be rewritten, and is matched on by another name."""

OVS_ONLY: Final = (
    Field("recirc_id", 32, -1, ovs=(("recirc_id", 0, 4),)),
    Field("in_port", 16, -1, ovs=(("in_port", 0, 4),)),
    Field("mac_proto", 8, -1),
    Field("tun_proto", 8, -1),
    Field("tun_tp_src", 16, -1, ovs=(("tunnel.tp_src", 0, 2),)),
    Field("ipv6_exthdrs", 16, -1, ovs=(("ipv6_exthdrs", 0, 2),)),
    Field("tun_opts", 8 * 255, -1),
)
"""What Open vSwitch's keys have besides (struct sw_flow_key), which is no field of a rule's match."""

NO_ETHERNET_AT: Final = 124
"""Octet of the packed key that says that the packet has no Ethernet header."""
IN_TUNNEL_AT: Final = 125
"""Octet of the packed key that says that the packet came out of a tunnel."""

BY_NAME: Final = {field.name: field for field in FIELDS}
FIELD_BITS: Final = {field.name: field.bits for field in FIELDS}
"""Width in bits of each match field."""

REWRITABLE: Final = {field.name: field for field in (*FIELDS, *REWRITE_ONLY) if field.found or field.meta is not None}
"""Fields that can be rewritten."""

NARROW: Final = ((0, 32), (40, 48), (56, 64))
"""Octets of the packed key, start and end, that have all that rules on Ethernet, IPv4 and ports match on."""


class Width(enum.IntEnum):
    """Which words of the packed key a mask has bits in: the program skips the others."""

    NARROW = 0
    """Those of :data:`NARROW` alone."""
    WIDE = 1
    """Others, but none from :data:`TRACKED_AT` on."""
    TRACKED = 2
    """Those of :data:`NARROW`, and from :data:`TRACKED_AT` on."""
    STATEFUL = WIDE | TRACKED
    """Any."""


TRACKED: Final = frozenset(field.name for field in FIELDS if field.at >= TRACKED_AT)
"""The fields that say what connection tracking knows of a packet: no octets of the packet, 0 until a ``Ct``."""


def carried_by(attribute: str) -> dict[str, tuple[int, int]]:
    """The fields of an Open vSwitch key attribute, in the order of their octets: offset and octets by name."""
    rows = (*FIELDS, *OVS_ONLY)
    places = {field.name: place[1:] for field in rows for place in field.ovs if place[0] == attribute}
    return dict(sorted(places.items(), key=lambda item: item[1]))


def rewritable_in(attribute: str) -> dict[str, tuple[int, int]]:
    """As :func:`carried_by`, what can be rewritten: where another name is for that, by that name."""
    renamed = {place: field.name for field in REWRITE_ONLY for place in field.ovs}
    named = {renamed.get((attribute, *place), name): place for name, place in carried_by(attribute).items()}
    return {name: place for name, place in named.items() if name in REWRITABLE}


@cache
def flower_keys(prefix: str) -> tuple[str, ...]:
    """The flower keys with a mask whose names begin so, in the order in which the kernel has them."""
    return tuple(key for field in FIELDS for key in field.flower if key.startswith(f"key_{prefix}_"))
