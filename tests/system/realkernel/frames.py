# SPDX-License-Identifier: Apache-2.0
"""Random frames: what guests send, right and wrong. A frame that is not damaged has right lengths and checksums."""

from __future__ import annotations

import struct
from random import Random

from tests.system.nic.silicon.packets import checksum

MACS = tuple(bytes.fromhex(mac) for mac in ("020000000001", "0200000000ff", "ffffffffffff", "01005e000001"))
IPV4 = tuple(bytes(address) for address in ((10, 0, 0, 1), (10, 0, 0, 2), (192, 168, 255, 7)))
IPV6 = tuple(bytes.fromhex(address) for address in ("fd00" + "0" * 27 + "1", "fe80" + "0" * 27 + "2", "ff" * 16))
TPIDS = (0x8100, 0x88A8)
_ENTERED = tuple(bytes.fromhex(ethertype) for ethertype in ("8864", "88fb", "892f", "4305"))
"""PPPoE, PRP, HSR and B.A.T.M.A.N. headers: the kernel's flow dissector looks behind them, the eSwitch does not."""
_PORTS = (0, 1, 80, 4789, 53, 0xFFFF)
_EXTENSIONS = (0, 43, 60)


def frame(random: Random, *, damaged: bool = True) -> bytes:
    """A frame; with *damaged*, perhaps cut short or with a wrong byte.

    The kernel drops a tagged frame with less than two bytes behind the tag's ethertype before any filter sees it
    (skb_vlan_untag()), so there is none here, however many tags are taken off.
    """
    made = _frame(random, damaged=damaged)
    while any(made[at : at + 2] in _ENTERED for at in (12, 16, 20, 24)):
        made = _frame(random, damaged=damaged)
    if made[12:14] in (b"\x81\x00", b"\x88\xa8"):
        return made.ljust(32, b"\0")
    return made


def _frame(random: Random, *, damaged: bool) -> bytes:
    ethertype, content = _network(random)
    tags = b"".join(
        struct.pack(">HH", random.choice(TPIDS), random.choice((0, 1, 57, 0x1039, 0xE039, 0xFFFF)))
        for _ in range(random.choice((0, 0, 0, 1, 1, 2, 2, 3)))
    )
    made = random.choice(MACS) + random.choice(MACS) + tags + struct.pack(">H", ethertype) + content
    made = made.ljust(15, b"\0")
    if not damaged:
        return made
    match random.choice(("none", "none", "none", "none", "cut", "byte", "padding")):
        case "cut":
            return made[: random.randint(15, len(made))]
        case "byte":
            at = random.randrange(12, len(made))
            return made[:at] + random.randbytes(1) + made[at + 1 :]
        case "padding":
            return made.ljust(60, b"\0")
    return made


def super_packet(random: Random) -> tuple[bytes, int]:
    """A TCP super-packet as a guest's kernel hands it to its device: its checksum is to be completed, and it is to be
    cut into segments. The frame, and the bytes in a segment."""
    mss = random.choice((100, 536, 1000))
    size = random.randint(mss + 1, 1700)
    header = struct.pack(">HHIIHHHH", random.choice(_PORTS), random.choice(_PORTS), 1, 2, 0x5010, 3, 0, 0)
    if random.random() < 0.5:
        ethertype, addresses = 0x0800, random.choice(IPV4) + random.choice(IPV4)
        start = struct.pack(">BBHHHBB", 0x45, 0, 40 + size, 1, 0x4000, random.choice((1, 64)), 6)
        network = start + struct.pack(">H", checksum(start + addresses)) + addresses
    else:
        ethertype, addresses = 0x86DD, random.choice(IPV6) + random.choice(IPV6)
        network = struct.pack(">IHBB", 6 << 28, 20 + size, 6, 64) + addresses
    partial = ~checksum(addresses + struct.pack(">II", 20 + size, 6)) & 0xFFFF
    segment = header[:16] + struct.pack(">H", partial) + header[18:] + random.randbytes(size)
    tag = struct.pack(">HH", random.choice(TPIDS), random.choice((1, 57))) if random.random() < 0.4 else b""
    start = random.choice(MACS) + random.choice(MACS) + tag + struct.pack(">H", ethertype)
    return start + network + segment, mss


def _network(random: Random) -> tuple[int, bytes]:
    """An ethertype and what is behind it."""
    match random.choice(("ipv4", "ipv4", "ipv4", "ipv6", "ipv6", "arp", "other")):
        case "ipv4":
            return 0x0800, _ipv4(random)
        case "ipv6":
            return 0x86DD, _ipv6(random)
        case "arp":
            kind = random.choice(("000108000604", "000108000604", "000108000604", "000686dd0604"))
            content = bytes.fromhex(kind) + struct.pack(">H", random.choice((0, 1, 2, 255, 256, 0xFFFF)))
            content += random.choice(MACS) + random.choice(IPV4) + random.choice(MACS) + random.choice(IPV4)
            return random.choice((0x0806, 0x0806, 0x8035)), content
    ethertype = random.choice((0x88B5, 0x88B5, 0, 46, 0x5FF, 0x600, 0xFFFF, 0x9100))
    return ethertype, random.choice((b"", b"", b"\xff\xff")) + random.randbytes(random.randint(0, 60))


def _ipv4(random: Random) -> bytes:
    source, destination = random.choice(IPV4), random.choice(IPV4)
    fragment = random.choice((0, 0, 0, 0, 0x4000, 0x2000, 0x2001, 0x1FFF, 0x8000))
    protocol, payload = _l4(random, source + destination)
    options = random.choice((b"", b"", b"", b"\1" * 4, b"\1" * 40))
    start = struct.pack(
        ">BBHHHBB",
        0x45 + len(options) // 4,
        random.choice((0, 0, 0xB8, 3)),
        20 + len(options) + len(payload),
        random.randrange(65536),
        fragment,
        random.choice((0, 1, 64, 255)),
        protocol,
    )
    rest = source + destination + options
    return start + struct.pack(">H", checksum(start + rest)) + rest + payload


def _ipv6(random: Random) -> bytes:
    source, destination = random.choice(IPV6), random.choice(IPV6)
    protocol, payload = _l4(random, source + destination)
    for _ in range(random.choice((0, 0, 0, 0, 1, 2, 4))):
        if random.random() < 0.4:
            offset = random.choice((0, 0, 1, 8, 0xFFF8))
            payload = struct.pack(">BBHI", protocol, 0, offset, 7) + payload
            protocol = 44
        else:
            units = random.choice((0, 0, 0, 1, 20))
            payload = bytes([protocol, units]) + bytes(6 + 8 * units) + payload
            protocol = random.choice(_EXTENSIONS)
    flow = 6 << 28 | random.choice((0, 0, 0xB8 << 20, 0xFFFFFFF, 5))
    hops = random.choice((0, 1, 64, 255))
    return struct.pack(">IHBB", flow, len(payload), protocol, hops) + source + destination + payload


def _l4(random: Random, addresses: bytes) -> tuple[int, bytes]:
    """A protocol number and what is behind the network header; *addresses* are those of the pseudo-header."""
    source, destination = random.choice(_PORTS), random.choice(_PORTS)
    rest = random.randbytes(random.choice((0, 1, 6, 24)))
    match random.choice(("tcp", "tcp", "udp", "udp", "udp", "sctp", "icmp", "icmpv6", "neighbour", "other")):
        case "tcp":
            flags = random.choice((2, 0x12, 0x10, 0x11, random.randrange(0x1000)))
            header = struct.pack(">HHIIHHHH", source, destination, 1, 2, 0x5000 | flags, 3, 0, 0)
            return 6, _with_checksum(header + rest, 16, addresses, 6)
        case "udp":
            datagram = struct.pack(">HHHH", source, destination, 8 + len(rest), 0) + rest
            if len(addresses) == 8 and random.random() < 0.2:
                return 17, datagram  # no checksum; over IPv6 there has to be one, and the kernel's csum makes one
            return 17, _with_checksum(datagram, 6, addresses, 17)
        case "sctp":
            return 132, struct.pack(">HHII", source, destination, 1, 2) + rest
        case "icmp":
            message = struct.pack(">BBHI", random.randrange(20), random.randrange(4), 0, 0) + rest
            return 1, message[:2] + struct.pack(">H", checksum(message)) + message[4:]
        case "icmpv6":
            message = struct.pack(">BBHI", random.randrange(256), random.randrange(4), 0, 0) + rest
            return 58, _with_checksum(message, 2, addresses, 58)
        case "neighbour":
            kind, code = random.choice(((135, 0), (136, 0), (135, 1), (134, 0)))
            message = struct.pack(">BBHI", kind, code, 0, 0) + random.choice(IPV6) + rest
            return 58, _with_checksum(message, 2, addresses, 58)
    return random.choice((2, 4, 41, 47, 50, 59, 136, 255)), rest


def _with_checksum(segment: bytes, at: int, addresses: bytes, protocol: int) -> bytes:
    """*segment* with its checksum, over the pseudo-header too, at *at*; a UDP checksum of 0 is sent as 0xffff."""
    pseudo = addresses + struct.pack(">II", len(segment), protocol)
    found = checksum(pseudo + segment)
    if protocol == 17 and not found:
        found = 0xFFFF
    return segment[:at] + struct.pack(">H", found) + segment[at + 2 :]
