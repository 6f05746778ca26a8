# SPDX-License-Identifier: Apache-2.0
"""LACP: how the ports of a bond of mode 802.3ad agree with those at the other ends of their cables which belong
together (IEEE 802.1AX; drivers/net/bonding/bond_3ad.c).

Plain state machines in virtual time: :class:`Negotiation` gets what arrives and what time it is, and says what to send.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

ETH_P_SLOW: Final = 0x8809
GROUP: Final = bytes.fromhex("0180c2000002")
"""To whom LACPDUs are sent (slow protocols)."""
ACTIVITY, SHORT, AGGREGATION, SYNC, COLLECTING, DISTRIBUTING, DEFAULTED, EXPIRED = (1 << bit for bit in range(8))
"""LACP_STATE_*: the bits of an actor's and a partner's state."""
STABLE: Final = 0
"""BOND_AD_STABLE: another aggregator becomes active only when this one has no ports. By any other ad_select it is the
one with the most ports, as all are equally fast."""
FAST_PERIOD, SLOW_PERIOD = 1.0, 30.0
SHORT_TIMEOUT, LONG_TIMEOUT = 3 * FAST_PERIOD, 3 * SLOW_PERIOD
AGGREGATE_WAIT: Final = 2.0
"""Seconds in which other ports may join, before the first is attached."""
NO_SYSTEM: Final = bytes(6).hex()
PORT_PRIORITY, _NO_PRIORITY = 255, 0xFFFF
_PARTICIPANT = struct.Struct("!BBH6sHHHB3x")
_ACTOR, _PARTNER = 1, 2
_START: Final = b"\x01\x01"
"""Subtype LACP, version 1."""
_END: Final = bytes.fromhex("0310") + bytes(14) + bytes(52)
"""The collector's delay, the terminator, and what is reserved."""
_LENGTH = 110


class Participant(NamedTuple):
    """What an LACPDU says of one of the two ports. *system* is hexadecimal, for JSON."""

    priority: int = _NO_PRIORITY
    system: str = NO_SYSTEM
    key: int = 1
    port_priority: int = PORT_PRIORITY
    port: int = 1
    state: int = ACTIVITY

    def packed(self, kind: int) -> bytes:
        """Its part of an LACPDU."""
        system = bytes.fromhex(self.system)
        parts = (self.priority, system, self.key, self.port_priority, self.port, self.state)
        return _PARTICIPANT.pack(kind, _PARTICIPANT.size, *parts)

    @property
    def who(self) -> tuple[object, ...]:
        """All but the state, and whether it may be aggregated."""
        return (*self[:5], self.state & AGGREGATION)


NOBODY: Final = Participant()
"""The partner of a port at whose other end nobody speaks LACP."""


def pdu(actor: Participant, partner: Participant) -> bytes:
    """An LACPDU, behind its Ethernet header."""
    return _START + actor.packed(_ACTOR) + partner.packed(_PARTNER) + _END


def read_pdu(data: bytes) -> tuple[Participant, Participant] | None:
    """The actor and the partner of an LACPDU; None: it is none."""
    if len(data) < _LENGTH or data[:2] != _START:
        return None
    found = []
    for kind, at in ((_ACTOR, 2), (_PARTNER, 2 + _PARTICIPANT.size)):
        type_, length, priority, system, *rest = _PARTICIPANT.unpack_from(data, at)
        if (type_, length) != (kind, _PARTICIPANT.size):
            return None
        found.append(Participant(priority, system.hex(), *rest))
    return found[0], found[1]


@dataclass(slots=True)
class Port:
    """One port. Times are those of the clock that the caller has; 0: not yet."""

    number: int
    partner: Participant = NOBODY
    state: int = ACTIVITY | SHORT | AGGREGATION | DEFAULTED
    expires: float = 0
    """When its partner has been silent for too long."""
    sent: float = 0
    selected: float = 0
    """Since when it has been in its aggregator."""
    aggregator: int = 0
    matched: bool = False
    """Whether its partner knows it."""
    tell: bool = True
    """Whether the partner is to hear of it now (NTT)."""

    @property
    def has_partner(self) -> bool:
        """Whether somebody speaks LACP at the other end."""
        return self.partner.system != NO_SYSTEM

    @property
    def ready(self) -> bool:
        """Whether both ends use it (AD_MUX_COLLECTING_DISTRIBUTING)."""
        return bool(self.state & DISTRIBUTING)


@dataclass(slots=True)
class Negotiation:
    """The ports of a bond, by their ifindex (as text, for JSON); *active* is the aggregator in use, 0: none."""

    ports: dict[str, Port] = field(default_factory=dict)
    active: int = 0

    @classmethod
    def kept(cls, data: dict[str, Any]) -> Negotiation:
        """What :meth:`as_json` has given."""
        ports = {
            name: Port(**{**port, "partner": Participant(*port["partner"])}) for name, port in data["ports"].items()
        }
        return cls(ports, data["active"])

    def facts(self) -> object:
        """What a bond does and shows of it: all but the times."""
        ports = [(name, p.number, p.partner, p.state, p.aggregator, p.matched) for name, p in self.ports.items()]
        return self.active, ports

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON-able data."""
        return asdict(self)

    def actor(self, port: Port, options: Options) -> Participant:
        """What *port* says of itself."""
        return Participant(options.priority, options.system, options.key, PORT_PRIORITY, port.number, port.state)

    def follow(self, linked: Iterable[int], options: Options) -> None:
        """The ports that have a link are these now."""
        there = {str(ifindex) for ifindex in linked}
        for name in self.ports.keys() - there:
            del self.ports[name]
        for name in sorted(there - self.ports.keys(), key=int):
            taken = {port.number for port in self.ports.values()}
            self.ports[name] = Port(next(number for number in range(1, 256) if number not in taken))
        for port in self.ports.values():
            wanted = (ACTIVITY if options.active else 0) | (SHORT if options.fast else 0)
            if port.state & (ACTIVITY | SHORT) != wanted and not port.state & (DEFAULTED | EXPIRED):
                port.state = port.state & ~(ACTIVITY | SHORT) | wanted
                port.tell = True

    def received(self, ifindex: int, data: bytes, now: float, options: Options) -> None:
        """An LACPDU, without its Ethernet header, has come in by a port (ad_rx_machine, AD_RX_CURRENT)."""
        port, found = self.ports.get(str(ifindex)), read_pdu(data)
        if port is None or found is None:
            return
        theirs, ours = found
        if theirs.system == options.system:  # a loop
            return
        mine = self.actor(port, options)
        port.matched = ours.who == mine.who or not theirs.state & AGGREGATION
        sync = theirs.state & SYNC if port.matched else 0
        fast = SHORT if options.fast else 0
        port.state = port.state & ~(DEFAULTED | EXPIRED | SHORT) | fast
        told = ACTIVITY | SHORT | SYNC | AGGREGATION
        port.tell |= ours.who != mine.who or (ours.state ^ port.state) & told != 0
        before = port.partner
        port.partner = theirs._replace(state=theirs.state & ~SYNC | sync)
        if before.who[:3] != port.partner.who[:3]:
            port.selected = 0
        port.expires = now + (SHORT_TIMEOUT if options.fast else LONG_TIMEOUT)

    def tick(self, now: float, options: Options) -> list[tuple[int, bytes]]:
        """Time has passed; what to send, by which port."""
        for port in self.ports.values():
            self._expire(port, now)
        self._select(now, options)
        sent = []
        for name, port in self.ports.items():
            self._use(port, now)
            period = FAST_PERIOD if port.partner.state & SHORT or not port.has_partner else SLOW_PERIOD
            speaks = port.state & ACTIVITY or port.partner.state & ACTIVITY
            if speaks and (port.tell or now - port.sent >= period):
                port.sent, port.tell = now, False
                sent.append((int(name), pdu(self.actor(port, options), port.partner)))
        return sent

    @staticmethod
    def _expire(port: Port, now: float) -> None:
        """A partner that has been silent is asked, and then forgotten (AD_RX_EXPIRED, AD_RX_DEFAULTED)."""
        if not port.expires or now < port.expires:
            return
        if port.state & EXPIRED:
            port.partner, port.expires, port.selected, port.matched = NOBODY, 0, 0, False
            port.state = port.state & ~EXPIRED | DEFAULTED
        else:
            port.partner = port.partner._replace(state=port.partner.state & ~SYNC | SHORT)
            port.state |= EXPIRED | SHORT
            port.expires = now + SHORT_TIMEOUT
        port.tell = True

    def _select(self, now: float, options: Options) -> None:
        """Ports with one partner are one aggregator; one without a partner is alone (ad_port_selection_logic,
        ad_agg_selection_logic)."""
        numbers: dict[object, int] = {}
        for port in sorted(self.ports.values(), key=lambda port: port.number):
            together = port.partner.who[:3] if port.has_partner else port.number
            port.aggregator = numbers.setdefault(together, port.number)
            if not port.selected:
                port.selected = now
        groups = {number: [p for p in self.ports.values() if p.aggregator == number] for number in numbers.values()}

        def rank(number: int) -> tuple[bool, bool, int, int]:
            ports = groups[number]
            stays = options.select == STABLE and number == self.active
            return ports[0].has_partner, stays, len(ports), -number

        best = max(groups, key=rank, default=0)
        if best != self.active:
            self.active = best
            for port in self.ports.values():
                port.tell = True

    def _use(self, port: Port, now: float) -> None:
        """Attach a port, and use it when its partner does (ad_mux_machine)."""
        state = port.state
        if now - port.selected >= AGGREGATE_WAIT:
            state |= SYNC
        else:
            state &= ~(SYNC | COLLECTING | DISTRIBUTING)
        agreed = state & SYNC and port.matched and port.partner.state & SYNC and port.aggregator == self.active
        state = state | COLLECTING | DISTRIBUTING if agreed else state & ~(COLLECTING | DISTRIBUTING)
        port.tell |= state != port.state
        port.state = state

    def used(self) -> Iterator[int]:
        """The ports that the bond sends and receives by: those that both ends use, or one without a partner."""
        for name, port in self.ports.items():
            if port.aggregator == self.active and (port.ready or not port.has_partner):
                yield int(name)


@dataclass(frozen=True, slots=True)
class Options:
    """What a bond's options say: the priority and address of its system (hexadecimal), the key of its ports, whether it
    begins to speak, whether its partner is to speak each second, and BOND_AD_*."""

    system: str
    priority: int = _NO_PRIORITY
    key: int = 0
    active: bool = True
    fast: bool = False
    select: int = STABLE
