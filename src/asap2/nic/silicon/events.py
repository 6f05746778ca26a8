# SPDX-License-Identifier: Apache-2.0
"""What a pipeline tells of a packet: events of one run, reasons of drops, upcalls, statistics."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from asap2.nic.rules import Psample, SetTunnel
from asap2.nic.silicon import maps


class DropReason(enum.IntEnum):
    """Why a packet, or one copy of it, went nowhere (``enum drop`` of the program)."""

    RULE = 0
    """A rule drops it, or sends it nowhere."""
    MISS = 1
    """No rule, and the port drops such packets."""
    SHORT = 2
    """Shorter than an Ethernet header."""
    IN_PORT = 3
    """The port it came in by is disabled."""
    OUT_PORT = 4
    """The port it is for is disabled or absent."""
    LOOP = 5
    """More lookups than one packet may have."""
    ACTION = 6
    """An action failed, as one on tags does with a frame that ends inside a tag; or a packet without an Ethernet header
    was to go out of a port."""
    TRUNCATE = 7
    """It could not be cut to the length asked for."""
    UPCALL = 8
    """There is no device to hand it to user space by, or its port has as many on their way there as it may have."""
    OUTPUT = 9
    """The kernel refused to transmit a copy."""
    COPY = 10
    """A copy that was to go its own way could not be made, or was one of too many copies of copies."""


class UpcallKind(enum.IntEnum):
    """Why user space gets a packet."""

    MISS = 0
    ACTION = 1
    FRAGMENT = 2
    """It is a fragment, and connections are of whole packets. The upper half of the cookie is the action that looks for
    it (:meth:`.HandingIn.kept`), and all of it is where the whole packet goes on (:meth:`.HandingIn.hand_on`)."""
    CUT = 3
    """It was put together of fragments, and goes out of a port in fragments: that of the cookie
    (:meth:`.HandingIn.port_of`)."""
    HELPER = 4
    """Its connection has a helper. The upper half of the cookie is the connection's record, and the lower is where the
    packet goes on."""


@dataclass(frozen=True, slots=True)
class UpcallContext:
    """What the program knew when it gave a packet to user space.

    *table* is where the last lookup took place. *cookie* is the action's. *skb_hash* is the kernel's flow hash.
    *length* is the packet's, without a tag in its metadata, before segmentation; *max_length* is how much of it the
    receiver is to see (Open vSwitch's ``trunc``), 0 for all. *units* is what the packet counts as among those that
    its port has on their way, *at* the sum of its port's up to and with this one. *key* is ``struct fields``. *mru*
    is the length of the largest fragment that the packet was put together of, 0 where it was not; *tunnel* the metadata
    of a tunnel that an action has given it (:meth:`.HandingIn.kept`), 0 for none; *options* those of the tunnel that it
    came in.
    """

    kind: UpcallKind
    port: int
    table: int
    cookie: int
    skb_hash: int
    length: int
    max_length: int
    units: int
    at: int
    key: bytes
    mru: int = 0
    tunnel: int = 0
    options: bytes = b""
    mark: int = 0
    """The packet's, by which the program that traces tells of it."""

    @property
    def fields(self) -> dict[str, int]:
        """The packet's values of :data:`asap2.nic.rules.FIELD_BITS`."""
        return maps.decode_fields(self.key)

    @property
    def has_ethernet(self) -> bool:
        """Whether the packet has an Ethernet header; else what stands in front of it is room for one."""
        return maps.has_ethernet(self.key)

    @property
    def about_neighbours(self) -> bool:
        """Whether it is a packet of ARP or neighbour discovery."""
        return maps.about_neighbours(self.key)

    @property
    def in_tunnel(self) -> bool:
        """Whether the packet came out of a tunnel."""
        return maps.has_tunnel(self.key)


@dataclass(frozen=True, slots=True)
class LookupStats:
    """Lookups that found a rule and that did not; packets user space lost; distinct masks; masks searched; lookups
    that the exact-match cache answered."""

    hit: int = 0
    missed: int = 0
    lost: int = 0
    masks: int = 0
    mask_hits: int = 0
    cache_hits: int = 0


@dataclass(frozen=True, slots=True)
class Matched:
    """The rule *handle* decided, in *table*."""

    handle: int
    table: int


@dataclass(frozen=True, slots=True)
class Sent:
    """*frame*, tags included, went out of *port*. *tunnel* is what an action has told the kernel's tunnel device there,
    without a port: the device has its own. *resume* is the number that the node finds with it."""

    port: int
    frame: bytes
    tunnel: SetTunnel | None = None
    resume: int = 0


@dataclass(frozen=True, slots=True)
class Upcalled:
    """*frame* went to user space, with what was known of it: *fields*, those that are not 0."""

    kind: UpcallKind
    port: int
    table: int
    cookie: int
    max_length: int
    frame: bytes
    fields: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A copy of the packet was given to the programs that listen to psample, with what *action* tells.

    *original* is the packet's length without the outer tag, *protocol* its Ethernet type, *tunnel* the one that it came
    out of or goes into (None: it is in none), *data* the octets that they get.
    """

    action: Psample
    original: int
    protocol: int
    tunnel: SetTunnel | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Passed:
    """*frame* went on to the network stack."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """It, or one copy of it, was dropped."""

    reason: DropReason


Event = Matched | Sent | Upcalled | Sampled | Passed | Dropped
