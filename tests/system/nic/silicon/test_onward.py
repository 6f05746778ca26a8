# SPDX-License-Identifier: Apache-2.0
"""The second program, between real devices: copies of packets, and packets that user space hands in."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.nic.layer_actions import PushEthernet
from asap2.nic.rules import (
    BARE,
    OVS_TABLE,
    Action,
    CheckLength,
    Clone,
    Goto,
    Hash,
    HashAlgorithm,
    Masked,
    Match,
    PopVlan,
    PushVlan,
    Sample,
    Truncate,
)
from asap2.nic.silicon.pipeline import HandedIn
from tests.system.nic.silicon.network import ethernet
from tests.system.nic.silicon.packets import ipv4, udp
from tests.system.nic.silicon.test_node import A, B, Node

ALWAYS = 0xFFFFFFFF
FRAME = ethernet(B, A, ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 2000, b"x" * 60)), 0x0800)


@pytest.fixture
def node(pin_dir: Path) -> Iterator[Node]:
    """A node that does what needs a copy."""
    made = Node(pin_dir)
    made.pipeline.attach_onward(made.index("ovs-system"), made.space.fd)
    yield made
    made.close()


def hand_in(node: Node, frame: bytes, *actions: Action, bare: bool = False) -> None:
    """As OVS_PACKET_CMD_EXECUTE: the packet has come in by rep1."""
    with (
        node.pipeline.hand_in(HandedIn(actions, node.index("rep1"), OVS_TABLE, bare=bare)) as mark,
        node.space.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as sender,
    ):
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        sender.sendto(frame, ("ovs-system", 3))


def test_copies_leave_before_the_packet_and_do_not_change_it(node: Node) -> None:
    rep2 = node.far_tap("rep2")
    tagged, cut = (PushVlan(5), node.out("rep2")), (Truncate(60), node.out("rep2"))
    node.add("rep1", Clone((Sample(ALWAYS, tagged),)), Sample(0, tagged), *cut, node.out("rep2"))
    node.far_tap("rep1").send(FRAME)
    assert rep2.receive() == FRAME[:12] + bytes.fromhex("81000005") + FRAME[12:]
    assert rep2.receive()[12:] == FRAME[12:60]
    assert rep2.receive() == FRAME
    assert not any(node.pipeline.drops().values())


def test_a_copy_recirculates(node: Node) -> None:
    rep2 = node.far_tap("rep2")
    node.add("rep1", Clone((Hash(HashAlgorithm.L4, 1), Goto(OVS_TABLE | 1))), PushVlan(9), node.out("rep2"))
    for odd in (0, 1):
        short = (PushVlan(odd), node.out("rep2"))
        checks = (CheckLength(len(FRAME), (), short),)
        node.add("rep1", *checks, table=OVS_TABLE | 1, match=Match(dp_hash=Masked(odd, 1)))
    node.far_tap("rep1").send(FRAME, FRAME + b"x")
    tags = [rep2.receive()[14:16] for _ in range(3)]
    assert tags[0] in (bytes((0, 0)), bytes((0, 1))), "the short packet's copy"
    assert tags[1:] == [bytes((0, 9))] * 2


def test_what_is_handed_in_is_done_as_by_a_flow(node: Node) -> None:
    rep2 = node.far_tap("rep2")
    tagged = FRAME[:12] + bytes.fromhex("81006005") + FRAME[12:]
    hand_in(node, tagged, node.out("rep2"))
    assert rep2.receive() == tagged
    hand_in(node, tagged, PopVlan(), node.out("rep2"))
    assert rep2.receive() == FRAME
    node.add("rep1", PopVlan(), node.out("rep2"), table=OVS_TABLE | 7, match=Match(ip_proto=Masked(17, 0xFF)))
    hand_in(node, tagged, Truncate(64), Goto(OVS_TABLE | 7))
    assert rep2.receive() == FRAME[:64]
    assert not any(node.pipeline.drops().values())


def test_a_packet_without_an_ethernet_header_gets_one_before_it_leaves(node: Node) -> None:
    rep2 = node.far_tap("rep2")
    behind_room = bytes(12) + FRAME[12:]
    with pytest.raises(OSError, match="No buffer space"):  # a port takes frames alone
        hand_in(node, behind_room, node.out("rep2"), bare=True)
    node.add("rep1", node.out("rep2"), table=OVS_TABLE | 7)
    node.add("rep1", PushEthernet(A, B), node.out("rep2"), table=OVS_TABLE | BARE | 7)
    hand_in(node, behind_room, Goto(OVS_TABLE | 7), bare=True)
    assert rep2.receive() == A + B + FRAME[12:]
    assert {name: count for name, count in node.pipeline.drops().items() if count} == {"action": 1}
