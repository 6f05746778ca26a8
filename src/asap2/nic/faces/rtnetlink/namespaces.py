# SPDX-License-Identifier: Apache-2.0
"""RTM_GETNSID (``ip netns list-id``): the silicon's network namespace, which hardware has not, has no id to be seen.

Source: net/core/net_namespace.c of Linux 6.12, rtnl_net_getid() and rtnl_net_dumpid().
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import Final

from asap2.netlink.request import PASS, Answer, Message, Netns, Proxy, Request
from asap2.netlink.server import Server
from asap2.netlink.wire import NETLINK_ROUTE, NLA_TYPE_MASK, NetlinkError, NlMsg, attribute, attributes

RTM_NEWNSID: Final = 88
RTM_GETNSID: Final = 90
NETNSA_NSID, NETNSA_FD, NETNSA_TARGET_NSID, NETNSA_CURRENT_NSID = 1, 3, 4, 5
_HEADER = 4
"""struct rtgenmsg, padded."""


def _ids(payload: bytes) -> dict[int, int]:
    found = [(type_ & NLA_TYPE_MASK, value) for type_, value in attributes(payload, _HEADER) if len(value) == 4]
    return {type_: struct.unpack("=i", value)[0] for type_, value in found}


class NamespaceFace:
    """Answers RTM_GETNSID; *hidden* are descriptors of the namespaces that nobody is to know of."""

    def __init__(self, server: Server, hidden: Sequence[int]) -> None:
        self._server = server
        self._hidden = hidden

    def get(self, request: Request) -> Answer:
        """One id or all, as the kernel has them, without those of hidden namespaces. A descriptor or a process that
        the program has is for the kernel to look at."""
        asked = _ids(request.payload)
        if not request.dump and NETNSA_NSID not in asked:
            return PASS
        hidden = self.hidden_in(request.client.netns)
        if not request.dump and asked[NETNSA_NSID] in hidden:
            raise NetlinkError(errno.ENOENT, "Peer netns reference is invalid")

        def shown(message: NlMsg) -> list[Message]:
            told = _ids(message.payload) if message.type == RTM_NEWNSID else {}
            number = told.get(NETNSA_CURRENT_NSID, told.get(NETNSA_NSID) if NETNSA_TARGET_NSID not in asked else None)
            return [] if request.dump and number in hidden else [Message(message.type, message.payload)]

        return Proxy(shown)

    def hidden_in(self, netns: Netns) -> set[int]:
        """The ids that hidden namespaces have in *netns*."""
        return {number for number in (self._id(netns, one) for one in self._hidden) if number >= 0}

    def _id(self, netns: Netns, descriptor: int) -> int:
        return self._ask(netns, attribute(NETNSA_FD, struct.pack("=I", descriptor)))

    def id_in(self, netns: Netns, number: int, descriptor: int) -> int | None:
        """The id that the namespace with id *number* in *netns* has in the one that is open at *descriptor*."""
        target = self._id(netns, descriptor)
        if target < 0:
            return None
        of, to = (struct.pack("=i", one) for one in (number, target))
        found = self._ask(netns, attribute(NETNSA_NSID, of) + attribute(NETNSA_TARGET_NSID, to))
        return found if found >= 0 else None

    def _ask(self, netns: Netns, asked: bytes) -> int:
        kernel = self._server.kernel(netns, NETLINK_ROUTE)
        try:
            (answer,) = kernel.request(RTM_GETNSID, 0, bytes(_HEADER) + asked)
        except NetlinkError:
            return -1
        return _ids(answer.payload).get(NETNSA_NSID, -1)
