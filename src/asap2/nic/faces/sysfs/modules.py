# SPDX-License-Identifier: Apache-2.0
"""The modules that a node shows: /proc/modules, and how modprobe unloads one.

Sources: kernel/module/procfs.c and kernel/module/main.c (delete_module) of Linux 6.12.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from asap2.nic.faces.sysfs.tree import MODULES, Attribute

UNLOAD: Final = "unload"
"""The file to which a node's modprobe writes the name of a module that it unloads (lab/modprobe.sh)."""
_MACHINE: Final = Path("/proc/modules")


def files(unloaded: Mapping[str, Callable[[], None]]) -> dict[str, Attribute]:
    """The files, by their path below /proc. *unloaded* has a function for each module that can be unloaded, which is
    called then and raises OSError EBUSY while the module is in use."""

    def unload(written: bytes) -> None:
        name = os.fsdecode(written).strip()
        if name not in unloaded:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        unloaded[name]()

    return {"modules": Attribute(listing), UNLOAD: Attribute(None, unload)}


def listing(machine: Path = _MACHINE) -> str:
    """/proc/modules: what the daemon stands for, then the modules of the machine, which may have no such file."""
    try:
        real = machine.read_text()
    except FileNotFoundError:
        real = ""
    others = [line for line in real.splitlines() if line.split(" ", 1)[0] not in MODULES]
    return "".join(f"{line}\n" for line in (*(f"{name} 0 0 - Live 0x0000000000000000" for name in MODULES), *others))
