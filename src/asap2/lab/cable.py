# SPDX-License-Identifier: Apache-2.0
"""Cables: a veth pair from one NIC's silicon to another's, in place of the wire."""

from __future__ import annotations

from asap2.lab.execute import ip
from asap2.lab.layout import Layout
from asap2.lab.topology import End

WIRE_MTU = 10240
"""Bytes: room for the largest MTU of a ConnectX (9978) and a tunnel's headers."""


def connect(layout: Layout, one: End, other: End) -> None:
    """Join two ports: create the wire ``p<port>`` in the silicon of each, and set it up."""
    here, there = (layout.silicon(end.node, end.index) for end in (one, other))
    peer = f"type veth peer name p{other.port} mtu {WIRE_MTU} netns {there}"
    ip(here, f"link add name p{one.port} mtu {WIRE_MTU} {peer}", f"link set dev p{one.port} up")
    ip(there, f"link set dev p{other.port} up")
