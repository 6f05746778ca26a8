# SPDX-License-Identifier: Apache-2.0
"""The netdevs of the node: which network device is what of which NIC."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from asap2.nic.function import Function, Nic, Pf, Role, Vf


@dataclass(frozen=True, slots=True)
class NetDev:
    """A network device in the node's (or, for a VF, another) network namespace. ``name`` and ``ifindex`` are those
    of now; ``function`` is the function that it belongs to or represents, None for INTERNAL and OTHER."""

    ifindex: int
    name: str
    role: Role
    function: Function | None = None

    @property
    def nic(self) -> Nic | None:
        """The NIC of its function."""
        return self.function.nic if self.function is not None else None

    @property
    def pf(self) -> Pf | None:
        """The physical function whose eSwitch its function is a vport of."""
        return self.function.pf if self.function is not None else None

    @property
    def parent(self) -> Function | None:
        """The function that is its parent device: a representor's is the PF."""
        return self.pf if self.role is Role.REPRESENTOR else self.function

    @property
    def eswitch(self) -> Pf | None:
        """The eSwitch, by its PF, whose port it stands for: a representor's, and in switchdev mode an uplink's."""
        if self.role is Role.REPRESENTOR or (self.role is Role.PF and self.pf is not None and self.pf.switchdev):
            return self.pf
        return None

    @property
    def phys_switch_id(self) -> str | None:
        """Hexadecimal; None for what is no port of an eSwitch in switchdev mode."""
        return self.eswitch.nic.switch_id if self.eswitch is not None else None

    @property
    def phys_port_name(self) -> str | None:
        """As mlx5 gives it: ``p0`` for an uplink, ``pf0vf3`` for a representor, else None."""
        if self.role is Role.PF and self.pf is not None:
            return self.pf.wire
        return self.function.far if self.role is Role.REPRESENTOR and self.function is not None else None

    @property
    def port_speed(self) -> int | None:
        """Mbit/s that a PF or VF says it has while it has a link; None for others, which the kernel answers for."""
        return self.nic.model.port_speed if self.nic is not None and self.role is not Role.REPRESENTOR else None

    @property
    def offload_key(self) -> str:
        """The key of :attr:`asap2.nic.function.Pf.hw_tc_offload` and of ``settings`` for this device."""
        if self.role is Role.PF:
            return "uplink"
        return f"{'vf' if self.role is Role.VF else 'rep'}{self.function.index if self.function else ''}"


def reaches(function: Function, device: NetDev) -> bool:
    """Whether an eSwitch can send what comes from *function* (from the wire, where that is a PF) to *device*'s port.

    The eSwitches of a NIC's PFs are one between VFs where the model merges them, not for the wire
    (is_merged_eswitch_vfs); while the ports are bonded they are one (is_lag_dev).
    """
    if device.eswitch is function.pf:
        return True
    if device.eswitch is not None and device.nic is function.nic and function.nic.bond:
        return device.role is Role.REPRESENTOR or function is not function.pf
    between_vfs = function is not function.pf and device.role is Role.REPRESENTOR
    return between_vfs and device.nic is function.nic and function.nic.model.merged_eswitch


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

    def vf_counters(self, vf: Vf) -> dict[str, int]:
        """A VF's traffic as the VF itself counts it, and what legacy mode's rules have counted of it: ``rx_packets``,
        ``tx_packets``, ``rx_bytes``, ``tx_bytes``, ``broadcast``, ``multicast``, ``rx_dropped`` and ``tx_dropped``; a
        missing one is 0."""

    def limit(self, function: Function, mbit: int) -> bool:
        """Limit what *function* sends to so many Mbit/s, because a filter says so; False: its packets cannot wait."""

    def unlimit(self, function: Function) -> None:
        """No filter limits what *function* sends any more."""

    def by_name(self, name: str, netns_cookie: int | None = None) -> NetDev | None:
        """The device called *name* there."""


class CountedNetDevs(NetDevs, Protocol):
    """Those that also tell whether anything has changed."""

    def epoch(self) -> int:
        """A number that is another when any device has come, gone or changed."""
