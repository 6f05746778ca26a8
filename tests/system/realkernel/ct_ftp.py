# SPDX-License-Identifier: Apache-2.0
"""Random FTP connections for a real kernel's helper and ours: announcements, what is nearly one, and what follows."""

from __future__ import annotations

from random import Random
from typing import Final

from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct
from tests.system.realkernel.ct_cases import LEAST, Packet, Step
from tests.unit.nic.conntrack.packets import ACK, PSH, SYN, address, datagram, ports

_ETHERNET: Final = bytes.fromhex("0200000000ff020000000001")
_ENDS: Final = {4: ("10.0.0.1", "10.0.0.2", "192.0.2.1"), 6: ("fd00::1", "fd00::2", "fd00::ff01")}
"""Client, server, and what NAT makes of the client."""
_CLIENT_PORT, _CONTROL, _DATA = 1000, 21, 20
_ANNOUNCED: Final = 4660
_LINES: Final = {
    0: (
        b"USER anonymous\r\n",
        b"PORT 10,0,0,1,18,52\r\n",
        b"port 10,0,0,1,18,52\r\n",
        b"PORT 10,0,0,9,18,52\r\n",
        b"PORT  10,0,0,1,18,52\r\n",
        b"PORT 10,0,0,1,18,52\n",
        b"PORT 10,0,0,1,0,0\r\n",
        b"PORT 10,0,0,1,0,4660\r\n",
        b"PORT 10,0,0,1,18,308\r\n",
        b"PORT 9,256,0,1,18,52\r\n",
        b"PORT 10,0,0,1,18\r\n",
        b"PORT\r\n",
        b"POR",
        b"EPRT |1|10.0.0.1|4660|\r\n",
        b"EPRT !1!10.0.0.1!4660!\r\n",
        b"EPRT |1|10.0.1|4660|\r\n",
        b"EPRT |1|10.0.0.1|70196|\r\n",
        b"EPRT |1|10.0.0.1||\r\n",
        b"EPRT |2|fd00::1|4660|\r\n",
        b"EPRT |2|fd00:0:0:0::1|4660|\r\n",
        b"EPRT |2|fd00::x|4660|\r\n",
        b"EPRT |3|x|4660|\r\n",
    ),
    1: (
        b"220 ready\r\n",
        b"227 Entering Passive Mode (10,0,0,2,18,52).\r\n",
        b"227 Entering Passive Mode 10,0,0,2,18,52\r\n",
        b"227 10,0,0,2,18,52",
        b"227 =10,0,0,2,18,52;\r\n",
        b"227 Mode 2 (10,0,0,2,18,52)\r\n",
        b"227 (10,0,0,9,18,52)\r\n",
        b"227 no\r\n",
        b"22",
        b"229 Entering Extended Passive Mode (|||4660|)\r\n",
        b"229 (|||0|)\r\n",
        b"229 (||1|4660|)\r\n",
        b"229 (!!!4660!)\r\n",
        b"229 |||4660|\r\n",
        b"229 (|||70196|)\r\n",
    ),
}
_OCTETS: Final = b"0123456789,,.|() \r\n2PORT"


class _Control:
    """A control connection: the next segment of either end."""

    def __init__(self, family: int, action: Ct) -> None:
        self._family, self._action = family, action
        self.client, self.server, public = _ENDS[family]
        self.known = public if action.nat else self.client
        """The client, as the server knows it."""
        self._seq = [100, 500]

    def segment(self, way: int, flags: int, data: bytes = b"", *, again: bool = False) -> Packet:
        """A segment from the client (*way* 0) or the server; with *again*, the next has the same number."""
        seq, ack = self._seq[way], self._seq[1 - way]
        if not again:
            self._seq[way] += len(data) + bool(flags & SYN)
        ends = (
            (self.server, self.known, _CONTROL, _CLIENT_PORT)
            if way
            else (self.client, self.server, _CLIENT_PORT, _CONTROL)
        )
        return self._packet(ends, seq, ack if flags & ACK else 0, flags, data, self._action)

    def announced(self, way: int, port: int) -> Packet:
        """The first packet of a data connection that the end *way* has announced."""
        there = (self.server, self.known, _DATA, port) if way == 0 else (self.client, self.server, 2000, port)
        return self._packet(there, 9000, 0, SYN, b"", Ct(commit=True, nat=self._action.nat and Nat(None)))

    def _packet(
        self, ends: tuple[str, str, int, int], seq: int, ack: int, flags: int, data: bytes, action: Ct
    ) -> Packet:
        header = ports(*ends[2:]) + seq.to_bytes(4, "big") + ack.to_bytes(4, "big")
        header += bytes((0x50, flags, 0x40, 0)) + bytes(4)
        ethertype = b"\x08\0" if self._family == 4 else b"\x86\xdd"
        return Packet((_ETHERNET + ethertype + datagram(*ends[:2], 6, header + data)).ljust(LEAST, b"\0"), action)


def conversation(random: Random, packets: int) -> list[Step]:
    """A handshake, and lines of both ends; behind each, perhaps, the connection that it may have announced."""
    family = random.choice((4, 4, 6))
    public = address(_ENDS[family][2])
    nat = random.choice((None, Nat(NatKind.SRC, public, public)))
    control = _Control(family, Ct(commit=True, helper="ftp", nat=nat))
    made: list[Step] = [control.segment(0, SYN), control.segment(1, SYN | ACK), control.segment(0, ACK)]
    made += [control.segment(1, PSH | ACK, b"220 ready\r\n"), control.segment(0, PSH | ACK, b"USER a\r\n")]
    while len(made) < packets:
        way = random.randrange(2)
        data = random.choice(_LINES[way])
        if random.random() < 0.4:
            data = _damaged(random, data)
        made.append(control.segment(way, PSH | ACK, data, again=random.random() < 0.5))
        if random.random() < 0.4:
            made.append(control.announced(way, random.choice((_ANNOUNCED, _ANNOUNCED, 0))))
    return made


def _damaged(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data))
    match random.randrange(4):
        case 0:
            return data[: max(at, 1)]
        case 1:
            return data[:at] + bytes((random.choice(_OCTETS),)) + data[at:]
        case 2:
            return data[:at] + data[at + 1 :] or b"\n"
    return data[:at] + bytes((random.choice(_OCTETS),)) + data[at + 1 :]
