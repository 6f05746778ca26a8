# SPDX-License-Identifier: Apache-2.0
"""The cables of a lab that is up: which there are, how bad each is, and how many packets it has lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asap2.errors import UsageError
from asap2.lab.impair import Counted, End, make_pins
from asap2.lab.impairment import GOOD, Impairment
from asap2.lab.layout import Layout


class Cable:
    """One cable of the lab at *layout*: ``ends`` are two ports, or a port and a switch, as a lab's record has them."""

    def __init__(self, layout: Layout, record: dict[str, Any], number: int) -> None:
        self.ends: tuple[str, str] = tuple(record["cables"][number]["ends"])
        self._file = layout.cables / f"{number}.json"
        self._places = list(_places(layout, record, number))
        self._layout = layout

    @property
    def name(self) -> str:
        """Its ends."""
        return " — ".join(self.ends)

    def impairment(self) -> Impairment:
        """How bad it is."""
        return Impairment(**json.loads(self._file.read_text())) if self._file.exists() else GOOD

    def set(self, wanted: Impairment) -> None:
        """Have it be as bad as *wanted*, in both directions."""
        make_pins(self._layout.cables / "bpf")
        for end in self._made():
            end.set(wanted)
        if wanted:
            values = {"delay": wanted.delay, "jitter": wanted.jitter, "loss": wanted.loss, "rate": wanted.rate}
            self._file.write_text(json.dumps(values) + "\n")
        else:
            self._file.unlink(missing_ok=True)

    def counted(self) -> list[Counted]:
        """What has become of the packets that came in at each end since it is impaired; empty if it is not."""
        return [counted for end in self._made() if (counted := end.counted())]

    def as_data(self) -> dict[str, Any]:
        """The cable for programs."""
        wanted = self.impairment()
        found: dict[str, Any] = {"ends": list(self.ends), "impairment": wanted.as_data() if wanted else None}
        counts = [{"received": each.received, "lost": each.lost, "dropped": each.dropped} for each in self.counted()]
        return found | {"packets": dict(zip(self.ends, counts, strict=False))}

    def _made(self) -> list[End]:
        directory = self._layout.cables
        names = [
            end.replace("/", "-") if "/" in end else f"{end}-{device}"
            for end, (_, device) in zip(self.ends, self._places, strict=True)
        ]
        return [
            End(netns, device, directory / name, directory / "bpf" / name)
            for name, (netns, device) in zip(names, self._places, strict=True)
        ]


def cables(layout: Layout) -> list[Cable]:
    """All cables of the lab; UsageError when it is not up."""
    try:
        record = json.loads(layout.record.read_text())
    except FileNotFoundError:
        raise UsageError("no lab is up; `asap2 lab up TOPOLOGY` makes one") from None
    return [Cable(layout, record, number) for number in range(len(record["cables"]))]


def find(known: Sequence[Cable], one: str, other: str | None) -> Cable:
    """The cable between two ends, each as NODE/NIC/pPORT, NODE/NIC, NODE or a switch (a colon is as good as a
    slash); with one end alone the cable that is there. UsageError when there is none, or more than one."""
    wanted = [one] if other is None else [one, other]
    found = [cable for cable in known if _joins(cable, wanted)]
    if len(found) != 1:
        names = "; ".join(cable.name for cable in known) or "none"
        how = "no cable joins" if not found else "more than one cable joins"
        raise UsageError(f"{how} {' and '.join(wanted)}; there is {names}")
    return found[0]


def _joins(cable: Cable, wanted: Sequence[str]) -> bool:
    parts = [text.replace(":", "/").split("/") for text in wanted]
    for ends in (cable.ends, cable.ends[::-1]):
        if all(end.split("/")[: len(part)] == part for end, part in zip(ends, parts, strict=False)):
            return True
    return False


def _places(layout: Layout, record: dict[str, Any], number: int) -> Any:
    """The namespace and device of each end."""
    ends = record["cables"][number]["ends"]
    nodes = {node["name"]: [nic["name"] for nic in node["nics"]] for node in record["nodes"]}
    for end in ends:
        if "/" in end:
            node, nic, port = end.split("/")
            yield layout.silicon(node, nodes[node].index(nic)), port
        else:
            before = sum(cable["ends"][1] == end for cable in record["cables"][:number])
            yield Path(layout.switch(end) / "net"), f"port{before}"
