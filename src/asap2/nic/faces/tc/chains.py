# SPDX-License-Identifier: Apache-2.0
"""Chains over rtnetlink, and their templates; texts of net/sched/cls_api.c, tc_ctl_chain(), Linux 6.1."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.request import PASS, Answer, Message, Request
from asap2.netlink.server import Server
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_DELCHAIN, RTM_GETCHAIN, RTM_NEWCHAIN
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_EXCL, NetlinkError
from asap2.nic.faces.tc.blocks import MAX_CHAIN, Block, Proto
from asap2.nic.faces.tc.chain_templates import ChainTemplate, chain_template_of
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.qdiscs import HANDLE_INGRESS, RTNLGRP_TC, find_block, is_ours, seen_block

CLASSIFIERS: Final = ("flower", "matchall", "basic", "u32")


def chain_of(attrs: Attrs) -> int:
    """The chain that a request names, 0 where it names none; EINVAL."""
    chain: int = attrs.get("chain", 0)
    if chain > MAX_CHAIN:
        raise NetlinkError(errno.EINVAL, "Specified chain index exceeds upper limit")
    return chain


def chain_message(kind: int, block: Block, chain: int, template: ChainTemplate | None, flags: int = 0) -> Message:
    """What tells of a chain (tc_chain_fill_node)."""
    parent = block.index or HANDLE_INGRESS  # either block's parent is the qdisc here
    header = tables.Tcmsg(0, block.ifindex, 0, parent, 0)
    attrs: dict[str, Any] = {"chain": chain}
    if template is not None:
        attrs |= {"kind": template.kind, "options": template.key.shown()}
    return Message(kind, tables.TC.encode(header, attrs), flags)


class ChainFace:
    """The messages RTM_{NEW,DEL,GET}CHAIN.

    *elsewhere* says whether one is of another network namespace, *removed* tells that a priority is no more.
    """

    def __init__(
        self,
        server: Server,
        filters: Filters,
        elsewhere: Callable[[Request], bool],
        removed: Callable[[Request, Proto], None],
    ) -> None:
        self._server = server
        self._filters = filters
        self._elsewhere = elsewhere
        self._removed = removed
        server.route((RTM_NEWCHAIN, RTM_DELCHAIN, RTM_GETCHAIN), self._handle)

    def came(self, request: Request, block: Block, chain: int) -> None:
        """Tell that there is a chain now."""
        self._tell(request, block, chain, RTM_NEWCHAIN, block.explicit.get(chain), NLM_F_CREATE | NLM_F_EXCL)

    def went(self, request: Request, block: Block, chain: int, template: ChainTemplate | None = None) -> None:
        """Tell that a chain is no more."""
        self._tell(request, block, chain, RTM_DELCHAIN, template)

    def _tell(
        self, request: Request, block: Block, chain: int, kind: int, template: ChainTemplate | None, flags: int = 0
    ) -> None:
        self._server.notify(request.client.netns, RTNLGRP_TC, chain_message(kind, block, chain, template, flags))

    def _handle(self, request: Request) -> Answer:
        if self._elsewhere(request):
            return PASS
        header, attrs = tables.TC.decode(request.payload)
        if not is_ours(header):
            return PASS
        if request.type == RTM_GETCHAIN and request.dump:
            return self._dump(header, attrs)
        block = find_block(self._filters, header)
        chain = chain_of(attrs)
        if request.type == RTM_NEWCHAIN:
            if chain in block.explicit or block.chains.get(chain):
                raise NetlinkError(errno.EEXIST, "Filter chain already exists")
            self._filters.add_chain(block, chain, _template(attrs, request.payload))
            self.came(request, block, chain)
            return [self._message(RTM_NEWCHAIN, block, chain)] if request.echo else None
        if chain not in block.chains:
            raise NetlinkError(errno.EINVAL, "Cannot find specified filter chain")
        if request.type == RTM_DELCHAIN:
            template = block.explicit.get(chain)
            for proto in list(block.chains[chain].values()):
                self._removed(request, proto)
            self._filters.remove_chain(block, chain)
            self.went(request, block, chain, template)
            return None
        return [self._message(RTM_GETCHAIN, block, chain)]  # so tc_chain_notify() has it

    @staticmethod
    def _message(kind: int, block: Block, chain: int) -> Message:
        return chain_message(kind, block, chain, block.explicit.get(chain))

    def _dump(self, header: tables.Tcmsg, attrs: Attrs) -> list[Message]:
        try:
            block = seen_block(self._filters, header)
        except NetlinkError:
            return []
        only = attrs.get("chain")
        return [self._message(RTM_NEWCHAIN, block, chain) for chain in sorted(block.chains) if only in (None, chain)]


def _template(attrs: Attrs, request: bytes) -> ChainTemplate | None:
    """What all filters of a new chain are to be, where the request says so (tc_chain_tmplt_add); EINVAL, ENOENT."""
    kind = attrs.get("kind")
    if kind is None:
        return None
    if kind not in CLASSIFIERS:
        raise NetlinkError(errno.ENOENT, "TC classifier not found")
    if kind != "flower":
        raise NetlinkError(errno.EOPNOTSUPP, "Chain templates are not supported with specified classifier")
    if not isinstance(attrs.get("options"), Attrs):
        raise NetlinkError(errno.EINVAL)
    return chain_template_of(request)
