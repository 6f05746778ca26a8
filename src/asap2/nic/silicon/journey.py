# SPDX-License-Identifier: Apache-2.0
"""A packet on its way through the reference eSwitch."""

from __future__ import annotations

from dataclasses import dataclass, field

from asap2.nic.conntrack.seen import Seen
from asap2.nic.rules import OVS_TABLE, Masked, SetField, SetTunnel
from asap2.nic.silicon import packet
from asap2.nic.silicon.packet import Fields
from asap2.nic.silicon.ports import Port, PortKind
from asap2.nic.silicon.rewrite import rewrite
from asap2.nic.silicon.rulelists import Entry

_ALWAYS = 0xFFFF_FFFF


@dataclass
class Journey:
    """A packet on its way. *came_in* is the metadata of the tunnel that the kernel took it out of, *goes_into* that of
    the tunnel that the kernel is to put it into."""

    frame: bytes
    segments: int
    flow_hash: int
    came_in: SetTunnel | None
    goes_into: SetTunnel | None = None
    resume: int = 0
    """What the node is told when no rule matches."""
    cut: int | None = None
    """What is sent next is to be cut to so many bytes."""
    mark: int = 0
    priority: int = 0
    dp_hash: int = 0
    bare: bool = False
    """It has no Ethernet header; what stands in front is room for one."""
    layered: bool = False
    """Headers have been put in front of it: the kernel then makes no room go."""
    enveloped: bool = False
    """Headers have been put in front of it: the kernel then may not cut what follows its datagram."""
    stage: int = 0
    """Which of its port's tables it is in."""
    arrived: int = 0
    """Bytes that came in, without the outer tag."""
    lookups: int = 0
    depth: int = 0
    tracked: Fields = field(default_factory=dict)
    """What connection tracking says of it: its ``ct_`` fields that are not 0. Replaced as a whole, never changed."""
    seen: Seen | None = None
    """Its connection."""
    in_table: bool = False
    """Whether this packet's own actions found its connection in the table, or put it there. A copy of the packet has
    the same connection, and may put it there later: a NIC does not know of that, as each packet has its own registers.
    """
    untranslated: bytes | None = None
    """The frame before a NIC translated what is inside its tunnel, if it has not changed otherwise since."""
    first: int = 0
    """The priority number of the rules that it is looked up among, or of the first of them."""
    counted: tuple[Entry, int, int] | None = None
    """The rule that has counted it last, and packets and octets."""

    @property
    def as_it_came(self) -> bytes:
        """The frame as the node gets it, which begins anew with a packet that is still in its tunnel."""
        return self.frame if self.untranslated is None else self.untranslated

    def metadata(self) -> Fields:
        """What its octets do not show."""
        fields = {"dp_hash": self.dp_hash, "skb_mark": self.mark, "skb_priority": self.priority}
        return {name: value for name, value in fields.items() if value} | self.tracked


def shortened(frame: bytes, length: int | None) -> bytes:
    """The outer tag does not count: it is in the packet's metadata. (The kernel refuses to cut inside its headers.)"""
    if length is None:
        return frame
    return frame[: length + 4 if packet.tagged(frame) else length]


def without_tag(frame: bytes) -> bytes:
    """A frame, but for its outer tag."""
    if not packet.tagged(frame) or len(frame) < packet.HEADER + 4:
        return frame
    return frame[:12] + frame[16:]


def octets_without_tag(frame: bytes) -> int:
    """How many octets those are."""
    return len(without_tag(frame))


def length_of(what: Journey) -> int:
    """Of the packet without its outer tag and without room in front, or of a segment."""
    return octets_without_tag(what.frame) - (packet.HEADER if what.bare else 0)


def octets_of(what: Journey, port: Port, table: int) -> int:
    """What a rule counts. TC's of a node's device: what came in, whatever was done to it since, without its outer tag
    (qdisc_pkt_len), and 14 for each segment of a super-packet but the first, which the TC face takes off again. Others:
    as the wire would, without room in front."""
    if port.kind is PortKind.NODE and not table & OVS_TABLE:
        return what.arrived + packet.HEADER * (what.segments - 1)
    return len(what.frame) - (packet.HEADER if what.bare else 0)


def chosen(probability: int, what: Journey) -> bool:
    """Whether a packet is one of those that a chance of *probability* / 2^32 chooses."""
    return probability == _ALWAYS or bool(probability and what.flow_hash <= probability)


def hops(frame: bytes) -> int | None:
    """How many hops an IP packet may still live, 256 for another, or one with two tags; None: it is cut short."""
    fields = packet.parse(frame)
    l3 = packet.HEADER + (4 if "vlan_tci" in fields else 0)
    header = {0x0800: (20, 8), 0x86DD: (40, 7)}.get(fields["eth_type"])
    if header is None or "cvlan_tci" in fields:
        return 256
    return frame[l3 + header[1]] if len(frame) >= l3 + header[0] else None


def one_hop_less(frame: bytes, left: int) -> bytes:
    """*frame*, which has so many hops *left* (:func:`hops`), after one more."""
    return rewrite(frame, SetField("ip_ttl", Masked(left - 1, 0xFF))) if left < 256 else frame
