# SPDX-License-Identifier: Apache-2.0
"""What a link kind is to the node: how its devices are made, changed, shown, and what they do with packets.

A kind is one module with one class, and a place in :data:`asap2.nic.kinds.KINDS`. Its devices are veth pairs; what is
the same for every kind is in :mod:`asap2.nic.kinds.links`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from asap2.netlink.wire import NetlinkError

if TYPE_CHECKING:
    from asap2.netlink.codec import Table
    from asap2.nic.kinds.links import KindLinks
    from asap2.nic.links import Link

IFF_UP, IFF_BROADCAST, IFF_POINTOPOINT, IFF_NOARP = 1, 1 << 1, 1 << 4, 1 << 7
IFF_PROMISC, IFF_MASTER, IFF_SLAVE, IFF_MULTICAST = 1 << 8, 1 << 10, 1 << 11, 1 << 12
ETH_MAX_MTU = 65535
ETH_ALEN = 6


@dataclass(slots=True)
class KindLink:
    """A device of ours. Network namespaces are given by the id that they have in the silicon's; None is that one."""

    id: int
    """Names it for good, in the programs' maps too."""
    kind: str
    namespace: int
    ifindex: int
    far_namespace: int | None
    """Where the far end is: beside the device below."""
    far: int
    """The far end's ifindex."""
    lower: int = 0
    """The ifindex of the device below, in :attr:`far_namespace`; 0: there is none."""
    data: dict[str, Any] = field(default_factory=dict)
    """What the kind keeps of it, for JSON."""

    def others(self) -> list[tuple[int | None, int]]:
        """The devices that it stands on beside :attr:`lower`: the ports of a bond or VRF."""
        return [(self.far_namespace, port[0]) for port in self.data.get("ports", ())]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for a new device: *attrs* are the link's attributes, *data* its IFLA_INFO_DATA (None: it has none),
    *lower* the device that IFLA_LINK names (None: there is none such)."""

    attrs: Mapping[Any, Any]
    data: Mapping[Any, Any] | None
    lower: Link | None


@dataclass(frozen=True, slots=True)
class Made:
    """What a kind answers to :class:`Wanted`: attributes where the request has none, and what to keep."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    flags: int = 0
    """Flags of the new device beside those of a veth."""
    without: int = 0
    """Flags that a veth has and the new device has not."""


class LinkKind:
    """One kind of link. NetlinkError refuses, with the kernel's number and text."""

    name: str
    """IFLA_INFO_KIND."""
    driver = ("", "", "")
    """What ethtool -i says: driver (empty: the kind), version (empty: the kernel's release), firmware version."""
    mtus = (68, ETH_MAX_MTU)
    """Least and greatest MTU that its devices show."""
    flags, without = 0, 0
    """Interface flags that its devices show, and do not show, whatever the veth has."""
    beside_itself = False
    """Whether the far end is in the namespace of the device, though that stands on nothing when it is made."""
    movable = True
    """Whether its devices may go to other network namespaces."""
    has_carrier = True
    """Whether its devices follow a carrier: one that does not is in state UNKNOWN."""

    shows_lower = False
    """Whether its devices show a device below (IFLA_LINK) even where there is none."""

    def limits(self, link: KindLink) -> tuple[int, int]:
        """Least and greatest MTU that *link* shows."""
        return self.mtus

    hardware: int | None = None
    """ARPHRD_* that its devices show; None: Ethernet's, as a veth."""

    def shown_flags(self, link: KindLink) -> tuple[int, int]:
        """:attr:`flags` and :attr:`without` of *link*."""
        return self.flags, self.without

    def shown_addresses(self, link: KindLink) -> tuple[bytes, bytes] | None:
        """The address and the broadcast address that *link* shows; None: those of the veth."""
        return None

    def shown_mtu(self, mtu: int) -> int:
        """The MTU that a device shows whose veth has *mtu*."""
        return mtu

    def check(self, wanted: Wanted) -> None:
        """rtnl_link_ops.validate: what is refused before anything else."""
        address = wanted.attrs.get("address")
        if address is not None:
            if len(address) != ETH_ALEN:
                raise NetlinkError(errno.EINVAL)
            if address[0] & 1 or not any(address):
                raise NetlinkError(errno.EADDRNOTAVAIL)

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """rtnl_link_ops.newlink: what the new device is to be. *namespace* is that of the device below."""
        raise NotImplementedError

    def install(self, links: KindLinks, link: KindLink, netns: int) -> None:
        """Make the packet path of a new device. *netns* is a descriptor of its network namespace."""
        raise NotImplementedError

    def change(self, links: KindLinks, link: KindLink, data: Mapping[Any, Any], netns: int) -> None:
        """rtnl_link_ops.changelink; by default there is nothing to change."""

    def check_change(self, links: KindLinks, link: KindLink, attrs: Mapping[Any, Any], up: bool) -> None:
        """What the device's own functions refuse of a change: an MTU, or to be set *up*."""

    def follow(self, links: KindLinks, link: KindLink) -> bool:
        """Links have changed; False when the device has nothing left to stand on, and goes."""
        return True

    def forget(self, links: KindLinks, link: KindLink) -> None:
        """The device is no more."""

    def as_seen(self, link: KindLink, found: Link) -> Link:
        """What the rest of the node is to see in place of the veth that the kernel has *found*."""
        return replace(found, kind=self.name, peer=link.lower)

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any] | None:
        """Its IFLA_INFO_DATA; None: it has none."""
        return None


class MasterKind(LinkKind):
    """A kind whose devices have ports: ``ports`` of a device's data is a list of lists, each with a port's ifindex
    first."""

    port_flags = 0
    """Interface flags that its ports show, beside their own."""
    port_table: Table
    """Of IFLA_INFO_SLAVE_DATA."""

    def enslave(self, links: KindLinks, link: KindLink, port: Link, netns: int) -> None:
        """ndo_add_slave: *port*, in the network namespace open at *netns*, is to be a port of *link*."""
        raise NotImplementedError

    def release(self, links: KindLinks, link: KindLink, ifindex: int) -> None:
        """ndo_del_slave."""
        raise NotImplementedError

    def port_shown(self, link: KindLink, ifindex: int) -> Mapping[str, Any]:
        """IFLA_INFO_SLAVE_DATA of a port."""
        raise NotImplementedError


class UpperKind(LinkKind):
    """A kind whose devices stand on one other device, and go with it."""

    def follow(self, links: KindLinks, link: KindLink) -> bool:
        """See :class:`LinkKind`."""
        lower = links.read(link.far_namespace, link.lower)
        if lower is None:
            return False
        near = links.read(link.namespace, link.ifindex)
        if near is not None:
            self.follow_lower(links, link, lower, near)
        return True

    def follow_lower(self, links: KindLinks, link: KindLink, lower: Link, near: Link) -> None:
        """Take over what *link*, which is now *near*, has of the device below."""
        raise NotImplementedError
