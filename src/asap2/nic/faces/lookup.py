# SPDX-License-Identifier: Apache-2.0
"""Finding a netdev of ours by a name, in whatever namespace the name is used."""

from __future__ import annotations

import sys

from asap2.netlink.request import Netns
from asap2.netlink.server import Server
from asap2.netlink.tables.link import LINK, RTEXT_FILTER_SKIP_STATS, RTM_GETLINK, RTM_NEWLINK, Ifinfomsg
from asap2.netlink.wire import NETLINK_ROUTE, NetlinkError


def ifindex_named(server: Server, netns: Netns, name: str) -> int | None:
    """The ifindex of the device called *name*, or with that alternative name, in *netns*; None when there is none."""
    attribute = "ifname" if len(name.encode(errors="surrogateescape")) < 16 else "alt_ifname"
    try:
        answer = server.kernel(netns, NETLINK_ROUTE).request(
            RTM_GETLINK, 0, LINK.encode(Ifinfomsg(), {attribute: name})
        )
    except NetlinkError:
        return None
    for message in answer:
        if message.type == RTM_NEWLINK:
            return int.from_bytes(message.payload[4:8], sys.byteorder, signed=True)
    return None


def name_of(server: Server, netns: Netns, ifindex: int) -> str | None:
    """The name of the device *ifindex* in *netns*; None when there is none."""
    try:
        (answer,) = server.kernel(netns, NETLINK_ROUTE).request(
            RTM_GETLINK, 0, LINK.encode(Ifinfomsg(index=ifindex), {"ext_mask": RTEXT_FILTER_SKIP_STATS})
        )
    except NetlinkError:
        return None
    name: str = LINK.decode(answer.payload)[1]["ifname"]
    return name
