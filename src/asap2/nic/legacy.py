# SPDX-License-Identifier: Apache-2.0
"""Legacy mode: the eSwitch's forwarding by MAC address and VLAN, as rules of the pipeline.

What mlx5_core programs when SR-IOV is on and the eSwitch is not in switchdev mode (Linux 6.x,
drivers/net/ethernet/mellanox/mlx5/core: eswitch.c, esw/legacy.c, esw/acl/ingress_lgcy.c, esw/acl/egress_lgcy.c):

* The forwarding database knows addresses only. A unicast address leads to the functions whose netdev has it now;
  broadcast and multicast to every function and the wire; what nobody has, from a function to the wire, from the wire
  to the PF and to the functions that are trusted and promiscuous.
* A function with a VLAN of the administrator's (VST) has its packets tagged before the database sees them, and gets
  only those with its tag, which is taken off. The others are dropped, as received (``rx_dropped``).
* Its access list drops what it must not send (``tx_dropped``): with the spoof check, packets from another source
  address than the administrator's; with VST on a NIC that cannot stack a second tag, tagged packets.

A packet never goes back to where it came from. Every rule has an in-port, so there are about as many as there are
functions squared. Multicast reaches every function, joined or not: its netdev drops what it has not joined.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from asap2.nic.ethertypes import ETH_P_8021Q
from asap2.nic.rules import VLAN_PRESENT, Action, Drop, Goto, Masked, Match, Output, PopVlan, PushVlan, Rule

FDB = 0x0800_0000
"""The table that forwards. (The eSwitch has no TC chains in legacy mode.)"""
ACL = 0x0800_0001
"""The table of what a function may send; it goes on to :data:`FDB`."""

_VLAN = VLAN_PRESENT | 0xFFF
_MAC = (1 << 48) - 1
_GROUP = 1 << 40
_BROADCAST = _MAC
_NO_MAC = -1


class Order(enum.IntEnum):
    """Priorities in the two tables, and what each matches besides a VLAN."""

    ALLOW = 1
    DENY = 2
    UNICAST_TAGGED = 11
    UNICAST = 12
    BROADCAST_TAGGED = 13
    BROADCAST = 14
    MULTICAST_TAGGED = 15
    MULTICAST = 16
    REST_TAGGED = 17
    REST = 18


class Vlan(enum.IntEnum):
    """What a rule matches of the outer tag where that is not a VLAN id."""

    ANY = -1
    NONE = -2


class Key(NamedTuple):
    """What identifies a rule: ``mac`` is a destination (in :data:`ACL` a source) or -1, ``vlan`` an id or a
    :class:`Vlan`."""

    table: int
    in_port: int
    order: Order
    mac: int = _NO_MAC
    vlan: int = Vlan.ANY

    @property
    def match(self) -> Match:
        """The match that this says."""
        fields: dict[str, Masked] = {}
        if self.mac != _NO_MAC:
            fields["eth_src" if self.table == ACL else "eth_dst"] = Masked(self.mac, _MAC)
        elif self.order in (Order.MULTICAST, Order.MULTICAST_TAGGED):
            fields["eth_dst"] = Masked(_GROUP, _GROUP)
        if self.vlan >= 0:
            fields["vlan_tci"] = Masked(VLAN_PRESENT | self.vlan, _VLAN)
            fields["vlan_tpid"] = Masked(ETH_P_8021Q, 0xFFFF)
        elif self.vlan == Vlan.NONE:
            fields["vlan_tci"] = Masked(0, VLAN_PRESENT)
        return Match(**fields)

    @classmethod
    def of(cls, rule: Rule) -> Key | None:
        """The key of a rule of these tables; None for any other."""
        if rule.table not in (FDB, ACL):
            return None
        address = rule.match.eth_src if rule.table == ACL else rule.match.eth_dst
        tag = rule.match.vlan_tci
        vlan = int(Vlan.ANY) if not tag.mask else tag.value & 0xFFF if tag.value else int(Vlan.NONE)
        mac = address.value if address.mask == _MAC else _NO_MAC
        return cls(rule.table, rule.in_port, Order(rule.priority), mac, vlan)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a rule does. ``tallies`` are counters of struct ifla_vf_stats, each with the VFs for which every packet of
    the rule counts in it."""

    actions: tuple[Action, ...]
    tallies: tuple[tuple[str, frozenset[int]], ...] = ()


@dataclass(frozen=True, slots=True)
class Vport:
    """A function as it is switched now.

    ``index`` is the VF's number, None for the PF; ``mac`` that which its netdev has; ``vlan`` and ``qos`` those of VST
    (both 0: none); ``source`` the only address that it may send from (None: any); ``promiscuous`` whether it is let
    have what nobody has; ``link`` whether its link is up.
    """

    port: int
    mac: bytes
    index: int | None = None
    vlan: int = 0
    qos: int = 0
    source: bytes | None = None
    promiscuous: bool = False
    link: bool = True

    @property
    def vst(self) -> bool:
        """Whether the NIC tags and untags for it."""
        return bool(self.vlan or self.qos)


@dataclass(frozen=True, slots=True)
class Switch:
    """The eSwitch of one PF: the wire's port, the functions, and whether VST puts its tag before another one (else
    tagged packets are dropped)."""

    wire: int
    vports: tuple[Vport, ...]
    stacks_tags: bool = True


def entry(switch: Switch, vport: Vport) -> int:
    """The table in which the packets of *vport* start."""
    return ACL if _checked(switch, vport) else FDB


def rule(key: Key, planned: Planned) -> Rule:
    """The rule as the pipeline takes it."""
    return Rule(key.table, key.in_port, key.order, key.match, planned.actions)


Block = tuple[int, Order, int]
"""Rules that are made together: for an in-port, a class of destinations (:data:`Order.ALLOW` for the access list) and,
with :data:`Order.UNICAST`, an address."""


class Origin(NamedTuple):
    """What the rules of one block follow from: where packets come from (None: the wire), the functions they may go to,
    and the eSwitch's constants. What is equal has equal rules."""

    source: Vport | None
    targets: tuple[Vport, ...]
    wire: int
    stacks_tags: bool


def blocks(switch: Switch) -> dict[Block, Origin]:
    """Every block of rules of the eSwitch."""
    found: dict[Block, Origin] = {}
    owners: dict[int, list[Vport]] = {}
    for vport in switch.vports:
        if any(vport.mac) and not vport.mac[0] & 1:
            owners.setdefault(int.from_bytes(vport.mac, "big"), []).append(vport)
    promiscuous = tuple(vport for vport in switch.vports if vport.promiscuous or vport.index is None)
    functions = {mac: tuple(vports) for mac, vports in owners.items()}
    for source in (None, *switch.vports):
        in_port, constants = switch.wire if source is None else source.port, (switch.wire, switch.stacks_tags)
        for mac, vports in functions.items():
            found[in_port, Order.UNICAST, mac] = Origin(source, vports, *constants)
        everyone = Origin(source, switch.vports, *constants)
        found[in_port, Order.BROADCAST, _BROADCAST] = found[in_port, Order.MULTICAST, _NO_MAC] = everyone
        found[in_port, Order.REST, _NO_MAC] = Origin(source, () if source else promiscuous, *constants)
        if source is not None and _checked(switch, source):
            found[in_port, Order.ALLOW, _NO_MAC] = Origin(source, (), *constants)
    return found


def rules(block: Block, origin: Origin) -> dict[Key, Planned]:
    """The rules of one block."""
    in_port, order, mac = block
    source = origin.source
    if order is Order.ALLOW:
        assert source is not None
        return _access(source, origin.stacks_tags)
    to = (vport for vport in origin.targets if vport is not source)
    wire = origin.wire if source is not None and order is not Order.UNICAST else None
    received = {Order.BROADCAST: "broadcast", Order.MULTICAST: "multicast"}.get(order, "")
    targets = _Targets(to, wire, received)
    if source is not None and source.vst:
        return {Key(FDB, in_port, order, mac): targets.to_tag(PushVlan(source.vlan, source.qos))}
    found = {Key(FDB, in_port, Order(order - 1), mac, vlan): targets.with_tag(vlan) for vlan in targets.vlans()}
    found[Key(FDB, in_port, order, mac)] = targets.untouched()
    return found


def _checked(switch: Switch, vport: Vport) -> bool:
    return vport.source is not None or (vport.vst and not switch.stacks_tags)


def _access(source: Vport, stacks_tags: bool) -> dict[Key, Planned]:
    mac = int.from_bytes(source.source, "big") if source.source is not None else _NO_MAC
    vlan = Vlan.NONE if source.vst and not stacks_tags else Vlan.ANY
    return {
        Key(ACL, source.port, Order.ALLOW, mac, vlan): Planned((Goto(FDB),)),
        Key(ACL, source.port, Order.DENY): Planned((Drop(),), _tx_dropped(source)),
    }


def _tx_dropped(source: Vport) -> tuple[tuple[str, frozenset[int]], ...]:
    return () if source.index is None else (("tx_dropped", frozenset({source.index})),)


class _Targets:
    """Where packets go that are alike but for their tag: functions, and the wire's port unless None. *received* names
    the counter of those who get them."""

    def __init__(self, functions: Iterable[Vport], wire: int | None, received: str) -> None:
        self._received = received
        self._with_tag: list[Action] = []
        self._tagged: set[int] = set()
        self._lost: set[int] = set()
        self._access: dict[int, list[Vport]] = {}
        self._untagged: set[int] = set()
        for vport in functions:
            index = () if vport.index is None else (vport.index,)
            if not vport.link:
                self._lost.update(index)
            elif vport.vlan or vport.qos:
                self._access.setdefault(vport.vlan, []).append(vport)
                self._untagged.update(index)
            else:
                self._with_tag.append(Output(vport.port))
                self._tagged.update(index)
        if wire is not None:
            self._with_tag.append(Output(wire))

    def vlans(self) -> list[int]:
        """The VLANs of the functions that have one."""
        return sorted(self._access)

    def untouched(self) -> Planned:
        """For packets with a tag that is no function's VLAN, or with none."""
        return self._planned(self._with_tag, None)

    def with_tag(self, vlan: int) -> Planned:
        """For packets in *vlan*."""
        without: list[Action] = [Output(vport.port) for vport in self._access.get(vlan, ())]
        return self._planned(self._with_tag + ([PopVlan(), *without] if without else []), vlan)

    def to_tag(self, push: PushVlan) -> Planned:
        """For packets that the tag of *push* is put on."""
        without: list[Action] = [Output(vport.port) for vport in self._access.get(push.vid, ())]
        return self._planned(without + ([push, *self._with_tag] if self._with_tag else []), push.vid)

    def _planned(self, actions: list[Action], vlan: int | None) -> Planned:
        inside = {v.index for v in self._access.get(vlan, ()) if v.index is not None} if vlan is not None else set()
        got, lost = self._tagged | inside, self._lost | self._untagged - inside
        tallies = [(self._received, frozenset(got))] if self._received and got else []
        tallies += [("rx_dropped", frozenset(lost))] if lost else []
        return Planned(tuple(actions) or (Drop(),), tuple(tallies))
