# SPDX-License-Identifier: Apache-2.0
"""What ethtool's faces ask of the kernel's own ethtool family and of links: names, states, who is meant."""

from __future__ import annotations

import errno
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.request import GenlFamily, Netns
from asap2.netlink.server import Server
from asap2.netlink.tables.ethtool import (
    ETHTOOL_MSG_FEATURES_GET,
    ETHTOOL_MSG_LINKSTATE_GET,
    ETHTOOL_MSG_STRSET_GET,
    FEATURES,
    LINKSTATE,
    STRSET,
)
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NETLINK_GENERIC, NetlinkError
from asap2.nic.faces.lookup import ifindex_named, name_of
from asap2.nic.function import Role
from asap2.nic.netdevs import NetDev, NetDevs


class EthtoolKernel:
    """The kernel's ethtool, and the NIC's netdevs in it."""

    def __init__(self, server: Server, family: GenlFamily, netdevs: NetDevs) -> None:
        self.server = server
        self.family = family
        self.netdevs = netdevs
        self._strings: dict[int, list[str]] = {}

    def ask(self, netns: Netns, payload: bytes) -> bytes:
        """The answer to one request to the kernel's own family, as it is; NetlinkError with its error."""
        return self.server.kernel(netns, NETLINK_GENERIC).request(self.family.id, 0, payload)[0].payload

    def strings(self, netns: Netns, string_set: int) -> list[str]:
        """The names of one of the kernel's own string sets (ETH_SS_*), in their order."""
        if string_set not in self._strings:
            asked = {"header": {}, "stringsets": {"stringset": [{"id": string_set}]}}
            _header, attrs = STRSET.decode(self.ask(netns, STRSET.encode(GenlHdr(ETHTOOL_MSG_STRSET_GET), asked)))
            strings = attrs["stringsets"]["stringset"][0]["strings"]["string"]
            self._strings[string_set] = [string["value"] for string in strings]
        return self._strings[string_set]

    def features(self, netns: Netns, header: dict[Any, Any]) -> Attrs:
        """The features that the kernel tells of the device that *header* names."""
        return FEATURES.decode(self.ask(netns, FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_GET), {"header": header})))[
            1
        ]

    def has_link(self, netns: Netns, device: NetDev) -> bool:
        """Whether *device* has a link."""
        asked = LINKSTATE.encode(GenlHdr(ETHTOOL_MSG_LINKSTATE_GET), {"header": {"dev_index": device.ifindex}})
        return bool(LINKSTATE.decode(self.ask(netns, asked))[1].get("link"))

    def device(self, netns: Netns, header: dict[Any, Any]) -> NetDev | None:
        """The netdev of a NIC or of a datapath that a request's or an answer's header names; None for others."""
        index = header.get("dev_index")
        if index is None and header.get("dev_name"):
            index = ifindex_named(self.server, netns, header["dev_name"])
        found = self.netdevs.by_ifindex(index, netns.cookie) if index else None
        return None if found is None or found.role is Role.OTHER else found

    def header(self, netns: Netns, device: NetDev) -> dict[str, Any]:
        """The header of an answer about *device*; ENODEV when it is gone."""
        name = name_of(self.server, netns, device.ifindex)
        if name is None:
            raise NetlinkError(errno.ENODEV)
        return {"dev_index": device.ifindex, "dev_name": name}
