# SPDX-License-Identifier: Apache-2.0
"""IFLA_PHYS_SWITCH_ID of devices that stand on ports of an eSwitch (dev_get_port_parent_id, net/core/dev.c).

A device without an id of its own has that of the devices below it, if all of them have the same: a bond of the two
uplinks, a VLAN device on a representor, a bridge of representors. Answers have it; sysfs has it for ports alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asap2.netlink.request import Request
from asap2.netlink.tables.link import LINK
from asap2.netlink.wire import attribute, attributes
from asap2.nic.device import Driver
from asap2.nic.faces.rtnetlink.link_message import ifindex_of, insert
from asap2.nic.kinds.links import KindLinks
from asap2.nic.links import Link
from asap2.nic.netdevs import NetDevs

_LINK: Final = LINK.table.numbers
_BEFORE: Final = {_LINK[name] for name in ("address", "broadcast", "perm_address", "phys_port_id", "stats", "stats64")}
_DEEPEST: Final = 8
"""Devices on one another (MAX_NEST_DEV)."""
_UPPER: Final = ("vlan", "macvlan")
"""Kinds of the kernel's own whose devices stand on the one that IFLA_LINK names."""


class SwitchIds:
    """Those of the node's devices. *master* gives the ifindex of the Open vSwitch device that a device is a port of."""

    def __init__(self, driver: Driver, netdevs: NetDevs, kinds: KindLinks, master: Callable[[int], int | None]) -> None:
        self._driver = driver
        self._netdevs = netdevs
        self._kinds = kinds
        self._master = master
        self._request: Request | None = None
        self._there: dict[int, Link] = {}
        self._ports: dict[int, list[int]] = {}

    def put_in(self, payload: bytes, request: Request) -> bytes:
        """An RTM_NEWLINK of the node's network namespace about a device that is no port of a NIC, with the id that it
        has of devices below. *request* is what it answers: links are read once for each."""
        if not any(pf.switchdev for nic in self._driver.nics for pf in nic.pfs):
            return payload
        if request is not self._request:
            self._request = request
            self._read()
        found = self._inherited(ifindex_of(payload), _DEEPEST)
        if found is None:
            return payload
        attrs = list(attributes(payload, LINK.size))
        insert(attrs, _BEFORE, LINK.table.encode({"phys_switch_id": found}))
        return payload[: LINK.size] + b"".join(attribute(kind, value) for kind, value in attrs)

    def _read(self) -> None:
        home = self._kinds.home_of_node
        self._there = {link.ifindex: link for link in self._kinds.reader.all(home)}
        self._ports = {}
        for link in self._there.values():
            for master in (link.master, self._master(link.ifindex)):
                if master:
                    self._ports.setdefault(master, []).append(link.ifindex)

    def _inherited(self, ifindex: int, depth: int) -> bytes | None:
        found: set[bytes | None] = set()
        for lower in self._below(ifindex):
            device = self._netdevs.by_ifindex(lower)
            own = device.phys_switch_id if device is not None else None
            found.add(bytes.fromhex(own) if own else self._inherited(lower, depth - 1) if depth else None)
        return found.pop() if len(found) == 1 else None

    def _below(self, ifindex: int) -> list[int]:
        """netdev_for_each_lower_dev()."""
        home = self._kinds.home_of_node
        link = self._kinds.at(home, ifindex)
        if link is not None:
            places = [(link.far_namespace, link.lower), *link.others()]
            return [lower for namespace, lower in places if lower and namespace == home]
        own = self._there.get(ifindex)
        lower = [own.peer] if own is not None and own.kind in _UPPER and own.peer and own.nsid is None else []
        return [*lower, *self._ports.get(ifindex, ())]
