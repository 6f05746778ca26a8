# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.system.realkernel --seed S --cases N``: as many cases as wanted. Exit status 1: some differ."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from random import Random, SystemRandom

from tests.system.realkernel import ct_campaign
from tests.system.realkernel.campaign import Tally, campaign, explained
from tests.system.realkernel.ct_named import NAMED


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.realkernel", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 31), help="default: a random one")
    parser.add_argument("--cases", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    parser.add_argument(
        "--conversations", type=int, default=0, help="compare connection tracking: how many (default: 0)"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and so end the kernel, remove its files
    began = time.monotonic()

    def progress(tally: Tally) -> None:
        print(f"{time.monotonic() - began:.0f} s: {tally}", flush=True)

    print(f"seed {given.seed}", flush=True)
    if given.conversations:
        return _conversations(given.seed, given.conversations)
    tally = campaign(given.seed, given.cases, first=given.first, progress=progress)
    for text in explained(tally):
        print(text)
    return 1 if tally.differing else 0


def _conversations(seed: int, count: int) -> int:
    """So many conversations by Open vSwitch's datapath, and as many by TC."""
    random, compared, by_tc, differing = Random(seed), 0, 0, False
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
        differing |= bool(different)
        print(
            f"{numbers.stop} conversations: {compared} steps compared; by TC: {by_tc} frames",
            *different,
            sep="\n",
            flush=True,
        )
    return int(differing)


if __name__ == "__main__":
    sys.exit(main())
