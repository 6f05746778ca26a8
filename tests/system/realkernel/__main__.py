# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.system.realkernel --seed S --cases N``: as many cases as wanted. Exit status 1: some differ."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from random import Random, SystemRandom

from tests.results import record
from tests.system.realkernel import ct_campaign
from tests.system.realkernel.campaign import Tally, campaign, explained
from tests.system.realkernel.ct_named import NAMED
from tests.system.realkernel.machine import PROGRAM


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.realkernel", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 31), help="default: a random one")
    parser.add_argument("--cases", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    parser.add_argument(
        "--conversations", type=int, default=0, help="compare connection tracking: how many (default: 0)"
    )
    parser.add_argument("--record", action="store_true", help="record the outcome for docs/fidelity.md")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and so end the kernel, remove its files
    began = time.monotonic()

    def progress(tally: Tally) -> None:
        print(f"{time.monotonic() - began:.0f} s: {tally}", flush=True)

    print(f"seed {given.seed}", flush=True)
    if given.conversations:
        return _conversations(given.seed, given.conversations, keep=given.record)
    tally = campaign(given.seed, given.cases, first=given.first, progress=progress)
    for text in explained(tally):
        print(text)
    if given.record:
        counts = {"cases": tally.cases, "requests": tally.requests, "frames": tally.frames}
        record("realkernel", {**counts, "differences": len(tally.differing)}, of=kernel())
    return 1 if tally.differing else 0


def _conversations(seed: int, count: int, *, keep: bool) -> int:
    """So many conversations by Open vSwitch's datapath, and as many by TC."""
    random, compared, by_tc, differing = Random(seed), 0, 0, 0
    for done in range(0, count, ct_campaign.BATCH):
        numbers = range(done, min(done + ct_campaign.BATCH, count))
        conversations = ct_campaign.made(random, len(numbers), ct_campaign.PACKETS)
        cases = ct_campaign.made_for_tc(seed, numbers, ct_campaign.PACKETS)
        if done == 0:
            conversations, cases = NAMED | conversations, ct_campaign.named_for_tc(NAMED) | cases
        tally, tc_tally = ct_campaign.compare(conversations), ct_campaign.compare_tc(cases)
        compared += tally.compared
        by_tc += tc_tally.compared
        different = tally.differing + tc_tally.differing
        differing += len(different)
        print(
            f"{numbers.stop} conversations: {compared} steps compared; by TC: {by_tc} frames",
            *different,
            sep="\n",
            flush=True,
        )
    if keep:
        counts = {
            "conversations": count + len(NAMED),
            "steps": compared,
            "frames by TC": by_tc,
            "differences": differing,
        }
        record("realkernel-conntrack", counts, of=kernel())
    return int(bool(differing))


def kernel() -> str:
    """The release of the real kernel."""
    told = subprocess.run([PROGRAM, "--version"], check=True, capture_output=True, text=True).stdout
    return f"Linux {told.strip()}"


if __name__ == "__main__":
    sys.exit(main())
