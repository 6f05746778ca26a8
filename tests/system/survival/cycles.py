# SPDX-License-Identifier: Apache-2.0
"""Labs brought up and taken down again and again, some broken off on the way: nothing is left."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asap2.lab.lock import DIRECTORY as LOCKS
from tests.system.patience import PATIENCE
from tests.system.survival import bpf

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_PATIENCE = PATIENCE


@dataclass(frozen=True)
class Machine:
    """What of ours could be left on the machine."""

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    files: frozenset[str]
    ebpf: frozenset[bpf.Object]

    @classmethod
    def look(cls, root: Path) -> Machine:
        """The machine now. What carries the name of the lab's place counts, and every eBPF object."""
        mark = str(root)
        processes = set()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and int(entry.name) != os.getpid():
                    said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    mounted = (entry / "mountinfo").read_bytes()
                    if mark.encode() in said or mark.encode() in mounted:
                        processes.add(f"{entry.name} {(entry / 'comm').read_text(errors='replace').strip()}")
            except OSError:
                continue
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        return cls(
            frozenset(processes),
            frozenset(line for line in table if mark in line),
            frozenset(os.listdir("/sys/class/net")),
            frozenset(map(str, (*root.parent.glob(f"{root.name}*"), *LOCKS.glob(f"asap2-*-{root.name}.*")))),
            frozenset(bpf.all_objects()),
        )

    def more_than(self, before: Machine, root: Path) -> list[str]:
        """What is here that was not before, in words; less the eBPF objects that somebody else keeps."""
        found = []
        for name in ("processes", "mounts", "links", "files"):
            found += [f"{name}: {one}" for one in getattr(self, name) - getattr(before, name)]
        if new := self.ebpf - before.ebpf:
            left = new - bpf.kept(root)
            names = bpf.all_objects()  # those of others may have gone meanwhile
            found += [f"eBPF: {one[0]} {one[1]} {names[one]}" for one in sorted(left) if one in names]
        return found


def one_cycle(root: Path, topology: Path, interrupt: tuple[signal.Signals, float] | None = None) -> str:
    """Up, and down; with *interrupt*, up is sent the signal so many seconds after it has begun. What the commands said
    that they should not have; nothing is fine."""
    environment = os.environ | {"ASAP2_LAB": str(root)}
    command = [sys.executable, "-m", "asap2.cli.main", "lab"]
    with subprocess.Popen(
        [*command, "up", str(topology)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    ) as up:
        if interrupt is not None:
            while up.poll() is None and not root.exists():  # before, there is nothing but Python, which is starting
                select.select([], [], [], 0.001)
            select.select([], [], [], interrupt[1])
            if interrupt[0] is signal.SIGKILL:
                up.kill()
            elif up.poll() is None:
                os.killpg(up.pid, interrupt[0])  # as a terminal does
        said, _ = up.communicate()
    down = subprocess.run([*command, "down"], env=environment, capture_output=True, text=True, errors="replace")
    wrong = []
    if interrupt is None and up.returncode:
        wrong.append(f"up: exit status {up.returncode}: {said.strip()}")
    if down.returncode:
        wrong.append(f"down: exit status {down.returncode}: {down.stderr.strip()}")
    wrong += [text.strip() for text in (said, down.stderr) if "Traceback" in text]
    return "\n".join(wrong)


def left_over(root: Path, before: Machine) -> list[str]:
    """What is left when the kernel has had its time: it destroys namespaces and programs later."""
    deadline = time.monotonic() + _PATIENCE
    while (left := Machine.look(root).more_than(before, root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def campaign(
    root: Path,
    topology: Path,
    cycles: int,
    seed: int,
    tell: Callable[[int, str, list[str]], None],
) -> list[str]:
    """*cycles* cycles, every third interrupted at some moment; everything that was wrong."""
    dice = random.Random(seed)
    before = Machine.look(root)
    wrong = []
    for number in range(cycles):
        interrupt = (SIGNALS[number // 3 % 3], dice.uniform(0, 2.5)) if number % 3 == 2 else None
        what = f"{interrupt[0].name} after {interrupt[1]:.2f} s" if interrupt else "whole"
        said = one_cycle(root, topology, interrupt)
        left = left_over(root, before)
        tell(number, what, [said, *left] if said else left)
        wrong += [f"cycle {number} ({what}): {one}" for one in ([said] if said else []) + left]
    return wrong
