# SPDX-License-Identifier: Apache-2.0
"""Random frames, right and wrong, and random rules that have a chance to match them."""

from __future__ import annotations

import struct
from random import Random

from hypothesis import strategies as st

from asap2.nic.rules import (
    FIELD_BITS,
    OVS_TABLE,
    Action,
    Drop,
    Goto,
    Masked,
    Match,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    Rule,
    Truncate,
    Upcall,
)
from asap2.nic.silicon import packet
from asap2.nic.silicon.ports import MAX_TABLES, Miss, Port, PortKind
from tests.system.nic.silicon.packets import ipv4, ipv6, ipv6_fragment, ipv6_option

PORTS = (1, 2, 3)
TABLES = (0, 1, 7, OVS_TABLE, OVS_TABLE | 1, OVS_TABLE | 7)
_COMMON = (0, 0, 0, 0, OVS_TABLE, *TABLES)
"""Tables for rules: most in one, so that several have a say about the same packet."""
FIELDS = tuple(name for name in FIELD_BITS if not name.startswith("tun_"))
"""What rules match on here; the reference eSwitch does not look into tunnels."""

_MACS = st.sampled_from([bytes.fromhex("020000000001"), bytes.fromhex("0200000000ff"), b"\xff" * 6, b"\1\0\x5e\0\0\1"])
_V4 = st.sampled_from([bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), bytes([192, 168, 255, 7])])
_V6 = st.sampled_from([bytes.fromhex("fd00" + "0" * 27 + "1"), bytes.fromhex("fe80" + "0" * 27 + "2"), b"\xff" * 16])
_PORT_NUMBERS = st.sampled_from([0, 1, 80, 4789, 0xFFFF])
_TAGS = st.tuples(st.sampled_from([0x8100, 0x88A8]), st.sampled_from([0, 1, 57, 0x1039, 0xE039, 0xFFFF]))
_BYTE = st.integers(0, 255)


@st.composite
def l4(draw: st.DrawFn) -> tuple[int, bytes]:
    """A protocol number and what is behind the network header."""
    kind = draw(st.sampled_from(["tcp", "udp", "sctp", "icmp", "icmpv6", "neighbour", "other"]))
    source, destination = draw(_PORT_NUMBERS), draw(_PORT_NUMBERS)
    rest = draw(st.binary(max_size=24))
    match kind:
        case "tcp":
            flags = draw(st.integers(0, 0xFFF))
            return 6, struct.pack(">HHIIHHHH", source, destination, 1, 2, 0x5000 | flags, 3, 4, 0) + rest
        case "udp":
            return 17, struct.pack(">HHHH", source, destination, 8, 0) + rest
        case "sctp":
            return 132, struct.pack(">HHII", source, destination, 1, 2) + rest
        case "icmp":
            return 1, struct.pack(">BBHI", draw(_BYTE), draw(_BYTE), 0, 0) + rest
        case "icmpv6":
            return 58, struct.pack(">BBHI", draw(_BYTE), draw(_BYTE), 0, 0) + rest
        case "neighbour":
            kind_code = draw(st.sampled_from([(135, 0), (136, 0), (135, 1), (134, 0)]))
            return 58, struct.pack(">BBHI", *kind_code, 0, 0) + draw(_V6) + rest
        case _:
            return draw(st.sampled_from([0, 2, 41, 43, 44, 47, 50, 60, 136, 255])), rest


@st.composite
def network(draw: st.DrawFn) -> tuple[int, bytes]:
    """An ethertype and what is behind it."""
    kind = draw(st.sampled_from(["ipv4", "ipv4", "ipv6", "ipv6", "arp", "other"]))
    protocol, payload = draw(l4())
    match kind:
        case "ipv4":
            fragment = draw(st.sampled_from([0, 0, 0x4000, 0x2000, 0x2001, 0x1FFF, 0x8000]))
            options = draw(st.sampled_from([b"", b"", b"\1" * 4, b"\1" * 40]))
            header = ipv4("0.0.0.0", "0.0.0.0", protocol, payload, fragment=fragment, options=options)
            tos, ttl = draw(st.sampled_from([0, 0xB8, 3])), draw(st.sampled_from([0, 1, 64, 255]))
            version_and_length = draw(st.sampled_from([header[0]] * 6 + [0x44, 0x46, 0x05]))
            header = bytes([version_and_length, tos]) + header[2:8] + bytes([ttl]) + header[9:12]
            return 0x0800, header + draw(_V4) + draw(_V4) + options + payload
        case "ipv6":
            for extension in draw(st.lists(st.sampled_from([0, 43, 60, 44]), max_size=4) | _MANY_EXTENSIONS):
                if extension == 44:
                    offset = draw(st.sampled_from([0, 0, 1, 8, 0xFFF8]))
                    protocol, payload = 44, ipv6_fragment(protocol, offset, payload)
                else:
                    units = draw(st.sampled_from([0, 0, 0, 1, 20, 255]))
                    protocol, payload = extension, ipv6_option(protocol, units, payload)
            flow = 6 << 28 | draw(st.sampled_from([0, 0xB8 << 20, 0xFFFFFFF, 5]))
            return 0x86DD, ipv6(draw(_V6), draw(_V6), protocol, payload, flow=flow, hops=draw(_BYTE))
        case "arp":
            kind_bytes = draw(st.sampled_from(["000108000604", "000108000604", "000108000604", "000686dd0604"]))
            operation = draw(st.sampled_from([0, 1, 2, 255, 256, 0xFFFF]))
            content = bytes.fromhex(kind_bytes) + struct.pack(">H", operation)
            content += draw(_MACS) + draw(_V4) + draw(_MACS) + draw(_V4)
            return draw(st.sampled_from([0x0806, 0x0806, 0x8035])), content
        case _:
            kinds = [0x88B5, 0x8847, 0, 46, 0x5FF, 0x600, 0xFFFF, 0x9100, 0x8100]
            return draw(st.sampled_from(kinds)), draw(st.binary(max_size=60))


_MANY_EXTENSIONS = st.just([60] * 9)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame, perhaps cut short or with a wrong byte."""
    ethertype, content = draw(network())
    tags = draw(st.lists(_TAGS, max_size=3))
    header = draw(_MACS) + draw(_MACS) + b"".join(struct.pack(">HH", *tag) for tag in tags)
    frame = (header + struct.pack(">H", ethertype) + content)[:900]
    damage = draw(st.sampled_from(["none", "none", "none", "cut", "byte", "padding"]))
    if damage == "cut":
        frame = frame[: draw(st.integers(15, max(15, len(frame))))]
    if damage == "byte":
        at = draw(st.integers(12, len(frame) - 1))
        frame = frame[:at] + bytes([draw(_BYTE)]) + frame[at + 1 :]
    if damage == "padding":
        frame = frame.ljust(60, b"\0")
    return frame.ljust(15, b"\0")


def alike(frame: bytes, chance: Random) -> bytes:
    """*frame* with one bit of its headers changed."""
    at = chance.randrange(min(len(frame), 60))
    return frame[:at] + bytes([frame[at] ^ 1 << chance.randrange(8)]) + frame[at + 1 :]


@st.composite
def matches(draw: st.DrawFn, seen: list[bytes]) -> Match:
    """A match on a few fields with any masks; mostly taken from a frame that was seen."""
    fields = packet.parse(draw(st.sampled_from(seen))) if seen else {}
    chosen = {}
    names = st.sampled_from([*FIELDS, *(name for name in fields for _ in range(4))])
    for name in draw(st.lists(names, max_size=3, unique=True)):
        full = (1 << FIELD_BITS[name]) - 1
        mask = draw(st.sampled_from([full, full, 1, full ^ 1, full >> 1]) | st.integers(1, full))
        value = fields.get(name, 0)
        if draw(st.integers(0, 9)) == 9:
            value = draw(st.integers(0, full))
        chosen[name] = Masked(value & mask, mask)
    return Match(**chosen)


@st.composite
def actions(draw: st.DrawFn) -> tuple[Action, ...]:
    """An action list that the program takes."""
    tag = (st.sampled_from([0, 57, 4095]), st.integers(0, 7), st.sampled_from([0x8100, 0x88A8]))
    middle = st.one_of(
        st.builds(Output, st.sampled_from([*PORTS, 99])),
        st.builds(PushVlan, *tag),
        st.just(PopVlan()),
        st.just(PopVlan()),
        st.builds(ModifyVlan, *tag),
        st.builds(Upcall, st.integers(0, 2**64 - 1)),
    )
    chosen: list[Action] = list(draw(st.lists(middle, max_size=draw(st.sampled_from([1, 3, 5])))))
    end = draw(st.sampled_from(["output", "output", "none", "drop", "pass", "goto", "goto"]))
    match end:
        case "output":
            chosen.append(Output(draw(st.sampled_from(PORTS))))
        case "drop":
            chosen.append(Drop())
        case "pass":
            chosen.append(Pass())
        case "goto":
            chosen.append(Goto(draw(st.sampled_from(TABLES))))
    if chosen and isinstance(chosen[-1], Output | Upcall) and draw(st.booleans()):
        chosen.insert(len(chosen) - 1, Truncate(draw(st.integers(64, 100))))
    return tuple(chosen)


@st.composite
def rules(draw: st.DrawFn, seen: list[bytes]) -> Rule:
    """A rule."""
    return Rule(
        draw(st.sampled_from(_COMMON)),
        draw(st.sampled_from([1, 1, 1, 2])),
        draw(st.integers(0, 2)),
        draw(matches(seen)),
        draw(actions()),
    )


_STAGES = st.sampled_from([(0,), (0, OVS_TABLE), (0, 1, OVS_TABLE)]) | st.lists(
    st.sampled_from(TABLES), max_size=MAX_TABLES
).map(tuple)


@st.composite
def ports(draw: st.DrawFn) -> list[Port]:
    """Every port, somehow."""
    return [
        Port(
            number,
            100 + number,
            draw(st.sampled_from([PortKind.VF, PortKind.VF, PortKind.INTERNAL])),
            tables=draw(_STAGES),
            miss=draw(st.sampled_from(list(Miss))),
            miss_port=draw(st.sampled_from([*PORTS, 99])),
            enabled=draw(st.integers(0, 19)) < 19,
        )
        for number in PORTS
    ]
