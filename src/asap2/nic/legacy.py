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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from asap2.nic.rules import VLAN_PRESENT, Action, Drop, Goto, Masked, Match, Output, PopVlan, PushVlan, Rule

FDB = 0x4000_0000
"""The table that forwards. (TC chains end at 0x0fffffff.)"""
ACL = 0x4000_0001
"""The table of what a function may send; it goes on to :data:`FDB`."""

_VLAN = VLAN_PRESENT | 0xFFF
_TPID = 0x8100
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
            fields["vlan_tpid"] = Masked(_TPID, 0xFFFF)
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


Tally = tuple[int, str]
"""A VF, and the counter of struct ifla_vf_stats that each packet of the rule counts in."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a rule does."""

    actions: tuple[Action, ...]
    tallies: tuple[Tally, ...] = ()


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


def plan(switch: Switch) -> dict[Key, Planned]:
    """Every rule of the eSwitch."""
    rules: dict[Key, Planned] = {}
    owners: dict[int, list[Vport]] = {}
    for vport in switch.vports:
        if any(vport.mac) and not vport.mac[0] & 1:
            owners.setdefault(int.from_bytes(vport.mac, "big"), []).append(vport)
    for source in (None, *switch.vports):
        _from(switch, source, owners, rules)
        if source is not None and _checked(switch, source):
            _access(switch, source, rules)
    return rules


def _checked(switch: Switch, vport: Vport) -> bool:
    return vport.source is not None or (vport.vst and not switch.stacks_tags)


def _access(switch: Switch, source: Vport, rules: dict[Key, Planned]) -> None:
    mac = int.from_bytes(source.source, "big") if source.source is not None else _NO_MAC
    vlan = Vlan.NONE if source.vst and not switch.stacks_tags else Vlan.ANY
    rules[Key(ACL, source.port, Order.ALLOW, mac, vlan)] = Planned((Goto(FDB),))
    rules[Key(ACL, source.port, Order.DENY)] = Planned((Drop(),), tuple(_tally([source], "tx_dropped")))


def _from(switch: Switch, source: Vport | None, owners: dict[int, list[Vport]], rules: dict[Key, Planned]) -> None:
    """The rules for what comes from *source*, None for the wire."""
    in_port = switch.wire if source is None else source.port
    others = [vport for vport in switch.vports if vport is not source]

    def forward(order: Order, mac: int, to: list[Vport], wire: bool, received: str = "") -> None:
        targets = _Targets(to, switch.wire if wire and source is not None else None, received)
        if source is not None and source.vst:
            rules[Key(FDB, in_port, order, mac)] = targets.tagged(source.vlan, PushVlan(source.vlan, source.qos))
            return
        for vlan in sorted({vport.vlan for vport in to if vport.vst}):
            rules[Key(FDB, in_port, Order(order - 1), mac, vlan)] = targets.tagged(vlan, None)
        rules[Key(FDB, in_port, order, mac)] = targets.untouched()

    for mac, functions in owners.items():
        forward(Order.UNICAST, mac, [vport for vport in functions if vport is not source], False)
    forward(Order.BROADCAST, _BROADCAST, others, True, "broadcast")
    forward(Order.MULTICAST, _NO_MAC, others, True, "multicast")
    rest = [vport for vport in others if vport.promiscuous or vport.index is None] if source is None else []
    forward(Order.REST, _NO_MAC, rest, True)


@dataclass(slots=True)
class _Targets:
    """Where packets go that are alike but for their tag: functions, and the wire's port unless None. *received* names
    the counter of those who get them."""

    functions: list[Vport]
    wire: int | None
    received: str

    def untouched(self) -> Planned:
        """For packets with a tag that is no function's VLAN, or with none."""
        return self._planned([v for v in self.functions if not v.vst], [], None)

    def tagged(self, vlan: int, push: PushVlan | None) -> Planned:
        """For packets in *vlan*: their tag is put on by *push*, or (None) they have it."""
        trunks = [v for v in self.functions if not v.vst]
        return self._planned(trunks, [v for v in self.functions if v.vst and v.vlan == vlan], push)

    def _planned(self, trunks: list[Vport], access: list[Vport], push: PushVlan | None) -> Planned:
        with_tag = [Output(v.port) for v in trunks if v.link] + ([Output(self.wire)] if self.wire is not None else [])
        without = [Output(v.port) for v in access if v.link]
        actions: list[Action] = []
        if push is not None:
            actions += without
            actions += [push, *with_tag] if with_tag else []
        else:
            actions += with_tag
            actions += [PopVlan(), *without] if without else []
        got = [v for v in (*trunks, *access) if v.link]
        lost = [v for v in self.functions if v not in got]
        tallies = [*_tally(got, self.received), *_tally(lost, "rx_dropped")]
        return Planned(tuple(actions) or (Drop(),), tuple(tallies))


def _tally(vports: Iterable[Vport], counter: str) -> Iterator[Tally]:
    return ((v.index, counter) for v in vports if v.index is not None and counter)
