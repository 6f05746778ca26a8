# SPDX-License-Identifier: Apache-2.0
"""What the program remembers to find a port, a list or a rule sooner never leads it to another."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.nic.conntrack.view import Change
from asap2.nic.rules import OVS_TABLE, Ct, CtHardware, Drop, Goto, Masked, Match, Output, Rule
from asap2.nic.silicon import abi
from asap2.nic.silicon.events import Event, Matched, Sent
from asap2.nic.silicon.pipeline import Miss, Pipeline, Port, PortKind
from tests.system.nic.silicon.conftest import MAC, VF1, VF2
from tests.system.nic.silicon.network import ethernet

FRAME = ethernet(MAC[VF2], MAC[VF1], bytes(60), 0x0800)
EVERY = Match()


@pytest.fixture
def pipeline(pin_dir: Path) -> Iterator[Pipeline]:
    """Two ports; the first tries tables 0 and 5."""
    opened = Pipeline.open(pin_dir, max_rules=64, tracing=True)
    opened.set_port(Port(VF1, 101, PortKind.VF, tables=(0, 5), miss=Miss.DROP))
    opened.set_port(Port(VF2, 102, PortKind.VF, tables=(0,), miss=Miss.DROP))
    yield opened
    opened.destroy()


def sent(pipeline: Pipeline, port: Port | None = None) -> list[int]:
    """Where the frame goes that comes in by *port*."""
    events: list[Event] = pipeline.trace(FRAME, port or pipeline.ports[VF1])
    return [event.port for event in events if isinstance(event, Sent)]


def test_a_list_that_went_and_came_again_is_found(pipeline: Pipeline) -> None:
    for table in (0, 5):
        for _ in range(3):
            handle = pipeline.add(Rule(table, VF1, 1, EVERY, (Output(VF2),)))
            assert sent(pipeline) == [VF2]
            pipeline.remove(handle)
            assert sent(pipeline) == []


def test_the_place_of_a_list_that_went_is_not_taken_for_it(pipeline: Pipeline) -> None:
    handle = pipeline.add(Rule(0, VF1, 1, EVERY, (Output(VF2),)))
    assert sent(pipeline) == [VF2]
    pipeline.remove(handle)
    others = [pipeline.add(Rule(table, VF2, 1, EVERY, (Output(VF1),))) for table in range(60)]
    assert sent(pipeline) == []
    for other in others:
        pipeline.remove(other)
    pipeline.add(Rule(0, VF1, 1, EVERY, (Output(VF2),)))
    assert sent(pipeline) == [VF2]


def test_a_port_that_tries_other_tables_does_so_at_once(pipeline: Pipeline) -> None:
    pipeline.add(Rule(0, VF1, 1, EVERY, (Output(VF2),)))
    pipeline.add(Rule(7, VF1, 1, EVERY, (Output(VF1),)))
    assert sent(pipeline) == [VF2]
    for tables, expected in (((7,), VF1), ((0,), VF2), ((6, 7), VF1)):
        pipeline.set_port(Port(VF1, 101, PortKind.VF, tables=tables, miss=Miss.DROP))
        assert sent(pipeline) == [expected]


def test_devices_whose_numbers_share_their_low_bits_are_told_apart(pipeline: Pipeline) -> None:
    numbers = {number: 103 + number * abi.NEAR for number in range(3, 7)}
    for number, ifindex in numbers.items():
        pipeline.set_port(Port(number, ifindex, PortKind.VF, tables=(0,), miss=Miss.DROP))
        pipeline.add(Rule(0, number, 1, EVERY, (Output(number),)))
    for number in (*numbers, *reversed(numbers)):
        assert sent(pipeline, pipeline.ports[number]) == [number]
    gone = pipeline.ports[6]
    pipeline.remove_port(6)
    assert pipeline.trace(FRAME, gone) == []
    assert [sent(pipeline, pipeline.ports[number]) for number in (3, 4, 5)] == [[3], [4], [5]]


def test_a_device_that_goes_to_another_port_is_that_port_s(pipeline: Pipeline) -> None:
    pipeline.add(Rule(0, VF1, 1, EVERY, (Output(VF2),)))
    pipeline.add(Rule(0, VF2, 1, EVERY, (Output(VF1),)))
    device = pipeline.ports[VF1]
    pipeline.set_port(Port(VF2, device.ifindex, PortKind.VF, tables=(0,), miss=Miss.DROP))
    pipeline.remove_port(VF1)
    events = pipeline.trace(FRAME, device)
    matched = [event.handle for event in events if isinstance(event, Matched)]
    assert [pipeline.rules[handle].in_port for handle in matched] == [VF2]


def test_opened_again_it_finds_the_same(pipeline: Pipeline, pin_dir: Path) -> None:
    handles = [
        pipeline.add(Rule(0, VF1, 1 + n % 2, Match(ip_src=Masked(n << 8, 0xFFFFFF00)), (Output(VF2),)))
        for n in range(60)
    ]
    for handle in handles[::2]:
        pipeline.remove(handle)
    frames = [ethernet(MAC[VF2], MAC[VF1], _ipv4(n << 8 | 9), 0x0800) for n in range(60)]

    def hits(opened: Pipeline) -> list[bool]:
        port = opened.ports[VF1]
        return [any(isinstance(event, Sent) for event in opened.trace(frame, port)) for frame in frames]

    expected = [n % 2 == 1 for n in range(60)]
    assert hits(pipeline) == expected
    again = Pipeline.open(pin_dir)
    assert hits(again) == expected
    again.close()


def _ipv4(source: int) -> bytes:
    return bytes.fromhex("4500002e00004000403d0000") + source.to_bytes(4, "big") + bytes(4)


def _with_ports(begin: int = 0x45, fragment: int = 0, protocol: int = 17, behind: bytes = b"") -> bytes:
    """An IPv4 header, what is *behind* it, and ports 1000 and 2000."""
    fixed = struct.pack(">BBHHHBBH", begin, 0, 60, 1, fragment, 64, protocol, 0)
    return fixed + bytes((10, 0, 0, 1, 10, 0, 0, 2)) + behind + struct.pack(">HHHH", 1000, 2000, 8, 0) + bytes(32)


def full(value: int, bits: int) -> Masked:
    return Masked(value, (1 << bits) - 1)


@pytest.mark.parametrize("port", [PortKind.VF, PortKind.UPLINK])
@pytest.mark.parametrize(
    ("payload", "tags", "metadata"),
    [
        (_with_ports(fragment=0x2000), (), None),
        (_with_ports(fragment=1), (), None),
        (_with_ports(begin=0x46, behind=struct.pack(">HH", 1000, 2000))[:26] + bytes(30), (), None),
        (_with_ports(protocol=1), (), None),
        (_with_ports(begin=0x44), (), None),
        (_with_ports(), ((0x8100, 57),), None),
        (_with_ports(), (), (0x8100, 57)),
        (_with_ports()[:24], (), None),
    ],
    ids=["first fragment", "later fragment", "options", "ICMP", "short header", "tag", "tag aside", "cut short"],
)
def test_what_is_not_as_usual_is_not_taken_for_what_was(
    pipeline: Pipeline,
    port: PortKind,
    payload: bytes,
    tags: tuple[tuple[int, int], ...],
    metadata: tuple[int, int] | None,
) -> None:
    pipeline.set_port(Port(VF1, 101, port, tables=(0,), miss=Miss.DROP))
    match = Match(
        eth_type=full(0x0800, 16),
        vlan_tci=full(0, 16),
        ip_proto=full(17, 8),
        ip_frag=full(0, 8),
        l4_src=full(1000, 16),
        l4_dst=full(2000, 16),
    )
    pipeline.add(Rule(0, VF1, 1, match, (Output(VF2),)))
    usual = ethernet(MAC[VF2], MAC[VF1], _with_ports(), 0x0800)
    other = (ethernet(MAC[VF2], MAC[VF1], payload, 0x0800, tags))[: 14 + 4 * len(tags) + len(payload)]
    for _ in range(3):
        for frame, tag, expected in ((usual, None, [VF2]), (other, metadata, [])):
            events = pipeline.trace(frame, pipeline.ports[VF1], tag=tag)
            assert [event.port for event in events if isinstance(event, Sent)] == expected
    assert pipeline.lookups().cache_hits >= 4


@pytest.mark.parametrize("words", [0, 4, 7, 15])
def test_what_is_remembered_of_a_connection_is_not_taken_for_a_damaged_header(pipeline: Pipeline, words: int) -> None:
    """Open vSwitch sees no ports in a TCP header of fewer than 5 words, or of more than there are."""
    pipeline.set_port(Port(VF1, 101, PortKind.NODE, tables=(OVS_TABLE,), miss=Miss.DROP))
    tcp = {"eth_type": Masked(0x0800, 0xFFFF), "ip_proto": Masked(6, 0xFF), "l4_src": Masked(80, 0xFFFF)}
    pipeline.add(Rule(OVS_TABLE, VF1, 1, Match(**tcp), (Output(VF2),)))
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, bytes(4), bytes(4))

    def frame(length: int) -> bytes:
        segment = struct.pack("!HHIIBBHHH", 80, 80, 0, 0, length << 4, 0, 0, 0, 0)
        return ethernet(MAC[VF2], MAC[VF1], header + segment, 0x0800)

    for length, expected in ((5, [VF2]), (words, []), (5, [VF2]), (words, [])):
        events = pipeline.trace(frame(length), pipeline.ports[VF1])
        assert [event.port for event in events if isinstance(event, Sent)] == expected


def test_what_is_noted_of_a_carried_connection_is_not_taken_for_what_it_is_now(pipeline: Pipeline) -> None:
    whole = struct.pack(">BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 17, 0) + bytes((10, 0, 0, 1, 10, 0, 0, 2))
    frame = ethernet(MAC[VF2], MAC[VF1], whole + struct.pack(">HHHH", 1000, 2000, 8, 0), 0x0800)

    now = time.monotonic_ns()

    def outputs() -> list[int]:
        events = pipeline.trace(frame, pipeline.ports[VF1], now=now)
        return [event.port for event in events if isinstance(event, Sent)]

    begin = pipeline.add(Rule(0, VF1, 1, EVERY, (Ct(7, commit=True, offload=True), Output(VF2))))
    assert outputs() == [VF2]
    pipeline.replace(begin, (CtHardware(7, False, 0), Goto(1)))
    marked = pipeline.add(Rule(1, VF1, 1, Match(ct_mark=full(5, 32)), (Output(VF1),)))
    pipeline.add(Rule(1, VF1, 2, EVERY, (Output(VF2),)))
    assert [outputs() for _ in range(4)] == [[VF2]] * 4
    (connection,) = pipeline.connections
    pipeline.connections.change(connection, Change(mark=5))
    assert [outputs() for _ in range(4)] == [[VF1]] * 4
    pipeline.replace(marked, (Drop(),))
    assert outputs() == []
    pipeline.replace(marked, (Output(VF1),))
    assert [outputs() for _ in range(2)] == [[VF1]] * 2
    assert pipeline.lookups().cache_hits >= 16
    pipeline.connections.delete(connection)
    assert outputs() == []
