# SPDX-License-Identifier: Apache-2.0
"""The generic netlink controller for emulated families: CTRL_CMD_GETFAMILY beside the kernel's own answers."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from asap2.netlink.request import (
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    PASS,
    Answer,
    GenlFamily,
    Message,
    Proxy,
    Request,
)
from asap2.netlink.tables.genl import (
    CTRL,
    CTRL_CMD_GETFAMILY,
    CTRL_CMD_GETPOLICY,
    CTRL_CMD_NEWFAMILY,
    CTRL_VERSION,
    GENL_ID_CTRL,
    GenlHdr,
)
from asap2.netlink.wire import NetlinkError, NlMsg

__all__ = ["GENL_ID_CTRL", "answer", "new_family"]


def answer(request: Request, families: Iterable[GenlFamily]) -> Answer:
    """Answer a request to nlctrl: for emulated families here, for the others by the kernel."""
    emulated = [family for family in families if not family.real]
    if len(request.payload) < 4:
        return PASS
    if request.payload[0] == CTRL_CMD_GETFAMILY and request.dump:
        return Proxy(_without(emulated), [Message(GENL_ID_CTRL, new_family(family)) for family in emulated])
    if request.payload[0] not in (CTRL_CMD_GETFAMILY, CTRL_CMD_GETPOLICY):
        return PASS
    _header, attrs = CTRL.decode(request.payload)
    for family in emulated:
        if attrs.get("family_name") == family.name or attrs.get("family_id") == family.id:
            if request.payload[0] == CTRL_CMD_GETPOLICY:
                raise NetlinkError(errno.ENODATA, at_start=True)
            return [Message(GENL_ID_CTRL, new_family(family))]
    return PASS


def new_family(family: GenlFamily) -> bytes:
    """CTRL_CMD_NEWFAMILY as ctrl_fill_info() makes it (net/netlink/genetlink.c)."""
    ops = family.ops or [(cmd, GENL_CMD_CAP_DO | GENL_CMD_CAP_DUMP) for cmd in family.handlers]
    sizes = family.version, family.hdrsize, family.maxattr
    return _encoded(family.name, family.id, sizes, tuple(ops), tuple(family.groups))


@lru_cache
def _encoded(
    name: str,
    number: int,
    sizes: tuple[int, int, int],
    ops: tuple[tuple[int, int], ...],
    groups: tuple[tuple[str, int], ...],
) -> bytes:
    """The message, which is the same each time: every program asks for it before all else."""
    version, hdrsize, maxattr = sizes
    attrs: dict[str, Any] = {
        "family_name": name,
        "family_id": number,
        "version": version,
        "hdrsize": hdrsize,
        "maxattr": maxattr,
    }
    if ops:
        attrs["ops"] = [{"id": cmd, "flags": flags} for cmd, flags in ops]
    if groups:
        attrs["mcast_groups"] = [{"id": id_, "name": group} for group, id_ in groups]
    return CTRL.encode(GenlHdr(CTRL_CMD_NEWFAMILY, CTRL_VERSION), attrs)


def _without(emulated: list[GenlFamily]) -> Any:
    names = {family.name for family in emulated}

    def rewrite(message: NlMsg) -> Iterable[Message]:
        _header, attrs = CTRL.decode(message.payload)
        if attrs.get("family_name") not in names:
            yield Message(message.type, message.payload, message.flags)

    return rewrite
