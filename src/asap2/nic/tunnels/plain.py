# SPDX-License-Identifier: Apache-2.0
"""Tunnels with a packet and no frame inside: GRE and bare UDP (RFC 2784, RFC 7510), in the software datapath alone."""

from __future__ import annotations

from typing import Final

from asap2.nic.tunnels.protocol import LinkKind

_IFLA_GRE_LINK, _IFLA_BAREUDP_PORT = 1, 1
LINKS: Final = (
    LinkKind("gre", lower=_IFLA_GRE_LINK, port=None),
    LinkKind("bareudp", lower=None, port=_IFLA_BAREUDP_PORT),
)
