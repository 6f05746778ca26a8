# SPDX-License-Identifier: Apache-2.0
"""Super-packets through the silicon come out as the reference eSwitch says, and count as the wire's segments.

They are TCP packets of several segments whose checksum a device is to complete: what they hold there is the sum of the
pseudo-header. To compare them, it is completed.
"""

from __future__ import annotations

import struct
from random import Random, SystemRandom

import pytest

from asap2.nic.rules import Action, Decap, Encap, Goto, Masked, Output, PopVlan, PushVlan, Rule, SetField
from asap2.nic.silicon.events import Sent
from asap2.nic.silicon.reference import ReferenceSwitch
from asap2.nic.silicon.tunnel import look_into
from tests.system.nic.silicon.conftest import VF1, VF2, WIRE, Nic
from tests.system.nic.silicon.frames import IPV4, IPV6, MACS
from tests.system.nic.silicon.packets import checksum

PACKETS = 200
_SEGMENT = 1000
_V4, _V6 = b"\x08\x00", b"\x86\xdd"


def _super_packet(random: Random) -> bytes:
    """Its checksum is that of the pseudo-header alone. Longer than a page, the kernel does not keep it in one piece."""
    payload = random.randbytes(random.choice((1001, 2000, 3999, 5000, 20001)))
    segment = struct.pack(">HHIIHHHH", 1000, 2000, 1, 2, 0x5010, 512, 0, 0) + payload
    if random.random() < 0.5:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 7, 0x4000, 64, 6, 0) + IPV4[0] + IPV4[1]
        return MACS[0] + MACS[1] + _V4 + header[:10] + struct.pack(">H", checksum(header)) + header[12:] + segment
    return MACS[0] + MACS[1] + _V6 + struct.pack(">IHBB", 6 << 28, len(segment), 6, 64) + IPV6[0] + IPV6[1] + segment


def _transport(frame: bytes) -> int:
    """Where TCP begins in the innermost packet."""
    inside = look_into(frame)
    if inside is not None:
        return inside.at + _transport(frame[inside.at :])
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return at + 2 + (20 if frame[at : at + 2] == _V4 else 40)


def _pseudo(frame: bytes, tcp: int) -> bytes:
    version4 = frame[tcp - 20] == 0x45 and frame[tcp - 22 : tcp - 20] == _V4
    addresses = frame[tcp - 8 : tcp] if version4 else frame[tcp - 32 : tcp]
    return addresses + struct.pack(">II", len(frame) - tcp, 6)


def _with_checksum(frame: bytes, value: int) -> bytes:
    at = _transport(frame) + 16
    return frame[:at] + struct.pack(">H", value) + frame[at + 2 :]


def _to_be_completed(frame: bytes) -> bytes:
    return _with_checksum(frame, ~checksum(_pseudo(frame, _transport(frame))) & 0xFFFF)


def _completed(frame: bytes) -> bytes:
    """The checksum as a device completes it, of what is there: wrong, if that was."""
    return _with_checksum(frame, checksum(frame[_transport(frame) :]))


def _whole(frame: bytes) -> bytes:
    """The checksum as it has to be."""
    empty, tcp = _with_checksum(frame, 0), _transport(frame)
    return _with_checksum(frame, checksum(_pseudo(frame, tcp) + empty[tcp:]))


def _changes(random: Random) -> list[Action]:
    rewrites: list[Action] = [
        SetField("eth_dst", Masked(0x0200000000BB, 2**48 - 1)),
        SetField("ip_src", Masked(int.from_bytes(random.choice(IPV4), "big"), 0xFFFFFFFF)),
        SetField("ip_dst", Masked(int.from_bytes(random.choice(IPV6), "big"), 2**128 - 1)),
        SetField("ip_ttl", Masked(9, 0xFF)),
        SetField("ip_tos", Masked(0xB8, 0xFC)),
        SetField("l4_dst", Masked(random.getrandbits(16), 0xFFFF)),
    ]
    return random.sample(rewrites, random.randrange(4))


def _rules(random: Random) -> tuple[Rule, Rule]:
    """Two in turn: the second sees what the first has made, and sends it."""
    ends = random.choice((IPV4, IPV6))
    into = Encap("vxlan", 77, ends[0], ends[1], eth_src=MACS[0], eth_dst=MACS[1])
    tag = PushVlan(57, 3)
    first = [*_changes(random), *random.choice(((), (into,), (into,), (tag,), (tag, into)))]
    second: list[Action] = [Output(WIRE)] if random.random() < 0.3 else []
    if into in first and random.random() < 0.4:
        second += [Decap(), *_changes(random)]
    elif tag in first and into not in first:
        second.append(PopVlan())
    return Rule(0, VF1, 1, actions=(*first, Goto(1))), Rule(1, VF1, 1, actions=(*second, Output(WIRE)))


@pytest.mark.parametrize("seed", [1, SystemRandom().randrange(1 << 31)], ids=["fixed seed", "new seed"])
def test_super_packets_come_out_as_the_reference_says(nic: Nic, seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    taps = {port: nic.tap(port) for port in (VF1, VF2, WIRE)}
    for _ in range(PACKETS):
        reference = ReferenceSwitch()
        for port in nic.devices:
            reference.set_port(nic.port(port))
        rules = _rules(random)
        for rule in rules:
            reference.add(rule, nic.pipeline.add(rule))
        frame = _super_packet(random)
        segments = -(-(len(frame) - _transport(frame) - 20) // _SEGMENT)
        taps[VF1].send_super_packet(_to_be_completed(frame), _SEGMENT)
        for event in reference.process(_whole(frame), VF1, segments=segments):
            if isinstance(event, Sent):
                got = taps[event.port].receive()
                assert len(got) == len(event.frame), rules
                assert _plain(_completed(got)) == _plain(event.frame), rules
        for handle in list(nic.pipeline.rules):
            counted, expected = nic.pipeline.remove(handle), reference.remove(handle)
            assert (counted.packets, counted.bytes) == (expected.packets, expected.bytes), rules


def _plain(frame: bytes) -> bytes:
    """Without the source port of a tunnel, which is the kernel's to choose."""
    inside = look_into(frame)
    return frame if inside is None else frame[: inside.at - 16] + b"\0\0" + frame[inside.at - 14 :]
