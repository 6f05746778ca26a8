# SPDX-License-Identifier: Apache-2.0
"""eBPF programs and maps that nobody keeps: left by a lab, also while other labs are at work.

An object tells nobody who made it. But what another lab uses is held by one of its processes, pinned in one of its file
systems, or part of what is: a program's map, a map in a map.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asap2.nic.silicon import loader

Object = tuple[str, int]
"""``prog`` or ``map``, and its id."""


def all_objects() -> dict[Object, str]:
    """Every program and map of the machine, with its name."""
    return {(kind, one["id"]): one.get("name", "") for kind in ("prog", "map") for one in _listed(kind)}


def kept(without: Path) -> set[Object]:
    """What processes hold, and what is pinned anywhere but below *without*; with all that it consists of."""
    found = set(_held()) | set(_pinned(without))
    for program in _listed("prog"):
        if ("prog", program["id"]) in found:
            found |= {("map", number) for number in program.get("map_ids", ())}
    for map_ in _listed("map"):
        if ("map", map_["id"]) in found and map_["type"].endswith("_of_maps"):
            found |= {("map", number) for number in _inside(map_["id"])}
    return found


def _listed(kind: str) -> list[dict[str, Any]]:
    shown = subprocess.run(["bpftool", "-j", kind, "list"], stdout=subprocess.PIPE, check=True).stdout
    listed: list[dict[str, Any]] = json.loads(shown)
    return listed


def _inside(number: int) -> Iterator[int]:
    """The maps in a map of maps, which may be gone by now."""
    shown = subprocess.run(["bpftool", "-j", "map", "dump", "id", str(number)], capture_output=True)
    for entry in json.loads(shown.stdout) if not shown.returncode else ():
        yield int.from_bytes((int(octet, 16) for octet in entry["value"]), sys.byteorder)


def _of(information: str) -> Iterator[Object]:
    """What the text in /proc/PID/fdinfo says of a descriptor of a program, a map or a link."""
    for line in information.splitlines():
        name, _, value = line.partition(":")
        if name in ("prog_id", "map_id"):
            yield name.removesuffix("_id"), int(value)


def _held() -> Iterator[Object]:
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    if "bpf" in os.readlink(f"/proc/{process}/fd/{number}"):
                        yield from _of(Path(f"/proc/{process}/fdinfo/{number}").read_text())


def _pinned(without: Path) -> Iterator[Object]:
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        place, kind = line.split(" ")[4], line.partition(" - ")[2].split(" ")[0]
        if kind != "bpf" or Path(place).is_relative_to(without):
            continue
        for directory, _, names in os.walk(place):
            for name in names:
                with contextlib.suppress(OSError):
                    descriptor = loader.pinned(Path(directory, name))
                    try:
                        yield from _of(Path(f"/proc/self/fdinfo/{descriptor}").read_text())
                    finally:
                        os.close(descriptor)
