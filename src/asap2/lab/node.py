# SPDX-License-Identifier: Apache-2.0
"""Nodes: a hypervisor as network, mount and UTS namespaces, its NICs' silicon, and the daemon that serves both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import asap2.netlink
from asap2.errors import Asap2Error
from asap2.lab import units
from asap2.lab.child import Child
from asap2.lab.enter import enter
from asap2.lab.execute import ip, run
from asap2.lab.filesystem import View, lay_out, node_files
from asap2.lab.layout import REAL_SYSFS, Layout
from asap2.lab.namespaces import call_in, create
from asap2.lab.network import no_ipv6, quiet_network
from asap2.lab.supervisor import COMMAND
from asap2.lab.topology import Guest, Nic, Node
from asap2.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

REDIRECT_LIBRARY = Path(asap2.netlink.__file__).with_name("redirect.so")
DIRECTORIES = ("sock", "sys", "realsys", "bpf", "state", "log", "units")
LOG_ROOM = "64m"
"""Of the file system for the logs of Open vSwitch and OVN, which the supervisor shortens long before that is full."""


def redirect_library() -> Path:
    """The library that `make setup` builds; Asap2Error when it is not there."""
    if not REDIRECT_LIBRARY.exists():
        raise Asap2Error(f"{REDIRECT_LIBRARY} is not there; `make setup` builds it")
    return REDIRECT_LIBRARY


def make_silicon(layout: Layout, node: Node) -> None:
    """Make the network namespace of each NIC's silicon; cables can be joined to it then."""
    for nic in node.nics:
        create(layout.silicon(node.name, nic.index).parent, ["net"], no_ipv6)


def make(layout: Layout, node: Node, guests: Sequence[Guest]) -> None:
    """Make the node's namespaces and what its daemon needs; *guests*' namespaces are named in its /run/netns."""
    directory = layout.node(node.name)
    for name in DIRECTORIES:
        (directory / name).mkdir(parents=True, exist_ok=True)
    bundle = directory / "ns"

    def machine() -> None:
        socket.sethostname(node.name)
        quiet_network()

    create(bundle, ["net", "uts"], machine)
    ip(bundle / "net", "link set dev lo up")
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    call_in(bundle, lambda: mount("sysfs", directory / "realsys", "sysfs", flags), ["net"])
    mount("tmpfs", directory / "log", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=755,size={LOG_ROOM}")
    units.prepare(directory / "units")
    mount("bpffs", directory / "bpf", "bpf", flags, "mode=700")
    view = View(
        hostname=node.name,
        hidden=layout.root,
        files=node_files(redirect_library()),
        binds={
            "/run/asap2": directory / "sock",
            "/run/asap2-units": directory / "units",
            "/var/log/openvswitch": directory / "log",
            "/var/log/ovn": directory / "log",
            **{f"/run/netns/{guest.name}": layout.guest(guest.name) / "ns" / "net" for guest in guests},
        },
        sysfs=directory / "realsys",
    )
    create(bundle, ["mnt"], lambda: lay_out(view))
    (directory / "daemon.json").write_text(json.dumps(daemon_settings(layout, node, guests), indent=1) + "\n")


def daemon_settings(layout: Layout, node: Node, guests: Sequence[Guest] = ()) -> dict[str, object]:
    """What the node's daemon is told."""
    return {
        "node": node.name,
        "run_dir": str(layout.node(node.name)),
        "connections": node.connections,
        "nics": [
            {
                "name": nic.name,
                "model": nic.model,
                "pci": nic.pci,
                "ports": nic.ports,
                "total_vfs": nic.total_vfs,
                "rules": nic.rules,
                "netns": str(layout.silicon(node.name, nic.index)),
            }
            for nic in node.nics
        ],
        "guests": [
            {
                "name": guest.name,
                "netns": str(layout.guest(guest.name) / "ns" / "net"),
                "sysfs": str(layout.guest(guest.name) / REAL_SYSFS),
            }
            for guest in guests
        ],
    }


def supervise(directory: Path, notify: int | None = None) -> None:
    """Start the supervisor of the node that is in *directory*, no child of this process. It writes ``ready`` to the
    descriptor *notify* when its daemon serves, and then, or when that has failed, closes it."""
    words = [sys.executable, "-m", "asap2.lab.supervisor", str(directory)]

    def start() -> None:
        with (directory / "daemon.log").open("ab") as log:
            subprocess.Popen(
                [*words, str(notify)] if notify is not None else words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=[notify] if notify is not None else [],
                start_new_session=True,
                preexec_fn=lambda: enter(directory / "ns", ["net"]),
            )

    Child(start).result()


class Daemon:
    """A node's daemon being started by its supervisor, which restarts it when it dies."""

    def __init__(self, layout: Layout, node: Node, command: Sequence[str] | None = None) -> None:
        self.name = node.name
        self.directory = layout.node(node.name)
        read_end, write_end = os.pipe()
        words = command or [sys.executable, "-m", "asap2.nic.daemon"]
        (self.directory / COMMAND).write_text(json.dumps(words))
        self._word = os.fdopen(read_end)
        try:
            supervise(self.directory, write_end)
        finally:
            os.close(write_end)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._word.close()

    def wait_ready(self) -> None:
        """Return when the daemon serves and the node shows it; Asap2Error with its last words when it does not."""
        if self._word.read() != "ready":
            said = (self.directory / "daemon.log").read_text(errors="replace").strip().splitlines()
            raise Asap2Error(f"the daemon of {self.name} did not start: {said[-1] if said else 'it said nothing'}")


def configure(layout: Layout, node: Node, nic: Nic, guests: Sequence[Guest]) -> None:
    """Bring *nic* to the state that the topology asks for, by the steps that a person would take in the node."""
    bundle = layout.node(node.name) / "ns"

    def write(path: str, value: str) -> None:
        try:
            call_in(bundle, lambda: Path(path).write_text(f"{value}\n"))
        except OSError as error:
            raise Asap2Error(f"{node.name}: `echo {value} > {path}` failed: {error.strerror}") from None

    driver = "/sys/bus/pci/drivers/mlx5_core"
    for port in range(nic.ports if nic.vfs else 0):
        netdev = nic.netdev(port)
        addresses = [nic.vf_address(port, vf) for vf in range(nic.vfs)]
        write(f"/sys/class/net/{netdev}/device/sriov_numvfs", str(nic.vfs))
        for guest in guests:
            if guest.nic == nic and guest.node == node.name and guest.port == port and guest.mac:
                run(bundle, "ip", "link", "set", netdev, "vf", str(guest.vf), "mac", guest.mac)
        if nic.switchdev:
            for address in addresses:
                write(f"{driver}/unbind", address)
            run(bundle, "devlink", "dev", "eswitch", "set", f"pci/{nic.pf_address(port)}", "mode", "switchdev")
            run(bundle, "ethtool", "-K", netdev, "hw-tc-offload", "on")
            for address in addresses:
                write(f"{driver}/bind", address)
