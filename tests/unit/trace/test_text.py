# SPDX-License-Identifier: Apache-2.0
"""Ways as text and as data."""

from __future__ import annotations

import json
import struct

from asap2.answers import marked
from asap2.nic.silicon import abi
from asap2.nic.silicon.watching import decode
from asap2.trace import data, text
from asap2.trace.model import Ending, Medium, Stage, Step, Way
from tests.schemas import answer
from tests.unit.trace.frames import echo, tagged


def way(number: int, frame: bytes, began: int, took: int, ends: tuple[str, str]) -> Way:
    """A way with a step at each end."""
    steps = [
        Step(began, "hv1", ends[0], Stage.VF, Medium.HARDWARE, "sent by VF enp3s0f0v0"),
        Step(began + 2500, "hv1", "eth0", Stage.PIPELINE, Medium.SOFTWARE, "no rule is for it", why="there is none"),
        Step(
            *(began + took, "hv1", ends[1], Stage.DELIVERY, Medium.HARDWARE, "received by VF enp3s0f0v1"),
            rewritten=(("vlan", "none", "52"),),
        ),
    ]
    return Way(number, frame, len(frame), ends[0], steps, [ends[1]])


def test_each_step_is_a_line_with_its_time_and_why() -> None:
    shown = list(text.lines(way(1, echo(8, 1), 1_000_000, 12_300, ("vm1", "vm2"))))
    assert shown == [
        "packet 1: ICMP echo request 10.57.0.1 > 10.57.0.2 seq 1, 98 octets",
        "    0.0 µs  hw  hv1 vm1   sent by VF enp3s0f0v0",
        "    2.5 µs  sw  hv1 eth0  no rule is for it",
        "                            because there is none",
        "   12.3 µs  hw  hv1 vm2   received by VF enp3s0f0v1",
        "                            rewritten: vlan none to 52",
        "  vm1 to vm2 in 12.3 µs, partly in software",
    ]


def test_a_round_trip_is_the_request_the_guest_itself_and_the_reply() -> None:
    there, back = (
        way(1, echo(8, 4), 0, 40_000, ("vm1", "vm2")),
        way(2, echo(0, 4), 65_000, 35_000, ("vm2", "vm1")),
    )
    assert list(text.round_trips([there, back])) == [
        "round trip of seq 4: 0.100 ms (there 40.0 µs, vm2 itself 25.0 µs, back 35.0 µs)"
    ]
    assert list(text.round_trips([there])) == []


def test_what_became_of_a_packet() -> None:
    lost = Way(3, echo(8, 1), 98, "vm1")
    lost.steps.append(Step(0, "hv1", "vm1", Stage.VF, Medium.HARDWARE, "sent"))
    assert lost.ending is Ending.OUT_OF_SIGHT
    lost.steps.append(Step(900, "hv1", "nic0", Stage.DROP, Medium.HARDWARE, "dropped", why="its rule drops it"))
    assert (lost.ending, lost.in_hardware) == (Ending.DROPPED, True)
    assert text.summary(lost) == "from vm1, dropped after 0.9 µs: its rule drops it"


def test_data_is_as_its_schema_says() -> None:
    one = way(1, echo(8, 1), 5, 12_300, ("vm1", "vm2"))
    shown = answer(json.dumps(marked("trace", {"lost": 0, "ways": [data.of(one)]})))
    (found,) = shown["ways"]
    assert (found["origin"], found["targets"], found["ending"]) == ("vm1", ["vm2"], "delivered")
    assert [step["medium"] for step in found["steps"]] == ["hardware", "software", "hardware"]
    assert found["steps"][2]["rewritten"] == [["vlan", "none", "52"]]


def test_a_record_of_the_program_is_decoded_with_the_tag_in_its_metadata() -> None:
    frame = echo(8, 1)
    head = struct.pack(
        "=QQQIIIIIIIIII", 1000, 7, 0x22 << 48, abi.EVENT_ENTER, 256, 0, 1, len(frame), len(frame), 0x8100_0034, 0, 0, 0
    )
    found = decode(head + bytes(48) + frame + bytes(20))
    assert (found.now, found.way, found.arg, found.pipeline) == (1000, 7, 256, 1)
    assert found.frame == tagged(frame, 0x34)
    assert found.tunnel is None


def test_a_tunnels_addresses_are_in_the_order_of_the_wire() -> None:
    key = struct.pack("=I16sBB2sI16s", 98, bytes([2, 0, 0, 10]) + bytes(12), 0, 64, b"", 0, bytes([1, 0, 0, 10]))
    head = struct.pack("=QQQIIIIIIIIII", 1, 7, 0, abi.EVENT_SEND, 5, 0, 0, 60, 0, 0, 0, 0, 4)
    found = decode(head + key + bytes(4))
    assert found.tunnel is not None
    assert (found.tunnel.tun_id, found.tunnel.src, found.tunnel.dst) == (98, bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1]))
