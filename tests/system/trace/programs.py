# SPDX-License-Identifier: Apache-2.0
"""Which programs the devices of a lab run."""

from __future__ import annotations

import os
from pathlib import Path

from asap2.nic.silicon import hooks, loader
from asap2.nic.silicon.map_sizes import ONWARD, PROGRAM
from tests.system.offload.labs import Bench


def number(path: Path) -> int:
    """The kernel's number of the pinned program."""
    held = loader.pinned(path)
    try:
        return loader.program_id(held)
    finally:
        os.close(held)


def called(path: Path) -> int:
    """The number of the program in the first place of a pinned array."""
    array = loader.Map(loader.pinned(path), path.name)
    try:
        return int.from_bytes(array.lookup(bytes(4)) or b"", "little")
    finally:
        os.close(array.fd)


def running(path: Path) -> int | None:
    """The number of the program that runs where *path* stands for."""
    held = loader.pinned(path)
    try:
        return hooks._running(held)
    finally:
        os.close(held)


def watched(lab: Bench) -> set[str]:
    """The pipelines of which a device runs another program than their own, as "node/pipeline"."""
    found = set()
    for node in lab.nodes:
        for directory in (lab.root / "nodes" / node.name / "bpf").iterdir():
            if not (directory / PROGRAM).exists():
                continue
            own = {number(directory / PROGRAM), number(directory / ONWARD)}
            links = {running(path) for path in directory.glob("link-*")}
            if not links <= own or called(directory / "programs") != number(directory / PROGRAM):
                found.add(f"{node.name}/{directory.name}")
    return found
