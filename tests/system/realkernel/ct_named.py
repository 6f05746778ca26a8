# SPDX-License-Identifier: Apache-2.0
"""Conversations that a tracker of connections must know, by name: the packets of both ends, and time between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, Masked
from tests.system.realkernel.ct_cases import LEAST, Age, Packet, Step
from tests.unit.nic.conntrack.packets import ACK, FIN, PSH, RST, SYN, address, datagram, icmp, ports, udp

_CLIENT, _SERVER, _PUBLIC = "10.0.0.1", "10.0.0.2", "192.0.2.1"
_ETHERNET = bytes.fromhex("0200000000ff0200000000010800")
_COMMIT = Ct(commit=True)
_SNAT = Ct(commit=True, nat=Nat(NatKind.SRC, address(_PUBLIC), address(_PUBLIC)))
_TAGS = 0x1111, 0x2222


def _packet(data: bytes, action: Ct = _COMMIT) -> Packet:
    return Packet((_ETHERNET + data).ljust(LEAST, b"\0"), action)


def _tcp(way: int, flags: int, seq: int, ack: int = 0, data: bytes = b"", action: Ct = _COMMIT) -> Packet:
    """A segment from the client (*way* 0) or the server, which knows the client by what NAT has made of it."""
    client = _PUBLIC if way and action.nat else _CLIENT
    ends = (_SERVER, client, 80, 1000) if way else (client, _SERVER, 1000, 80)
    header = ports(*ends[2:]) + seq.to_bytes(4, "big") + ack.to_bytes(4, "big") + bytes((0x50, flags, 4, 0)) + bytes(4)
    return _packet(datagram(*ends[:2], 6, header + data), action)


def _handshake(action: Ct = _COMMIT, seq: int = 100) -> Iterator[Packet]:
    yield _tcp(0, SYN, seq, action=action)
    yield _tcp(1, SYN | ACK, 500, seq + 1, action=action)
    yield _tcp(0, ACK, seq + 1, 501, action=action)


def _closed(action: Ct = _COMMIT) -> Iterator[Packet]:
    """A connection, up to TIME_WAIT."""
    yield from _handshake(action)
    yield _tcp(0, FIN | ACK, 101, 501, action=action)
    yield _tcp(1, ACK, 501, 102, action=action)
    yield _tcp(1, FIN | ACK, 501, 102, action=action)
    yield _tcp(0, ACK, 102, 502, action=action)


def _error(kind: int, about: bytes, to: str, action: Ct) -> Packet:
    made = icmp("10.0.0.254", to, kind, 0, code=1, body=about[:48])
    return _packet(made, action)


def _inside(packet: Packet) -> bytes:
    return packet.frame[14 : 14 + int.from_bytes(packet.frame[16:18], "big")]


def _sctp(way: int, kind: int, body: bytes = b"", tag: int | None = None) -> Packet:
    ends = (_SERVER, _CLIENT, 80, 1000) if way else (_CLIENT, _SERVER, 1000, 80)
    chunk = bytes((kind, 0)) + (4 + len(body)).to_bytes(2, "big") + body
    verification = _TAGS[1 - way] if tag is None else tag
    return _packet(datagram(*ends[:2], 132, ports(*ends[2:]) + verification.to_bytes(4, "big") + bytes(4) + chunk))


def _association() -> Iterator[Packet]:
    for way, kind in ((0, 1), (1, 2)):
        yield _sctp(way, kind, _TAGS[way].to_bytes(4, "big") + bytes(12), 0 if kind == 1 else None)
    yield from (_sctp(way, kind, bytes(4)) for way, kind in ((0, 10), (1, 11), (0, 0), (1, 3), (0, 7), (1, 8), (0, 14)))


def _labelled(value: int, mask: int) -> Packet:
    return _packet(udp(_CLIENT, _SERVER, 1, 2, b"x"), Ct(commit=True, labels=Masked(value, mask), mark=Masked(1, 3)))


def _asked(count: int) -> Iterable[Packet]:
    return (_packet(udp(_CLIENT, _SERVER, 1, 2, b"x")) for _ in range(count))


def _about_nat(way: int) -> Iterator[Step]:
    """Errors about a packet of a connection that NAT translates, as the end that it goes to has it: the server
    (*way* 0) or the client."""
    yield from _handshake(_SNAT)
    src, dst = ((_PUBLIC, _SERVER), (_SERVER, _CLIENT))[way]
    quoted = datagram(src, dst, 6, _inside(_tcp(way, ACK, 101, 501))[20:])
    for kind, about in ((3, quoted), (11, quoted[:28]), (5, quoted)):
        yield _error(kind, about, src, _SNAT)


NAMED: dict[str, list[Step]] = {
    "a handshake, data and a close": [*_handshake(), _tcp(0, PSH | ACK, 101, 501, b"data"), *list(_closed())[3:]],
    "a handshake through NAT": [*_handshake(_SNAT), _tcp(0, PSH | ACK, 101, 501, b"data", _SNAT)],
    "half open: the client does not answer": [*list(_handshake())[:2], Age(70), *_handshake()],
    "half open: the server does not answer": [_tcp(0, SYN, 100), Age(25), _tcp(0, SYN, 100), Age(125), *_handshake()],
    "a server that has forgotten its connection": [
        *_handshake(),
        _tcp(0, SYN, 9000),
        _tcp(1, ACK, 501, 101),
        _tcp(0, RST, 101),
        *_handshake(seq=9000),
    ],
    "a simultaneous open": [
        _tcp(0, SYN, 100),
        _tcp(1, SYN, 500),
        _tcp(0, SYN | ACK, 100, 501),
        _tcp(1, SYN | ACK, 500, 101),
        _tcp(1, ACK, 501, 101),
        _tcp(0, ACK, 101, 501),
    ],
    "a reset of a simultaneous open, in and out of the window": [
        _tcp(0, SYN, 100),
        _tcp(1, SYN, 500),
        _tcp(1, RST, 1511),
        _tcp(1, RST | ACK, 501),
    ],
    "a reset of a simultaneous open by the end that began, which nobody checks": [
        _tcp(0, SYN, 100),
        _tcp(1, SYN, 500),
        _tcp(0, RST, 5000),
    ],
    "a reset of a simultaneous open after a SYN of its own": [
        _tcp(0, SYN, 100),
        _tcp(1, SYN, 500),
        _tcp(0, SYN, 100),
        _tcp(1, RST, 1511),
    ],
    "a tuple used again in TIME_WAIT": [*_closed(), *_handshake(seq=90_000)],
    "a tuple used again in TIME_WAIT through NAT": [*_closed(_SNAT), *_handshake(_SNAT, seq=90_000)],
    "a tuple used again when it has expired": [*_closed(), Age(125), *_handshake(seq=7)],
    "retransmits after a reset": [
        *_handshake(),
        _tcp(1, RST | ACK, 501, 101),
        _tcp(0, PSH | ACK, 101, 501, b"data"),
        _tcp(0, PSH | ACK, 101, 501, b"data"),
        _tcp(1, RST, 501),
        Age(25),
        _tcp(0, PSH | ACK, 101, 501, b"data"),
    ],
    "a reset that is out of the window": [*_handshake(), _tcp(0, RST, 90_000), _tcp(1, RST, 1), _tcp(0, ACK, 101, 501)],
    "errors about what NAT has translated": list(_about_nat(0)),
    "errors about replies to NAT": list(_about_nat(1)),
    "an association of SCTP": list(_association()),
    "SCTP with another tag": [*list(_association())[:4], _sctp(0, 0, bytes(4), 0x3333), _sctp(0, 6, b"", 0x3333)],
    "labels under masks": [
        _labelled(1 << 127 | 1, 1 << 127 | 1),
        _labelled(2, 3),
        _labelled(0, 1 << 127),
        *_asked(1),
    ],
    "UDP that nobody answers": [*_asked(2), Age(45), *_asked(1)],
}
