# SPDX-License-Identifier: Apache-2.0
"""What network address translation does to a connection, as data."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class NatKind(enum.Enum):
    """Which end of a connection NAT gives another address."""

    SRC = "src"
    DST = "dst"


@dataclass(frozen=True, slots=True)
class Nat:
    """What ``Ct`` translates, as Open vSwitch's ``nat`` (OVS_NAT_ATTR_*) and act_ct (TCA_CT_NAT_*) say it.

    *kind* ``None``: only what the connection has already; else a new connection's source or destination becomes one of
    *ip_min* to *ip_max* (network order, empty: its own) with one of the ports *port_min* to *port_max* (0: any).
    *persistent*, *hash* and *random* say how one of them is chosen (NF_NAT_RANGE_PERSISTENT, _PROTO_RANDOM,
    _PROTO_RANDOM_FULLY).
    """

    kind: NatKind | None
    ip_min: bytes = b""
    ip_max: bytes = b""
    port_min: int = 0
    port_max: int = 0
    persistent: bool = False
    hash: bool = False
    random: bool = False
