# SPDX-License-Identifier: Apache-2.0
"""Programs hear what happens to connections, and packets tell only what somebody listens to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Connection
from asap2.nic.faces.conntrack import announcer
from asap2.nic.silicon.abi import CtEvent
from tests.unit.nic.faces.conntrack_node import MADE, Node

SOCKETS = """sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   0          00000001 0        0        0     2        0        6
0000000000000000 12  4711       {:08x} 0        0        0     2        0        7
"""


class Packets:
    """What packets have done."""

    def __init__(self) -> None:
        self.wanted = 0
        self.happened: list[tuple[Connection, int]] = []

    def listened(self, events: int) -> None:
        self.wanted = events

    def events(self) -> Iterator[tuple[Connection, int]]:
        return iter(self.happened)


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [(0, 0), (1, CtEvent.NEW | CtEvent.RELATED), (4, CtEvent.DESTROY), (0x10, 0), (7, CtEvent((1 << 12) - 1))],
)
def test_the_program_tells_only_what_somebody_listens_to(
    groups: int, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = tmp_path / "netlink"
    sockets.write_text(SOCKETS.format(groups))
    monkeypatch.setattr(announcer, "SOCKETS", sockets)
    node, packets = Node(), Packets()
    announcer.Announcer(node.face, packets).look()
    assert packets.wanted == wanted
    assert node.face.listened == bool(wanted)


def test_what_packets_do_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, packets = Node(), Packets()
    passing = announcer.Announcer(node.face, packets)
    packets.happened = [
        (MADE[6], CtEvent.NEW | CtEvent.PROTOINFO),
        (MADE[6], CtEvent.ASSURED | CtEvent.PROTOINFO),
        (replace(MADE[6], timeout=0), CtEvent.DESTROY),
    ]
    passing.pass_on()
    assert [group for group, _ in node.told] == [1, 2, 3]
    assert node.told[2][1]["status"] & Status.DYING
    assert "timeout" not in node.told[2][1]
    sockets = tmp_path / "netlink"
    sockets.write_text(SOCKETS.format(0))
    monkeypatch.setattr(announcer, "SOCKETS", sockets)
    passing.look()
    passing.pass_on()
    assert len(node.told) == 3
