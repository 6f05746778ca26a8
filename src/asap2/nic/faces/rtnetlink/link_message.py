# SPDX-License-Identifier: Apache-2.0
"""The attributes of link messages, as they are put together and taken apart."""

from __future__ import annotations

import sys
from collections.abc import Container
from typing import Any

from asap2.netlink.tables.link import LINK, LINKINFO
from asap2.netlink.wire import NLA_TYPE_MASK, attribute, attributes
from asap2.nic.function import Role
from asap2.nic.netdevs import NetDev

_LINK = LINK.table.numbers
_HEADER = LINK.size
OF_A_PEER = {_LINK["link"], _LINK["link_netnsid"]}
"""Attributes that tell of a veth's other end."""


def ifindex_of(payload: bytes) -> int:
    """The interface index in a link message, which has its header."""
    return int.from_bytes(payload[4:8], sys.byteorder, signed=True)


def value_of(payload: bytes, name: str) -> bytes:
    """The payload of the last attribute *name* of a link message."""
    return {type_ & NLA_TYPE_MASK: value for type_, value in attributes(payload, _HEADER)}[_LINK[name]]


def without_peer(payload: bytes) -> bytes:
    """A link message of another address family, without what is a veth's."""
    kept = [(t, v) for t, v in attributes(payload, _HEADER) if t & NLA_TYPE_MASK not in OF_A_PEER]
    return payload[:_HEADER] + b"".join(attribute(t, v) for t, v in kept)


def has(found: list[tuple[int, bytes]], name: str) -> bool:
    """Whether the attribute *name* is among those *found*."""
    return any(type_ & NLA_TYPE_MASK == _LINK[name] for type_, _ in found)


def insert(found: list[tuple[int, bytes]], after: Container[int], encoded: bytes) -> None:
    """Put the *encoded* attributes in behind the last one whose number is in *after*."""
    place = max((i for i, (type_, _) in enumerate(found, 1) if type_ & NLA_TYPE_MASK in after), default=len(found))
    found[place:place] = attributes(encoded)


def linkinfo(value: bytes, device: NetDev | None, enslaved: bool) -> bytes:
    """IFLA_LINKINFO without the veth: nothing for a ConnectX's netdev, Open vSwitch's kind for its internal port."""
    info: dict[Any, Any] = LINKINFO.decode(value)
    if device is not None:
        info = {name: info[name] for name in ("slave_kind", "slave_data") if name in info}
        if device.role is Role.INTERNAL:
            info = {"kind": "openvswitch", **info}
    if enslaved:
        info.pop("slave_data", None)
        info["slave_kind"] = "openvswitch"
    return LINKINFO.encode(info)
