# SPDX-License-Identifier: Apache-2.0
"""VLAN devices, 802.1Q and 802.1ad, on any device (net/8021q/vlan_netlink.c, vlan_dev.c, vlan.c)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import ETH_P_8021AD, ETH_P_8021Q
from asap2.nic.kinds.kind import ETH_MAX_MTU, KindLink, Made, UpperKind, Wanted

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks
    from asap2.nic.links import Link

REORDER_HDR, LOOSE_BINDING = 1, 4
_ALL_FLAGS = 31
_VIDS = 4096
_QOS_ENTRIES = 16
_DEVICE = struct.Struct("=I2sHI32I8I")
_VLAN = struct.Struct("=I2sH")
_UPPER = struct.Struct("=III")


def _refused(number: int, text: str) -> NetlinkError:
    return NetlinkError(number, f"8021q: {text}")


class Vlan(UpperKind):
    """See the module. Kept of each device: ``protocol``, ``id``, ``flags``, ``egress`` and ``ingress`` (pairs in the
    order in which they were given), ``mac`` of the device below and whether that was ``up``, ``mark``."""

    name = "vlan"
    driver = ("802.1Q VLAN Support", "1.8", "N/A")
    mtus = (0, ETH_MAX_MTU)

    def check(self, wanted: Wanted) -> None:
        """See :class:`LinkKind`. vlan_validate()."""
        super().check(wanted)
        data = wanted.data
        if data is None:
            raise _refused(errno.EINVAL, "VLAN properties not specified")
        if data.get("protocol", ETH_P_8021Q) not in (ETH_P_8021Q, ETH_P_8021AD):
            raise _refused(errno.EPROTONOSUPPORT, "Invalid VLAN protocol")
        if data.get("id", 0) >= _VIDS:
            raise _refused(errno.ERANGE, "Invalid VLAN id")
        if "flags" in data and data["flags"].flags & data["flags"].mask & ~_ALL_FLAGS:
            raise _refused(errno.EINVAL, "Invalid VLAN flags")

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. vlan_newlink()."""
        data, lower = wanted.data or {}, wanted.lower
        if "id" not in data:
            raise _refused(errno.EINVAL, "VLAN id not specified")
        if "link" not in wanted.attrs:
            raise _refused(errno.EINVAL, "link not specified")
        if lower is None:
            raise _refused(errno.ENODEV, "link does not exist")
        if not lower.ethernet:
            raise _refused(errno.EOPNOTSUPP, "VLANs not supported on device")
        protocol = data.get("protocol", ETH_P_8021Q)
        for other in links.above(namespace, lower.ifindex):
            if other.kind == self.name and (other.data["protocol"], other.data["id"]) == (protocol, data["id"]):
                raise _refused(errno.EEXIST, "VLAN device already exists")
        if wanted.attrs.get("mtu", 0) > lower.mtu:
            raise NetlinkError(errno.EINVAL)
        kept = {
            "protocol": protocol,
            "id": data["id"],
            "flags": REORDER_HDR,
            "egress": [],
            "ingress": [],
            "mac": lower.mac.hex(),
            "up": lower.up,
        }
        _take(kept, data)
        return Made({"address": lower.mac, "mtu": lower.mtu}, kept)

    def install(self, links: KindLinks, link: KindLink, netns: int) -> None:
        """See :class:`LinkKind`."""
        assert link.far_namespace is not None
        self._write(links, link)
        links.run_below(link, "vlan_in", netns)
        links.programs.run("vlan_out", link.id, link.far, netns)
        self._mark(links, link, netns)
        self.follow(links, link)

    def change(self, links: KindLinks, link: KindLink, data: Mapping[Any, Any], netns: int) -> None:
        """See :class:`LinkKind`. vlan_changelink(): flags and maps; the rest is ignored, as in the kernel."""
        _take(link.data, data)
        self._write(links, link)
        self._mark(links, link, netns)

    def _mark(self, links: KindLinks, link: KindLink, netns: int) -> None:
        for program, hook, pairs in (("vlan_mark", "egress", "egress"), ("vlan_read", "ingress", "ingress")):
            if not link.data[pairs]:
                links.programs.stop(program, link.id)
            elif not links.programs.runs(program, link.id):
                links.programs.run(program, link.id, link.ifindex, netns, "egress" if hook == "egress" else "ingress")

    def _write(self, links: KindLinks, link: KindLink) -> None:
        data = link.data
        egress = [number for pair in data["egress"][:_QOS_ENTRIES] for number in pair]
        ingress = dict(data["ingress"])
        protocol = data["protocol"].to_bytes(2, "big")
        links.programs["devices"].update(
            struct.pack("=I", link.id),
            _DEVICE.pack(
                *(link.lower, protocol, data["id"], len(egress) // 2),
                *(*egress, *[0] * (2 * _QOS_ENTRIES - len(egress))),
                *(ingress.get(pcp, 0) for pcp in range(8)),
            ),
        )
        below = _VLAN.pack(links.below(link), protocol, data["id"])
        links.programs["vlans"].update(below, _UPPER.pack(link.id, link.far, bool(ingress)))

    def check_change(self, links: KindLinks, link: KindLink, attrs: Mapping[Any, Any], up: bool) -> None:
        """See :class:`LinkKind`. vlan_dev_change_mtu(), vlan_dev_open()."""
        lower = links.read(link.far_namespace, link.lower)
        if lower is None:
            return
        if attrs.get("mtu", 0) > lower.mtu:
            raise NetlinkError(errno.ERANGE)
        if up and not lower.up and not link.data["flags"] & LOOSE_BINDING:
            raise NetlinkError(errno.ENETDOWN)

    def follow_lower(self, links: KindLinks, link: KindLink, lower: Link, near: Link) -> None:
        """See :class:`UpperKind`. vlan_device_event()."""
        self._follow_settings(links, link, lower, near)
        if lower.up:  # what stands on a device that is down is down itself, or looks at nothing (loose binding)
            links.set_far_up(link, lower.carrier)

    def _follow_settings(self, links: KindLinks, link: KindLink, lower: Link, near: Link) -> None:
        data = link.data
        if near.mtu > lower.mtu:
            links.set_near(link, mtu=lower.mtu)
        was = bytes.fromhex(data["mac"])
        if lower.mac != was:
            if near.mac == was:
                links.set_near(link, address=lower.mac)
            data["mac"] = lower.mac.hex()
        if lower.up != data["up"]:
            if near.up != lower.up and not data["flags"] & LOOSE_BINDING:
                links.set_near(link, up=lower.up)
            data["up"] = lower.up

    def forget(self, links: KindLinks, link: KindLink) -> None:
        """See :class:`LinkKind`."""
        protocol = link.data["protocol"].to_bytes(2, "big")
        links.clear("vlans", _VLAN.pack(links.below(link), protocol, link.data["id"]))

    def as_seen(self, link: KindLink, found: Link) -> Link:
        """See :class:`LinkKind`."""
        return replace(super().as_seen(link, found), vlan=(link.data["protocol"], link.data["id"]))

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. vlan_fill_info()."""
        data = link.data
        found: dict[str, Any] = {"protocol": data["protocol"], "id": data["id"]}
        if data["flags"]:
            found["flags"] = (data["flags"], 0xFFFF_FFFF)
        for name in ("ingress", "egress"):
            pairs = sorted((one, other) for one, other in data[name] if other)
            if pairs:
                found[f"{name}_qos"] = {"mapping": pairs}
        return found


def _take(kept: dict[str, Any], data: Mapping[Any, Any]) -> None:
    """Put what a request says into what is kept of a device."""
    if "flags" in data:
        flags, mask = data["flags"]
        kept["flags"] = (kept["flags"] & ~mask) | (flags & mask)
    for name in ("ingress", "egress"):
        for one, other in data.get(f"{name}_qos", {}).get("mapping", ()):
            pairs: list[list[int]] = kept[name]
            known = next((pair for pair in pairs if pair[0] == one), None)
            if name == "ingress" and one > 7:
                continue
            if known is not None:
                known[1] = other
            elif other or name == "ingress":
                pairs.append([one, other])
