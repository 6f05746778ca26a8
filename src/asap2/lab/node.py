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
from asap2.lab.child import Child
from asap2.lab.enter import enter
from asap2.lab.execute import ip, run
from asap2.lab.filesystem import View, lay_out, node_files
from asap2.lab.layout import Layout
from asap2.lab.namespaces import call_in, create
from asap2.lab.network import no_ipv6, quiet_network
from asap2.lab.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount
from asap2.lab.topology import Guest, Nic, Node

REDIRECT_LIBRARY = Path(asap2.netlink.__file__).with_name("redirect.so")
DIRECTORIES = ("sock", "sys", "realsys", "bpf", "state")


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
    mount("bpffs", directory / "bpf", "bpf", flags, "mode=700")
    view = View(
        hostname=node.name,
        hidden=layout.root,
        files=node_files(redirect_library()),
        binds={
            "/run/asap2": directory / "sock",
            **{f"/run/netns/{guest.name}": layout.guest(guest.name) / "ns" / "net" for guest in guests},
        },
        sysfs=directory / "realsys",
    )
    create(bundle, ["mnt"], lambda: lay_out(view))
    (directory / "daemon.json").write_text(json.dumps(daemon_settings(layout, node), indent=1) + "\n")


def daemon_settings(layout: Layout, node: Node) -> dict[str, object]:
    """What the node's daemon is told."""
    return {
        "node": node.name,
        "run_dir": str(layout.node(node.name)),
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
    }


class Daemon:
    """A node's daemon being started, under a supervisor that starts it anew when it dies and is no child of ours."""

    def __init__(self, layout: Layout, node: Node, command: Sequence[str] | None = None) -> None:
        self.name = node.name
        self.directory = layout.node(node.name)
        read_end, write_end = os.pipe()
        words = [sys.executable, "-m", "asap2.lab.supervisor", str(self.directory), str(write_end)]
        words += command or [sys.executable, "-m", "asap2.nic.daemon"]

        def supervise() -> None:
            with (self.directory / "daemon.log").open("ab") as log:
                subprocess.Popen(
                    [*words, str(self.directory / "daemon.json")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[write_end],
                    start_new_session=True,
                    preexec_fn=lambda: enter(self.directory / "ns", ["net"]),
                )

        self._word = os.fdopen(read_end)
        try:
            Child(supervise).result()
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
