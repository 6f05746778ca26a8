# SPDX-License-Identifier: Apache-2.0
"""Random packets through the eBPF program and the reference eSwitch: as many as wanted. Exit status 1: they differ.

A case is one packet compared: where it goes, to the byte, and why; what was counted is compared after every program of
200. ``--first K`` begins with another program, for one that differed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from random import SystemRandom

from tests.results import record
from tests.system.nic.silicon.campaign import (
    CACHES,
    Difference,
    campaign,
    network_of_its_own,
    private_bpffs,
    tracing_pipeline,
)

_INTERVAL = 10.0
"""Seconds between two lines of progress."""

Progress = Callable[[int], None]
Told = tuple[int, int, Difference | None, bool]
"""A job's number, its cases so far, a difference, and whether the job has ended."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.nic.silicon", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 31), help="default: a random one")
    parser.add_argument("--cases", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first program (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="record a campaign without a difference")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and so end the jobs
    print(f"seed {given.seed}", flush=True)
    clock = _Clock()
    if given.jobs == 1:
        found = _run(given.seed, given.cases, given.first, 1, clock.progress)
        status = 0
    else:
        found, status = _run_jobs(given.seed, given.cases, given.first, given.jobs, clock.progress)
    clock.show()
    if found is not None:
        print(f"seed {given.seed}, {found}")
        print(f"again: python -m tests.system.nic.silicon --seed {given.seed} --first {found.number} --cases 1")
        return 1
    if given.record and not status:
        record("silicon", {"packets": clock.cases, "differences": 0})
    return status


class _Clock:
    """Tells how far it is, now and then."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self.cases = 0

    def progress(self, cases: int) -> None:
        """So many *cases* are done."""
        self.cases = cases
        if time.monotonic() - self._shown >= _INTERVAL:
            self.show()

    def show(self) -> None:
        """A line."""
        self._shown = time.monotonic()
        taken = self._shown - self._began
        print(f"{taken:.0f} s: {self.cases} cases, {self.cases / taken:.0f} a second", flush=True)


def _run(seed: int, cases: int, first: int, every: int, progress: Progress) -> Difference | None:
    with network_of_its_own(), private_bpffs() as bpffs:
        pipelines = [tracing_pipeline(bpffs, cache) for cache in CACHES]
        return campaign(pipelines, seed, cases, first=first, every=every, progress=progress)


def _run_jobs(seed: int, cases: int, first: int, jobs: int, progress: Progress) -> tuple[Difference | None, int]:
    """The first difference that any of the *jobs* finds, and whether one failed: its exit status."""
    told: SimpleQueue[Told] = multiprocessing.SimpleQueue()
    processes = [
        multiprocessing.Process(target=_job, args=(told, job, seed, -(-cases // jobs), first + job, jobs), daemon=True)
        for job in range(jobs)
    ]
    for process in processes:
        process.start()
    done = [0] * jobs
    running = jobs
    while running:
        job, so_far, found, ended = told.get()
        if found is not None:
            return found, 1
        done[job] = max(done[job], so_far)
        running -= ended
        progress(sum(done))
    for process in processes:
        process.join()
    return None, max(process.exitcode or 0 for process in processes)


def _job(told: SimpleQueue[Told], job: int, seed: int, cases: int, first: int, every: int) -> None:
    found = None
    try:
        found = _run(seed, cases, first, every, lambda done: told.put((job, done, None, False)))
    finally:
        told.put((job, 0, found, True))


if __name__ == "__main__":
    sys.exit(main())
