# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.system.realkernel --seed S --cases N``: as many cases as wanted. Exit status 1: some differ."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from random import SystemRandom

from tests.system.realkernel.campaign import Tally, campaign, explained


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.realkernel", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 31), help="default: a random one")
    parser.add_argument("--cases", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and so end the kernel, remove its files
    began = time.monotonic()

    def progress(tally: Tally) -> None:
        print(f"{time.monotonic() - began:.0f} s: {tally}", flush=True)

    print(f"seed {given.seed}", flush=True)
    tally = campaign(given.seed, given.cases, first=given.first, progress=progress)
    for text in explained(tally):
        print(text)
    return 1 if tally.differing else 0


if __name__ == "__main__":
    sys.exit(main())
