# SPDX-License-Identifier: Apache-2.0
"""Who writes a random program: about packets of any kind, or about connections."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from asap2.nic.conntrack.states import SECOND
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import (
    OVS_TABLE,
    Action,
    CheckLength,
    Clone,
    Ct,
    CtClear,
    CtHardware,
    CtState,
    Decap,
    DecTtl,
    Drop,
    Encap,
    Enter,
    Goto,
    Masked,
    Match,
    Output,
    Pass,
    Rule,
    Sample,
    SetField,
    Upcall,
)
from asap2.nic.silicon.ports import PortKind
from asap2.nic.silicon.tunnel import encapsulate
from tests.system.nic.silicon import conversations
from tests.system.nic.silicon.frames import IPV4, IPV6, MACS
from tests.system.nic.silicon.programs import Author
from tests.system.nic.silicon.steps import (
    Add,
    Expect,
    Forget,
    LimitZone,
    Replace,
    Send,
    SetMark,
    SetPorts,
    Step,
    Verify,
)

_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_TUNNELS = tuple(Encap("vxlan", 77, *ends[:2], eth_src=MACS[0], eth_dst=MACS[1]) for ends in (IPV4, IPV6))
_WAITS = (0, 0, 0, 1000, SECOND, 3 * SECOND, 11 * SECOND, 31 * SECOND, 130 * SECOND, 301 * SECOND)
_SHORT_WAITS = (1000, SECOND, 3 * SECOND, 3 * SECOND, 11 * SECOND, 31 * SECOND)
_RESUMES = (0, 1, 2, 0xFFFF)
_AFTER_UPCALL = (
    (("ct_state", int(CtState.TRK | CtState.NEW)),),
    (("ct_state", int(CtState.TRK | CtState.EST)), ("ct_zone", 1)),
    (("ct_state", int(CtState.TRK | CtState.NEW | CtState.SNAT)), ("ct_mark", 5)),
    (("ct_state", int(CtState.TRK | CtState.INV)),),
)
"""What packets that user space hands in bring with them."""
_NAT_STATES = (0, int(CtState.SNAT), int(CtState.DNAT), int(CtState.SNAT | CtState.DNAT))


def program(random: Random, packets: int) -> list[Step]:
    """A program in which so many packets come in.

    It is either one of a silicon, which puts packets into tunnels and takes them out itself, or one of a node, which
    leaves that to the kernel and may cut packets. (The kernel cuts no packet that a program has put into a tunnel.)
    In some nearly all is as it usually is: IPv4, TCP and UDP, and rules for that; some are about connections.
    """
    chance = random.random()  # the least is the shortest program, which Hypothesis needs
    if chance > 0.88:
        return CarrierAuthor(random).program(packets)
    if chance > 0.66:
        return StatefulAuthor(random, silicon=random.random() < 0.3).program(packets)
    return Author(random, silicon=random.random() < 0.6, usual=random.random() < 0.35).program(packets)


class StatefulAuthor(Author):
    """Makes rules that track connections, and packets of connections. In some programs they are those of a firewall:
    one zone, new connections are committed and translated, and little is wrong; in some of those, packets come in
    tunnels."""

    def __init__(self, random: Random, *, silicon: bool) -> None:
        self._inside = silicon and random.random() < 0.7
        self._sources = random.random() < 0.15
        self._firewall = self._inside or self._sources or random.random() < 0.6
        self._zone = random.choice(conversations.ZONES)
        kinds = (NatKind.SRC,) if self._sources else (None, NatKind.SRC, NatKind.DST)
        self._translated = random.choice(kinds) if self._firewall else None
        self._crowd = not self._sources and random.random() < 0.15
        self._conversations = conversations.Conversations(
            random, self._translated, calm=self._firewall, crowd=self._crowd, sources=self._sources
        )
        self._written: dict[int, Rule] = {}
        super().__init__(random, silicon=silicon)

    def program(self, packets: int) -> list[Step]:
        steps = super().program(packets)
        first = [rule for port in (1, 2) for family in (4, 6) for rule in self._begin(port, family)]
        verify = [Verify(False)] if self._random.random() < 0.4 else []
        return [steps[0], *verify, *(self._added(rule) for rule in first), *steps[1:]]

    def _ports(self) -> SetPorts:
        made = super()._ports()
        if not self._inside:
            return made
        first, wire, *others = made.ports
        first = replace(first, kind=PortKind.VF, tables=(0,), metadata=False)
        wire = replace(wire, kind=PortKind.UPLINK, tables=(0,), metadata=False)
        return replace(made, ports=(first, wire, *others))

    def _added(self, rule: Rule) -> Add:
        self._next += 1
        self._rules.append(self._next)
        self._written[self._next] = rule
        return Add(self._next, rule)

    def _add(self) -> Add:
        return self._added(self.rule())

    def _of_one_protocol(self, within: tuple[int, int] | None) -> bool:
        """Whether a packet within a rule must be of the protocol of a timeout policy."""
        rule = self._written.get(within[0]) if within else None
        return rule is not None and bool(rule.match.ip_proto.mask)

    def _begin(self, port: int, family: int) -> list[Rule]:
        """Rules that nearly every packet of a port meets first."""
        table = 0 if self._inside else self._random.choice((0, OVS_TABLE))
        if not self._firewall:
            first = conversations.action(self._random, family, ovs=bool(table)), Goto(self._further(table))
            return [Rule(table, port, 1, self._of(family), first)]
        offload = not table and (self._inside or self._random.random() < 0.5)
        find: Action = Ct(self._zone, nat=Nat(None) if self._translated else None, offload=offload)
        if offload and port == 2 and self._random.random() < 0.6:  # a NIC's: what software has offered, it carries
            find = CtHardware(self._zone, self._translated is not None, self._random.choice(_RESUMES))
        ports = (600, 607) if self._crowd else conversations.FEW_PORTS if self._sources else (0, 0)
        nat = conversations.translation(family, self._translated, ports) if self._translated else None
        mark = self._random.choice((None, Masked(1, 1)))
        helper = "ftp" if self._random.random() < 0.15 else ""
        keep = Ct(self._zone, commit=True, nat=nat, mark=mark, helper=helper, offload=offload)
        new, to = int(CtState.TRK | CtState.NEW), table | 7
        inside = list[Rule]()
        if self._inside and port == 2:
            found, key = int(CtState.TRK | CtState.EST), Masked(77, 0xFF)
            look = CtHardware(self._zone, self._translated is not None, self._random.choice(_RESUMES), inside=True)
            est = Masked(found, found) if self._random.random() < 0.5 else Masked(0, 0)
            # What hardware has translated goes to the node as it came: at a connection that it does not carry, and at
            # a chain without a rule for it.
            again = (replace(look, zone=self._zone ^ 1),) if self._random.random() < 0.3 else ()
            if self._random.random() < 0.3:
                to = table | 8
            inside = [
                Rule(table, port, 0, self._of(family, tun_id=key), (look, *again, Goto(to))),
                Rule(to, port, 0, self._of(family, tun_id=key, ct_state=est), (Decap(), Output(2))),
            ]
            if self._random.random() < 0.3:
                del inside[1]
            to = table | 7
        brief = [
            Rule(to, port, 0, self._of(family, ct_state=Masked(new, new), ip_proto=Masked(proto, 0xFF)), actions)
            for proto, name in conversations.TIMEOUTS.items()
            if self._random.random() < 0.15
            for actions in ((replace(keep, timeout=name), Output(2)),)
        ]
        return [
            *inside,
            *brief,
            Rule(table, port, 0, self._of(family), (find, Goto(to))),
            Rule(to, port, 0, self._of(family, ct_state=Masked(new, new)), (keep, Output(2))),
            Rule(to, port, 0, self._of(family), (Output(2),)),
        ]

    def _further(self, table: int) -> int:
        """A table of the same stage."""
        return self._random.choice([other for other in self._tables if (other ^ table) & OVS_TABLE == 0])

    @staticmethod
    def _of(family: int, **matched: Masked) -> Match:
        return Match(eth_type=Masked(_ETHERTYPES[family], 0xFFFF), **matched)

    def frame(self) -> bytes:
        made = self._conversations.frame() if self._random.random() < 0.9 else super().frame()
        if self._inside and self._random.random() < 0.5:
            made = encapsulate(made, self._random.choice(_TUNNELS), 0)
        return made

    def _send(self) -> Send:
        random = self._random
        sent = super()._send()
        return replace(
            sent,
            port=random.choice((1, 1, 2)),
            segments=1 if random.random() < 0.95 else sent.segments,
            flow_hash=random.choice(conversations.ENTROPY),
            resume=sent.resume if random.random() < 0.3 else 0,
            tracked=random.choice((*_AFTER_UPCALL, sent.tracked)) if random.random() < 0.15 else (),
            carried=(self._zone, random.choice(_NAT_STATES)) if random.random() < 0.5 else None,
            within=sent.within if random.random() < 0.3 and not self._of_one_protocol(sent.within) else None,
            later=random.choice(_WAITS) if random.random() < (0.05 if self._firewall else 0.3) else 0,
        )

    def _change(self) -> Step:
        random = self._random
        chance = random.random()
        if chance < 0.2:
            return Forget(random.random())
        if chance < 0.3:
            return SetMark(random.random(), random.choice((0, 1, 5)))
        if chance < 0.4:
            return LimitZone(random.choice(conversations.ZONES), random.choice((0, 1, 2, 3, 5)))
        if chance < 0.75:
            reply = random.random() < 0.6
            port = random.choice(conversations.SERVER_PORTS if reply else conversations.CLIENT_PORTS)
            self._conversations.expect(port, of_client=reply)
            return Expect(random.random(), port, reply, random.choice((300, 300, 5)))
        return super()._change()

    def rule(self) -> Rule:
        random = self._random
        if random.random() < 0.15:
            return super().rule()
        table = random.choice(self._tables)
        family = random.choice((4, 4, 6))
        matched = conversations.state_match(random) if random.random() < 0.8 else {}
        proto = random.choice(tuple(conversations.TIMEOUTS)) if random.random() < 0.2 else 0
        if proto:
            matched["ip_proto"] = Masked(proto, 0xFF)
        priority = 2 if self._firewall else random.randrange(3)
        return Rule(
            table,
            random.choice((1, 1, 2)),
            priority,
            self._of(family, **matched),
            self._tracking(table, family, proto),
        )

    def _actions(self) -> tuple[Action, ...]:
        """None goes on in another tunnel than before: no node looks it up again then, as of another connection."""
        made = super()._actions()
        goes_on = bool(made) and isinstance(made[-1], Goto | Enter | Pass)
        return tuple(one for one in made if not (goes_on and isinstance(one, Encap | Decap)))

    def _tracked_nested(self, family: int, table: int) -> tuple[Action, ...]:
        """What a copy of a packet does, or the packet instead of the rest of a list."""
        random = self._random
        tracking: list[Action] = [conversations.action(random, family, ovs=bool(table & OVS_TABLE))]
        if random.random() < 0.2:
            tracking.append(CtHardware(self._zone, random.random() < 0.5, random.choice(_RESUMES)))
        end = random.choice(((), (), (Goto(self._further(table)),), (Output(1),)))
        return (*random.choice((tracking, tracking, [])), *end)

    def _tracking(self, table: int, family: int, proto: int) -> tuple[Action, ...]:
        """Actions on packets of a family, and perhaps only of one protocol."""
        random, ovs = self._random, bool(table & OVS_TABLE)
        actions: list[Action] = []
        for _ in range(random.choice((0, 1, 1, 1, 2))):
            actions.append(conversations.action(random, family, ovs=ovs, proto=proto))
            if random.random() < 0.1:
                actions.append(CtClear())
            if random.random() < 0.1:
                zone = self._zone if random.random() < 0.8 else random.choice(conversations.ZONES)
                inside = random.random() < 0.3
                actions.append(CtHardware(zone, random.random() < 0.5, random.choice(_RESUMES), inside=inside))
            if random.random() < 0.1:
                actions.append(SetField(random.choice(("ip_src", "l4_dst", "ip_ttl")), Masked(1, 0xFF)))
            if random.random() < 0.15 and not self._silicon:
                nested = self._tracked_nested(family, table)
                actions.append(
                    random.choice(
                        (
                            Clone(nested),
                            Clone(nested),
                            Sample(random.choice((1, 0xFFFFFFFF)), nested),
                            CheckLength(random.choice((60, 70)), nested, self._tracked_nested(family, table)),
                            DecTtl(nested),
                        )
                    )
                )
            if random.random() < 0.1 and not self._silicon:  # no connection is tracked in a tunnel that a NIC puts on
                actions.append(self._middle())
            if random.random() < 0.1:
                actions.append(Output(random.choice(self._out_ports)))
        ends = (Goto(self._further(table)), Goto(self._further(table)), Output(1), Output(2), Upcall(7), Pass(), Drop())
        return (*actions, random.choice(ends))


class CarrierAuthor(StatefulAuthor):
    """Makes the rules of a firewall twice, in a node's tables and in a NIC's, and packets of connections over IPv4 that
    come in by either. Little else happens, so that the NIC carries most connections, by the shorter path that the
    program has for them."""

    def __init__(self, random: Random) -> None:
        super().__init__(random, silicon=False)
        self._inside, self._firewall = False, True
        self._translated = random.choice((None, NatKind.SRC, NatKind.DST))
        self._conversations = conversations.Conversations(random, self._translated, calm=True, usual=True)
        self._rest = random.random() < 0.2
        self._seen: list[bytes] = []
        self._behind: list[int] = []

    def program(self, packets: int) -> list[Step]:
        first = [self._added(rule) for port in (1, 2) for rule in self._begin(port, 4)]
        self._behind = [one.number for one in first if one.rule.in_port == 2 and one.rule.table]
        self._rules = []  # so that these stay
        ports, *others = Author.program(self, packets)
        return [ports, *first, *others]

    def _ports(self) -> SetPorts:
        made = super()._ports()
        node, nic, *others = (
            replace(port, tables=(0,), metadata=False, bare=False, enabled=True) for port in made.ports
        )
        kind = self._random.choice((PortKind.VF, PortKind.VF, PortKind.UPLINK))
        return replace(made, ports=(replace(node, kind=PortKind.NODE), replace(nic, kind=kind), *others))

    def _begin(self, port: int, family: int) -> list[Rule]:
        random = self._random
        translates = self._translated is not None
        hardware = port == 2
        find: Action = Ct(self._zone, nat=Nat(None) if translates else None, offload=True)
        nat = conversations.translation(family, self._translated) if self._translated else None
        keep: tuple[Action, ...] = (Ct(self._zone, commit=True, nat=nat, mark=self._mark(), offload=True),)
        known: tuple[Action, ...] = ()
        if hardware:
            find = self._hardware(translates if random.random() < 0.9 else not translates)
            again = (self._hardware(random.random() < 0.5),)
            keep, known = random.choice((keep, again, again)), random.choice(((), (), again))
        fresh = {"ct_state": Masked(0, int(CtState.TRK))} if random.random() < 0.7 else {}
        new, est = int(CtState.TRK | CtState.NEW), int(CtState.TRK | CtState.EST)
        rest = {"ip_ttl": Masked(64, 0xFF)} | ({"tcp_flags": Masked(16, 16)} if self._rest else {})
        mark = {"ct_mark": Masked(random.choice((0, 1, 5)), 0xFF)}
        more = random.choice(({}, mark, conversations.state_match(random)))
        to = random.choice((1, 7))
        return [
            Rule(0, port, 0, self._of(family, **fresh), (find, Goto(to, random.choice(_RESUMES)))),
            Rule(to, port, 0, self._of(family, ct_state=Masked(new, new)), (*keep, Output(3))),
            Rule(to, port, 0, self._of(family, **rest, **more), (*known, Output(1))),
            Rule(to, port, 1, self._of(family, ct_state=Masked(est, est)), (*known, Output(3))),
            Rule(to, port, 2, self._of(family), (Output(3),)),
        ]

    def _mark(self) -> Masked | None:
        return self._random.choice((None, Masked(1, 1), Masked(5, 0xFF)))

    def _hardware(self, translates: bool) -> CtHardware:
        random = self._random
        zone = self._zone if random.random() < 0.9 else random.choice(conversations.ZONES)
        return CtHardware(zone, translates, random.choice(_RESUMES), inside=random.random() < 0.03)

    def rule(self) -> Rule:
        made = super().rule()
        return replace(made, in_port=1, priority=9)

    def frame(self) -> bytes:
        return self._conversations.frame()

    def _send(self) -> Send:
        random = self._random
        sent, port = super()._send(), 1
        if self._seen and random.random() < 0.6:  # what the node has seen, the NIC sees
            sent, port = replace(sent, frame=random.choice(self._seen)), 2
        else:
            self._seen = [*self._seen[-7:], sent.frame]
        return replace(
            sent,
            port=port if random.random() < 0.97 else 3 - port,
            came_in=None,
            in_metadata=random.random() < 0.2,
            resume=0,
            tracked=(("ct_state", int(CtState.TRK)),) if random.random() < 0.02 else (),
            carried=None,
            within=None,
            later=random.choice(_SHORT_WAITS) if random.random() < 0.06 else 0,
        )

    def _change(self) -> Step:
        random = self._random
        chance = random.random()
        if chance < 0.2:
            again = random.choice(((), (), (self._hardware(False),)))
            return Replace(random.choice(self._behind), (*again, Output(random.choice((1, 3)))))
        if chance < 0.4:
            return SetMark(random.random(), random.choice((0, 1, 5)))
        return self._ports() if chance < 0.45 else super()._change()
