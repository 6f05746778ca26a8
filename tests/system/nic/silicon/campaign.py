# SPDX-License-Identifier: Apache-2.0
"""Many random packets through the eBPF program and the reference eSwitch.

A *case* is one packet that came in at both and of which everything was compared. Packets come in programs of
:data:`PACKETS`; a program is made from the seed and its own number alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pyroute2 import IPRoute

from asap2.namespaces import CLONE_NEWNET, setns
from asap2.nic.silicon.pipeline import Pipeline
from tests.system.nic.silicon.authors import program
from tests.system.nic.silicon.both import Both, DifferenceError
from tests.system.nic.silicon.shrink import shrink
from tests.system.nic.silicon.steps import Step, written

PACKETS = 200
"""Packets of one program."""
CACHES = (None, 2)
"""Sizes of the exact-match cache, for programs in turn: as it comes, and so small that entries displace one another."""
CONNECTIONS = 8192
"""Room for connections: many more than a program's packets and their copies can make."""
_MNT_DETACH = 2  # umount2(2)


@dataclass(frozen=True)
class Difference:
    """Program *number* of a seed, made small, and how the two sides differ in it."""

    number: int
    steps: tuple[Step, ...]
    text: str

    def __str__(self) -> str:
        lines = [f"program {self.number} differs; made small:", *(f"    {written(step)}," for step in self.steps)]
        return "\n".join([*lines, self.text])


@contextlib.contextmanager
def private_bpffs(where: Path | None = None) -> Iterator[Path]:
    """A bpffs that nobody else sees, and that ends with this process however it ends: it has no place any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as stack:
        where = where or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if libc.mount(b"bpf", os.fsencode(where), b"bpf", 0, None):
            raise OSError(ctypes.get_errno(), "mounting a bpffs")
        root = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
        if libc.umount2(os.fsencode(where), _MNT_DETACH):
            raise OSError(ctypes.get_errno(), "unmounting the bpffs")
    try:
        yield Path(f"/proc/self/fd/{root}")
    finally:
        os.close(root)


@contextlib.contextmanager
def network_of_its_own() -> Iterator[None]:
    """This thread is in a new network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        yield
    finally:
        setns(before, CLONE_NEWNET)
        os.close(before)


def tracing_pipeline(bpffs: Path, cache: int | None) -> Pipeline:
    """A program that tells what it would do, in a :func:`network_of_its_own`, with a device that copies go on at."""
    where, name = bpffs / f"tracing-{cache}", f"copies-{cache}"
    with IPRoute() as ipr:
        ipr.link("add", ifname=name, kind="veth", peer={"ifname": f"far-{cache}"})
    device = socket.if_nametoindex(name)
    pipeline = Pipeline.open(
        where, max_rules=256, tracing=True, upcall_ifindex=device, cache_entries=cache, max_connections=CONNECTIONS
    )
    pipeline.attach_onward(device, None)
    return pipeline


def made(seed: int, number: int, packets: int = PACKETS) -> list[Step]:
    """Program *number* of *seed*."""
    return program(Random(f"{seed} {number}"), packets)


def difference(pipeline: Pipeline, steps: Sequence[Step]) -> str | None:
    """How the two sides differ in *steps*."""
    try:
        Both(pipeline).run(steps)
    except DifferenceError as error:
        return str(error)
    return None


def campaign(
    pipelines: Sequence[Pipeline],
    seed: int,
    cases: int,
    *,
    first: int = 0,
    every: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Difference | None:
    """Compare at least *cases* packets, in programs *first*, *first* + *every* and so on, up to the first difference.

    *progress* gets the cases so far.
    """
    done, number = 0, first
    while done < cases:
        pipeline = pipelines[number % len(pipelines)]
        steps = made(seed, number)
        if difference(pipeline, steps) is not None:
            small = shrink(steps, lambda tried: difference(pipeline, tried) is not None)  # noqa: B023
            return Difference(number, tuple(small), difference(pipeline, small) or "it differs no more")
        done += PACKETS
        number += every
        progress(done)
    return None
