# SPDX-License-Identifier: Apache-2.0
"""The devices that run a program of a pipeline, each by a link that is pinned: it goes on when nobody has it open."""

from __future__ import annotations

import os
from pathlib import Path

from asap2.nic.silicon import loader
from asap2.nic.silicon.loader import Hook


class Attachments:
    """Those whose links are pinned in a *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def attach(self, program: int, ifindex: int, netns: int | None, hook: Hook, *, first: bool = True) -> None:
        """Run *program* on packets of device *ifindex* in the namespace of descriptor *netns* (``None``: this one), as
        the *first* of those that run there or as the last.

        Where a link runs a program already it goes on undisturbed, with this one.
        """
        path = self._path(ifindex, hook)
        if path.exists():
            link = loader.pinned(path)
            try:
                if loader.link_is_attached(link):
                    loader.update_link(link, program)
                    return
            finally:
                os.close(link)
            path.unlink()
        link = loader.attach_tcx(program, ifindex, hook, netns, first=first)
        try:
            loader.pin(link, path)
        finally:
            os.close(link)

    def detach(self, ifindex: int, hook: Hook) -> None:
        """No program runs there any more."""
        path = self._path(ifindex, hook)
        if path.exists():
            _release(path)

    def detach_all(self) -> None:
        """No device runs one any more."""
        for path in self._directory.glob("link-*"):
            _release(path)

    def _path(self, ifindex: int, hook: Hook) -> Path:
        return self._directory / f"link-{hook}-{ifindex}"


def _release(path: Path) -> None:
    """End the link that is pinned at *path*."""
    link = loader.pinned(path)
    try:
        loader.detach_link(link)
    finally:
        os.close(link)
    path.unlink()
