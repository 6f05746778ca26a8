# SPDX-License-Identifier: Apache-2.0
"""The programs of ``kinds.bpf.c`` in the kernel: their maps, and where each runs. All is pinned and outlives us."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

from asap2.nic.silicon import hooks, loader
from asap2.nic.silicon.hooks import Hook

OBJECT: Final = Path(__file__).with_name("kinds.bpf.o")
MAPS: Final = (
    *("devices", "vlans", "bonds", "bond_ports"),
    *("macvlan_devices", "macvlans", "macvlan_addresses", "vrf_ports"),
)


class _Constants(ctypes.Structure):
    """``constants`` of the program."""

    _fields_ = [("self", ctypes.c_uint32)]


class Programs:
    """The programs pinned in *directory* of a bpffs, which is made when it is not there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not directory.exists():
            part = directory.with_name(f"{directory.name}-part")
            part.mkdir(exist_ok=True)
            loader.unpin_all(part)
            loader.load(OBJECT, part, dict.fromkeys(MAPS), (), _Constants())
            part.rename(directory)
        self._maps = {name: loader.Map(loader.pinned(directory / name), name) for name in MAPS}

    @property
    def directory(self) -> Path:
        """Where they are pinned."""
        return self._directory

    def __getitem__(self, name: str) -> loader.Map:
        """A map."""
        return self._maps[name]

    def run(self, program: str, self_id: int, ifindex: int, netns: int | None, hook: Hook = "ingress") -> None:
        """Run *program* at the device *ifindex* of the network namespace open at *netns*, as the one of *self_id*.

        It runs after the programs that are there. OSError."""
        part = self._directory.with_name(f"{self._directory.name}-part")
        part.mkdir(exist_ok=True)
        loader.unpin_all(part)
        shared = {name: self._directory / name for name in MAPS}
        loader.load(OBJECT, part, dict.fromkeys(MAPS), (program,), _Constants(self_id), shared)
        fd = loader.pinned(part / program)
        try:
            self.stop(program, self_id)
            hooks.attach(fd, ifindex, hook, netns, self._path(program, self_id), first=False)
        finally:
            os.close(fd)
            loader.unpin_all(part)

    def runs(self, program: str, self_id: int) -> bool:
        """Whether it runs at a device that is there; no, where the kernel does not tell."""
        return hooks.is_attached(self._path(program, self_id))

    def stop(self, program: str, self_id: int) -> None:
        """Run it no more."""
        with contextlib.suppress(FileNotFoundError):
            self._path(program, self_id).unlink()

    def stop_all(self, self_id: int) -> None:
        """Run nothing more as *self_id*."""
        for path in self._directory.glob(f"link-{self_id}-*"):
            path.unlink()

    def _path(self, program: str, self_id: int) -> Path:
        return self._directory / f"link-{self_id}-{program}"
