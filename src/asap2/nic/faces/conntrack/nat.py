# SPDX-License-Identifier: Apache-2.0
"""NAT of a connection that a program creates (ctnetlink_setup_nat(), nfnetlink_parse_nat_setup())."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.ctnetlink import NAT, NAT_PROTO
from asap2.nic.conntrack import tuples
from asap2.nic.conntrack.nat import unique_tuple
from asap2.nic.conntrack.states import NAT_DONE_MASK, Status
from asap2.nic.conntrack.tuples import IPV4, IPV6
from asap2.nic.conntrack.view import Connection, Tuple
from asap2.nic.faces.conntrack import nests
from asap2.nic.nat import Nat, NatKind

_VERSIONS: Final = {int(socket.AF_INET): IPV4, int(socket.AF_INET6): IPV6}
_ENDS: Final = (("nat_dst", NatKind.DST, Status.DST_NAT), ("nat_src", NatKind.SRC, Status.SRC_NAT))
"""In the order in which the kernel translates them."""


def translated(made: Connection, attrs: Attrs, taken: Callable[[Tuple], bool]) -> Connection:
    """The connection *made*, with its replies' tuple and status as NAT has them; *taken* is whether a connection of its
    zone has a tuple.

    A request that translates one end keeps the other's address, and its port if that is free. The mappings that a
    source has already are not looked for, which the kernel does.

    Raises:
        NetlinkError: EINVAL or ERANGE for an invalid attribute.
    """
    if not any(name in attrs for name, _kind, _status in _ENDS):
        return made
    family = int(made.original.family)
    leaves = _other(tuples.Tuple(_VERSIONS[family], *made.reply[1:]))
    status = made.status | NAT_DONE_MASK
    for name, kind, bit in _ENDS:
        address = leaves.src if kind is NatKind.SRC else leaves.dst
        nat = _range(attrs[name], kind, leaves.family) if name in attrs else Nat(kind, address, address)
        chosen = unique_tuple(
            leaves,
            nat,
            kind,
            made.zone,
            lambda one: taken(_shown(_other(one), family)),
            random.getrandbits(16),
        )
        if chosen != leaves:
            leaves, status = chosen, status | bit
    return replace(made, reply=_shown(_other(leaves), family), status=int(status))


def _other(one: tuples.Tuple) -> tuples.Tuple:
    """The tuple of the other direction; of a type of ICMP without a reply, which no request can have, itself."""
    return one.inverse() or one


def _shown(one: tuples.Tuple, family: int) -> Tuple:
    return Tuple(family, one.proto, one.src, one.dst, one.sport, one.dport)


def _range(raw: bytes, kind: NatKind, version: int) -> Nat:
    """The range of addresses and ports in CTA_NAT_SRC or CTA_NAT_DST (nfnetlink_parse_nat())."""
    attrs = nests.decoded(NAT, raw)
    low: bytes = attrs.get(f"v{version}_min", b"")
    high: bytes = attrs.get(f"v{version}_max", low)
    ports = nests.decoded(NAT_PROTO, attrs["proto"]) if "proto" in attrs else Attrs()
    first = ports.get("port_min", 0)
    return Nat(kind, low, high if low else b"", first, ports.get("port_max", first))
