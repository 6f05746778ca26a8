# SPDX-License-Identifier: Apache-2.0
"""The devices that run a program of a pipeline, each by a pinned file: it goes on when nobody has it open."""

from __future__ import annotations

import errno
from pathlib import Path

from asap2.nic.silicon import hooks, loader
from asap2.nic.silicon.hooks import Hook


class Attachments:
    """Those whose files are in a *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._instead: dict[int, int] = {}

    def attach(self, program: int, ifindex: int, netns: int | None, hook: Hook, *, first: bool = True) -> None:
        """Run *program* on packets of device *ifindex* in the namespace of descriptor *netns* (``None``: this one), as
        the *first* of those that run there or as the last.

        Where a link runs a program already it goes on undisturbed, with this one.
        """
        program = self._instead.get(program, program)
        hooks.attach(program, ifindex, hook, netns, self._path(ifindex, hook), first=first)

    def swap(self, program: int, instead: int | None, but: int) -> None:
        """Run *instead* wherever *program* runs, also where it is yet to be attached; None: run *program* itself again.
        The program *but* runs on where it runs. OSError: some devices run the one, and others the other."""
        self._instead = {program: instead} if instead is not None else {}
        number = loader.program_id(but)
        for path in self._directory.glob("link-*"):
            try:
                hooks.swap(path, program if instead is None else instead, number)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOLINK):  # the device has gone
                    raise

    def detach(self, ifindex: int, hook: Hook) -> None:
        """No program runs there any more."""
        path = self._path(ifindex, hook)
        if path.exists():
            hooks.detach(path)

    def detach_all(self) -> None:
        """No device runs one any more."""
        for path in self._directory.glob("link-*"):
            hooks.detach(path)

    def _path(self, ifindex: int, hook: Hook) -> Path:
        return self._directory / f"link-{hook}-{ifindex}"
