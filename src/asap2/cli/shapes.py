# SPDX-License-Identifier: Apache-2.0
"""The shape of each answer (docs/json.md): from here come the files of docs/schemas."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from asap2.host.check.finding import Finding
from asap2.host.explain.connections import Placed
from asap2.host.explain.explain import Explanation
from asap2.host.refused import Refused
from asap2.host.setup.changes import Change
from asap2.host.setup.persist import Written
from asap2.host.status import Status
from asap2.host.verify.verify import Result
from asap2.live.snapshot import Snapshot
from asap2.openstack.config.files import File
from asap2.openstack.config.values import Values
from asap2.top.rows import Round
from asap2.trace.data import WayData

Verdict = Literal["ok", "fail"]


class Error(TypedDict):
    """In place of the answer of a command that failed: what is wrong, what to do, and the command's exit status. The
    same sentence is on standard error."""

    error: str
    what_to_do: str | None
    status: int


class Check(TypedDict):
    """`asap2 host check`: PFs are PCI addresses; ``summary`` counts findings by verdict, and ``checks`` are the ids of
    all checks."""

    host: str
    taken: str
    pfs: list[str]
    verdict: Verdict
    summary: dict[str, int]
    checks: list[str]
    findings: list[Finding]


class Explain(TypedDict):
    """`asap2 host explain`: ``reasons`` counts flows by code (docs/reasons.md)."""

    host: str
    taken: str
    reasons: dict[str, int]
    flows: list[Explanation]
    connections: list[Placed]
    refused: list[Refused]
    logical_trouble: str | None


class Proof(TypedDict):
    """Traffic from a VF, and whether it was offloaded; ``error`` is why there was none."""

    host: NotRequired[str]
    pf: NotRequired[str]
    vf: NotRequired[int]
    representor: NotRequired[str]
    offloaded: bool
    results: NotRequired[list[Result]]
    error: NotRequired[str]


class Verify(TypedDict):
    """`asap2 host verify`: ``pf`` is a PCI address, ``vf`` the VF's number."""

    host: str
    pf: str
    vf: int
    representor: str
    offloaded: bool
    results: list[Result]


class Step(TypedDict):
    """A step, and the commands that do the same."""

    title: str
    commands: list[str]


class Setup(TypedDict):
    """`asap2 host setup`."""

    changed: bool
    steps: list[Step]
    changes: list[Change]
    verify: NotRequired[Proof]
    seconds: float


class Undo(TypedDict):
    """`asap2 host undo`: ``removed`` are files, ``left`` what is not as it was before."""

    changed: bool
    removed: list[str]
    left: list[str]
    steps: list[Step]
    changes: list[Change]
    seconds: float


class Persist(TypedDict):
    """`asap2 host persist`: the files that are written or removed, or would be."""

    changed: bool
    files: list[Written]


class Port(TypedDict):
    """A port of a software NIC: its PF's network device and PCI address, the eSwitch's mode, and how many VFs it has,
    and how many of them are in a guest. None: the node's daemon does not run."""

    netdev: str
    pci: str
    mode: Literal["legacy", "switchdev"] | None
    num_vfs: int | None
    used_vfs: int | None


class Nic(TypedDict):
    """A software NIC."""

    name: str
    model: str
    total_vfs: int
    ports: list[Port]


class Node(TypedDict):
    """A hypervisor of a lab: ``state`` is "up", "no daemon", or why its daemon will never serve; ``daemon`` is a
    process id."""

    name: str
    nics: list[Nic]
    daemon: int | None
    state: str
    processes: int


class Bad(TypedDict):
    """What a cable does to packets in each direction; 0: nothing."""

    delay_ms: float
    jitter_ms: float
    loss_percent: float
    rate_mbit: float


class Packets(TypedDict):
    """Packets that came in at an end of a cable since it is impaired, those of them that it lost, and those for which
    its delay had no room."""

    received: int
    lost: int
    dropped: int


class Cable(TypedDict):
    """A cable: its ends are ports (NODE/NIC/pPORT), or a port and a switch; ``packets`` has a key for each end that is
    impaired."""

    ends: list[str]
    impairment: Bad | None
    packets: dict[str, Packets]


class Guest(TypedDict):
    """A guest: ``vf`` is its device's name in the node, ``device`` that in the guest, ``address`` its IP address."""

    name: str
    node: str
    vf: str
    device: str
    mac: str | None
    address: str | None
    processes: int


class OneLab(TypedDict):
    """A lab: one that is not "up" has neither nodes nor guests."""

    name: str
    root: str
    state: Literal["up", "half up", "of another version"]
    since: str | None
    nodes: list[Node]
    cables: list[Cable]
    guests: list[Guest]


class LabLs(TypedDict):
    """`asap2 lab ls`."""

    labs: list[OneLab]


class LabCable(TypedDict):
    """`asap2 lab cable`."""

    cables: list[Cable]


class Listed(TypedDict):
    """A topology that comes with asap2."""

    name: str
    about: str


class LabTopologies(TypedDict):
    """`asap2 lab topologies`: all, or the one that is named, with its file."""

    topologies: NotRequired[list[Listed]]
    name: NotRequired[str]
    text: NotRequired[str]


class Service(TypedDict):
    """A service of OpenStack; ``pid`` is None where it does not run."""

    service: str
    host: str
    pid: int | None
    log: str


class OpenstackLs(TypedDict):
    """`asap2 openstack ls`."""

    services: list[Service]


class OpenstackConfig(TypedDict):
    """`asap2 openstack config`, and with --check only the later keys."""

    format: NotRequired[str]
    values: NotRequired[Values]
    files: NotRequired[list[File]]
    host: NotRequired[str | None]
    versions: NotRequired[dict[str, str]]
    settings: NotRequired[int]
    verdict: NotRequired[Verdict]
    summary: NotRequired[dict[str, int]]
    findings: NotRequired[list[Finding]]


class Trace(TypedDict):
    """`asap2 trace`: the ways of packets in the order in which they began; ``lost`` counts steps of which nobody knows,
    as packets came faster than they are read."""

    lost: int
    ways: list[WayData]


class Bench(TypedDict):
    """`asap2 bench`: figures by path or measurement; keys differ by suite."""

    suite: str
    rounds: NotRequired[int]
    targets: NotRequired[dict[str, Any]]
    ratios: NotRequired[dict[str, Any]]
    paths: NotRequired[dict[str, dict[str, float]]]
    hosts: NotRequired[dict[str, dict[str, float]]]
    figures: NotRequired[dict[str, Any]]
    load_average_before: NotRequired[float]
    seconds: NotRequired[float]
    tolerance_percent: NotRequired[float]
    rates: NotRequired[list[Any]]


class Live(Snapshot):
    """One moment of a lab or of a host: what `asap2.live` gives, and `asap2 view` shows."""


SHAPES: dict[str, Any] = {
    "error": Error,
    "host-check": Check,
    "host-setup": Setup,
    "host-undo": Undo,
    "host-status": Status,
    "host-top": Round,
    "host-verify": Verify,
    "host-explain": Explain,
    "host-persist": Persist,
    "lab-ls": LabLs,
    "lab-cable": LabCable,
    "lab-topologies": LabTopologies,
    "openstack-ls": OpenstackLs,
    "openstack-config": OpenstackConfig,
    "trace": Trace,
    "bench": Bench,
    "live": Live,
    "top": Round,
}
