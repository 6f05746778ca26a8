# SPDX-License-Identifier: Apache-2.0
"""Random packets through the eBPF program and the reference eSwitch: as many as wanted. Exit status 1: they differ.

A case is one packet compared: where it goes, to the byte, and why; what was counted is compared after every program of
200. ``--first K`` begins with another program, for one that differed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from multiprocessing.queues import SimpleQueue
from random import SystemRandom

from tests.system.nic.silicon.campaign import CACHES, Difference, campaign, private_bpffs, tracing_pipeline

_INTERVAL = 10.0
"""Seconds between two lines of progress."""

Told = tuple[int, int, Difference | None, bool]
"""A job's number, its cases so far, a difference, and whether the job is done."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.nic.silicon", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 31), help="default: a random one")
    parser.add_argument("--cases", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first program (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    began = time.monotonic()
    told: SimpleQueue[Told] = multiprocessing.SimpleQueue()
    share = -(-given.cases // given.jobs)
    jobs = [
        multiprocessing.Process(target=_job, args=(told, job, given.seed, share, given.first + job, given.jobs))
        for job in range(given.jobs)
    ]
    for job in jobs:
        job.daemon = True
        job.start()
    done = dict.fromkeys(range(given.jobs), 0)
    running, shown, status = given.jobs, began, 0
    while running:
        job_number, cases, found, ended = told.get()
        done[job_number] = cases
        running -= ended
        if found is not None:
            print(f"seed {given.seed}, {found}", flush=True)
            print(f"again: python -m tests.system.nic.silicon --seed {given.seed} --first {found.number} --cases 1")
            status = 1
            break
        now = time.monotonic()
        if now - shown >= _INTERVAL or not running:
            total = sum(done.values())
            print(f"{now - began:.0f} s: {total} cases, {total / (now - began):.0f} a second", flush=True)
            shown = now
    for job in jobs:
        job.join(None if not status else 0)
        status = status or job.exitcode or 0
    return status


def _job(told: SimpleQueue[Told], job: int, seed: int, cases: int, first: int, every: int) -> None:
    last = 0

    def progress(done: int) -> None:
        nonlocal last
        last = done
        told.put((job, done, None, False))

    found = None
    try:
        with private_bpffs() as bpffs:
            pipelines = [tracing_pipeline(bpffs, cache) for cache in CACHES]
            found = campaign(pipelines, seed, cases, first=first, every=every, progress=progress)
    finally:
        told.put((job, last, found, True))


if __name__ == "__main__":
    sys.exit(main())
