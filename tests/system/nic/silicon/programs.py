# SPDX-License-Identifier: Apache-2.0
"""Random steps: ports, rules that come, change and go, and packets between."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from asap2.nic.ethertypes import ETH_P_IPV6
from asap2.nic.fields import FIELD_BITS, REWRITABLE, TRACKED
from asap2.nic.layer_actions import (
    Congest,
    PopEthernet,
    PopMpls,
    PopNsh,
    PushEthernet,
    PushMpls,
    PushNsh,
    SetEthertype,
    SwapEthernet,
)
from asap2.nic.rules import (
    BARE,
    OVS_TABLE,
    Action,
    Chance,
    CheckLength,
    Clone,
    Decap,
    DecTtl,
    Drop,
    Encap,
    Enter,
    Goto,
    Hash,
    HashAlgorithm,
    LookOn,
    Masked,
    Match,
    Meter,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    Psample,
    PushVlan,
    Rule,
    Sample,
    Truncate,
    Upcall,
)
from asap2.nic.silicon import packet, tunnel
from asap2.nic.silicon.abi import IN_PORT, LIMITS
from asap2.nic.silicon.abi import TABLES as MAX_TABLES
from asap2.nic.silicon.maps import HIDDEN_IN_TUNNEL, OVERLAID, OVERLAYS
from asap2.nic.silicon.metering import Counting, Limit, Price
from asap2.nic.silicon.packet import Fields
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.resumes import DELIVER
from tests.system.nic.silicon.frames import (
    MACS,
    OPTIONS,
    OTHER_PORTS,
    alike,
    frame,
    service_header,
    tunnelled,
    usual,
)
from tests.system.nic.silicon.random_actions import (
    random_encap,
    random_set_field,
    random_tag,
    random_tracked,
    random_tunnel,
)
from tests.system.nic.silicon.steps import Add, NewReceiver, Remove, Replace, Send, SetMeter, SetPorts, Step

PORTS = (1, 2, 3)
METERS = (1, 2, 3)
"""Meters that rules name."""
BEHIND = 4
"""A port that is behind a device: nothing comes in by it, but what is said to have."""
_ABSENT = 99
TABLES = (0, 1, 7, OVS_TABLE, OVS_TABLE | 1, OVS_TABLE | 7)
_BARE = (OVS_TABLE | BARE | 1, OVS_TABLE | BARE | 7)
PLACES = (
    (1, 0),
    (7, 0),
    (0, 2),
    (7, 3),
    (0, _ABSENT),
    (DELIVER, 2),
    (DELIVER, _ABSENT),
    (0, BEHIND),
    (DELIVER, BEHIND),
)
"""What the numbers from 1 on tell a node: table and port, as for :meth:`asap2.nic.silicon.resumes.Resumes.at`."""
_KINDS = dict(enumerate(OPTIONS, 1))
_TUNNEL_PORTS = ((), (), (8472,), (0, 8472), (80, 0, 8472), (0,), (*range(1, 8), 8472))
_NESTED = 2
"""Copies within copies in one list of actions."""
_STAGES = ((0,), (0,), (0, OVS_TABLE), (0, 1, OVS_TABLE))

_TRACKED = tuple(name for name in FIELD_BITS if name in TRACKED)
_TUNNEL_FIELDS = tuple(name for name in FIELD_BITS if name.startswith("tun_"))
_FIELDS = tuple(name for name in FIELD_BITS if not name.startswith("tun_"))
_IN_TUNNEL = tuple(name for name in _FIELDS if name not in HIDDEN_IN_TUNNEL)
_WIDTHS = FIELD_BITS | {"tun_id": 32}
_USUAL: tuple[str, ...] = (
    "eth_dst",
    "eth_src",
    "eth_type",
    "vlan_tci",
    "vlan_tpid",
    "ip_proto",
    "ip_tos",
    "ip_ttl",
    "ip_frag",
)
_USUAL += ("ip_src", "ip_dst", "l4_src", "l4_dst", "cvlan_tci")
"""What rules of the usual kind match on, addresses IPv4 ones: for packets that the program has a short way for."""


class Author:
    """Makes rules and packets that have a chance to meet, for the *ports* that there are and rules' *tables*."""

    def __init__(
        self,
        random: Random,
        *,
        silicon: bool,
        usual: bool = False,
        ports: tuple[int, ...] = (*PORTS, BEHIND),
        in_ports: tuple[int, ...] = (1, 1, 1, 1, 2),
        tables: tuple[int, ...] = TABLES,
    ) -> None:
        self._random = random
        self._silicon = silicon
        self._puts_in_front = random.random() < 0.5
        self._usual = usual
        self._out_ports = ports
        self._in_ports = in_ports
        self._tables = tables
        self._frames = [self._frame() for _ in range(random.randint(2, 8))]
        self._tunnels = [random_tunnel(random) for _ in range(3)]
        self._tracked = [random_tracked(random) for _ in range(3)]
        self._often_tracked = random.random() < 0.4
        self._rules: list[int] = []
        self._next = 0

    def program(self, packets: int) -> list[Step]:
        random = self._random
        steps: list[Step] = [self._ports(), *(self._meter(number) for number in METERS)]
        steps += [self._add() for _ in range(random.randint(3, 16))]
        while packets > 0:
            some = min(packets, random.randint(1, 60))
            packets -= some
            steps += [self._send() for _ in range(some)]
            for _ in range(random.randrange(3)):
                steps.append(self._change())
        return steps

    def _change(self) -> Step:
        random = self._random
        kind = random.choice(("add", "add", "replace", "remove", "ports", "receiver", "meter"))
        if kind == "meter":
            return self._meter(random.choice(METERS))
        if kind == "ports":
            return self._ports()
        if kind == "receiver":
            return NewReceiver()
        if kind == "add" or not self._rules:
            return self._add()
        number = random.choice(self._rules)
        if kind == "replace":
            return Replace(number, self._actions())
        self._rules.remove(number)
        return Remove(number)

    def _meter(self, number: int) -> SetMeter:
        random = self._random
        if random.random() < 0.1:
            return SetMeter(number, None)
        octets = random.random() < 0.7
        rate = random.choice((1, 1000, 125_000, 10**8, 10**10, 1 << 35)) if octets else random.choice((1, 1000, 10**7))
        if octets and random.random() < 0.1:
            rate = 0
        burst = random.choice((0, 1, 60, 1500, 15_000, 10**6)) if octets else random.choice((0, 1, 3, 100))
        peak = random.choice((1000, 10**8)) if octets and random.random() < 0.2 else 0
        limit = Limit(
            rate,
            Price.at(rate).of(burst),
            not octets,
            peak,
            Price.at(peak).of(2000),
            random.choice((0, 0, 0, 64, 100)),
            random.choice((0, 0, 24)) if octets else 0,
            random.choice((0, 0, 84)) if octets else 0,
            octets and random.random() < 0.1,
            random.choice(list(Counting)),
        )
        return SetMeter(number, limit)

    def frame(self) -> bytes:
        """One of the frames that rules are made for, or like one, or another."""
        random = self._random
        chance = random.random()
        made = self._frame() if chance < 0.35 else random.choice(self._frames)
        return alike(random, made) if chance > 0.5 else made

    def _frame(self) -> bytes:
        if self._usual and self._random.random() < 0.7:
            return usual(self._random)
        return tunnelled(self._random) if self._silicon and self._random.random() < 0.4 else frame(self._random)

    def _send(self) -> Send:
        random = self._random
        return Send(
            self.frame(),
            random.choice((1, 1, 1, 1, *PORTS)),
            random.choice((1, 1, 1, 44)),
            random.random() < 0.5,
            random.choice((0, 1, 0xFFFFFFFF, random.getrandbits(32))),
            random.choice(self._tunnels) if random.random() < 0.7 else None,
            random.randint(0, len(PLACES)) if random.random() < 0.2 else 0,
            random.choice(self._tracked) if random.random() < (0.7 if self._often_tracked else 0.1) else (),
            (random.choice(self._rules), random.randrange(4)) if self._rules and random.random() < 0.1 else None,
            random.choice((0, 0, 1, 50, 1000, 100_000, 10**9)),
        )

    def _ports(self) -> SetPorts:
        random = self._random
        kinds = (PortKind.VF, PortKind.UPLINK) if self._silicon else (PortKind.NODE, PortKind.NODE, PortKind.INTERNAL)
        return SetPorts(
            tuple(
                Port(
                    number,
                    100 + number,
                    random.choice(kinds),
                    tables=random.choice(_STAGES)
                    if random.random() < 0.8
                    else tuple(random.choices(TABLES, k=random.randrange(MAX_TABLES + 1))),
                    miss=random.choice(list(Miss)),
                    miss_port=random.choice((*PORTS, BEHIND, _ABSENT)),
                    enabled=random.random() < 0.97,
                    metadata=random.random() < (0.05 if self._silicon else 0.6),
                    resumes=random.random() < 0.5,
                    tell=random.choice((1, 0xFFFF)) if number == BEHIND else 0,
                    bare=not self._silicon and random.random() < 0.1,
                )
                for number in (*PORTS, BEHIND)
            ),
            random.choice(_TUNNEL_PORTS),
            random.choice((0, 0, 1, 2, 20)),
            random.choice(((), OPTIONS[:1], (bytes(4), *OPTIONS), OPTIONS)),
        )

    def _add(self) -> Add:
        self._next += 1
        self._rules.append(self._next)
        return Add(self._next, self.rule())

    def rule(self) -> Rule:
        """A rule; most are in the first table, so that several have a say about the same packet."""
        random = self._random
        table = self._tables[0] if random.random() < 0.4 else random.choice(self._tables)
        if not self._silicon and random.random() < 0.1:
            table = random.choice(_BARE)
        if random.random() < 0.04:
            limited = Meter(random.choice(METERS), (Drop(),)), Pass()
            return Rule(LIMITS, random.choice(self._in_ports), random.randrange(3), Match(), limited)
        return Rule(table, random.choice(self._in_ports), random.randrange(3), self._match(), self._actions())

    def _match(self) -> Match:
        """A few fields with any masks, mostly what a frame that comes in has."""
        random = self._random
        like = random.choice(self._frames)
        names, seen = _FIELDS, packet.parse(like, ovs=random.random() < 0.5)
        if self._usual and random.random() < 0.8:
            some = random.sample(_USUAL, random.choice((0, 1, 1, 2, 3)))
            return Match(**{name: self._masked(name, seen) for name in some})
        inside = tunnel.look_into(like, OTHER_PORTS, _KINDS)
        if not self._silicon and random.random() < 0.5:
            names, seen = (
                _IN_TUNNEL + _TUNNEL_FIELDS,
                seen | tunnel.fields_of(random.choice(self._tunnels), 0, _KINDS),
            )
        elif inside and random.random() < 0.7:
            names, seen = _IN_TUNNEL + _TUNNEL_FIELDS, tunnel.inner_fields(like[inside.at :], inside.tunnel)
        present = [name for name in seen if name in names]
        chosen = {
            random.choice(present if random.random() < 0.8 else names) for _ in range(random.choice((0, 1, 1, 1, 2, 3)))
        }
        if random.random() < (0.5 if self._often_tracked else 0.05):
            seen = seen | dict(random.choice(self._tracked))
            chosen |= set(random.sample(_TRACKED, random.choice((1, 1, 2))))
        if names is not _FIELDS and random.random() < 0.8:
            chosen.add(random.choice(_TUNNEL_FIELDS))
        matched = {name: self._masked(name, seen) for name in chosen}
        for name in chosen & OVERLAYS.keys():  # all of an address goes with its ethertype
            if matched[name].mask >> 32:
                kind = seen.get("eth_type", ETH_P_IPV6)
                matched["eth_type"] = Masked(ETH_P_IPV6 if kind in OVERLAYS[name][1] else kind, 0xFFFF)
        for name in chosen & OVERLAID.keys():  # two of other ethertypes have nothing in common
            kind = seen["eth_type"] if seen.get("eth_type") in OVERLAID[name] else random.choice(OVERLAID[name])
            if "eth_type" in matched and matched["eth_type"].value != kind:
                del matched[name]
            else:
                matched["eth_type"] = Masked(kind, 0xFFFF)
        matched = {
            name: masked
            for name, masked in matched.items()
            if name not in OVERLAID or matched["eth_type"].value in OVERLAID[name]
        }
        return Match(**matched)

    def _masked(self, name: str, seen: Fields) -> Masked:
        random = self._random
        width = 32 if self._usual and name in ("ip_src", "ip_dst") else _WIDTHS[name]
        full = (1 << width) - 1
        mask = random.choice((full, full, full, 1, full ^ 1, full >> 1, random.getrandbits(width))) or full
        value = seen.get(name, 0) if random.random() < 0.9 else random.getrandbits(width)
        return Masked(value & mask, mask)

    def _actions(self) -> tuple[Action, ...]:
        random = self._random
        if self._usual and random.random() < 0.7:
            before: tuple[tuple[Action, ...], ...] = ((), (PushVlan(*random_tag(random)),), (PopVlan(),))
            return (*random.choice(before), Output(random.choice(self._out_ports), random.choice((0, 0, 3))))
        chosen = [self._middle() for _ in range(random.choice((0, 1, 1, 2, 3, 5)))]
        resume = random.choice((0, 0, 1, 2, 0xFFFF))
        match random.choice(
            ("output", "output", "output", "none", "drop", "pass", "goto", "goto", "goto", "enter", "on")
        ):
            case "output":
                chosen += self._with_type(Output(random.choice(self._out_ports), resume))
            case "enter":
                chosen.append(Enter(random.choice((*self._out_ports, *self._out_ports, _ABSENT)), resume))
            case "drop":
                chosen.append(Drop())
            case "pass":
                chosen.append(Pass())
            case "goto":
                chosen.append(Goto(random.choice(self._tables), resume))
            case "on":
                chosen.append(LookOn(random.choice((0, 1, 2, 2, 3, 3, 4))))
        last = chosen[-1] if chosen else None
        if isinstance(last, Goto | LookOn | Enter):  # headers of more than 1000 bytes in all: too much for the kernel
            first = next((at for at, action in enumerate(chosen) if isinstance(action, Encap)), 0)
            chosen = [action for at, action in enumerate(chosen) if at == first or not isinstance(action, Encap)]
        made: list[Action] = []
        for action in chosen:
            if (
                isinstance(action, Upcall | Psample if self._silicon else Upcall | Psample | Output | Goto)
                and random.random() < 0.3
            ):
                # The kernel does not cut inside what was put in front of a packet (bpf_skb_change_tail).
                made.append(Truncate(random.randint(64, 100) if not self._puts_in_front else random.randint(600, 700)))
            made.append(action)
        return tuple(made)

    def _nested(self, depth: int) -> tuple[Action, ...]:
        """What a copy does, or a packet instead of the rest of a list."""
        random = self._random
        chosen = [self._middle(depth + 1) for _ in range(random.choice((0, 1, 2)))]
        ends = (
            self._with_type(Output(random.choice(self._out_ports))),
            self._with_type(Output(random.choice(self._out_ports))),
            (Goto(random.choice(self._tables)),),
            (LookOn(random.choice((1, 2, 3))),),
            (Drop(),),
        )
        return (*chosen, *random.choice(ends)) if random.random() < 0.8 else tuple(chosen)

    def _with_type(self, output: Output) -> tuple[Action, ...]:
        """*output*, perhaps of a packet with another Ethernet type. The kernel goes on to take such a packet for one of
        the old type, and so removes no tag from it, or one that is none: that is not looked at here."""
        random = self._random
        if self._silicon or random.random() < 0.9:
            return (output,)
        return SetEthertype(random.choice((0x0800, 0x86DD, 0x0806, 0x88B5))), output

    def _psample(self) -> Psample:
        random = self._random
        return Psample(
            random.getrandbits(32),
            random.getrandbits(32),
            random.choice((1, 1, 1, 2, 5, 0xFFFFFFFF)),
            random.choice((None, None, 0, 5, 12, 13, 64, 128, 2000, 0xFFFFFFFF)),
            random.choice((0, 7, 70000, IN_PORT)),
            random.choice((0, 7)),
            random.randbytes(random.choice((0, 0, 4, 16))),
            random.random() < 0.5,
            replace(random.choice(self._tunnels), csum=False, dont_fragment=False, options=b"", keyed=True)
            if self._silicon and random.random() < 0.2
            else None,
            random.random() < 0.5,
        )

    def _exceeded(self, depth: int) -> tuple[Action, ...]:
        """What becomes of a packet over the rate."""
        random = self._random
        if not self._silicon and depth < _NESTED and random.random() < 0.5:
            return self._nested(depth)
        return random.choice(((), (), (Drop(),), (PopVlan(), Output(random.choice(self._out_ports)))))

    def _datapath(self, depth: int) -> Action:
        """An action of Open vSwitch's datapath alone."""
        random = self._random
        kinds = ["hash", "ttl", "mpls", "unmpls", "nsh", "unnsh", "bare", "framed", "set", "set", "sample", "length"]
        kinds += ["chance", "swap", "congest", "congest"]
        kinds = [*kinds, "clone", "clone"] if depth < _NESTED else ["hash", "mpls", "unmpls", "set"]
        match random.choice([kind for kind in kinds if self._puts_in_front or kind not in ("nsh", "mpls")]):
            case "clone":
                return Clone(self._nested(depth))
            case "sample":
                return Sample(random.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)), self._nested(depth))
            case "length":
                return CheckLength(random.choice((1, 60, 64, 100, 200)), self._nested(depth), self._nested(depth))
            case "chance":
                return Chance(random.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)), self._nested(depth))
            case "swap":
                return SwapEthernet()
            case "congest":
                return Congest()
            case "ttl":
                return DecTtl(self._nested(depth))
            case "hash":
                return Hash(random.choice(list(HashAlgorithm)), random.choice((0, 1, 0xFFFFFFFF)))
            case "mpls":
                entry = random.choice((0x100, 0x0006_4140, random.getrandbits(32)))
                return PushMpls(entry, random.choice((0x8847, 0x8848)), random.random() < 0.15)
            case "unmpls":
                return PopMpls(random.choice((0x0800, 0x86DD, 0x8847, 0x0806, 0x6558)))
            case "nsh":
                return PushNsh(service_header(random))
            case "unnsh":
                return PopNsh()
            case "bare":
                return PopEthernet()
            case "framed":
                return PushEthernet(random.choice(MACS), random.choice(MACS))
            case _:
                return random_set_field(random, tuple(REWRITABLE))

    def _middle(self, depth: int = 0) -> Action:
        random = self._random
        if not self._silicon and random.random() < 0.45:
            return self._datapath(depth)
        kinds = ["output", "output", "push", "pop", "pop", "modify", "upcall", "set", "set", "set", "decap", "meter"]
        kinds += ["psample"]
        kinds += ["encap", "encap", "decap"] if self._silicon else ["tunnel"]
        match random.choice(kinds):
            case "output":
                return Output(random.choice((*self._out_ports, *self._out_ports, _ABSENT)), random.choice((0, 0, 3)))
            case "push":
                return PushVlan(*random_tag(random))
            case "pop":
                return PopVlan()
            case "modify":
                vid, pcp, tpid = random_tag(random)
                return ModifyVlan(vid, random.choice((pcp, None)), tpid)
            case "upcall":
                return Upcall(random.getrandbits(64))
            case "psample":
                return self._psample()
            case "meter":
                return Meter(random.choice(METERS), self._exceeded(depth))
            case "set":
                return random_set_field(random)
            case "encap":
                return random_encap(random)
            case "tunnel":
                return random.choice(self._tunnels)
            case _:
                return Decap()
