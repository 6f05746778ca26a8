# SPDX-License-Identifier: Apache-2.0
"""ERSPAN, types I to III (draft-foschiano-erspan-03; include/net/erspan.h): frames in GRE, with metadata of a mirror.

The software datapath and the node's own devices have it; no ConnectX does, so it is no
:class:`~asap2.nic.tunnels.protocol.TunnelProtocol`.
"""

from __future__ import annotations

from typing import Final

from asap2.nic.tunnels.protocol import LinkKind

METADATA_OCTETS: Final = 12
"""Octets of ``struct erspan_metadata`` (include/uapi/linux/erspan.h): the version as a host integer, and the index, or
time stamp, group tag, hardware id and direction in network byte order."""
_IFLA_GRE_LINK: Final = 1
LINKS: Final = tuple(LinkKind(name, lower=_IFLA_GRE_LINK, port=None) for name in ("erspan", "ip6erspan"))
