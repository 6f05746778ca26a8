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


def end_all(namespaces: Collection[Identity], seconds: float = 60) -> None:
    """Kill every process in *namespaces* and wait until none is left, also of those started meanwhile.

    All are stopped first: those that start others, as a supervisor does when its like is killed, cannot any longer.
    *seconds* is how long we wait while none of them ends.
    """
    alive = _stop_all(namespaces)
    deadline = time.monotonic() + seconds
    while alive:
        _kill(alive, deadline)
        left = set(inside(namespaces))
        if left < alive:
            deadline = time.monotonic() + seconds
        elif time.monotonic() > deadline:
            named = ", ".join(f"{pid} ({_command(pid)})" for pid in sorted(left))
            raise Asap2Error(f"processes of the lab do not end: {named}")
        alive = left


def _stop_all(namespaces: Collection[Identity]) -> set[int]:
    """Stop every process in *namespaces*; all of them."""
    stopped: set[int] = set()
    while new := set(inside(namespaces)) - stopped:
        if os.getpid() in new:
            raise Asap2Error("this process is itself inside the lab; take the lab down from outside")
        for pid in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= new
    return stopped


def _kill(pids: Collection[int], deadline: float) -> None:
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
        return ascii(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())[1:-1]
    except OSError:
        return "gone"
