# SPDX-License-Identifier: Apache-2.0
"""Guests: a namespace in the place of a virtual machine, which gets a VF as its network device."""

from __future__ import annotations

import socket
from pathlib import Path

from asap2.lab.execute import ip
from asap2.lab.filesystem import View, lay_out, redirected
from asap2.lab.layout import Layout
from asap2.lab.namespaces import create
from asap2.lab.network import quiet_network
from asap2.lab.topology import Guest


def make(layout: Layout, guest: Guest, library: Path) -> None:
    """Make the guest's namespaces. It has no network device yet but the loopback.

    With the redirect *library* its programs see in the VF what a virtual machine's see; they ask the node's daemon.
    """
    served = layout.node(guest.node) / "sock"
    served.mkdir(parents=True, exist_ok=True)
    view = View(guest.name, layout.root, redirected(library), {"/run/asap2": served})

    def inside() -> None:
        socket.sethostname(guest.name)
        lay_out(view)
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
