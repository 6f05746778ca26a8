# SPDX-License-Identifier: Apache-2.0
"""Frames that look like connections: handshakes, answers, errors, closes; and what goes wrong in them.

Few addresses and ports, so that packets meet connections that rules have translated: nobody tells the ends what to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from random import Random

from asap2.nic.checksums import folded, sum_of
from asap2.nic.conntrack.states import TCP, UDP
from asap2.nic.conntrack.tuples import transport
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, CtState, Masked
from tests.system.nic.silicon.frames import alike
from tests.unit.nic.conntrack.packets import ACK, FIN, PSH, RST, SYN, URG, address, datagram, icmp, ports, udp

CLIENTS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
SERVERS = {4: ("10.0.0.3", "192.0.2.1"), 6: ("fd00::3", "fd00::ff01")}
POOL = {4: ("192.0.2.1", "192.0.2.4"), 6: ("fd00::ff01", "fd00::ff04")}
"""First and last of what NAT translates to; a client may ask for the first, too."""
ROUTER = {4: "10.0.0.254", 6: "fd00::fe"}
CLIENT_PORTS, SERVER_PORTS = (1000, 5000, 600), (80, 5001)
PORT_RANGES = ((0, 0), (0, 0), (5000, 5003), (5001, 5001), (600, 1000))
FEW_PORTS = (600, 601)
ZONES = (0, 0, 1, 7)
SHORT_TCP, SHORT_UDP = "short-tcp", "short-udp"
"""Names of timeout policies."""
TIMEOUTS = {TCP: SHORT_TCP, UDP: SHORT_UDP}
"""The policy of each protocol."""
ENTROPY = (0, 0, 1, 3, 0x1388, 0xFFFF)
"""Flow hashes, which stand for random numbers."""
_MACS = bytes.fromhex("0200000000ff") + bytes.fromhex("020000000001")
_WINDOW_OPTIONS = bytes((2, 4, 5, 180, 1, 3, 3, 2, 4, 2, 1, 1))
_TIMESTAMP = bytes((1, 1, 8, 10)) + bytes(8)
_STATES = tuple(CtState)
_ICMP_QUERIES = {4: ((8, 0), (13, 14)), 6: ((128, 129), (139, 140))}
_UNREACHABLE = {4: ((3, 3), (3, 4), (11, 0), (5, 0)), 6: ((1, 4), (2, 0), (3, 0), (137, 0))}


@dataclass
class _Talk:
    """Two ends that talk TCP, UDP, ICMP, SCTP, GRE or some other protocol."""

    family: int
    proto: int
    client: str
    server: str
    sport: int
    dport: int
    seq: list[int]
    step: int = 0
    tags: list[int] = field(default_factory=lambda: [0x1111, 0x2222])
    outside: int = 0
    """The port that the server takes for the client's; 0: the client's."""


_SCRIPT = (
    *((0, SYN), (1, SYN | ACK), (0, ACK), (0, PSH | ACK), (1, ACK), (1, PSH | ACK), (0, ACK)),
    *((0, FIN | ACK), (1, ACK), (1, FIN | ACK), (0, ACK)),
)
"""Who sends what, in a connection of TCP."""
_TALKS, _CLOSES = 3, 7
"""Where in it data come, and the close."""
_SIMULTANEOUS = ((0, SYN), (1, SYN), (0, SYN | ACK), (1, SYN | ACK), (1, ACK), (0, ACK))
_CHUNKS = ((0, 1), (1, 2), (0, 10), (1, 11), (0, 0), (1, 3), (0, 4), (1, 5), (0, 7), (1, 8), (0, 14))
_ODD_FLAGS = (0, SYN | FIN, SYN | RST, FIN, RST, RST | ACK, SYN, SYN | ACK, ACK, FIN | ACK, URG | ACK, 0xC2)


class Conversations:
    """A few ends that talk, and their packets.

    *translated* is the end that rules translate, mostly: the clients' addresses become the first of the pool, or the
    first of the pool stands for the first server. *calm*: seldom is anything wrong. *crowd*: they are so many that NAT
    runs out of ports. *sources*: few sources have several connections each, which begin and end often; their servers
    guess :data:`FEW_PORTS`. *usual*: over IPv4, most of TCP and UDP, most without a tag, and TCP with much data.
    """

    def __init__(
        self,
        random: Random,
        translated: NatKind | None = None,
        *,
        calm: bool = False,
        crowd: bool = False,
        sources: bool = False,
        usual: bool = False,
    ) -> None:
        self._random = random
        self._sources = sources
        self._usual = usual
        self._translated = translated
        self._as_scripted = 0.9 if calm else 0.72
        self._crowd = crowd
        self._talks: list[_Talk] = []
        few = (4, 8) if sources else (1, 4)
        for _ in range(random.randint(*((20, 40) if crowd else few))):
            self._talks.append(self._talk())
        self._sent: list[bytes] = []

    def _talk(self) -> _Talk:
        random = self._random
        family = 4 if self._usual else random.choice((4, 4, 6))
        proto = random.choice((6, 6, 6, 17, 17, 58 if family == 6 else 1, 132, 47, 136, 99))
        if self._usual and random.random() < 0.9:
            proto = random.choice((6, 6, 17))
        if self._sources:
            proto = random.choice((6, 6, 6, 6, proto))
        return _Talk(
            family,
            proto,
            random.choice(CLIENTS[family]),
            POOL[family][0] if self._translated is NatKind.DST else random.choice(SERVERS[family]),
            random.randrange(590, 620) if self._crowd else random.choice(CLIENT_PORTS),
            SERVER_PORTS[0] if self._sources else random.choice(SERVER_PORTS),
            [random.choice((5000, 0xFFFF_FFF0)), 900_000 if self._sources else random.choice((900_000, 0))],
            outside=random.choice(FEW_PORTS) if self._sources else 0,
        )

    def expect(self, port: int, *, of_client: bool) -> None:
        """Let those who talk open other connections, as a helper expects: the clients, or else the servers."""
        for talk in self._random.sample(self._talks, min(len(self._talks), 4)):
            client, server = talk.client, talk.server
            if not of_client:
                client, server = server, POOL[talk.family][0] if self._translated is NatKind.SRC else client
            other = replace(talk, client=client, server=server, sport=self._random.choice(CLIENT_PORTS), dport=port)
            other.seq, other.step = [5000, 900_000], 0
            self._talks.append(other)
        del self._talks[: max(0, len(self._talks) - (40 if self._crowd else 8))]

    def frame(self) -> bytes:
        """The next packet of somebody, in a frame."""
        random = self._random
        talk = random.choice(self._talks)
        if random.random() < (0.1 if self._sources else 0.03):
            self._talks[self._talks.index(talk)] = talk = self._talk()
        data = self._error(talk) if self._sent and random.random() < 0.12 else self._packet(talk)
        self._sent = [*self._sent[-7:], data]
        if random.random() < 0.04:
            data = data[: random.randrange(1, len(data))]
        elif random.random() < 0.02:
            data = alike(random, data)
        elif random.random() < 0.1:
            data = unfinished(data)
        kind = b"\x08\0" if talk.family == 4 else b"\x86\xdd"
        tags = random.choice((b"", b"", b"", b"", b"\x81\0\0\x39", b"\x88\xa8\0\x05\x81\0\0\x39"))
        if self._usual and random.random() < 0.9:
            tags = b""
        whole = _MACS + tags + kind + data
        return whole.ljust(random.choice((60, 60, 80, 0)), b"\0")

    def _ends(self, talk: _Talk, direction: int) -> tuple[str, str, int, int]:
        """Addresses and ports of a packet; the server knows the client perhaps by what NAT has made of it."""
        random = self._random
        client, server, sport, dport = talk.client, talk.server, talk.sport, talk.dport
        first, last = POOL[talk.family]
        if direction == 0:
            return client, server, sport, dport
        if self._translated and random.random() < 0.8:
            if self._translated is NatKind.SRC:
                client, sport = first, talk.outside or sport
            else:
                server = SERVERS[talk.family][0]
        elif random.random() < 0.5:
            client = random.choice((first, first, first[:-1] + "2", last))
            sport = random.choice((sport, sport, 5000, 5001, 5002, 600, 601))
        elif random.random() < 0.3:
            server, dport = random.choice((*SERVERS[talk.family], last)), random.choice((dport, 5000, 5001))
        return server, client, dport, sport

    def _packet(self, talk: _Talk) -> bytes:
        match talk.proto:
            case 6:
                return self._tcp(talk)
            case 1 | 58:
                return self._query(talk)
            case 132:
                return self._sctp(talk)
        src, dst, sport, dport = self._ends(talk, int(self._random.random() < 0.45))
        if talk.proto == 17:
            sent = udp(src, dst, sport, dport, self._random.randbytes(self._random.choice((0, 3, 20))))
            if talk.family == 4 and self._random.random() < 0.2:
                return sent[:26] + b"\0\0" + sent[28:]
            return sent
        if talk.proto == 136:
            body = ports(sport, dport) + self._random.choice((b"\0\0", b"\0\x08", b"\0\x0c", b"\0\xff")) + b"\x12\x34"
            return datagram(src, dst, 136, body + bytes(4))
        if talk.proto == 47:
            heads = (
                b"\0\0\x08\0",
                b"\0\0\x08\0",
                b"\x20\x01\x88\x0b\0\x04\0\x07",
                b"\x20\x01\x08\0\0\x04\0\x07",
                b"\0",
            )
            return datagram(src, dst, 47, self._random.choice(heads) + bytes(8))
        return datagram(src, dst, talk.proto, b"data")

    def _tcp(self, talk: _Talk) -> bytes:
        random = self._random
        script = _SIMULTANEOUS if talk.seq[1] == 0 and talk.step < len(_SIMULTANEOUS) else _SCRIPT
        direction, flags = script[talk.step % len(script)]
        seq, ack = talk.seq[direction], talk.seq[1 - direction]
        body, window = b"", 1000
        chance = random.random()
        if chance < self._as_scripted:
            talk.step += 1
            if self._usual and talk.step % len(_SCRIPT) == _CLOSES and random.random() < 0.8:
                talk.step -= _CLOSES - _TALKS
            if flags & PSH:
                body = b"x" * random.choice((1, 10))
            ends = len(body) + bool(flags & SYN) + bool(flags & FIN)
            talk.seq[direction] = (seq + ends) & 0xFFFFFFFF
            if random.random() < 0.02:
                talk.step = 0
        else:  # something else than what comes next
            direction = random.choice((0, 1, direction))
            flags = random.choice((flags, flags, ACK, *_ODD_FLAGS))
            seq = talk.seq[direction] + random.choice((0, 0, 0, -1, 1, -1000, 1000, 200_000, -200_000)) & 0xFFFFFFFF
            ack = talk.seq[1 - direction] + random.choice((0, 0, 0, 1, -1, -70_000, 100_000)) & 0xFFFFFFFF
            window = random.choice((1000, 0, 1, 65535))
            if random.random() < 0.1:
                talk.step = random.choice((0, 3, 7))
            if random.random() < 0.1:
                seq = 0
        options = b""
        if flags & SYN:
            options = random.choice((b"", _WINDOW_OPTIONS, _WINDOW_OPTIONS, b"\3\3\xff\0", b"\4"))
        elif random.random() < 0.2:
            edge = (ack + 500 & 0xFFFFFFFF).to_bytes(4, "big")
            options = random.choice((_TIMESTAMP, b"\1\1\5\x0a" + edge + edge, b"\5\7" + edge))
        options = options.ljust(-(-len(options) // 4) * 4, b"\0")
        src, dst, sport, dport = self._ends(talk, direction)
        offset = (20 + len(options)) // 4 << 4
        header = ports(sport, dport) + seq.to_bytes(4, "big") + (ack if flags & ACK else 0).to_bytes(4, "big")
        header += bytes([offset, flags]) + window.to_bytes(2, "big") + bytes(4)
        return datagram(src, dst, 6, header + options + body)

    def _query(self, talk: _Talk) -> bytes:
        random = self._random
        question, answer = _ICMP_QUERIES[talk.family][talk.sport == 600]
        direction = int(random.random() < 0.5)
        src, dst, identifier, _ = self._ends(talk, direction)
        if direction:
            identifier = random.choice((talk.sport, 5000, 5001))
        kind = random.choice((question, answer)[direction : direction + 1] * 8 + (135, 42, 255))
        return icmp(src, dst, kind, identifier, code=random.choice((0, 0, 0, 1)))

    def _error(self, talk: _Talk) -> bytes:
        """About one of the last packets, as it is, or as NAT perhaps has made it."""
        random = self._random
        alike = [sent for sent in self._sent if sent[0] >> 4 == talk.family and len(sent) > 40]
        if not alike:
            return self._packet(talk)
        about, size, at = random.choice(alike), *((4, 12) if talk.family == 4 else (16, 8))
        end = random.choice((about[at : at + size], address(POOL[talk.family][0])))
        if random.random() < (0.2 if self._as_scripted > 0.8 else 0.5):
            about = about[:at] + end + about[at + size :]
        else:
            end = about[at : at + size]
        kind, code = random.choice(_UNREACHABLE[talk.family])
        to = end if random.random() < 0.9 else address(ROUTER[talk.family])
        src = random.choice((address(ROUTER[talk.family]), about[at + size : at + 2 * size]))
        if random.random() < 0.15:
            about = _lying(random, about)
        if random.random() < 0.3:
            about = about[: random.randrange(at, len(about))]
        made = icmp(ROUTER[talk.family], ROUTER[talk.family], kind, random.choice((0, 1400)), code=code, body=about)
        header = 20 if talk.family == 4 else 40
        return _between(talk.family, src, to, made[header:])

    def _sctp(self, talk: _Talk) -> bytes:
        random = self._random
        direction, kind = _CHUNKS[talk.step % len(_CHUNKS)]
        if random.random() < 0.75:
            talk.step += 1
        else:
            direction, kind = random.choice(_CHUNKS)
        tag = 0 if kind == 1 else talk.tags[1 - direction]
        if random.random() < 0.1:
            tag = random.choice((0, 0x1111, 0x2222, 0x3333))
        flags = int(random.random() < 0.1)
        body = talk.tags[direction].to_bytes(4, "big") + bytes(12) if kind in (1, 2) else bytes(random.choice((0, 4)))
        chunk = bytes([kind, flags]) + (4 + len(body)).to_bytes(2, "big") + body
        if random.random() < 0.1:
            chunk += bytes([random.choice((0, 3, 4, 5, 6, 11)), 0, 0, 4])
        src, dst, sport, dport = self._ends(talk, direction)
        return datagram(src, dst, 132, ports(sport, dport) + tag.to_bytes(4, "big") + bytes(4) + chunk)


def unfinished(data: bytes) -> bytes:
    """A datagram of TCP or UDP as its host gives it to its NIC: with the sum of the pseudo header for a checksum."""
    family = data[0] >> 4
    found = transport(data, family)
    place = {TCP: 16, UDP: 6}.get(found.proto, 0) if found else 0
    if found is None or not place or len(data) < found.at + place + 2:
        return data
    ends = data[12:20] if family == 4 else data[8:40]
    place += found.at
    pseudo = folded(sum_of(ends) + found.proto + len(data) - found.at)
    return data[:place] + pseudo.to_bytes(2, "big") + data[place + 2 :]


def _lying(random: Random, data: bytes) -> bytes:
    """A datagram whose header says what is not so."""
    places: tuple[tuple[int, tuple[bytes, ...]], ...] = (
        (0, (b"\x44", b"\x46", b"\x4f", b"\x65", b"\x05")),
        (2, (b"\0\0", b"\0\x15", b"\xff\xff")),
        (6, (b"\x20\0", b"\0\1", b"\x1f\xff")),
        (9, (b"\1", b"\2", b"\x3a")),
    )
    if data[0] >> 4 == 6:
        places = (
            (0, (b"\x45", b"\x75")),
            (4, (b"\0\0", b"\0\1", b"\xff\xff")),
            (6, (b"\0", b"\x2b", b"\x2c", b"\x33", b"\x3b", b"\x3c", b"\1")),
        )
    at, values = random.choice(places)
    value = random.choice(values)
    return data[:at] + value + data[at + len(value) :]


def _between(family: int, src: bytes, dst: bytes, payload: bytes) -> bytes:
    """An ICMP message of other ends than it was made for."""
    bare = payload[:2] + bytes(2) + payload[4:]
    return datagram(str(ip_address(src)), str(ip_address(dst)), 1 if family == 4 else 58, bare)


def translation(family: int, kind: NatKind, ports: tuple[int, int] = (0, 0)) -> Nat:
    """What :class:`Conversations` expects of rules, to these *ports*."""
    to = address(POOL[family][0] if kind is NatKind.SRC else SERVERS[family][0])
    return Nat(kind, to, to, *ports)


def action(random: Random, family: int, *, ovs: bool, proto: int = 0) -> Ct:
    """An action of connection tracking for packets of a *family*, and perhaps only of one protocol."""
    commit = random.random() < 0.6
    nat = None
    if random.random() < 0.45:
        kind = random.choice((None, NatKind.SRC, NatKind.SRC, NatKind.DST)) if commit else None
        first, last = (address(one) for one in POOL[family])
        if kind is None or random.random() < 0.1:
            nat = Nat(kind)
        else:
            server = address(SERVERS[family][0])
            low, high = ((first, last), (first, first), (first, first), (server, server))[random.randrange(4)]
            flags = {name: random.random() < 0.12 for name in ("persistent", "hash", "random")}
            nat = Nat(kind, low, high, *random.choice(PORT_RANGES), **flags)
    mark = (
        Masked(value := random.choice((0, 1, 5)), value | random.choice((1, 0xFF))) if random.random() < 0.3 else None
    )
    label = 1 << random.randrange(128)
    labels = Masked(random.choice((0, label)), label) if random.random() < 0.2 else None
    return Ct(
        random.choice(ZONES),
        commit=commit,
        force=commit and random.random() < 0.12,
        mark=mark if commit else None,
        labels=labels if commit else None,
        nat=nat,
        helper=random.choice(("ftp", "tftp")) if commit and random.random() < 0.08 else "",
        eventmask=random.choice((None, None, 5)) if commit else None,
        timeout=TIMEOUTS.get(proto, "") if commit and random.random() < 0.7 else "",
        offload=not ovs and random.random() < 0.5,
    )


def state_match(random: Random) -> dict[str, Masked]:
    """A match on what tracking has found."""
    matched = {}
    if random.random() < 0.8:
        bits = CtState.TRK
        for _ in range(random.choice((0, 1, 1, 2))):
            bits |= random.choice(_STATES)
        value = bits if random.random() < 0.6 else bits & ~random.choice(_STATES)
        matched["ct_state"] = Masked(int(value & bits), int(bits))
    if random.random() < 0.25:
        matched["ct_zone"] = Masked(random.choice(ZONES), 0xFFFF)
    if random.random() < 0.15:
        matched["ct_mark"] = Masked(random.choice((0, 1, 5)), 0xFF)
    if random.random() < 0.1:
        matched["ct_tp_dst"] = Masked(random.choice(SERVER_PORTS), 0xFFFF)
    return matched
