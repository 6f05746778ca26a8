# SPDX-License-Identifier: Apache-2.0
"""The rule vocabulary of the eSwitch: matches and actions, as data.

Three users share it: the eBPF program's maps (:mod:`asap2.nic.silicon.maps`), the pure-Python reference eSwitch
(:mod:`asap2.nic.silicon.reference`), which defines what is right, and the kernel faces, which translate TC flower
filters and Open vSwitch datapath flows into it. Everything here is frozen and hashable.

Numbers are host integers; addresses are :class:`bytes` in network order (6 bytes a MAC, 4 an IPv4, 16 an IPv6 address).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from asap2.nic.fields import FIELD_BITS
from asap2.nic.layer_actions import LayerChange
from asap2.nic.nat import Nat
from asap2.nic.tunnels import PROTOCOLS

VLAN_PRESENT = 0x1000
"""Bit of a matched or pushed TCI that says "there is a tag" (it takes the place of the DEI bit, as in Open vSwitch)."""

OVS_TABLE = 0x8000_0000
"""Tables with this bit are Open vSwitch recirculation ids; without it they are TC chains."""

BARE = 0x1000_0000
"""Bit of a table: its rules are for packets without an Ethernet header, and the others for packets with one."""

UNREACHED = 0x4000_0000
"""Bit of a table that no packet is looked up in: packets go on within the actions of its rules only."""

TUN_CSUM, TUN_KEY, TUN_DONT_FRAGMENT, TUN_OAM = 0x0001, 0x0004, 0x0100, 0x0200
"""Bits of ``tun_flags``: the outer UDP header had a checksum, there was an id, the IPv4 header said not to fragment,
the tunnel's header said OAM (TUNNEL_CSUM and so on, include/net/ip_tunnels.h)."""
TUN_OPTIONS, TUN_GBP, TUN_ERSPAN = 0x0800, 0x1000, 0x4000
"""Bits of the metadata's flags: there are options of Geneve, the group policy of VXLAN, the metadata of ERSPAN
(TUNNEL_GENEVE_OPT, TUNNEL_VXLAN_OPT, TUNNEL_ERSPAN_OPT)."""


class Frag(enum.IntFlag):
    """IP fragment bits, as flower's FLOW_DIS_IS_FRAGMENT and FLOW_DIS_FIRST_FRAG (include/net/flow_dissector.h)."""

    NONE = 0
    IS_FRAGMENT = 1
    FIRST = 2


class CtState(enum.IntFlag):
    """Bits of ``ct_state`` (OVS_CS_F_*, include/uapi/linux/openvswitch.h)."""

    NEW = 0x01
    EST = 0x02
    REL = 0x04
    RPL = 0x08
    """The packet goes in the reply direction."""
    INV = 0x10
    TRK = 0x20
    SNAT = 0x40
    """The source of the connection, or of its reply, is translated."""
    DNAT = 0x80


class _Masked(NamedTuple):
    value: int
    mask: int


class Masked(_Masked):
    """A value and the bits of it that count; ``value & ~mask == 0``, else ValueError."""

    __slots__ = ()

    def __new__(cls, value: int, mask: int) -> Self:
        if value & ~mask:
            raise ValueError(f"value {value:#x} has bits outside mask {mask:#x}")
        return tuple.__new__(cls, (value, mask))

    def covers(self, number: int) -> bool:
        """Whether *number* matches."""
        return number & self.mask == self.value


ANY = Masked(0, 0)


class Match:
    """What a packet must look like. Every field (:data:`asap2.nic.fields.FIELDS`) is a :class:`Masked` big-endian
    integer; ``ANY`` leaves it out.

    ``eth_type`` is that of the payload behind at most two VLAN tags. ``vlan_tci`` and ``cvlan_tci`` carry
    :data:`VLAN_PRESENT`; an untagged packet has 0 there. ``vlan_tpid`` is the outer tag's (0 when untagged),
    ``cvlan_tpid`` the first octet of the inner tag's: 0x81 or 0x88.
    ``ip_src`` and ``ip_dst`` hold an IPv4 address (or ARP's sender and target protocol address) in the low 32 bits,
    an IPv6 address in all 128. ``ip_proto`` holds ARP's operation for ARP. ``l4_src`` and ``l4_dst`` hold ICMP's
    type and code. The fields of a header that is not there, or is cut short, or of a later fragment, are 0.
    ``nd_sll`` and ``nd_tll`` are the source's and target's link-layer address of neighbour discovery.
    ``mpls_lse1`` to ``mpls_lse3`` are the first label stack entries, ``mpls_labels`` has a bit for each of them.
    ``dp_hash`` is what :class:`Hash` computed last, ``skb_mark`` and ``skb_priority`` are the packet's in the kernel.
    ``tun_opts_len`` are the octets of options in the tunnel's header. ``tun_option_kind`` is the number of the option
    that the pipeline knows (:class:`asap2.nic.tunnels.options.OptionKinds`), and ``tun_option`` its data of 32 bits: on
    the wire the first such option of the header; of metadata the first option, if it is such a one.
    The fields whose names begin with ``ct_`` are what the last :class:`Ct` has found, and 0 before it: ``ct_state`` are
    bits of :class:`CtState`; ``ct_labels`` is the big-endian number that the 16 octets of the kernel's attributes make;
    ``ct_src``, ``ct_dst``, ``ct_tp_src``, ``ct_tp_dst`` and ``ct_proto`` are the connection's tuple in its original
    direction, before any NAT, with addresses as in ``ip_src``; of ICMP, the ports are type and code.

    The tables of Open vSwitch see a packet as its datapath in Linux does, others as the kernel's flow dissector.

    It keeps the fields that are matched on, and no others: most rules have few. ValueError for a mask that is wider
    than its field, TypeError for a field that there is not.
    """

    __slots__ = ("_used",)

    def __init__(self, **fields: Masked) -> None:
        used = {}
        for name, masked in fields.items():
            bits = FIELD_BITS.get(name)
            if bits is None:
                raise TypeError(f"there is no field {name}")
            if masked.mask:
                if masked.mask >> bits:
                    raise ValueError(f"{name} is {bits} bits wide; mask {masked.mask:#x} is wider")
                used[name] = masked
        self._used = used

    @classmethod
    def of(cls, used: dict[str, Masked]) -> Self:
        """The match of these fields, which are known to be right, and from now on its own."""
        match = cls.__new__(cls)
        match._used = used
        return match

    def __getattr__(self, name: str) -> Masked:
        if name not in FIELD_BITS:
            raise AttributeError(f"there is no field {name}")
        return self._used.get(name, ANY)

    def __eq__(self, other: object) -> bool:
        return self._used == other._used if isinstance(other, Match) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._used.items()))

    def __repr__(self) -> str:
        return f"Match({', '.join(f'{name}={masked!r}' for name, masked in self._used.items())})"

    def used(self) -> dict[str, Masked]:
        """The fields that are matched on at all. Not to be changed."""
        return self._used

    def but(self, **fields: Masked) -> Match:
        """The same with other *fields*."""
        return Match(**{**self._used, **fields})


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet as it now is to *port* (an id of the pipeline's port table).

    *resume*, where it is not 0, tells the node's pipeline behind that port what to do with it
    (:class:`asap2.nic.silicon.resumes.Resumes`).
    """

    port: int
    resume: int = 0


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
    """Rewrite the outer tag in place (TC vlan action "modify"): TPID and vid, and the pcp unless that is None."""

    vid: int
    pcp: int | None = None
    tpid: int = 0x8100


@dataclass(frozen=True, slots=True)
class Drop:
    """Stop and count the packet as dropped by rule."""


@dataclass(frozen=True, slots=True)
class Goto:
    """Look the packet, as it now is, up in *table* (TC ``goto chain``, Open vSwitch ``recirc``).

    Where no rule matches there or later, *resume* tells the node's pipeline where to go on, as with :class:`Output`.
    """

    table: int
    resume: int = 0


@dataclass(frozen=True, slots=True)
class LookOn:
    """Look the packet, as it now is, up in the same table once more, among the rules whose priority number is *first*
    or greater (TC ``continue``). A packet that none of them is for is as one that no rule is for."""

    first: int


@dataclass(frozen=True, slots=True)
class Enter:
    """Look the packet, as it now is, up as one that comes in by *port* (mlx5: forward to an internal port), which is
    enabled and has tables: else it is dropped.

    *resume* as for :class:`Goto`.
    """

    port: int
    resume: int = 0


@dataclass(frozen=True, slots=True)
class Upcall:
    """Give a copy of the packet to user space; *cookie* names the action's user data (Open vSwitch ``userspace``)."""

    cookie: int


@dataclass(frozen=True, slots=True)
class Pass:
    """Let the packet go on to the next stage: the next table in line, then the network stack (TC ``ok``)."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cut what the next output or upcall sends to *length* bytes (Open vSwitch ``trunc``), without the outer tag."""

    length: int


@dataclass(frozen=True, slots=True)
class SetField:
    """Rewrite header *field* (a name of :data:`asap2.nic.fields.REWRITABLE`) where ``mask`` says, checksums kept right.

    SCTP's ports have names of their own, ``sctp_src`` and ``sctp_dst``: as ``l4_src`` they are rewritten without
    SCTP's checksum, as TC does.
    """

    field: str
    to: Masked


@dataclass(frozen=True, slots=True)
class AddTtl:
    """Add *amount*, 1 to 255, to the time to live or hop limit, modulo 256; checksums stay right."""

    amount: int


@dataclass(frozen=True, slots=True)
class Encap:
    """Put the packet in a tunnel. *protocol* is a name of :data:`asap2.nic.tunnels.PROTOCOLS`; the rest are the fields
    of its headers. *tp_dst* is the protocol's own port where none is given. *options* are as on the wire; without
    *keyed*, the header has no id, which is 0 then."""

    protocol: str
    tun_id: int
    src: bytes
    dst: bytes
    tos: int = 0
    ttl: int = 64
    tp_dst: int = -1
    eth_src: bytes = b""
    eth_dst: bytes = b""
    options: bytes = b""
    keyed: bool = True

    def __post_init__(self) -> None:
        if self.tp_dst == -1:
            protocol = PROTOCOLS.get(self.protocol)
            object.__setattr__(self, "tp_dst", protocol.port if protocol else 0)


@dataclass(frozen=True, slots=True)
class Decap:
    """Take the packet out of its tunnel."""


@dataclass(frozen=True, slots=True)
class SetTunnel:
    """Give the packet tunnel metadata for the kernel's own tunnel device that a following output sends to.

    Open vSwitch's ``set(tunnel(...))`` and TC's ``tunnel_key set`` in software. ``csum`` asks for an outer UDP
    checksum, ``dont_fragment`` for the outer IPv4 header's DF bit; ``src`` all zero lets the routing table choose. The
    device decides the protocol, and the UDP port where ``tp_dst`` is 0. ``options`` and ``keyed`` as in :class:`Encap`.
    """

    tun_id: int
    src: bytes
    dst: bytes
    tos: int = 0
    ttl: int = 64
    tp_dst: int = 0
    csum: bool = False
    dont_fragment: bool = False
    options: bytes = b""
    keyed: bool = True


@dataclass(frozen=True, slots=True)
class Clone:
    """Do *actions* with a copy of the packet, then go on with the packet as it is (Open vSwitch ``clone``)."""

    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """As :class:`Clone`, of *probability* / 2^32 of the packets: none for 0, all for 0xffffffff."""

    probability: int
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class CheckLength:
    """Go on with *greater* if the packet, or each segment of a super-packet, has more than *length* bytes, else with
    *others*. The outer tag does not count."""

    length: int
    greater: tuple[Action, ...]
    others: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class DecTtl:
    """One hop less to live; of a packet that has none left, *exhausted* becomes instead of all that follows."""

    exhausted: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Chance:
    """Of *probability* / 2^32 of the packets, *instead* becomes instead of all that follows; probabilities as those of
    :class:`Sample`."""

    probability: int
    instead: tuple[Action, ...]


class HashAlgorithm(enum.IntEnum):
    """OVS_HASH_ALG_*: the kernel's hash of the flow, or one that is the same in both directions."""

    L4 = 0
    SYMMETRIC = 1


@dataclass(frozen=True, slots=True)
class Hash:
    """Compute the packet's ``dp_hash``, which stays with it through later lookups."""

    algorithm: HashAlgorithm
    basis: int


@dataclass(frozen=True, slots=True)
class Ct:
    """Find the packet's connection in *zone*: sets the packet's ``ct_`` fields, and translates its addresses.

    *commit*: a new connection is remembered, and *mark* and *labels* become its own. *force*: one whose original
    direction is the other way round is replaced. *helper* and *timeout* name a helper and a timeout policy; *family* is
    the address family that *nat* or *helper* is for, 0 for any. *eventmask* says which events of it are told (bits of
    IPCT_*; ``None``: all). *offload*: TC's act_ct, whose zone has a flow table: a connection that qualifies becomes one
    that hardware carries.
    """

    zone: int = 0
    commit: bool = False
    force: bool = False
    mark: Masked | None = None
    labels: Masked | None = None
    nat: Nat | None = None
    helper: str = ""
    family: int = 0
    eventmask: int | None = None
    timeout: str = ""
    offload: bool = False


@dataclass(frozen=True, slots=True)
class CtClear:
    """Forget what connection tracking said of the packet: its ``ct_`` fields become 0."""


@dataclass(frozen=True, slots=True)
class CtHardware:
    """A NIC's part of :class:`Ct`: find the packet's connection among those that hardware carries in *zone*.

    Found: the packet gets its ``ct_`` fields, and with *nat* its translation. A packet of another connection, one with
    FIN or RST, a fragment, one that has no more than one hop to live, or with IP options goes to the node, with
    *resume*, which says at which action of which rule it goes on there (tc's act_miss_cookie).

    *inside*: the connection is that of the packet inside the tunnel. The packet stays in the tunnel, so that the node
    can begin with it anew: if it goes to the node, and no other action has changed it, its translation is undone.
    """

    zone: int
    nat: bool
    resume: int
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Meter:
    """Count the packet against the rate of *meter* (an index of the pipeline's meters).

    Of a packet over the rate, *exceeded* becomes instead of all that follows; nothing: it is dropped.
    """

    meter: int
    exceeded: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Psample:
    """Give one of *every* packets, at random, to the programs that listen to psample: the packet as it now is, without
    the outer tag, and of it *length* octets at most (``None``: all).

    The rest is what they are told with it (PSAMPLE_ATTR_*): *group*, *rate*, the devices *ifindex* and *out* (0: none),
    a *cookie* of at most :data:`asap2.nic.silicon.abi.SAMPLE_COOKIE` octets; *ifindex* may be
    :data:`asap2.nic.silicon.abi.IN_PORT`, the id of the port that the packet came in by. *probability*: the rate is one
    in 2^32. *tunnel* is the tunnel that a NIC took the packet out of (without its flags); in software the packet's own
    metadata tells. *counted*: the group numbers its packets.
    """

    group: int
    rate: int
    every: int = 1
    length: int | None = None
    ifindex: int = 0
    out: int = 0
    cookie: bytes = b""
    probability: bool = False
    tunnel: SetTunnel | None = None
    counted: bool = False


Change = PushVlan | PopVlan | ModifyVlan | SetField | AddTtl | Encap | Decap | SetTunnel | LayerChange
"""Actions that change the packet and lead nowhere."""

Branch = Clone | Sample | CheckLength | DecTtl | Meter | Chance
"""Actions with action lists in them."""

Track = Ct | CtClear | CtHardware
"""Actions of connection tracking."""

Action = Output | Upcall | Psample | Truncate | Hash | Goto | LookOn | Enter | Pass | Drop | Branch | Change | Track
"""Each one is in every layer, or refused there by name: the type checker demands it where they are told apart
(``assert_never``), tests where there is a table (:data:`asap2.nic.silicon.actioncodes.ENCODERS`)."""


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
