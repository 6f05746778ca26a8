# SPDX-License-Identifier: Apache-2.0
"""A lab of one node, whose daemon is fed random messages while a program writes to /sys and others send messages of
their own; in the end the daemon is killed, and the next must tell what the first told."""

from __future__ import annotations

import collections
import contextlib
import difflib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asap2.lab.execute import start
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.topology import parse

ROOT = Path(__file__).parents[3]
ROUNDS, GROWTH, MORE_OBJECTS = 12, 1.1, 1.05
"""Looks at memory from which on it must be flat, and what flat is: of memory, and of what is in use of it."""
TOPOLOGY = """
[[node]]
name = "t-fuzz"
openvswitch = false
[[node.nic]]
vfs = 4
mode = "switchdev"
"""
DUMPS = (
    "for d in $(ls /sys/class/net); do tc qdisc show dev $d; tc chain show dev $d ingress; done",
    "for d in $(ls /sys/class/net); do for way in ingress egress; do tc filter show dev $d $way; done; done",
    "ovs-dpctl show 2>&1 | sed s/^[0-9T:Z-]*//",
    "ovs-dpctl -m dump-flows 2>/dev/null",
    "devlink dev eswitch show pci/0000:03:00.0; devlink port show",
    "ip -d link; cat /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs; ls /sys/bus/pci/drivers/mlx5_core",
    "for d in $(ls /sys/class/net); do ethtool -k $d; ethtool -g $d; ethtool -c $d; done",
)


_CHANGING = re.compile(r"(used|expires)[: ]\S+|installed \d+ sec|(?<=^filter )(ingress |egress )?(parent \S+ )?")
"""What a program tells of time, and of the parent by which filters were last put in, or tried to be."""


@dataclass(frozen=True)
class Outcome:
    """What a campaign found: of the daemon that was fed, of the writer, of the clients; ``differences`` are dumps that
    the next daemon gave otherwise; ``log`` is what the daemons logged of tracebacks."""

    fed: dict[str, Any]
    written: dict[str, Any]
    sent: dict[str, Any]
    differences: list[str]
    log: list[str]

    def complaints(self) -> list[str]:
        """What is not as it must be."""
        found = [*self.fed["tracebacks"], *self.fed["trouble"], *self.written["trouble"], *self.differences, *self.log]
        if self.fed["unknown"] * 5 > self.fed["sent"]:
            found.append(f"{self.fed['unknown']} of {self.fed['sent']} messages were refused as unknown")
        if len(self.fed["memory"]) > ROUNDS:
            found += growth(self.fed["memory"], self.fed["objects"])
        return found


def growth(memory: list[int], objects: list[tuple[int, int]]) -> list[str]:
    """What grows: *memory* is KiB at each look, *objects* how many were in use after a quarter of the messages and in
    the end, and the KiB of the heap (:class:`~tests.system.fuzz.fuzzed_daemon.Feeder`).

    An allocator gives a page back only when nothing on it is in use, so what a process *has* follows the most that ever
    was in use at once. New records of that come ever more rarely: after half of the looks, hardly one is to be
    expected. What leaks grows in the second half as in the first, and in what is in use.
    """
    found = []
    if memory[-1] > memory[len(memory) // 2] * GROWTH:
        found.append(f"memory grows: {memory} KiB")
    (first, first_heap), (last, last_heap) = objects[0], objects[-1]
    if last > first * MORE_OBJECTS:
        found.append(f"objects that nothing takes back: first {first}, then {last}")
    if last_heap > first_heap * MORE_OBJECTS:
        found.append(f"heap that nothing gives back: first {first_heap} KiB, then {last_heap}")
    return found


class Node:
    """The lab's node."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "tests.system.fuzz.fuzzed_daemon"]
        self.lab = Lab(Layout(root), command)
        self.directory = self.lab.layout.node("t-fuzz")

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Bring it up, and down in the end."""
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{ROOT}:{ROOT}/src"
        try:
            self.lab.up(parse(TOPOLOGY))
            yield
        finally:
            self.lab.down()
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def python(self, module: str, *arguments: object) -> subprocess.Popen[str]:
        """A program of ours in the node."""
        return start(self.directory / "ns", [sys.executable, "-m", module, *map(str, arguments)])

    def dumps(self) -> dict[str, str]:
        """What programs tell of the node now."""
        return {line: self.says(line) for line in DUMPS}

    def says(self, line: str) -> str:
        """What a shell's line prints in the node."""
        return start(self.directory / "ns", ["sh", "-c", line]).communicate()[0]

    def daemon(self) -> int:
        """The daemon's process id."""
        return int((self.directory / "daemon.pid").read_text())

    def log(self) -> str:
        """What the daemons have logged."""
        return (self.directory / "daemon.log").read_text(errors="replace")


def run(
    root: Path,
    seed: int,
    messages: int,
    writes: int,
    sends: int,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Outcome:
    """Run a campaign."""
    node = Node(root)
    with node.up():
        (node.directory / "fuzz.json").write_text(json.dumps({"seed": seed, "messages": messages}))
        os.kill(node.daemon(), signal.SIGUSR1)
        writer = node.python("tests.system.fuzz.writer", seed, writes)
        clients = [
            node.python("tests.system.fuzz.client", seed + number, count, *way)
            for number, (count, *way) in enumerate(
                ((sends // 2,), (sends // 4,), (sends // 8, "rude"), (sends // 8, "nobody"))
            )
        ]
        fed = _wait(node, progress)
        written, *ends = (_told(program) for program in (writer, *clients))
        sent = {"ended": dict(sum((collections.Counter(one["ended"]) for one in ends), collections.Counter()))}
        final = node.python("tests.system.fuzz.client", seed + 1, min(sends, 2000))
        _told(final)
        before = node.dumps()
        first = node.daemon()
        os.kill(first, signal.SIGKILL)
        while node.daemon() == first or "enp3s0f0" not in node.says("ls /sys/class/net"):
            time.sleep(0.02)
        after = node.dumps()
        differences = [diff for line in DUMPS if (diff := _difference(line, before[line], after[line]))]
        log = node.log()
        tracebacks = [part[:2000] for part in log.split("Traceback (most recent call last):")[1:]]
        return Outcome(fed, written, sent, differences, tracebacks)


def _difference(line: str, before: str, after: str) -> str:
    """How what a command says has changed, but for times."""
    old, new = ([_CHANGING.sub("", one) for one in text.splitlines()] for text in (before, after))
    return "\n".join([line, *changes]) if (changes := list(difflib.unified_diff(old, new, lineterm="", n=0))) else ""


def _wait(node: Node, progress: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
    result = node.directory / "fuzz-result.json"
    shown = 0.0
    pid = node.daemon()
    while True:
        if result.exists():
            told: dict[str, Any] = json.loads(result.read_text())
            if told["ended"]:
                return told
            if progress is not None and time.monotonic() > shown + 10:
                shown = time.monotonic()
                progress(told)
        if node.daemon() != pid:
            raise RuntimeError(f"the daemon died:\n{node.log()[-4000:]}")
        time.sleep(0.02)


def _told(program: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = program.communicate()
    if program.returncode:
        raise RuntimeError(output)
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told
