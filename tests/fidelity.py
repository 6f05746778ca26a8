# SPDX-License-Identifier: Apache-2.0
"""Write docs/fidelity.md from what tests gave: ``python -m tests.fidelity``. A test says when the page is not current.

Its sources are the recorded runs (``tests/results.json``), the table of what becomes of Open vSwitch's tests, and the
tests themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.openvswitch.suite import Expected, expectations
from tests.results import Result, recorded
from tests.system.realkernel.test_differences import DIFFERENCES
from tests.tdc import suite as tdc

TOP: Final = Path(__file__).resolve().parents[1]
PAGE: Final = TOP / "docs/fidelity.md"
SUITES: Final = {
    "openvswitch-kernel": ("Open vSwitch `check-kernel`", "kernel"),
    "openvswitch-offloads": ("Open vSwitch `check-offloads`", "offloads"),
    "openvswitch-ovn": ("OVN `check-kernel`", "ovn"),
}
CAMPAIGNS: Final = {
    "silicon": "The eBPF program and a reference in plain Python: random rules and packets, compared to the byte",
    "realkernel": "TC of a node and TC of a real kernel: random filters and packets",
    "realkernel-conntrack": "Connection tracking of a node and of a real kernel's Open vSwitch datapath: conversations",
    "fuzz": "A node's daemon under random messages of every family that it serves, half of them corrupted",
}
LINES: Final = {
    "tc": ("tests/wording/command_lines.txt", "`tc`"),
    "ip": ("tests/wording/link_lines.txt", "`ip`, for link kinds of our own"),
}
PROGRAMS: Final = (
    ("Open vSwitch of the distribution", "tests/system/offload", ""),
    ("iproute2, devlink, ethtool, lspci, conntrack-tools", "tests/system/nic/faces", ""),
    ("CNI plugins and other programs in Go", "tests/system/netlink", ""),
    ("Ansible, over SSH, on eight nodes", "tests/system/fleet", ""),
    ("OVN (northd, controller)", "tests/ovn", ": `make test-ovn`"),
    ("OpenStack 2025.1 (nova, neutron, placement, os-vif)", "tests/e2e/openstack", ": `make test-openstack`"),
)
"""Unmodified programs of others that tests drive: what, where, and by which target if not by ``make test``."""
NOT_RUN: Final = (
    ("Kernel selftests `net/forwarding`", "there is no harness for them in this project"),
    ("Regression scripts of NIC vendors for Open vSwitch offload", "there is no harness for them in this project"),
    ("Any test on a real ConnectX", "no card was available"),
    ("Open vSwitch `check-dpdk`, `check-afxdp`", "they test other datapaths"),
    ("Open vSwitch `check-system-userspace`", "it tests Open vSwitch's own datapath, which uses no NIC offload"),
)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(recorded()))


def page(results: Mapping[str, Result]) -> str:
    """The page's text."""
    return "\n".join([*_head(), *_suites(results), *_kernel(results), *_campaigns(results), *_rest()])


def _head() -> Iterator[str]:
    yield """# Fidelity

How close is the software ConnectX to Linux with a real one? This page lists who has judged it, what they found, and
what nobody has judged. It is written by `python -m tests.fidelity` from recorded test runs, so no number here was typed
by hand. A difference that is known and explained is not a failure of the test run, and it is listed here.

No run was on a real card. What a ConnectX does is taken from the mlx5 driver's source in Linux, and from reports of
boards.
"""


def _suites(results: Mapping[str, Result]) -> Iterator[str]:
    """Suites that others wrote, and each of their tests that does not pass."""
    yield "## Suites that others wrote\n"
    yield "They run in a node, unmodified, against the node's own datapath, TC and NIC.\n"
    yield "| suite | version | pass | skipped | fail | left out | not as expected | last recorded run |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, (title, _) in SUITES.items():
        if result := results.get(name):
            keys = ("ok", "skipped", "failed", "left out", "not as expected")
            numbers = " | ".join(str(result.counts[key]) for key in keys)
            yield f"| {title} | {result.of} | {numbers} | {_when(result)} |"
        else:
            yield f"| {title} | | | | | | | no run is recorded |"
    if result := results.get("tdc"):
        keys = ("ok", "skipped", "failed", "left out", "not as expected")
        numbers = " | ".join(str(result.counts[key]) for key in keys)
        yield f"| Kernel selftests `tc-testing` | {result.of} | {numbers} | {_when(result)} |"
    yield "\n*Left out* are tests that need a kind of link or qdisc that neither the machine's kernel nor asap2 has."
    yield "Of `tc-testing`, those below are left out, too.\n"
    yield from _tdc()
    for title, table in SUITES.values():
        yield from _exceptions(title, expectations(TOP / "tests/openvswitch/expected.toml", table))


def _tdc() -> Iterator[str]:
    """Files and cases of the kernel's tests of TC that are not run, or do not pass."""
    expected = tdc.expectations(TOP / "tests/tdc/expected.toml")
    yield "### Kernel selftests `tc-testing`: what does not pass\n"
    yield "| outcome | tests | reason |"
    yield "|---|---|---|"
    for outcome, table in (("left out", expected.files), ("left out", expected.cases), ("fails", expected.fails)):
        for what, why in table.items():
            yield f"| {outcome} | `{what}` | {why} |"
    yield "\nOf the qdiscs' tests, only those of `ingress` are run: the others are the machine's kernel's.\n"


def _exceptions(title: str, expected: Expected) -> Iterator[str]:
    """The tests of a suite that need not pass, by reason."""
    yield f"### {title}: what does not pass\n"
    yield "| outcome | reason | tests |"
    yield "|---|---|---|"
    parts = (
        ("fails", expected.fails),
        ("may fail on a busy machine", expected.timing),
        ("is skipped", expected.skips),
        ("needs links of the kind", expected.needs),
    )
    for outcome, tests in parts:
        by_reason = defaultdict(list)
        for test, why in tests.items():
            by_reason[why].append(test)
        for why, names in by_reason.items():
            yield f"| {outcome} | {why} | {'; '.join(sorted(names))} |"
    yield "\nThe table covers several releases of the suite; some tests are in one of them only.\n"


def _kernel(results: Mapping[str, Result]) -> Iterator[str]:
    """What is compared with a real kernel."""
    release = next((one.of for name in ("realkernel", "realkernel-conntrack") if (one := results.get(name))), "")
    yield "## Compared with a real kernel\n"
    which = f", {release}" if release else ""
    yield f"The judge is a real kernel in a process (user-mode-linux{which})."
    yield "`make test-wording` compares the command lines.\n"
    yield "| what | how many | must be |"
    yield "|---|---|---|"
    for path, what in LINES.values():
        yield f"| command lines of {what} | {_lines(TOP / path)} | the kernel's output and exit status, to the letter |"
    yield "| ways in which mlx5's matching differs from software's | " + f"{len(DIFFERENCES)} | as listed below |"
    yield "\nIn these cases a filter in software and the same filter in a ConnectX do not find the same packets."
    yield "The comparison makes allowance for each, and a test shows that the allowance is right:\n"
    yield from (f"- {name}" for name in DIFFERENCES)
    yield ""


def _campaigns(results: Mapping[str, Result]) -> Iterator[str]:
    """Random input."""
    yield "## Random input\n"
    yield "`make test` runs a short part of each with a new seed. These are the last long runs that were recorded:\n"
    yield "| campaign | counted | found | run |"
    yield "|---|---|---|---|"
    for name, title in CAMPAIGNS.items():
        if result := results.get(name):
            *counts, (last, found) = result.counts.items()
            told = ", ".join(f"{number:,} {what}" for what, number in counts)
            yield f"| {title} | {told} | {found} {last} | {_when(result)}: `{result.command}` |"
        else:
            yield f"| {title} | | | no run is recorded |"
    yield ""


def _rest() -> Iterator[str]:
    """Programs of others, what was not run, and where the known differences are."""
    yield "## Programs of others that the tests drive\n"
    yield "| program | tests |"
    yield "|---|---|"
    yield from (f"| {what} | `{where}`{how} |" for what, where, how in PROGRAMS)
    yield "\n## Not run\n"
    yield "| what | why |"
    yield "|---|---|"
    yield from (f"| {what} | {why} |" for what, why in NOT_RUN)
    yield """
## Known differences

- From Linux and from a board: [Models](models.md#differences-from-linux-and-from-a-board).
- What `tc` takes in software and in hardware, against Linux 6.1 and mlx5: [Models](models.md#what-tc-takes).
- Legacy mode: [Models](models.md#legacy-mode).

## Run it yourself

<!-- not run: takes hours -->
```sh
make test-openvswitch ARGS=--record
make test-openvswitch ARGS='--suite offloads --record'
make test-ovn-suite ARGS=--record
.venv/bin/python -m tests.system.nic.silicon --record
.venv/bin/python -m tests.system.realkernel --record
.venv/bin/python -m tests.system.realkernel --conversations 1000 --record
.venv/bin/python -m tests.system.fuzz --record
.venv/bin/python -m tests.fidelity            # write this page
```
"""


def _when(result: Result) -> str:
    return f"{result.day}, asap2 {result.version}, Linux {result.kernel}"


def _lines(path: Path) -> str:
    """How many command lines a file has, in hundreds: the page need not change with every line."""
    count = sum(bool(line.strip()) and line[0] not in "#[" for line in path.read_text().splitlines())
    return f"more than {count // 100 * 100}"


if __name__ == "__main__":
    main()
