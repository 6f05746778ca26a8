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
    random, compared, differing = Random(seed), 0, False
    for done in range(0, count, ct_campaign.BATCH):
        conversations = ct_campaign.made(random, min(ct_campaign.BATCH, count - done), ct_campaign.PACKETS)
        tally = ct_campaign.compare(NAMED | conversations if done == 0 else conversations)
        compared += tally.compared
        differing |= bool(tally.differing)
        print(
            f"{done + len(conversations)} conversations: {compared} steps compared",
            *tally.differing,
            sep="\n",
            flush=True,
        )
    return int(differing)


if __name__ == "__main__":
    sys.exit(main())
