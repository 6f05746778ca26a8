# SPDX-License-Identifier: Apache-2.0
"""Run a testsuite of Open vSwitch or OVN in a node, and compare the outcome of each test with what is expected.

The exit status is 1 when they differ. Logs of tests that failed stay in ``build/openvswitch/source/tests``, OVN's in
``build/openvswitch/ovn/tests``; one run at a time may use them.

OVN has each test in several variants: ovn-northd with and without parallel computation, ovn-controller with all of the
southbound database and with what concerns it. Without ``--every-variant`` only those with the defaults of both run.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.openvswitch.suite import (
    Expected,
    compare,
    expectations,
    outcomes_in,
    titles_in,
    with_defaults,
    without_variant,
)
from tests.results import record
from tests.suites_of_others import ASAP2, Outcome, lab

SUITES: Final = {
    "kernel": "source/tests/system-kmod-testsuite",
    "offloads": "source/tests/system-offloads-testsuite",
    "ovn": "ovn/tests/system-kmod-testsuite",
}
_HERE: Final = Path(__file__).parent
_BUILT: Final = Path("build/openvswitch").absolute()
_NODE: Final = "ovs1"
_PATH: Final = f"{_HERE}/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:{_BUILT}/python/bin"
"""The programs that are tested are the machine's, modprobe is the node's, and there is one of our own. Scapy is the
tests' Python's."""


@contextlib.contextmanager
def alone(directory: Path = _BUILT) -> Iterator[None]:
    """Keep other runs away from *directory*. SystemExit when one is under way."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("Open vSwitch's tests are running in this checkout already")
        yield


def run(program: Path, numbers: list[int], environment: dict[str, str]) -> str:
    """Run tests in the node, as its user would; what the testsuite printed. OVN's have programs of their own."""
    path = f"{program.parents[1]}/bin:{_PATH}"
    command = f'cd {program.parent} && unset PYTHONPATH && exec ./{program.name} AUTOTEST_PATH={path} "$@"'
    asked = [str(ASAP2), "exec", _NODE, "--", "sh", "-c", command, "sh", *map(str, numbers)]
    output = []
    with subprocess.Popen(
        asked, env=environment, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            output.append(line)
    return "".join(output)


def has_links(kind: str, environment: dict[str, str]) -> bool:
    """Whether a namespace of the node has links of that kind: it asks for more then, or makes one."""
    asked = [str(ASAP2), "exec", _NODE, "--", "unshare", "--net", "ip", "link", "add", "x0", "type", kind]
    tried = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    return "Unknown device type" not in tried.stderr


def without_what_is_missing(tests: dict[int, str], expected: Expected, environment: dict[str, str]) -> list[int]:
    """The numbers of the *tests* that the node has the link kinds for; the others are named."""
    wanted = {kind for title in tests.values() if (kind := expected.needs.get(without_variant(title)))}
    missing = {kind for kind in wanted if not has_links(kind, environment)}
    left_out = [number for number, title in tests.items() if expected.needs.get(without_variant(title)) in missing]
    if left_out:
        kinds = ", ".join(sorted(missing))
        print(f"{len(left_out)} tests are left out: the node has no links of the kinds {kinds}", flush=True)
    return [number for number in tests if number not in left_out]


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="make test-openvswitch", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--suite", choices=SUITES, default="kernel", help="kernel: check-kernel; offloads: check-offloads; ovn: OVN's"
    )
    parser.add_argument("--every-variant", action="store_true", help="of OVN's tests, all variants")
    parser.add_argument("-k", metavar="TEXT", default="", help="only tests with TEXT in their title")
    parser.add_argument("--record", action="store_true", help="record the outcome for docs/fidelity.md")
    parser.add_argument("numbers", metavar="N", nargs="*", type=int, help="only tests with these numbers")
    options = parser.parse_args()
    if options.record and (options.k or options.numbers):
        parser.error("only the whole of a suite can be recorded")
    program = _BUILT / SUITES[options.suite]
    listing = subprocess.run([program, "--list"], cwd=program.parent, check=True, capture_output=True, text=True).stdout
    expected = expectations(_HERE / "expected.toml", options.suite)
    every = titles_in(listing)
    tests = every if options.every_variant or options.numbers else with_defaults(every)
    tests = {number: title for number, title in tests.items() if options.k in title}
    tests = {number: title for number, title in tests.items() if number in (options.numbers or tests)}
    if not tests:
        parser.error("there is no such test")
    with alone(), lab(_HERE / ("ovn.toml" if options.suite == "ovn" else "node.toml")) as environment:
        chosen = without_what_is_missing(tests, expected, environment)
        outcomes = outcomes_in(run(program, chosen, environment))
    differences = compare(tests, outcomes, expected, chosen)
    for title, outcome, wanted in differences:
        why = f" ({expected.reason(title)})" if expected.reason(title) else ""
        print(f"{title}: {outcome.value}, but expected: {wanted.value}{why}")
    for number in chosen:
        title = without_variant(tests[number])
        if outcomes.get(number) is Outcome.FAILED and title in expected.timing:
            print(f"{tests[number]}: failed, as it may on a busy machine ({expected.timing[title]})")
    counted = Counter(outcomes.get(number, Outcome.MISSING) for number in chosen)
    told = ", ".join(f"{counted[outcome]} {outcome.value}" for outcome in Outcome)
    print(f"{len(chosen)} tests: {told}; {len(differences)} not as expected")
    if options.record:
        counts = {outcome.value: counted[outcome] for outcome in Outcome} | {"left out": len(tests) - len(chosen)}
        counts["not as expected"] = len(differences)
        record(f"openvswitch-{options.suite}", counts, of=release(options.suite))
    return int(bool(differences))


def release(suite: str) -> str:
    """The release of Open vSwitch or OVN that is installed, and whose tests these are."""
    name, program, word = ("OVN", "ovn-controller", 1) if suite == "ovn" else ("Open vSwitch", "ovs-vswitchd", 3)
    told = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    return f"{name} {told.split()[word]}"


if __name__ == "__main__":
    sys.exit(main())
