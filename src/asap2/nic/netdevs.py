# SPDX-License-Identifier: Apache-2.0
"""The netdevs of the node: which network device is what of which NIC."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from asap2.nic.device import Nic, Pf, Vf


class Role(enum.Enum):
    """What a network device of the node is to the NIC or to Open vSwitch's datapath."""

    PF = "pf"
    """The physical function's own netdev: in switchdev mode the uplink representor."""
    VF = "vf"
    REPRESENTOR = "representor"
    INTERNAL = "internal"
    """An internal port of the Open vSwitch datapath."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class NetDev:
    """A network device in the node's (or, for a VF, another) network namespace. ``name`` and ``ifindex`` are those
    of now; ``vf`` is None for PFs; ``nic`` and ``pf`` are None for INTERNAL and OTHER."""

    ifindex: int
    name: str
    role: Role
    nic: Nic | None = None
    pf: Pf | None = None
    vf: Vf | None = None

    @property
    def phys_port_name(self) -> str | None:
        """As mlx5 gives it: ``p0`` for an uplink in switchdev mode, ``pf0vf3`` for a representor, else None."""
        if self.pf is None:
            return None
        if self.role is Role.REPRESENTOR and self.vf is not None:
            return f"pf{self.pf.index}vf{self.vf.index}"
        return f"p{self.pf.index}" if self.role is Role.PF else None

    @property
    def port_speed(self) -> int | None:
        """Mbit/s that a PF or VF says it has while it has a link; None for others, which the kernel answers for."""
        return self.nic.model.port_speed if self.nic is not None and self.role in (Role.PF, Role.VF) else None

    @property
    def offload_key(self) -> str:
        """The key of :attr:`asap2.nic.device.Pf.hw_tc_offload` and of ``settings`` for this device."""
        if self.role is Role.PF:
            return "uplink"
        return f"{'vf' if self.role is Role.VF else 'rep'}{self.vf.index if self.vf else ''}"


class Counters(NamedTuple):
    """The first of struct rtnl_link_stats64 (include/uapi/linux/if_link.h)."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    multicast: int = 0


class Where(enum.Enum):
    """Where what passes a netdev of a NIC is counted."""

    NETDEV = "netdev"
    """At the netdev itself: what it has received and sent."""
    FUNCTION = "function"
    """The same at the function that it is or stands for."""
    WIRE = "wire"
    """At the cable, of its port."""


class NetDevs(Protocol):
    """What the faces ask of the node's network devices; always the present, renames included."""

    def all(self) -> list[NetDev]:
        """The devices of NICs and of the datapath that are in the node's network namespace now."""

    def by_ifindex(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        """The device with *ifindex* in the node's namespace (None) or that with *netns_cookie*."""

    def inside(self, namespace: int) -> list[NetDev]:
        """The VFs in the network namespace that is open at *namespace*, with their names there."""

    def by_nsid(self, ifindex: int, id_in: Callable[[int], int | None]) -> NetDev | None:
        """The device with *ifindex* in the network namespace that has the id *id_in* gives in the one that is open at
        a descriptor (None: it has none)."""

    def hidden(self) -> list[int]:
        """Descriptors of the network namespaces that stand for hardware."""

    def last_known(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        """As :meth:`by_ifindex`; where there is none now, the one that had the ifindex last, its name empty."""

    def counted(self, device: NetDev, where: Where) -> Counters:
        """What has passed *device*, a NIC's, wherever it is."""

    def by_name(self, name: str, netns_cookie: int | None = None) -> NetDev | None:
        """The device called *name* there."""


class CountedNetDevs(NetDevs, Protocol):
    """Those that also tell whether anything has changed."""

    def epoch(self) -> int:
        """A number that is another when any device has come, gone or changed."""
