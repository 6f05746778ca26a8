# SPDX-License-Identifier: Apache-2.0
"""One moment of a lab or of a host, as frozen data: what there is, what is joined to what, and what was counted.

A port's ``id`` is ``NODE/NIC/pf0vf3`` for a VF and ``NODE/DEVICE`` for every other port; it stays the same while the
port exists. Counters only grow, until the port is made again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from asap2.host.connections import Listing


class PortKind(enum.StrEnum):
    """What a port is."""

    PF = "pf"
    """A PF whose eSwitch is in legacy mode."""
    UPLINK = "uplink"
    """A PF's device in switchdev mode; its counters are the wire's."""
    VF = "vf"
    """A VF, in a guest or in the node. Its counters are those of its representor."""
    REPRESENTOR = "representor"
    """What stands for a VF in the node."""
    INTERNAL = "internal"
    """A device of a bridge, in the node."""
    TUNNEL = "tunnel"
    """A port of a bridge whose packets are put into a tunnel."""
    PATCH = "patch"
    """What joins a bridge to another; its ``twin`` is the other one's."""
    OTHER = "other"
    """Any other port of a bridge."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What has passed a port. ``in`` is what comes into the switch by the port (from the guest, the wire, the node),
    ``out`` is what leaves by it. ``hardware`` never met the host's CPU, ``software`` did. ``dropped`` are packets that
    the port, or the way from it to Open vSwitch, has refused."""

    hardware_in_packets: int = 0
    hardware_in_bytes: int = 0
    hardware_out_packets: int = 0
    hardware_out_bytes: int = 0
    software_in_packets: int = 0
    software_in_bytes: int = 0
    software_out_packets: int = 0
    software_out_bytes: int = 0
    dropped_packets: int = 0


@dataclass(frozen=True, slots=True)
class Port:
    """A port. ``nic`` is the name of its NIC, ``pf`` and ``vf`` are numbers; None where the port has none. ``guest`` is
    who has a VF; ``bridge`` has the port; ``twin`` is the id of a representor's VF, of a VF's representor,
    and of a patch port's other end."""

    id: str
    name: str
    kind: PortKind
    nic: str | None = None
    pf: int | None = None
    vf: int | None = None
    guest: str | None = None
    bridge: str | None = None
    twin: str | None = None
    up: bool | None = None
    mac: str | None = None
    counters: Counters = Counters()


@dataclass(frozen=True, slots=True)
class Drops:
    """Packets that a NIC's eSwitch has dropped, for one *reason* ("rule": a rule says so)."""

    reason: str
    packets: int


@dataclass(frozen=True, slots=True)
class Nic:
    """A NIC. ``pfs`` are the network devices of its PFs, ``address`` is the PCI address of the first, ``mode`` is
    "switchdev" or "legacy", None where it is not known. ``drops`` have no reason that has not occurred."""

    name: str
    model: str
    address: str
    mode: str | None
    pfs: tuple[str, ...]
    drops: tuple[Drops, ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of Open vSwitch. ``ports`` are the names of its interfaces."""

    name: str
    ports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Connections:
    """Tracked connections: how many are carried by a NIC, and how many by the host."""

    hardware: int
    software: int


@dataclass(frozen=True, slots=True)
class Tracked:
    """Connections that are where they are for one reason. ``what`` describes them, ``example`` is one of them."""

    code: str
    why: str
    what: str
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow of Open vSwitch's datapath. ``match`` is without what it does not match on. ``offloaded`` is the switch's
    word ("yes", "no", "partial"). ``code`` is one of docs/reasons.md, "offloaded" for one in hardware; ``why`` is its
    sentence, ``found`` what of the flow it is about, ``fix`` what to do."""

    ufid: str
    in_port: str
    outputs: tuple[str, ...]
    match: str
    actions: str
    packets: int
    bytes: int
    offloaded: str
    code: str
    why: str
    found: str
    fix: str


@dataclass(frozen=True, slots=True)
class Detail:
    """What is read only if it is wanted. ``taken`` is when, in seconds since 1970; ``trouble`` says why there is none
    of it. ``listings`` have single connections, if those are wanted."""

    taken: float
    flows: tuple[Flow, ...] = ()
    connections: Connections | None = None
    tracked: tuple[Tracked, ...] = ()
    trouble: str | None = None
    listings: tuple[Listing, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A hypervisor. ``state`` is "up", or what is wrong. ``detail`` is None unless it is wanted, and until it is
    there."""

    name: str
    state: str
    nics: tuple[Nic, ...] = ()
    ports: tuple[Port, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    detail: Detail | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """Who has a VF. ``port`` is the VF's id, None while the guest has none; ``device`` is the VF's name there."""

    name: str
    node: str
    port: str | None = None
    device: str | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cable:
    """A cable. Each of ``ends`` is the id of an uplink, or the name of a switch; ``impaired`` says that it delays or
    loses packets."""

    ends: tuple[str, str]
    impaired: bool = False


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One end of a tunnel: ``port`` is the id of the port of a bridge, ``kind`` as "vxlan". Addresses are those of the
    configuration, "flow" if a flow decides; ``peer`` is the node that has the remote address, None if no node has."""

    port: str
    kind: str
    local: str | None
    remote: str | None
    key: str | None
    peer: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment. ``taken`` is in seconds since 1970; ``source`` is "lab", "host" or "capture", ``name`` the lab's or
    the host's."""

    taken: float
    source: str
    name: str
    nodes: tuple[Node, ...] = ()
    guests: tuple[Guest, ...] = ()
    cables: tuple[Cable, ...] = ()
    tunnels: tuple[Tunnel, ...] = ()
