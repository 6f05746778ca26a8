# SPDX-License-Identifier: Apache-2.0
"""Random frames, right and wrong: tags, fragments, extension headers, tunnels in tunnels, headers cut short."""

from __future__ import annotations

import struct
from random import Random

from tests.system.nic.silicon.packets import ipv4, ipv6, ipv6_fragment, ipv6_option

MACS = (bytes.fromhex("020000000001"), bytes.fromhex("0200000000ff"), b"\xff" * 6, b"\1\0\x5e\0\0\1")
IPV4 = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), bytes([192, 168, 255, 7]))
IPV6 = (bytes.fromhex("fd00" + "0" * 27 + "1"), bytes.fromhex("fe80" + "0" * 27 + "2"), b"\xff" * 16)
TPIDS = (0x8100, 0x88A8)
TUNNEL_IDS = (0, 1, 77, 0xFFFFFF)
TOS = (0, 0xB8, 3, 0xFF)
TTL = (0, 1, 64, 255)
VXLAN_PORT, GENEVE_PORT = 4789, 6081
OTHER_PORTS = (8472, 80, 0)
"""VXLAN that comes to these is known where the silicon was told of them."""
OPTIONS = (bytes.fromhex("01028001"), bytes.fromhex("ffff0001"))
"""Headers of options of Geneve that rules match on."""
LONGEST = 700
"""Bytes of a frame at most."""

_PORTS = (0, 1, 80, VXLAN_PORT, GENEVE_PORT, 0xFFFF)
_TCIS = (0, 1, 57, 0x1039, 0xE039, 0xFFFF)
_CHECKSUMS = (0, 0, 0xFFFF, 1, 0x1234, 0xFEDC)
_DEPTH = 2
"""Tunnels in one another at most, and one more."""


def frame(random: Random, depth: int = 0) -> bytes:
    """A frame; one in five is damaged. *depth* tunnels are around it."""
    ethertype, content = _network(random, depth)
    tags = [(random.choice(TPIDS), random.choice(_TCIS)) for _ in range(random.choice((0, 0, 0, 0, 1, 1, 1, 2, 2, 3)))]
    header = random.choice(MACS) + random.choice(MACS) + b"".join(struct.pack(">HH", *tag) for tag in tags)
    made = (header + struct.pack(">H", ethertype) + content)[:LONGEST]
    return _damaged(random, made) if random.random() < 0.2 else made


def usual(random: Random) -> bytes:
    """TCP or UDP in IPv4, sometimes with a tag, seldom in fragments."""
    ports = struct.pack(">HH", random.choice(_PORTS), random.choice(_PORTS))
    rest = random.randbytes(random.choice((0, 6, 24)))
    if random.random() < 0.5:
        protocol, content = 6, ports + struct.pack(">IIHHHH", 1, 2, 0x5010, 3, random.choice(_CHECKSUMS), 0) + rest
    else:
        protocol, content = 17, ports + struct.pack(">HH", 8 + len(rest), random.choice(_CHECKSUMS)) + rest
    fragment = random.choice((0, 0, 0, 0, 0, 0, 0x4000, 0x4000, 0x2000, 1))
    tos, ttl = random.choice(TOS), random.choice(TTL)
    fixed = struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(content), 1, fragment, ttl, protocol, 0x5678)
    tag = struct.pack(">HH", random.choice(TPIDS), random.choice(_TCIS)) if random.random() < 0.3 else b""
    ethernet = random.choice(MACS) + random.choice(MACS) + tag + b"\x08\0"
    return ethernet + fixed + random.choice(IPV4) + random.choice(IPV4) + content


def tunnelled(random: Random, depth: int = 0) -> bytes:
    """A frame that is in a tunnel, or nearly so."""
    ethertype, content = _tunnel(random, depth)
    tag = struct.pack(">HH", random.choice(TPIDS), random.choice(_TCIS)) if random.random() < 0.3 else b""
    made = random.choice(MACS) + random.choice(MACS) + tag + struct.pack(">H", ethertype) + content
    return _damaged(random, made[:LONGEST]) if random.random() < 0.1 else made[:LONGEST]


def alike(random: Random, like: bytes) -> bytes:
    """*like* with one bit of its headers changed, or a little shorter."""
    if random.random() < 0.1 and len(like) > 20:
        return like[: random.randrange(15, len(like))]
    at = random.randrange(min(len(like), random.choice((60, 60, 150))))
    return like[:at] + bytes((like[at] ^ 1 << random.randrange(8),)) + like[at + 1 :]


def _damaged(random: Random, whole: bytes) -> bytes:
    match random.choice(("cut", "byte", "padding")):
        case "cut":
            whole = whole[: random.randint(15, max(15, len(whole)))]
        case "byte":
            at = random.randrange(12, len(whole))
            whole = whole[:at] + random.randbytes(1) + whole[at + 1 :]
        case "padding":
            whole = whole.ljust(60, b"\0")
    return whole.ljust(15, b"\0")


def _network(random: Random, depth: int) -> tuple[int, bytes]:
    """An ethertype and what is behind it."""
    kinds = ("ipv4", "ipv4", "ipv4", "ipv6", "ipv6", "ipv6", "arp", "other", "tunnel", "mpls", "nsh", "llc")
    match random.choice(kinds):
        case "ipv4":
            return 0x0800, _ipv4(random, *_transport(random))
        case "ipv6":
            return 0x86DD, _ipv6(random, *_transport(random))
        case "arp":
            kind = bytes.fromhex(random.choice(("000108000604", "000108000604", "000108000604", "000686dd0604")))
            operation = random.choice((0, 1, 2, 17, 255, 256, 0xFFFF))
            content = kind + struct.pack(">H", operation) + random.choice(MACS) + random.choice(IPV4)
            return random.choice((0x0806, 0x0806, 0x8035)), content + random.choice(MACS) + random.choice(IPV4)
        case "tunnel" if depth <= _DEPTH:
            return _tunnel(random, depth)
        case "mpls":
            count = random.choice((1, 1, 2, 3, 4, 8))
            entries = [random.choice((0, 0x0006_4040, random.getrandbits(32))) & ~0x100 for _ in range(count)]
            entries[-1] |= random.choice((0x100, 0x100, 0x100, 0))
            content = struct.pack(f">{count}I", *entries) + random.choice((_network(random, 9)[1], frame(random, 9)))
            return random.choice((0x8847, 0x8848)), content
        case "nsh":
            inside = frame(random, 9) if random.random() < 0.6 else _network(random, 9)[1]
            return 0x894F, service_header(random) + inside
        case "llc":
            snap = random.choice((b"\xaa\xaa\x03\0\0\0", b"\xaa\xaa\0\0\0\0", b"\xaa\xaa\x03\0\0\1", b"\x42\x42\3"))
            ethertype, content = _network(random, 9)
            return random.choice((0, 46, 1500)), snap + ethertype.to_bytes(2, "big") + content
        case _:
            others = (0x88B5, 0x8847, 0, 46, 0x5FF, 0x600, 0xFFFF, 0x9100, 0x8100)
            return random.choice(others), random.randbytes(random.choice((0, 1, 5, 19, 30, 46, 60)))


def service_header(random: Random) -> bytes:
    """A network service header (RFC 8300), most of them right."""
    kind = random.choice((1, 1, 1, 2, 2, 0, 0xFF))
    context = random.randbytes(16 if kind != 2 else random.choice((0, 4, 24)))
    length = 2 + len(context) // 4 if random.random() < 0.95 else random.randrange(64)
    head = random.choice((0,) * 9 + (1,)) << 14 | random.randrange(4) << 12 | random.randrange(64) << 6 | length
    following = random.choice((1, 2, 3, 3, 3, 4, 5, 0, 6))
    return (
        struct.pack(">HBBI", head, kind, following, random.choice((0, 0x0000_7BFF, random.getrandbits(32)))) + context
    )


def _ipv4(random: Random, protocol: int, payload: bytes) -> bytes:
    fragment = random.choice((0, 0, 0, 0x4000, 0x2000, 0x2001, 0x1FFF, 0x8000))
    options = random.choice((b"", b"", b"", random.randbytes(4), random.randbytes(40)))
    header = ipv4("0.0.0.0", "0.0.0.0", protocol, payload, fragment=fragment, options=options)
    first = random.choice((header[0],) * 9 + (0x44, 0x46, 0x05))
    checksum = header[10:12] if random.random() < 0.7 else random.choice(_CHECKSUMS).to_bytes(2, "big")
    start = bytes((first, random.choice(TOS))) + header[2:8] + bytes((random.choice(TTL), header[9])) + checksum
    return start + random.choice(IPV4) + random.choice(IPV4) + options + payload


def _ipv6(random: Random, protocol: int, payload: bytes) -> bytes:
    if random.random() < 0.3:
        for extension in random.choices((0, 43, 60, 44, 51, 59), k=random.choice((1, 1, 2, 3, 4, 9))):
            if extension == 44:
                protocol, payload = 44, ipv6_fragment(protocol, random.choice((0, 0, 1, 8, 0xFFF8)), payload)
            else:
                units = random.choice((0, 0, 0, 0, 1, 15, 16, 17, 20, 255))
                protocol, payload = extension, ipv6_option(protocol, units, payload)
    flow = random.choice((6,) * 9 + (4,)) << 28 | random.choice((0, 0xB8 << 20, 0xFFFFFFF, 5))
    return ipv6(random.choice(IPV6), random.choice(IPV6), protocol, payload, flow=flow, hops=random.choice(TTL))


def _transport(random: Random) -> tuple[int, bytes]:
    """A protocol number and what is behind the network header."""
    ports = random.choice(_PORTS), random.choice(_PORTS)
    checksum = random.choice(_CHECKSUMS)
    rest = random.randbytes(random.choice((0, 0, 1, 6, 17, 24, 24, 150)))
    match random.choice(("tcp", "tcp", "udp", "udp", "sctp", "icmp", "icmpv6", "neighbour", "other")):
        case "tcp":
            offset = random.choice((5,) * 8 + (4, 6, 11)) << 12
            return 6, struct.pack(">HHIIHHHH", *ports, 1, 2, offset | random.getrandbits(12), 3, checksum, 0) + rest
        case "udp":
            return 17, struct.pack(">HHHH", *ports, 8 + len(rest), checksum) + rest
        case "sctp":
            return 132, struct.pack(">HHII", *ports, 1, 2) + rest
        case "icmp":
            return 1, struct.pack(">BBHI", random.choice((0, 3, 8, 255)), random.choice((0, 1)), checksum, 0) + rest
        case "icmpv6":
            return 58, struct.pack(">BBHI", random.choice((1, 128, 135)), random.choice((0, 1)), checksum, 0) + rest
        case "neighbour":
            kind = random.choice(((135, 0), (136, 0), (135, 1), (134, 0)))
            options = b"".join(
                bytes((random.choice((1, 1, 2, 2, 3)), random.choice((1, 1, 1, 1, 2, 0))))
                + random.choice((*MACS, bytes(6)))
                for _ in range(random.choice((0, 1, 1, 2, 3)))
            )
            return 58, struct.pack(">BBHI", *kind, checksum, 0) + random.choice(IPV6) + options + rest
        case _:
            return random.choice((0, 2, 41, 43, 44, 47, 50, 60, 136, 255)), rest


def _tunnel(random: Random, depth: int) -> tuple[int, bytes]:
    """An ethertype and a packet with a frame in a tunnel, most of them right."""
    kind = random.choice(("vxlan", "vxlan", "geneve", "geneve", "gre"))
    header = {"vxlan": _vxlan, "geneve": _geneve, "gre": _gre}[kind](random)
    payload = header + frame(random, depth + 1)
    if random.random() < 0.05:
        payload = payload[: random.randrange(24)]
    protocol = 47
    if kind != "gre":
        own = VXLAN_PORT if kind == "vxlan" else GENEVE_PORT
        port = own if random.random() < 0.8 else random.choice((8472, *OTHER_PORTS, VXLAN_PORT, GENEVE_PORT))
        ports = random.choice((32768, 50000)), port
        protocol, payload = 17, struct.pack(">HHHH", *ports, 8 + len(payload), random.choice(_CHECKSUMS)) + payload
    if random.random() < 0.15:
        make = random.choice(((0x0800, _ipv4), (0x86DD, _ipv6)))
        return make[0], make[1](random, protocol, payload)
    ends = random.choice((IPV4, IPV6))
    source, destination = random.choice(ends), random.choice(ends)
    tos, ttl = random.choice(TOS), random.choice(TTL)
    if ends is IPV6:
        return 0x86DD, ipv6(source, destination, protocol, payload, flow=6 << 28 | tos << 20, hops=ttl)
    fixed = struct.pack(">BBHHHBBH", 0x45, tos, 20 + len(payload), 1, 0x4000, ttl, protocol, 0x5678)
    return 0x0800, fixed + source + destination + payload


def _vxlan(random: Random) -> bytes:
    flags = random.choice((8, 8, 8, 8, 8, 8, 8, 8, 0x88, 0xFF, 0, 0xF7))
    return struct.pack(">BHBI", flags, 0, 0, random.choice(TUNNEL_IDS) << 8 | random.choice((0, 0, 0, 1)))


def _geneve(random: Random) -> bytes:
    options = b"".join(option(random) for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 10))))[: 63 * 4]
    words = len(options) // 4 if random.random() < 0.9 else random.randrange(64)
    first = random.choice((0,) * 15 + (1, 2)) << 6 | words
    flags = random.choice((0, 0, 0, 0, 0, 0, 0x40, 0x40, 0x80, 0xC0, 1))
    inside = random.choice((0x6558,) * 12 + (0x0800, 0))
    number = random.choice(TUNNEL_IDS) << 8 | random.choice((0, 0, 0, 1))
    return struct.pack(">BBHI", first, flags, inside, number) + options


def option(random: Random) -> bytes:
    """One option of Geneve; most are of a kind that rules match on."""
    data = bytes((0, random.choice((0, 1, 2)), 0, random.choice((0, 1, 3))))
    if random.random() < 0.7:
        header = random.choice(OPTIONS)
        return header[:3] + bytes((header[3] | random.choice((0, 0, 0, 0x20, 0xE0)),)) + data
    words = random.choice((0, 0, 1, 2, 3, 31))
    return random.choice(OPTIONS)[:2] + bytes((random.choice((0, 0x80, 0x81)), words)) + random.randbytes(4 * words)


def _gre(random: Random) -> bytes:
    flags = random.choice((0, 0x2000, 0x2000, 0x2000, 0x8000, 0x1000, 0xA000, 0xB000, 0x4000, 0x0001, 0x2080))
    words = [random.choice((0, 1, 77, 0xFFFFFFFF)) for bit in (0x8000, 0x2000, 0x1000) if flags & bit]
    return struct.pack(f">HH{len(words)}I", flags, random.choice((0x6558,) * 12 + (0x0800, 0x88BE)), *words)
