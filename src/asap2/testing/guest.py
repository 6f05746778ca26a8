# SPDX-License-Identifier: Apache-2.0
"""A guest of a lab, as a test drives it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asap2.lab import topology
from asap2.lab.layout import Layout
from asap2.testing.place import Place
from asap2.testing.result import Result

__tracebackhide__ = True  # pytest shows the line of the test, not ours

_FIGURES = re.compile(r"(\d+) packets transmitted, (\d+) received")


@dataclass(frozen=True, slots=True)
class Ping:
    """What ``ping`` counted; ``result`` has its output."""

    sent: int
    received: int
    result: Result


class Guest(Place):
    """Takes the place of a virtual machine."""

    def __init__(self, layout: Layout, what: topology.Guest, patience: float) -> None:
        super().__init__(layout, what.name, patience)
        self.topology = what
        """What the topology says of it."""

    @property
    def device(self) -> str:
        """The name of its VF in it: ``eth0``."""
        return self.topology.device

    @property
    def mac(self) -> str | None:
        """The MAC that the topology gives it."""
        return self.topology.mac

    @property
    def address(self) -> str:
        """The address that the topology gives it, without the prefix length; "" if it gives none."""
        return (self.topology.address or "").partition("/")[0]

    def ping(self, target: Guest | str, count: int = 3, *, interval: float = 0.01, check: bool = True) -> Ping:
        """Ping *target*, a guest or an address. AssertionError if an answer is missing, unless *check* is False."""
        to = target if isinstance(target, str) else target.address
        wait = str(max(1, round(self.patience)))
        result = self.run(["ping", "-n", "-c", str(count), "-i", f"{interval:g}", "-W", wait, to], check=False)
        found = _FIGURES.search(result.stdout)
        ping = Ping(int(found[1]), int(found[2]), result) if found else Ping(0, 0, result)
        if check and ping.received < count:
            raise AssertionError(f"{ping.received} of {count} pings were answered:\n{result}")
        return ping
