# SPDX-License-Identifier: Apache-2.0
"""The rule vocabulary of the eSwitch: matches and actions, as data.

Three users share it: the eBPF program's maps (:mod:`asap2.nic.silicon.maps`), the pure-Python reference eSwitch
(:mod:`asap2.nic.silicon.reference`), which defines what is right, and the kernel faces, which translate TC flower
filters and Open vSwitch datapath flows into it. Everything here is frozen and hashable.

Numbers are host integers; addresses are :class:`bytes` in network order (6 bytes a MAC, 4 an IPv4, 16 an IPv6 address).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields

VLAN_PRESENT = 0x1000
"""Bit of a matched or pushed TCI that says "there is a tag" (it takes the place of the DEI bit, as in Open vSwitch)."""

OVS_TABLE = 0x8000_0000
"""Tables with this bit are Open vSwitch recirculation ids; without it they are TC chains."""


class Frag(enum.IntFlag):
    """IP fragment bits, as flower's FLOW_DIS_IS_FRAGMENT and FLOW_DIS_FIRST_FRAG (include/net/flow_dissector.h)."""

    NONE = 0
    IS_FRAGMENT = 1
    FIRST = 2


@dataclass(frozen=True, slots=True)
class Masked:
    """A value and the bits of it that count; ``value & ~mask == 0``."""

    value: int
    mask: int

    def __post_init__(self) -> None:
        if self.value & ~self.mask:
            raise ValueError(f"value {self.value:#x} has bits outside mask {self.mask:#x}")

    def covers(self, number: int) -> bool:
        """Whether *number* matches."""
        return number & self.mask == self.value


ANY = Masked(0, 0)

FIELD_BITS: dict[str, int] = {
    "eth_dst": 48,
    "eth_src": 48,
    "eth_type": 16,
    "vlan_tci": 16,
    "cvlan_tci": 16,
    "vlan_tpid": 16,
    "ip_proto": 8,
    "ip_tos": 8,
    "ip_ttl": 8,
    "ip_frag": 8,
    "ip_src": 128,
    "ip_dst": 128,
    "ipv6_label": 20,
    "l4_src": 16,
    "l4_dst": 16,
    "tcp_flags": 12,
    "arp_sha": 48,
    "arp_tha": 48,
    "nd_target": 128,
    "tun_id": 64,
    "tun_src": 128,
    "tun_dst": 128,
    "tun_tos": 8,
    "tun_ttl": 8,
    "tun_flags": 16,
    "tun_tp_dst": 16,
}
"""Width in bits of each match field."""


@dataclass(frozen=True, slots=True)
class Match:
    """What a packet must look like. Every field is a :class:`Masked` big-endian integer; ``ANY`` leaves it out.

    ``eth_type`` is that of the payload behind at most two VLAN tags. ``vlan_tci`` and ``cvlan_tci`` carry
    :data:`VLAN_PRESENT`; an untagged packet has 0 there. ``vlan_tpid`` is the outer tag's (0 when untagged).
    ``ip_src`` and ``ip_dst`` hold an IPv4 address (or ARP's sender and target protocol address) in the low 32 bits,
    an IPv6 address in all 128. ``ip_proto`` holds ARP's operation for ARP. ``l4_src`` and ``l4_dst`` hold ICMP's
    type and code. The fields of a header that is not there, or is cut short, or of a later fragment, are 0.
    """

    eth_dst: Masked = ANY
    eth_src: Masked = ANY
    eth_type: Masked = ANY
    vlan_tci: Masked = ANY
    cvlan_tci: Masked = ANY
    vlan_tpid: Masked = ANY
    ip_proto: Masked = ANY
    ip_tos: Masked = ANY
    ip_ttl: Masked = ANY
    ip_frag: Masked = ANY
    ip_src: Masked = ANY
    ip_dst: Masked = ANY
    ipv6_label: Masked = ANY
    l4_src: Masked = ANY
    l4_dst: Masked = ANY
    tcp_flags: Masked = ANY
    arp_sha: Masked = ANY
    arp_tha: Masked = ANY
    nd_target: Masked = ANY
    tun_id: Masked = ANY
    tun_src: Masked = ANY
    tun_dst: Masked = ANY
    tun_tos: Masked = ANY
    tun_ttl: Masked = ANY
    tun_flags: Masked = ANY
    tun_tp_dst: Masked = ANY

    def __post_init__(self) -> None:
        for name, bits in FIELD_BITS.items():
            if getattr(self, name).mask >> bits:
                raise ValueError(f"{name} is {bits} bits wide; mask {getattr(self, name).mask:#x} is wider")

    def used(self) -> dict[str, Masked]:
        """The fields that are matched on at all."""
        return {f.name: m for f in fields(self) if (m := getattr(self, f.name)).mask}


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet as it now is to *port* (an id of the pipeline's port table)."""

    port: int


@dataclass(frozen=True, slots=True)
class PushVlan:
    """Add an outer tag: *tpid* (0x8100 or 0x88a8), *vid* 0-4095, *pcp* 0-7."""

    vid: int
    pcp: int = 0
    tpid: int = 0x8100


@dataclass(frozen=True, slots=True)
class PopVlan:
    """Remove the outer tag; nothing when there is none."""


@dataclass(frozen=True, slots=True)
class ModifyVlan:
    """Rewrite the outer tag's vid and pcp in place (TC vlan action "modify")."""

    vid: int
    pcp: int = 0
    tpid: int = 0x8100


@dataclass(frozen=True, slots=True)
class Drop:
    """Stop and count the packet as dropped by rule."""


@dataclass(frozen=True, slots=True)
class Goto:
    """Look the packet, as it now is, up in *table* (TC ``goto chain``, Open vSwitch ``recirc``)."""

    table: int


@dataclass(frozen=True, slots=True)
class Upcall:
    """Give a copy of the packet to user space; *cookie* names the action's user data (Open vSwitch ``userspace``)."""

    cookie: int


@dataclass(frozen=True, slots=True)
class Pass:
    """Let the packet go on to the next stage: the next table in line, then the network stack (TC ``ok``)."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut the next output's copy to *length* bytes (Open vSwitch ``trunc``)."""

    length: int


@dataclass(frozen=True, slots=True)
class SetField:
    """Rewrite header *field* (a name of :data:`FIELD_BITS`) where ``mask`` says, checksums kept right."""

    field: str
    to: Masked


@dataclass(frozen=True, slots=True)
class Encap:
    """Put the packet in a tunnel. *protocol* names the header, as ``vxlan``; the rest are its fields."""

    protocol: str
    tun_id: int
    src: bytes
    dst: bytes
    tos: int = 0
    ttl: int = 64
    tp_dst: int = 4789
    eth_src: bytes = b""
    eth_dst: bytes = b""


@dataclass(frozen=True, slots=True)
class Decap:
    """Take the packet out of its tunnel."""


@dataclass(frozen=True, slots=True)
class SetTunnel:
    """Give the packet tunnel metadata for the kernel's own tunnel device that a following output sends to.

    Open vSwitch's ``set(tunnel(...))`` and TC's ``tunnel_key set`` in software. ``csum`` asks for an outer UDP
    checksum, ``dont_fragment`` for the outer IPv4 header's DF bit; ``src`` all zero lets the routing table choose.
    """

    tun_id: int
    src: bytes
    dst: bytes
    tos: int = 0
    ttl: int = 64
    tp_dst: int = 4789
    csum: bool = False
    dont_fragment: bool = False


Action = (
    Output
    | PushVlan
    | PopVlan
    | ModifyVlan
    | Drop
    | Goto
    | Upcall
    | Pass
    | Truncate
    | SetField
    | Encap
    | Decap
    | SetTunnel
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry: in *table*, for packets of *in_port*, before every rule of greater *priority* number.

    Among rules of one priority that both match, the one whose mask is older wins, as in the kernel's flower.
    An empty action list drops.
    """

    table: int
    in_port: int
    priority: int
    match: Match = field(default_factory=Match)
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Counters:
    """What a rule has done: packets (a TCP super-packet counts as the wire's segments), bytes with the Ethernet
    header, and the time of last use in nanoseconds of CLOCK_MONOTONIC, 0 for never."""

    packets: int = 0
    bytes: int = 0
    used_ns: int = 0
