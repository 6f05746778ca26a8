# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch's flows in a node: find them, wait for them, and say why one is not offloaded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from asap2.errors import Asap2Error
from asap2.host.explain.flow import Flow, match_text, parse
from asap2.testing.looks import looks

if TYPE_CHECKING:
    from asap2.testing.place import Place

__tracebackhide__ = True  # pytest shows the line of the test, not ours

DUMP = ("ovs-appctl", "dpctl/dump-flows", "-m")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a flow is not offloaded, as ``asap2 host explain`` says: ``code`` is one of docs/reasons.md."""

    flow: Flow
    code: str
    why: str
    found: str
    fix: str

    def __str__(self) -> str:
        return f"{self.code}: {self.why}{f' ({self.found})' if self.found else ''}; to mend it: {self.fix}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which flows are meant: those with every one of ``parts`` in their text, from ``in_port`` (None: any)."""

    parts: tuple[str, ...] = ()
    in_port: str | None = None
    offloaded: bool | None = None

    def matches(self, flow: Flow) -> bool:
        """Whether *flow* is one of them."""
        return self.concerns(flow) and (self.offloaded is None or self.offloaded == is_offloaded(flow))

    def concerns(self, flow: Flow) -> bool:
        """The same, wherever the flow is."""
        return (self.in_port is None or self.in_port == flow.in_port) and all(part in flow.text for part in self.parts)

    @property
    def anywhere(self) -> Wanted:
        """The same flows, wherever they are."""
        return replace(self, offloaded=None)

    def __str__(self) -> str:
        kind = {None: "flow", True: "offloaded flow", False: "flow that is not offloaded"}[self.offloaded]
        parts = " and ".join(self.parts)
        return f"{kind}{f' from {self.in_port}' if self.in_port else ''}{f' with {parts}' if parts else ''}"


def is_offloaded(flow: Flow) -> bool:
    """Whether the NIC has *flow*."""
    return flow.offloaded == "yes"


def read_flows(place: Place) -> list[Flow]:
    """All flows of the node's system datapath; CommandError when Open vSwitch does not run."""
    return [parse(line) for line in place.run(DUMP).stdout.splitlines() if "actions:" in line]


def wait_for_flow(place: Place, wanted: Wanted, packets: int, timeout: float) -> Flow:
    """The first flow that is *wanted* and has counted *packets*; AssertionError when there is none in time."""

    def find(flows: list[Flow]) -> Flow | None:
        return next((flow for flow in flows if wanted.matches(flow) and flow.packets >= packets), None)

    counted = f" that has counted {packets} packets" if packets else ""
    return _wait(place, find, timeout, f"{place.name} has no {wanted}{counted}")


def wait_until_all(place: Place, wanted: Wanted, timeout: float) -> list[Flow]:
    """The flows that *wanted* concerns, when there are some and all are where it says; AssertionError otherwise."""

    def find(flows: list[Flow]) -> list[Flow] | None:
        concerned = [flow for flow in flows if wanted.concerns(flow)]
        return concerned if concerned and all(map(wanted.matches, concerned)) else None

    where = "offloaded" if wanted.offloaded else "in software"
    return _wait(place, find, timeout, f"{place.name} must have a {wanted.anywhere}, and every such flow {where}")


T = TypeVar("T")


def _wait(place: Place, find: Callable[[list[Flow]], T | None], timeout: float, complaint: str) -> T:
    for _ in looks(timeout):
        flows = read_flows(place)
        if (found := find(flows)) is not None:
            return found
    raise AssertionError(f"{complaint}, after {timeout:g} s.\n{describe(place, flows)}")


def explain(place: Place, *what: str) -> list[Reason]:
    """What ``asap2 host explain`` says of the flows that are not offloaded, or of those that it is asked about."""
    answer = place.asap2("host", "explain", "--json", *what)
    return [
        Reason(parse(one["flow"]), one["code"], one["why"], one["found"], one["fix"])
        for one in json.loads(answer.stdout)["flows"]
    ]


def describe(place: Place, flows: Iterable[Flow]) -> str:
    """*flows* of a node, one a line, each that is not offloaded with the reason."""
    flows = list(flows)
    if not flows:
        return f"{place.name} has no flows: no packet has reached Open vSwitch, or its flows have aged out."
    reasons: dict[str | None, Reason] = {}
    with contextlib.suppress(Asap2Error, ValueError, KeyError):
        reasons = {reason.flow.ufid: reason for reason in explain(place)}
    lines = [f"The flows of {place.name}:"]
    for flow in flows:
        lines.append(f"  {'offloaded  ' if is_offloaded(flow) else 'in software'}  {brief(flow)}")
        if reason := reasons.get(flow.ufid):
            lines.append(f"      {reason}")
    return "\n".join(lines)


def brief(flow: Flow) -> str:
    """*flow* without what it does not match on."""
    actions = ",".join(map(str, flow.actions))
    return f"{match_text(flow)}, packets:{flow.packets}, actions:{actions}"
