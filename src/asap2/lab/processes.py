# SPDX-License-Identifier: Apache-2.0
"""Finding and ending the processes that live in given namespaces, whoever started them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.enter import KINDS
from asap2.lab.namespaces import identity

Identity = tuple[int, int]


def inside(namespaces: Collection[Identity]) -> Iterator[int]:
    """The ids of all processes of which a network, mount or UTS namespace is one of *namespaces*.

    A process that made itself further namespaces of one kind inside a node keeps the node's others.
    """
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        for kind in KINDS:
            with contextlib.suppress(OSError):
                if identity(Path(f"/proc/{entry}/ns/{kind}")) in namespaces:
                    yield int(entry)
                    break


def end_all(namespaces: Collection[Identity], seconds: float = 10) -> None:
    """Kill every process in *namespaces* and wait until none is left, also of those started meanwhile."""
    deadline = time.monotonic() + seconds
    while alive := list(inside(namespaces)):
        if os.getpid() in alive:
            raise Asap2Error("this process is itself inside the lab; take the lab down from outside")
        if time.monotonic() > deadline:
            named = ", ".join(f"{pid} ({_command(pid)})" for pid in alive)
            raise Asap2Error(f"processes of the lab do not end: {named}")
        _kill(alive, deadline)


def _kill(pids: list[int], deadline: float) -> None:
    ended = select.poll()
    descriptors = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            descriptors.add(descriptor)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended.register(descriptor, select.POLLIN)
    waiting = set(descriptors)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in ended.poll(left * 1000):
            ended.unregister(descriptor)
            waiting.discard(descriptor)
    for descriptor in descriptors:
        os.close(descriptor)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"
