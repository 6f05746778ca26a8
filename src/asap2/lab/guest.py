# SPDX-License-Identifier: Apache-2.0
"""Guests: a namespace in the place of a virtual machine, which gets a VF as its network device."""

from __future__ import annotations

import socket

from asap2.lab.execute import ip
from asap2.lab.filesystem import View, lay_out
from asap2.lab.layout import Layout
from asap2.lab.namespaces import create
from asap2.lab.network import quiet_network
from asap2.lab.topology import Guest


def make(layout: Layout, guest: Guest) -> None:
    """Make the guest's namespaces. It has no network device yet but the loopback."""

    def inside() -> None:
        socket.sethostname(guest.name)
        lay_out(View(guest.name, layout.root))
        quiet_network()

    create(layout.guest(guest.name) / "ns", ["net", "uts", "mnt"], inside)
    ip(layout.guest(guest.name) / "ns" / "net", "link set dev lo up")


def give_vf(layout: Layout, guest: Guest) -> None:
    """Hand the guest's VF over from its node, as its ``device``, with the MAC and address that the topology gives."""
    netns = layout.guest(guest.name) / "ns" / "net"
    ip(layout.node(guest.node) / "ns" / "net", f"link set dev {guest.vf_netdev} netns {netns}")
    lines = [f"link set dev {guest.vf_netdev} name {guest.device}"]
    if guest.mac:
        lines.append(f"link set dev {guest.device} address {guest.mac}")
    if guest.address:
        lines.append(f"address add {guest.address} dev {guest.device}")
    ip(netns, *lines, f"link set dev {guest.device} up")
