# SPDX-License-Identifier: Apache-2.0
"""Run the kernel's tests of TC in a node, on representors, and compare what became of each with what is expected.

The exit status is 1 when they differ.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.results import record
from tests.suites_of_others import ASAP2, Outcome, lab
from tests.tdc.suite import Case, cases_in, compare, expectations, outcomes_in

_HERE: Final = Path(__file__).parent
_BUILT: Final = Path("build/tdc/source").absolute()
_NODE: Final = "tc1"
_DEVICES: Final = """
for bound in /sys/bus/pci/drivers/mlx5_core/0000:03:00.[12]; do
  [ ! -e "$bound" ] || echo "${bound##*/}" > /sys/bus/pci/drivers/mlx5_core/unbind
done
devlink dev eswitch set pci/0000:03:00.0 mode switchdev
for name in eth0 eth1; do ip link set $name up; done
"""
"""Two representors, which tdc's settings name (scripts/setup-tdc)."""


def in_node(*command: str, environment: dict[str, str], check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command in the node, as its user would; what it prints."""
    asked = [str(ASAP2), "exec", _NODE, "--", *command]
    return subprocess.run(
        asked,
        env=environment,
        check=check,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def has_qdisc(kind: str, environment: dict[str, str]) -> bool:
    """Whether the machine's kernel has that kind of qdisc."""
    script = f"ip link set lo up; tc qdisc add dev lo root {kind}"
    return "is unknown" not in in_node("unshare", "--net", "sh", "-c", script, environment=environment).stdout


def run(cases: list[Case], environment: dict[str, str]) -> str:
    """Run the *cases*, file by file; what tdc printed."""
    printed = []
    for file, group in groupby(cases, key=lambda case: case.file):
        ids = " ".join(case.id for case in group)
        command = f"cd {_BUILT}/tc-testing && exec python3 tdc.py -N -d eth1 -f tc-tests/{file}.json -e {ids}"
        done = in_node("sh", "-c", command, environment=environment)
        found = Counter(outcomes_in(done.stdout).values())
        print(f"{file}: {', '.join(f'{count} {outcome.value}' for outcome, count in found.items())}", flush=True)
        printed.append(done.stdout)
    return "\n".join(printed)


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="make test-tdc", description=__doc__.splitlines()[0])
    parser.add_argument("-k", metavar="TEXT", default="", help="only cases with TEXT in their file, id or name")
    parser.add_argument("--record", action="store_true", help="record the outcome for docs/fidelity.md")
    options = parser.parse_args()
    if options.record and options.k:
        parser.error("only the whole of the suite can be recorded")
    expected = expectations(_HERE / "expected.toml")
    every = [
        case for case in cases_in(_BUILT / "tc-testing/tc-tests") if options.k in f"{case.file} {case.id} {case.name}"
    ]
    if not every:
        parser.error("there is no such case")
    with lab(_HERE / "node.toml") as environment:
        in_node("sh", "-ec", _DEVICES, environment=environment, check=True)
        missing = {kind for kind in {case.qdisc for case in every} if kind and not has_qdisc(kind, environment)}
        chosen = [case for case in every if not expected.left_out(case) and case.qdisc not in missing]
        output = run(chosen, environment)
    outcomes = outcomes_in(output)
    differences = compare(chosen, outcomes, expected)
    for case, outcome, wanted in differences:
        print(f"{case.file}: {case.id} {case.name}: {outcome.value}, but expected: {wanted.value}")
    if missing:
        print(f"the machine's kernel has no qdiscs of the kinds {', '.join(sorted(missing))}")
    counted = Counter(outcomes.get(case.id, Outcome.MISSING) for case in chosen)
    told = ", ".join(f"{counted[outcome]} {outcome.value}" for outcome in Outcome)
    print(f"{len(chosen)} cases: {told}; {len(every) - len(chosen)} left out; {len(differences)} not as expected")
    if options.record:
        counts = {outcome.value: counted[outcome] for outcome in Outcome} | {"left out": len(every) - len(chosen)}
        counts["not as expected"] = len(differences)
        record("tdc", counts, of=(_BUILT / "release").read_text().strip())
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main())
