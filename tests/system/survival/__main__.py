# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.system.survival kills [--rounds N] | kernel [--rounds N] | cycles [--cycles N]``: campaigns.

``kills`` brings a lab of its own up, kills the parts of its node, and prints how many packets each kind of kill lost;
its exit status is 1 when one that leaves ovs-vswitchd alone lost any. ``kernel`` kills ovs-vswitchd in a node and, in
turn with that, in user-mode-linux, where it uses a real kernel's datapath and TC, on one CPU and with slow system
calls. ``cycles`` brings labs up and down, a third of them interrupted; its exit status is 1 when anything is left.
Other labs may be at work meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import resources
from pathlib import Path

from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.topology import parse
from tests.system.realkernel.machine import Kernel
from tests.system.survival import cycles, kernel_guest, kills

TOPOLOGY = Path(str(resources.files("asap2.lab").joinpath("topologies", "one-node.toml")))


def main() -> int:
    """Run with the process's arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.survival")
    commands = parser.add_subparsers(required=True, dest="command")
    killing = commands.add_parser("kills")
    killing.add_argument("--rounds", type=int, default=5 * len(kills.KINDS))
    comparing = commands.add_parser("kernel")
    comparing.add_argument("--rounds", type=int, default=5)
    cycling = commands.add_parser("cycles")
    cycling.add_argument("--cycles", type=int, default=100)
    cycling.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    root = Path(f"/run/t-survival-{os.getpid()}")
    if arguments.command == "kills":
        return _kills(root, arguments.rounds)
    if arguments.command == "kernel":
        return _kernel(root, arguments.rounds)
    return _cycles(root, arguments.cycles, arguments.seed)


def _kills(root: Path, rounds: int) -> int:
    lab = Lab(Layout(root))
    lab.up(parse(TOPOLOGY.read_text()))
    done: list[kills.Round] = []
    try:
        done = kills.campaign(
            lab.layout,
            rounds,
            lambda one: print(
                f"{' + '.join(one.killed)}{' beside loops' if one.loaded else ''}: {one.lost} of {one.sent} lost,"
                f" longest outage {one.outage} ms",
                flush=True,
            ),
        )
    finally:
        lab.down()
    print(kills.summary(done))
    return 1 if any(one.lost for one in done if not kills.RESTARTS_SWITCH & set(one.killed)) else 0


def _kernel(root: Path, rounds: int) -> int:
    """Boot the real kernel for each setting of hw-offload, then kill in the node as often, twice each."""
    lab = Lab(Layout(root))
    lab.up(parse(TOPOLOGY.read_text()))
    try:
        node = kills.Node(lab.layout)
        node.prepare()
        for offload in (True, False, True, False):
            with Kernel([[(offload, rounds)]], program=kernel_guest.__file__) as kernel:
                ((done, took),) = kernel.raw_results()
            _tell("real kernel in user-mode-linux", offload, done, took)
            node.offload(offload)
            ours = [kills.one_round(node, ("ovs-vswitchd",), kernel_guest.INTERVAL) for _ in range(rounds)]
            _tell("node", offload, [(one.sent, one.lost, one.outage) for one in ours], kernel_guest.program_ms())
    finally:
        lab.down()
    return 0


def _tell(where: str, offload: bool, done: list[tuple[int, int, int]], program_ms: float) -> None:
    lost, outages = (sorted(one[column] for one in done) for column in (1, 2))
    print(
        f"{where}, hw-offload={str(offload).lower()}: {lost} packets lost, of one each"
        f" {kernel_guest.INTERVAL * 1000:g} ms; outages of {outages} ms;"
        f" `ovs-vsctl --version` takes {program_ms:.1f} ms",
        flush=True,
    )


def _cycles(root: Path, count: int, seed: int) -> int:
    def tell(number: int, what: str, wrong: list[str]) -> None:
        print(f"{number + 1:4} {what}: {'; '.join(wrong) or 'nothing left'}", flush=True)

    wrong = cycles.campaign(root, TOPOLOGY, count, seed, tell)
    print(f"{count} cycles: {len(wrong)} things wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
