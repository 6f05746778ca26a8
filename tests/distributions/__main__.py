# SPDX-License-Identifier: Apache-2.0
"""Try this checkout's commit on other releases of Debian: in roots that debootstrap makes, and under their own kernels.

Each run starts from what a new user has: make, git, and certificates. Results are printed, and added to
``build/distributions/results.md`` as rows of the table of docs/distributions.md.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

from asap2.errors import Asap2Error
from tests.distributions.machine import run_booted
from tests.distributions.root import PLACE, TOP, run_in, unpack

_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_TIMINGS: Final = "asap2: offload gains too little"
"""How a demonstration ends all of whose steps succeeded, on a machine too slow for its figures."""


@dataclass(frozen=True, slots=True)
class Try:
    """*command* in a root of the release *suite*; *booted* under that release's own kernel, which is emulated."""

    suite: str
    booted: bool
    command: str
    seconds: int

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.suite}-kernel" if self.booted else self.suite


TRIES: Final = (
    Try("bookworm", True, "make demo", 3000),
    Try("trixie", True, "make demo", 3000),
    Try("trixie", False, "make demo && make test", 2400),
    Try("sid", False, "make demo", 1200),
    Try("bookworm", False, "make demo && make test", 2400),
)


def main() -> int:
    """Do the tries that are asked for."""
    parser = argparse.ArgumentParser(prog="make test-distributions", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", choices=[one.name for one in TRIES], action="append", help="(may be repeated)")
    parser.add_argument("--command", help="in place of what is usually tried")
    arguments = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    turn = (PLACE / "lock").open("w")
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("make test-distributions: it runs in this checkout already", file=sys.stderr)
        return 1
    commit, wrong = _commit(), 0
    for one in TRIES:
        if arguments.only and one.name not in arguments.only:
            continue
        command = arguments.command or one.command
        print(f"{one.name}: {command} ...", flush=True)
        began = time.monotonic()
        try:
            green, said = attempt(one, command)
        except (Asap2Error, OSError, subprocess.SubprocessError) as error:
            green, said = False, _cut(str(error))
        wrong += not green
        took = f"{(time.monotonic() - began) / 60:.0f} min"
        print(f"{one.name}: {'passed' if green else 'FAILED'} in {took}: {said}", flush=True)
        today = datetime.datetime.now(tz=datetime.UTC).date()
        result = f"{'passed' if green else 'failed'}, {took}: {said}"
        row = f"| {one.name} | {commit} | {today} | `{command}` | {result} |\n"
        with (PLACE / "results.md").open("a") as results:
            results.write(row)
    return 1 if wrong else 0


def attempt(one: Try, command: str) -> tuple[bool, str]:
    """Whether it went well, and what it said last."""
    log = PLACE / f"{one.name}.log"
    root = unpack(one.suite, one.booted)
    try:
        status = (run_booted if one.booted else run_in)(root, command, one.seconds, log)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return verdict(status, one.booted, log.read_text(errors="replace"))


def verdict(status: int, booted: bool, log: str) -> tuple[bool, str]:
    """What exit status and output mean: an emulated machine may be too slow, and nothing else."""
    lines = [_ESCAPES.sub("", line).strip() for line in log.splitlines()]
    kernel = next((line.partition(",")[0] for line in reversed(lines) if line.startswith("kernel ")), "")
    slow = next((line for line in reversed(lines) if line.startswith(_TIMINGS)), None)
    ends = [line for line in lines if re.match(r"\d+ (commands|passed)|asap2: |make: \*\*\*", line)]
    said = "; ".join((*([kernel] if kernel else []), *([_cut(ends[-1])] if ends else [])))
    if booted and status and slow:
        steps = next((line for line in reversed(lines) if re.match(r"\d+ commands", line)), "")
        return True, f"{kernel}; every step succeeded ({steps.partition(',')[0]}); its figures are those of an emulator"
    return status == 0, said or f"exit status {status}"


def _cut(line: str) -> str:
    return line if len(line) < 160 else f"{line[:157]}…"


def _commit() -> str:
    shown = subprocess.run(["git", "-C", str(TOP), "log", "-1", "--format=%h"], stdout=subprocess.PIPE, text=True)
    return shown.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
