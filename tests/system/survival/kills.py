# SPDX-License-Identifier: Apache-2.0
"""Kills of what a node consists of, with SIGKILL, one and two at a time, while two of its guests ping each other.

Each round waits until the flows of the ping are offloaded, kills at a packet's number, and wants everything back that
was killed: other processes, systemctl's ``active``, and the same answers of ``devlink``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asap2.lab import units
from asap2.lab.background import Program
from asap2.lab.execute import run
from asap2.lab.layout import Layout
from asap2.lab.watched import started_at

PARTS = ("daemon", "supervisor", "ovs-vswitchd", "ovsdb-server")
KINDS = [*((part,) for part in PARTS), *itertools.combinations(PARTS, 2), ("supervisor", "standby")]
"""What is killed in a round."""
RESTARTS_SWITCH = {"ovs-vswitchd", "ovsdb-server"}
"""Whoever kills one of these has ovs-vswitchd restarted: the second is required by the first, for systemd too."""
NODE, GUEST, PEER = "hv1", "vm1", "10.57.0.2"
_PATIENCE = 60.0
_AFTERWARDS = 0.5
"""Seconds for which the ping goes on when all is as it was."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round killed, whether beside busy loops, and how many packets were sent and lost."""

    killed: tuple[str, ...]
    loaded: bool
    sent: int
    lost: int


class Node:
    """The node whose parts are killed."""

    def __init__(self, layout: Layout) -> None:
        self.directory = layout.node(NODE)
        self.bundle = layout.bundle(NODE)
        self.guest = layout.bundle(GUEST)

    def prepare(self) -> None:
        """Have Open vSwitch forward between the guests, in hardware."""
        script = (
            "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true && systemctl restart openvswitch-switch && "
            "ovs-vsctl --may-exist add-br br0 && for i in 0 1; do"
            " ovs-vsctl --may-exist add-port br0 eth$i; ip link set eth$i up; done"
        )
        run(self.bundle, "bash", "-c", script)

    def pid_of(self, part: str) -> int:
        """The process id of a part."""
        if part in units.DAEMONS:
            return units.read(self.directory / "units", part).pid
        return int((self.directory / f"{part}.pid").read_text())

    def runs(self, part: str) -> bool:
        """Whether the process that has a part's id is the part: another may have it by now."""
        pid = self.pid_of(part)
        if pid <= 1 or not started_at(pid):
            return False
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return (part if part in units.DAEMONS else str(self.directory)).encode() in command

    def mend(self) -> None:
        """Give a command that looks at the node."""
        command = [sys.executable, "-m", "asap2.cli.main", "exec", NODE, "true"]
        subprocess.run(command, env=os.environ | {"ASAP2_LAB": str(self.directory.parents[1])}, check=True)

    def offloaded(self) -> bool:
        """Whether the flows of both directions are in hardware."""
        flows = run(self.bundle, "ovs-appctl", "dpctl/dump-flows", "type=offloaded").splitlines()
        return sum("eth_type(0x0800)" in flow for flow in flows) >= 2

    def whole(self, before: dict[str, int]) -> bool:
        """Whether all parts that had the process ids *before* and were killed are there again."""
        alive = all(started_at(pid) and pid != before.get(part) for part, pid in self._now(before).items())
        return alive and (self.directory / "ready").exists()

    def _now(self, before: dict[str, int]) -> dict[str, int]:
        # who waited is the supervisor now, and another waits
        return {part: self.pid_of(part) for part in before if part != "supervisor" or "standby" in before}

    def active(self) -> bool:
        """Whether systemctl says that Open vSwitch's daemons run."""
        asked = "systemctl is-active ovsdb-server ovs-vswitchd || :"
        return run(self.bundle, "sh", "-c", asked).split() == ["active", "active"]


def wait_for(condition: Callable[[], bool], pinging: Program) -> None:
    """Return when *condition* holds, taking in what a ping says meanwhile; TimeoutError."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it does not come back")
        pinging.read_more(0.02)


def one_round(node: Node, killed: tuple[str, ...], interval: float = 0.001, *, loaded: bool = False) -> Round:
    """Kill the parts *killed* at once during a ping, which goes on until its flows are offloaded again.

    AssertionError, TimeoutError when something does not come back.
    """
    with Program(node.guest, ["ping", "-i", str(interval), PEER]) as pinging:
        pinging.read_until("icmp_seq=50 ", _PATIENCE)
        wait_for(node.offloaded, pinging)
        wait_for(lambda: all(node.runs(part) for part in killed), pinging)
        before = {part: node.pid_of(part) for part in killed}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        if set(killed) == {"supervisor", "standby"}:  # nobody is left to bring them back but the next command
            node.mend()
        for condition in (lambda: node.whole(before), node.active, node.offloaded):
            wait_for(condition, pinging)
        pinging.read_more(_AFTERWARDS)
        assert pinging.interrupt() == 0
        found = re.search(r"(\d+) packets transmitted, (\d+) received", pinging.output)
        assert found, pinging.output[-500:]
        sent, received = int(found[1]), int(found[2])
    assert "mode switchdev" in run(node.bundle, "devlink", "dev", "eswitch", "show", "pci/0000:03:00.0")
    return Round(killed, loaded, sent, sent - received)


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Processes that do nothing as fast as they can."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def campaign(layout: Layout, rounds: int, tell: Callable[[Round], None]) -> list[Round]:
    """*rounds* rounds, each kind in turn, every second cycle of kinds beside two busy loops."""
    node = Node(layout)
    node.prepare()
    done = []
    for number in range(rounds):
        killed, loaded = KINDS[number % len(KINDS)], number // len(KINDS) % 2 == 1
        with busy_loops(2 if loaded else 0):
            done.append(one_round(node, killed, loaded=loaded))
        tell(done[-1])
        time.sleep(1)  # systemd's limit is 5 starts in 10 s
    return done


def summary(rounds: list[Round]) -> str:
    """A table: for each kind and load, rounds, packets sent, lost, and lost in the worst round."""
    lines = [f"{'killed':32} {'load':6} {'rounds':>6} {'sent':>8} {'lost':>6} {'worst':>6}"]
    for killed in KINDS:
        for loaded in (False, True):
            those = [one for one in rounds if one.killed == killed and one.loaded is loaded]
            if those:
                sent, lost = sum(one.sent for one in those), sum(one.lost for one in those)
                worst = max(one.lost for one in those)
                load = "loops" if loaded else "-"
                lines.append(f"{' + '.join(killed):32} {load:6} {len(those):6} {sent:8} {lost:6} {worst:6}")
    return "\n".join(lines)


def as_json(rounds: list[Round], path: Path) -> None:
    """Write the rounds down."""
    path.write_text(json.dumps([[*one.killed, one.loaded, one.sent, one.lost] for one in rounds]) + "\n")
