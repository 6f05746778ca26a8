# SPDX-License-Identifier: Apache-2.0
"""Datagrams of connections, and a tracker that they are given to one by one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from asap2.nic.checksums import crc32c, sum_of
from asap2.nic.conntrack.fields import Fields
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.states import SECOND
from asap2.nic.conntrack.tracker import Tracker
from asap2.nic.rules import Ct, CtState

CLIENT, SERVER, ROUTER, OUTSIDE = "10.0.0.1", "10.0.0.2", "10.0.0.254", "192.0.2.1"
CLIENT6, SERVER6 = "fd00::1", "fd00::2"
FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
TRK, NEW, EST, REL, RPL, INV = CtState.TRK, CtState.NEW, CtState.EST, CtState.REL, CtState.RPL, CtState.INV
COMMIT = Ct(commit=True)


def checksum(data: bytes) -> int:
    total = sum_of(data)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def datagram(src: str, dst: str, proto: int, payload: bytes, *, ttl: int = 64) -> bytes:
    """An IP datagram; the checksum of TCP, UDP, ICMP and SCTP is put in."""
    ends = address(src) + address(dst)
    pseudo = ends + len(payload).to_bytes(4, "big") + bytes(3) + bytes([proto])
    at = {6: 16, 17: 6, 58: 2, 1: 2}.get(proto)
    if at is not None and len(payload) >= at + 2:
        right = checksum(payload if proto == 1 else pseudo + payload)
        payload = payload[:at] + (right or 0xFFFF if proto == 17 else right).to_bytes(2, "big") + payload[at + 2 :]
    if proto == 132:
        payload = payload[:8] + crc32c(payload).to_bytes(4, "little") + payload[12:]
    if len(ends) == 32:
        return bytes([0x60, 0, 0, 0]) + len(payload).to_bytes(2, "big") + bytes([proto, ttl]) + ends + payload
    header = (
        bytes([0x45, 0]) + (20 + len(payload)).to_bytes(2, "big") + bytes(4) + bytes([ttl, proto]) + bytes(2) + ends
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def right(data: bytes) -> bool:
    """Whether all checksums of an IP datagram are right."""
    family = data[0] >> 4
    at, proto, ends = (20, data[9], data[12:20]) if family == 4 else (40, data[6], data[8:40])
    payload = data[at:]
    if family == 4 and checksum(data[:20]):
        return False
    if proto == 132:
        return int.from_bytes(payload[8:12], "little") == crc32c(payload[:8] + bytes(4) + payload[12:])
    pseudo = ends + len(payload).to_bytes(4, "big") + bytes(3) + bytes([proto])
    return checksum(payload if proto == 1 else pseudo + payload) == 0


def ports(sport: int, dport: int) -> bytes:
    return sport.to_bytes(2, "big") + dport.to_bytes(2, "big")


@dataclass
class End:
    """One end of a TCP connection: it says what it has to say with the right numbers."""

    address: str
    port: int
    seq: int
    window: int = 1000
    heard: int = 0

    def segment(self, to: End, flags: int, data: bytes = b"", options: bytes = b"", *, seq: int | None = None) -> bytes:
        """One that the other end hears; with *seq* one that it does not."""
        number = self.seq if seq is None else seq
        offset = (20 + len(options)) // 4 << 4
        header = ports(self.port, to.port) + number.to_bytes(4, "big")
        header += (self.heard if flags & ACK else 0).to_bytes(4, "big") + bytes([offset, flags])
        header += self.window.to_bytes(2, "big") + bytes(4) + options
        if seq is None:
            self.seq = (self.seq + len(data) + bool(flags & SYN) + bool(flags & FIN)) & 0xFFFFFFFF
            to.heard = self.seq
        return datagram(self.address, to.address, 6, header + data)


def udp(src: str, dst: str, sport: int = 1000, dport: int = 53, data: bytes = b"hello") -> bytes:
    return datagram(src, dst, 17, ports(sport, dport) + (8 + len(data)).to_bytes(2, "big") + bytes(2) + data)


def icmp(src: str, dst: str, kind: int, identifier: int = 7, *, code: int = 0, body: bytes = b"ping") -> bytes:
    proto = 58 if ":" in src else 1
    return datagram(src, dst, proto, bytes([kind, code, 0, 0]) + identifier.to_bytes(2, "big") + bytes(2) + body)


@dataclass
class Firewall:
    """A tracker whose packets all go through one zone."""

    tracker: Tracker = field(default_factory=lambda: Tracker(now=1000 * SECOND))
    fields: Fields = field(default_factory=dict)
    data: bytes = b""
    ovs: bool = True

    seen: Seen | None = None

    def see(
        self, data: bytes, action: Ct = COMMIT, known: Fields | None = None, seen: Seen | None = None, entropy: int = 0
    ) -> CtState:
        """The state that a packet is in; :attr:`fields`, :attr:`data` and :attr:`seen` are what has become of it."""
        done = self.tracker.execute(action, data, data[0] >> 4, known or {}, seen, ovs=self.ovs, entropy=entropy)
        self.fields, self.data, self.seen = done.fields, done.data, done.seen
        return CtState(done.fields.get("ct_state", 0))

    def wait(self, seconds: float) -> None:
        self.tracker.now += int(seconds * SECOND)

    @property
    def lifetime(self) -> float:
        """Seconds that the only connection still has."""
        (connection,) = self.tracker.connections()
        return (connection.expires - self.tracker.now) / SECOND
