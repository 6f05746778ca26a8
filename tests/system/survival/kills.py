# SPDX-License-Identifier: Apache-2.0
"""Kills of what a node consists of, with SIGKILL, one and two at a time, while packets go from guest to guest and back.

Each round waits until the packets' flows are offloaded, kills, and wants everything back that was killed: other
processes, systemctl's ``active``, and the same answers of ``devlink``.
"""

from __future__ import annotations

import itertools
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
from statistics import median_high

from asap2.lab import units
from asap2.lab.background import Program
from asap2.lab.execute import run
from asap2.lab.layout import Layout
from asap2.lab.watched import started_at
from tests.system.patience import PATIENCE

PARTS = ("daemon", "supervisor", "ovs-vswitchd", "ovsdb-server")
KINDS = [*((part,) for part in PARTS), *itertools.combinations(PARTS, 2), ("supervisor", "standby")]
"""What is killed in a round."""
RESTARTS_SWITCH = {"ovs-vswitchd", "ovsdb-server"}
"""Whoever kills one of these has ovs-vswitchd restarted: the second is required by the first, for systemd too."""
NODE, GUEST, PEER, PEER_ADDRESS = "hv1", "vm1", "vm2", "10.57.0.2"
_PATIENCE = PATIENCE
_AFTERWARDS = 0.5
"""Seconds for which packets are sent on when all is as it was."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round killed, whether beside busy loops, how many packets were sent and lost, and for how many
    milliseconds at most none came back."""

    killed: tuple[str, ...]
    loaded: bool
    sent: int
    lost: int
    outage: int


class Node:
    """The node whose parts are killed."""

    def __init__(self, layout: Layout) -> None:
        self.directory = layout.node(NODE)
        self.bundle = layout.bundle(NODE)
        self.guest, self.peer = layout.bundle(GUEST), layout.bundle(PEER)
        self.kind = "offloaded"

    def prepare(self) -> None:
        """Have Open vSwitch forward between the guests, in hardware."""
        self.offload(True)
        script = (
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
        """Whether the process that has a part's id is the part: another may have it by now, and who was the second
        supervisor may be the first."""
        pid = self.pid_of(part)
        if part == "standby" and pid == self.pid_of("supervisor"):
            return False
        if pid <= 1 or not started_at(pid):
            return False
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return (part if part in units.DAEMONS else str(self.directory)).encode() in command

    def kill_at_once(self, parts: tuple[str, ...], meanwhile: Program) -> None:
        """Kill parts, of which none notices the others' end."""
        wait_for(lambda: all(map(self.runs, parts)), meanwhile)
        pids = [self.pid_of(part) for part in parts]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)

    def mend(self) -> str:
        """Give a command that looks at the node; what that says of it."""
        command = [sys.executable, "-m", "asap2.cli.main", "exec", NODE, "true"]
        environment = os.environ | {"ASAP2_LAB": str(self.directory.parents[1])}
        return subprocess.run(command, env=environment, check=True, stderr=subprocess.PIPE, text=True).stderr

    def offload(self, on: bool) -> None:
        """Have Open vSwitch offload, or not."""
        self.kind = "offloaded" if on else "ovs"
        setting = f"other_config:hw-offload={str(on).lower()}"
        script = f"ovs-vsctl set Open_vSwitch . {setting} && systemctl restart openvswitch-switch"
        run(self.bundle, "bash", "-c", script)

    def offloaded(self) -> bool:
        """Whether the flows of both directions are where they are to be: in hardware, unless told otherwise."""
        flows = run(self.bundle, "ovs-appctl", "dpctl/dump-flows", f"type={self.kind}").splitlines()
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


@contextmanager
def stream(node: Node, interval: float) -> Iterator[Program]:
    """Packets from guest to guest and back, one each *interval* seconds; some have come back already."""
    program = [sys.executable, "-S", "-E", str(Path(__file__).with_name("stream.py"))]
    with Program(node.peer, [*program, "echo"]) as echoing:
        echoing.read_until("echoing", _PATIENCE)
        with Program(node.guest, [*program, "send", PEER_ADDRESS, str(interval)]) as sending:
            sending.read_until("began", _PATIENCE)
            yield sending


def wait_for(condition: Callable[[], bool], meanwhile: Program) -> None:
    """Return when *condition* holds, taking in what a program says meanwhile; TimeoutError."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it does not come back")
        meanwhile.read_more(0.02)


def one_round(node: Node, killed: tuple[str, ...], interval: float = 0.001, *, loaded: bool = False) -> Round:
    """Kill the parts *killed* at once while packets are sent, until their flows are offloaded again.

    AssertionError, TimeoutError when something does not come back.
    """
    with stream(node, interval) as sending:
        wait_for(node.offloaded, sending)
        wait_for(lambda: all(node.runs(part) for part in killed), sending)
        before = {part: node.pid_of(part) for part in killed}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        if set(killed) == {"supervisor", "standby"}:  # nobody is left to bring them back but the next command
            node.mend()
        for condition in (lambda: node.whole(before), node.active, node.offloaded):
            wait_for(condition, sending)
        sending.read_more(_AFTERWARDS)
        assert sending.interrupt() == 0
        found = re.search(r"(\d+) sent, (\d+) lost, longest outage (\d+) ms", sending.output)
        assert found, sending.output[-500:]
    assert "mode switchdev" in run(node.bundle, "devlink", "dev", "eswitch", "show", "pci/0000:03:00.0")
    return Round(killed, loaded, *map(int, found.groups()))


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
    """*rounds* rounds, each kind in turn; half of them, and of each kind's, beside two busy loops."""
    node = Node(layout)
    node.prepare()
    done = []
    for number in range(rounds):
        cycle, kind = divmod(number, len(KINDS))
        killed, loaded = KINDS[kind], (cycle + kind) % 2 == 1
        with busy_loops(2 if loaded else 0):
            done.append(one_round(node, killed, loaded=loaded))
        tell(done[-1])
        time.sleep(1)  # systemd's limit is 5 starts in 10 s
    return done


def summary(rounds: list[Round]) -> str:
    """A table: for each kind and load, rounds, packets sent and lost, those lost in the median and worst round, and the
    longest outage in ms."""
    lines = [f"{'killed':28} {'load':6} {'rounds':>6} {'sent':>8} {'lost':>6} {'median':>6} {'worst':>6} {'outage':>6}"]
    for killed in KINDS:
        for loaded in (False, True):
            those = [one for one in rounds if one.killed == killed and one.loaded is loaded]
            if those:
                lost = sorted(one.lost for one in those)
                numbers = f"{len(those):6} {sum(one.sent for one in those):8} {sum(lost):6} {median_high(lost):6}"
                numbers += f" {lost[-1]:6} {max(one.outage for one in those):6}"
                lines.append(f"{' + '.join(killed):28} {'loops' if loaded else '-':6} {numbers}")
    return "\n".join(lines)
