# SPDX-License-Identifier: Apache-2.0
"""CPU time that processes and the whole machine have used, from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
"""Units of time in /proc for each second."""


def process_seconds(pids: Iterable[int]) -> float:
    """User and system time, in seconds, of all threads of *pids* together; one that has ended counts as 0."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def machine_seconds() -> float:
    """Time, in seconds, that the machine's processors were not idle, interrupts included, since it started."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS
