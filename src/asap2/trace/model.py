# SPDX-License-Identifier: Apache-2.0
"""The way of one packet, as data."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Stage(enum.StrEnum):
    """Where a step takes place."""

    VF = "vf"
    """A guest's packet enters the NIC by its VF."""
    SILICON = "silicon"
    """The NIC looks the packet up, and does what its rule says."""
    REPRESENTOR = "representor"
    """Between the NIC and the node: a VF's representor, or the uplink's."""
    PIPELINE = "pipeline"
    """The node's software pipeline: TC rules and Open vSwitch's datapath."""
    UPCALL = "upcall"
    """The packet is on its way to Open vSwitch, through the daemon."""
    SWITCH = "switch"
    """What Open vSwitch has answered: rules that it puts, and what it does with the packet."""
    TUNNEL = "tunnel"
    """The packet goes into a tunnel, or comes out of one."""
    CABLE = "cable"
    """The packet leaves by the wire."""
    UPLINK = "uplink"
    """The packet comes in by the wire, at the other side."""
    HOST = "host"
    """The node's own network stack has the packet."""
    DELIVERY = "delivery"
    """A guest receives the packet by its VF."""
    DROP = "drop"
    """The packet goes nowhere."""


class Medium(enum.StrEnum):
    """What does a step."""

    HARDWARE = "hardware"
    """The NIC."""
    SOFTWARE = "software"
    """The host's CPU."""


class Ending(enum.StrEnum):
    """What became of a packet."""

    DELIVERED = "delivered"
    """A guest, or the node itself, got it, or a copy of it."""
    DROPPED = "dropped"
    """All that there was of it was dropped."""
    OUT_OF_SIGHT = "out of sight"
    """It left by a wire at whose other end nobody watches, or is still on its way."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. *at* is nanoseconds of CLOCK_MONOTONIC, *device* what people call the place, *text* what happens.

    *why* says, of what the NIC does not carry, why not. *rule* names the rule that decided, *mask* is what it matches
    on, *actions* what it does. *connection* is what connection tracking knows of the packet. *rewritten* are the fields
    that differ from those of the packet as it came in here: name, before, after.
    """

    at: int
    node: str
    device: str
    stage: Stage
    medium: Medium
    text: str
    why: str | None = None
    rule: str | None = None
    mask: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    connection: str | None = None
    rewritten: tuple[tuple[str, str, str], ...] = ()


@dataclass(slots=True)
class Way:
    """A packet, its copies, and what Open vSwitch handed in for it: *frame* is the packet where it was first seen, of
    *length* octets. *began* at *origin*, a guest or a device; *targets* are the guests and devices that got it."""

    number: int
    frame: bytes
    length: int
    origin: str
    steps: list[Step] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    """The packet wherever it was seen: what a filter looks at."""

    @property
    def began(self) -> int:
        """When the first step was, in nanoseconds of CLOCK_MONOTONIC."""
        return self.steps[0].at

    @property
    def ended(self) -> int:
        """When the last guest got it, or, if nobody did, when the last step was."""
        delivered = [step.at for step in self.steps if step.stage is Stage.DELIVERY]
        return max(delivered) if delivered else max(step.at for step in self.steps)

    @property
    def ending(self) -> Ending:
        """What became of it."""
        if self.targets:
            return Ending.DELIVERED
        dropped = any(step.stage is Stage.DROP for step in self.steps)
        return Ending.DROPPED if dropped else Ending.OUT_OF_SIGHT

    @property
    def in_hardware(self) -> bool:
        """Whether no CPU of a host has touched it."""
        return all(step.medium is Medium.HARDWARE for step in self.steps)
