# SPDX-License-Identifier: Apache-2.0
"""Macvlan devices: several addresses on one device (drivers/net/macvlan.c)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds.kind import KindLink, Made, UpperKind, Wanted

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks
    from asap2.nic.links import Link

PRIVATE, VEPA, BRIDGE, PASSTHRU, SOURCE = 1, 2, 4, 8, 16
_FLAGS = 3
_QUEUE = 1000
_MOST = 32
_U32 = struct.Struct("=I")
_MACVLAN = struct.Struct("=IIII")
_ADDRESS = struct.Struct("=I6s2x")
_MACVLANS = struct.Struct(f"=II{2 * _MOST}I")


class Macvlan(UpperKind):
    """See the module. Kept of each device: ``mode``, ``flags``, ``queue``, and the address that frames are for."""

    name = "macvlan"
    driver = ("macvlan", "0.1", "")

    def check(self, wanted: Wanted) -> None:
        """See :class:`LinkKind`. macvlan_validate()."""
        super().check(wanted)
        data = wanted.data or {}
        if data.get("flags", 0) & ~_FLAGS or data.get("mode", VEPA) not in (PRIVATE, VEPA, BRIDGE, PASSTHRU, SOURCE):
            raise NetlinkError(errno.EINVAL)

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. macvlan_common_newlink()."""
        data, lower = wanted.data or {}, wanted.lower
        if "link" not in wanted.attrs:
            raise NetlinkError(errno.EINVAL)
        if lower is None:
            raise NetlinkError(errno.ENODEV)
        mode = data.get("mode", VEPA)
        if mode == SOURCE:
            raise NetlinkError(errno.EOPNOTSUPP)
        others = [link for link in links.above(namespace, lower.ifindex) if link.kind == self.name]
        if not lower.ethernet or any(link.data["mode"] == PASSTHRU for link in others):
            raise NetlinkError(errno.EINVAL)
        if mode == PASSTHRU and others:
            raise NetlinkError(errno.EINVAL)
        if len(others) >= _MOST:
            raise NetlinkError(errno.ENOSPC)
        kept = {"mode": mode, "flags": data.get("flags", 0), "queue": data.get("bc_queue_len", _QUEUE), "mac": ""}
        defaults: dict[str, Any] = {"mtu": lower.mtu}
        if mode == PASSTHRU:
            defaults["address"] = lower.mac
        return Made(defaults, kept)

    def install(self, links: KindLinks, link: KindLink, netns: int) -> None:
        """See :class:`LinkKind`."""
        links.run_below(link, "macvlan_in", netns)
        links.programs.run("macvlan_out", link.id, link.far, netns)
        self.follow(links, link)

    def change(self, links: KindLinks, link: KindLink, data: Mapping[Any, Any], netns: int) -> None:
        """See :class:`LinkKind`. macvlan_changelink()."""
        mode = data.get("mode", link.data["mode"])
        if PASSTHRU in (mode, link.data["mode"]) and mode != link.data["mode"]:
            raise NetlinkError(errno.EINVAL)
        if data.get("flags", 0) & ~_FLAGS or mode not in (PRIVATE, VEPA, BRIDGE, PASSTHRU):
            raise NetlinkError(errno.EINVAL)
        link.data["mode"], link.data["flags"] = mode, data.get("flags", link.data["flags"])
        link.data["queue"] = data.get("bc_queue_len", link.data["queue"])
        self._write(links, link)

    def check_change(self, links: KindLinks, link: KindLink, attrs: Mapping[Any, Any], up: bool) -> None:
        """See :class:`LinkKind`. macvlan_open(), macvlan_change_mtu()."""
        lower = links.read(link.far_namespace, link.lower)
        if lower is None:
            return
        if attrs.get("mtu", 0) > lower.mtu:
            raise NetlinkError(errno.EINVAL)
        if up and link.data["mode"] != PASSTHRU:
            near = links.read(link.namespace, link.ifindex)
            used = [other.data["mac"] for other in self._beside(links, link) if other is not link]
            if near is not None and (near.mac == lower.mac or near.mac.hex() in used):
                raise NetlinkError(errno.EADDRINUSE)

    def _beside(self, links: KindLinks, link: KindLink) -> list[KindLink]:
        """The macvlan devices on the same device."""
        return [one for one in links.above(link.far_namespace, link.lower) if one.kind == self.name]

    def follow_lower(self, links: KindLinks, link: KindLink, lower: Link, near: Link) -> None:
        """See :class:`UpperKind`. macvlan_device_event(): the carrier and MTU of the device below."""
        if near.mtu > lower.mtu:
            links.set_near(link, mtu=lower.mtu)
        address = near.mac.hex() if near.up else ""
        if address != link.data["mac"]:
            self._clear(links, link)
            link.data["mac"] = address
        self._write(links, link)
        links.set_far_up(link, lower.carrier)

    def _clear(self, links: KindLinks, link: KindLink) -> None:
        if link.data["mac"]:
            links.clear("macvlan_addresses", _ADDRESS.pack(links.below(link), bytes.fromhex(link.data["mac"])))

    def _write(self, links: KindLinks, link: KindLink) -> None:
        below, data = links.below(link), link.data
        record = _MACVLAN.pack(link.lower, below, link.far, data["mode"])
        links.programs["macvlan_devices"].update(_U32.pack(link.id), record)
        if data["mac"]:
            key = _ADDRESS.pack(below, bytes.fromhex(data["mac"]))
            links.programs["macvlan_addresses"].update(key, record)
        up = [one for one in self._beside(links, link) if one.data["mac"]]
        each = [number for one in up for number in (one.far, one.data["mode"])]
        passthru = any(one.data["mode"] == PASSTHRU for one in up)
        links.programs["macvlans"].update(
            _U32.pack(below), _MACVLANS.pack(len(up), passthru, *each, *[0] * (2 * _MOST - len(each)))
        )

    def forget(self, links: KindLinks, link: KindLink) -> None:
        """See :class:`LinkKind`."""
        self._clear(links, link)
        links.clear("macvlan_devices", _U32.pack(link.id))
        rest = self._beside(links, link)
        if rest:
            self._write(links, rest[0])
        else:
            links.clear("macvlans", _U32.pack(links.below(link)))

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. macvlan_fill_info()."""
        queues = [one.data["queue"] for one in self._beside(links, link)]
        return {
            "mode": link.data["mode"],
            "flags": link.data["flags"],
            "macaddr_count": 0,
            "bc_queue_len": link.data["queue"],
            "bc_queue_len_used": max(queues, default=link.data["queue"]),
        }
