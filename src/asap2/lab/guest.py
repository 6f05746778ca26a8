# SPDX-License-Identifier: Apache-2.0
"""Guests: namespaces that take the place of virtual machines and get a VF as their network device."""

from __future__ import annotations

import socket
from pathlib import Path

from asap2.lab.execute import ip
from asap2.lab.filesystem import View, lay_out, redirected
from asap2.lab.layout import REAL_SYSFS, Layout
from asap2.lab.namespaces import call_in, create
from asap2.lab.network import quiet_network
from asap2.lab.topology import Guest
from asap2.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount


def make(layout: Layout, guest: Guest, library: Path) -> None:
    """Make the guest's namespaces. It has no network device yet but the loopback.

    With the redirect *library* its programs see in the VF what a virtual machine's see; they ask the node's daemon.
    """
    served, sysfs = layout.node(guest.node) / "sock", layout.guest(guest.name) / REAL_SYSFS
    for directory in (served, sysfs):
        directory.mkdir(parents=True, exist_ok=True)
    bundle = layout.guest(guest.name) / "ns"

    def machine() -> None:
        socket.sethostname(guest.name)
        quiet_network()

    create(bundle, ["net", "uts"], machine)
    ip(bundle / "net", "link set dev lo up")
    call_in(bundle, lambda: mount("sysfs", sysfs, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC), ["net"])
    view = View(guest.name, layout.root, redirected(library), {"/run/asap2": served}, sysfs)
    create(bundle, ["mnt"], lambda: lay_out(view))


def give_vf(layout: Layout, guest: Guest) -> None:
    """Move the guest's VF from its node into the guest as ``device``, with the topology's MAC and address."""
    netns = layout.guest(guest.name) / "ns" / "net"
    ip(layout.node(guest.node) / "ns" / "net", f"link set dev {guest.vf_netdev} netns {netns}")
    lines = [f"link set dev {guest.vf_netdev} name {guest.device}"]
    if guest.mac:
        lines.append(f"link set dev {guest.device} address {guest.mac}")
    if guest.address:
        lines.append(f"address add {guest.address} dev {guest.device}")
    ip(netns, *lines, f"link set dev {guest.device} up")
