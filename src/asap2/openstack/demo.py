# SPDX-License-Identifier: Apache-2.0
"""The demo with a cloud: the getting-started page's procedure with neutron's Open vSwitch agent, then OVN."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import resources
from typing import Any

from asap2.errors import Asap2Error
from asap2.lab.terminal import Terminal, as_data
from asap2.lab.topology import parse
from asap2.openstack.cloud import Cloud
from asap2.openstack.demo_ovn import Ovn
from asap2.openstack.demo_page import Page
from asap2.openstack.demo_steps import Figures, Steps
from asap2.openstack.mechanism import Mechanism
from asap2.screen import Screen

ACTS: dict[Mechanism, type[Page] | type[Ovn]] = {Mechanism.OPENVSWITCH: Page, Mechanism.OVN: Ovn}
TITLES = {
    Mechanism.OPENVSWITCH: "OpenStack on two software hypervisors, each with a ConnectX-5, joined by a cable",
    Mechanism.OVN: "The same with OVN: another cloud",
}


class Demo:
    """One run, with a cloud for each of *mechanisms*; :meth:`report` tells how it went."""

    def __init__(self, cloud: Cloud, screen: Screen, mechanisms: Sequence[Mechanism] = tuple(Mechanism)) -> None:
        self.cloud = cloud
        self.mechanisms = mechanisms
        self.topology = parse(resources.files("asap2.openstack").joinpath("topology.toml").read_text())
        self.terminal = Terminal(cloud.lab.layout, screen)
        self.figures = Figures()
        self.failure: str | None = "it was not done"
        self.seconds = 0.0

    def run(self, keep: bool) -> None:
        """For each mechanism bring a cloud up, show it, and take it down, unless told to *keep* it: the last one, or
        the one that failed."""
        began = time.monotonic()
        try:
            for mechanism in self.mechanisms:
                self._act(mechanism, keep)
            self.failure = None
        except Asap2Error as error:
            self.failure = str(error)
        self.seconds = round(time.monotonic() - began, 1)

    def _act(self, mechanism: Mechanism, keep: bool) -> None:
        began = time.monotonic()
        self.terminal.heading(TITLES[mechanism])
        self.cloud.up(self.topology, mechanism)
        self.figures.up_seconds[mechanism] = round(time.monotonic() - began, 1)
        shown = False
        try:
            ACTS[mechanism](Steps(self.cloud, self.terminal, self.figures)).run()
            shown = True
        finally:
            if not keep or (shown and mechanism is not self.mechanisms[-1]):
                down = time.monotonic()
                self.cloud.down()
                self.figures.down_seconds[mechanism] = round(time.monotonic() - down, 1)

    def report(self) -> dict[str, Any]:
        """How it went, as plain data."""
        figures = {name: getattr(self.figures, name) for name in Figures.__slots__}
        return {
            "ok": self.failure is None,
            "failure": self.failure,
            "seconds": self.seconds,
            "steps": as_data(self.terminal.steps),
            **figures,
        }

    def print_summary(self) -> None:
        """Print the short table of the end."""
        self.terminal.summary(self.figures.rows(), self.seconds, self.failure)
