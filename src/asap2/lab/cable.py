# SPDX-License-Identifier: Apache-2.0
"""Cables: a veth pair from one NIC's silicon to another's, or to a switch, in place of the wire."""

from __future__ import annotations

from asap2.lab.execute import ip
from asap2.lab.layout import Layout
from asap2.lab.namespaces import create
from asap2.lab.network import no_ipv6
from asap2.lab.topology import End, Switch

WIRE_MTU = 10240
"""Bytes: room for the largest MTU of a ConnectX (9978) and a tunnel's headers."""


def connect(layout: Layout, one: End, other: End) -> None:
    """Join two ports: create the wire ``p<port>`` in the silicon of each, and set it up."""
    here, there = (layout.silicon(end.node, end.index) for end in (one, other))
    peer = f"type veth peer name p{other.port} mtu {WIRE_MTU} netns {there}"
    ip(here, f"link add name p{one.port} mtu {WIRE_MTU} {peer}", f"link set dev p{one.port} up")
    ip(there, f"link set dev p{other.port} up")


def join(layout: Layout, switch: Switch) -> None:
    """Make a switch, a network namespace with a bridge, and join its ports to it."""
    bundle = layout.switch(switch.name)
    create(bundle, ["net"], no_ipv6)
    there = bundle / "net"
    bridge = f"link add name bridge mtu {WIRE_MTU} type bridge forward_delay 0 mcast_snooping 0"
    ip(there, bridge, "link set dev bridge up")
    for number, end in enumerate(switch.ends):
        here = layout.silicon(end.node, end.index)
        peer = f"type veth peer name port{number} mtu {WIRE_MTU} netns {there}"
        ip(here, f"link add name p{end.port} mtu {WIRE_MTU} {peer}", f"link set dev p{end.port} up")
        ip(there, f"link set dev port{number} master bridge up")
