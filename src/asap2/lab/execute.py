# SPDX-License-Identifier: Apache-2.0
"""Running unmodified programs inside nodes and guests."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.enter import environment, moved_in


def start(bundle: Path | None, command: Sequence[str], *, session: bool = False) -> subprocess.Popen[str]:
    """Start *command* inside *bundle*'s namespaces (None: this process's), with output and errors in one text pipe,
    optionally in its own session, so that everything it starts can be killed with it."""

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
            start_new_session=session,
        )

    return begin() if bundle is None else moved_in(bundle, begin)


def run(bundle: Path | None, *command: str) -> str:
    """The output of *command* run inside *bundle*'s namespaces (None: this process's); Asap2Error with that output if
    it fails."""
    process = start(bundle, command)
    output, _ = process.communicate()
    if process.returncode:
        where = f"{bundle.parent.name}: " if bundle else ""
        raise Asap2Error(f"{where}`{' '.join(command)}` failed: {' '.join(output.split())}")
    return output


def ip(netns: Path, *lines: str) -> None:
    """Run iproute2's ip with each of *lines* as arguments, in the network namespace kept at *netns*.

    The program runs in this process's mount namespace: what it asks goes to the kernel itself.
    """
    done = subprocess.run(
        ["nsenter", f"--net={netns}", "ip", "-batch", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env=environment(),
    )
    if done.returncode:
        raise Asap2Error(f"`ip` with {'; '.join(lines)!r} failed: {' '.join(done.stderr.split())}")
