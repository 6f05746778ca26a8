# SPDX-License-Identifier: Apache-2.0
"""The ports of a pipeline, as data."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from asap2.nic.silicon.abi import TABLES


class PortKind(enum.IntEnum):
    """What stands behind a port. Only ``INTERNAL`` changes what the program does: such a port is read at tcx egress."""

    VF = 0
    REP = 1
    UPLINK = 2
    UPLINK_REP = 3
    PF = 4
    NODE = 5
    """A port of a node's software datapath."""
    INTERNAL = 6
    """An Open vSwitch internal port: what the host sends on it comes in, what goes out to it the host receives."""
    BONDED = 7
    """A way out by a wire, whose own port takes what comes in by it."""


class Deliver(enum.IntEnum):
    """How a packet is handed to a port's network device."""

    EGRESS = 0
    """Transmit on the device."""
    PEER = 1
    """Receive on the device's veth peer at once (bpf_redirect_peer), where that cannot be told from a transmission."""
    INGRESS = 2
    """Receive on the device itself."""


class Miss(enum.IntEnum):
    """What becomes of a packet that no rule matches."""

    DROP = 0
    REDIRECT = 1
    """To ``miss_port``."""
    UPCALL = 2
    """To user space."""
    PASS = 3
    """On to the network stack."""


@dataclass(frozen=True, slots=True)
class Port:
    """One port.

    *id* is any 32-bit number, the one that rules name. *ifindex* is the device that the program is attached to and
    transmits on, in the pipeline's network namespace; 0 for none. *mac* is the address of the device that a packet
    ends up at with :attr:`Deliver.PEER` (the VF's), or for a port whose packets may be passed to the network stack
    that of the device itself. *tables* are tried in turn; after the last, *miss* decides, and for
    :attr:`Miss.REDIRECT` *miss_port*.

    *peer_any* widens :attr:`Deliver.PEER` to packets for any address. The kernel takes such a packet to be addressed
    to the receiving device, so this is for devices whose every packet some program of ours takes (a cable's end, a
    representor that a node pipeline with *peer_any* on the same address reads).
    """

    id: int
    ifindex: int
    kind: PortKind
    mac: bytes = bytes(6)
    deliver: Deliver = Deliver.EGRESS
    tables: tuple[int, ...] = (0,)
    miss: Miss = Miss.DROP
    miss_port: int = 0
    enabled: bool = True
    peer_any: bool = False
    metadata: bool = False
    """A tunnel device of the kernel's: what comes in carries tunnel metadata."""
    tunnel_port: int = 0
    """The UDP port that packets came to which come in by a tunnel device."""
    resumes: bool = False
    """A NIC's representor: the NIC tells where it gave up on a packet."""
    tell: int = 0
    """Not 0: the port is behind the device, which it shares: packets are sent there with this number, by which a
    program at the device's other end knows whose they are. What comes in by the device is not the port's by itself."""
    bare: bool = False
    """The device has no Ethernet: its packets begin with their network header, what comes in and what goes out."""
    veiled: bool = False
    """A device with :attr:`bare` puts a meaningless Ethernet header in front of each packet, and wants one there."""

    def __post_init__(self) -> None:
        if len(self.mac) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(self.mac)}")
        if len(self.tables) > TABLES:
            raise ValueError(f"a port tries at most {TABLES} tables, not {len(self.tables)}")
