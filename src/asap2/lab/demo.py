# SPDX-License-Identifier: Apache-2.0
"""The getting-started procedure on two software hypervisors, step by step as its page has it, then the proofs.

The page is "Getting started with Mellanox ASAP^2": it is typed on both nodes, with a guest on VF 3 of each. What the
names of things are is taken from what the commands show, as a person would.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from asap2.errors import Asap2Error
from asap2.lab.lab import Lab
from asap2.lab.proofs import BRIDGE, MAX_IDLE, VLAN, Figures, Proofs
from asap2.lab.terminal import OutputError, Terminal, as_data, expect
from asap2.lab.topology import Guest, Topology, parse
from asap2.screen import Screen

VFS = 4
"""Virtual functions that each NIC gets; the guest takes the last."""
DRIVER = "/sys/bus/pci/drivers/mlx5_core"


@dataclass(slots=True)
class Host:
    """A node and its guest, and what the node's own commands said about its NIC."""

    name: str
    guest: Guest
    pci: str = ""
    pf: str = ""
    vfs: list[str] = field(default_factory=list)
    representor: str = ""


def topology() -> Topology:
    """The demo's lab: two nodes, each with a ConnectX-5, a cable, two guests."""
    return parse(resources.files("asap2.lab").joinpath("topologies/two-nodes.toml").read_text())


class Demo:
    """One run, its comparison in so many *rounds*; :meth:`report` tells how it went."""

    def __init__(self, lab: Lab, screen: Screen, rounds: int = 3) -> None:
        self.lab = lab
        self.rounds = rounds
        self.topology = topology()
        self.terminal = Terminal(lab.layout, screen)
        self.hosts = [
            Host(node.name, next(guest for guest in self.topology.guests if guest.node == node.name))
            for node in self.topology.nodes
        ]
        self.figures = Figures()
        self.failure: str | None = "it was not done"
        self.seconds = 0.0

    def run(self, keep: bool) -> None:
        """Bring the lab up, do the procedure, prove what it does, and take the lab down, unless told to *keep* it."""
        began = time.monotonic()
        self.terminal.heading("Two hypervisors, each with a software ConnectX-5, joined by a cable")
        self.lab.up(self.topology)
        self.terminal.done("the lab is up", time.monotonic() - began)
        try:
            for host in self.hosts:
                self._virtual_functions(host)
                self._switchdev(host)
                self._open_vswitch(host)
                self._guest(host)
            Proofs(self.terminal, self.hosts, self.figures).all(self.rounds)
            self.failure = None
        except Asap2Error as error:
            self.failure = str(error)
        finally:
            if not keep:
                self.lab.down()
        self.seconds = time.monotonic() - began

    def report(self) -> dict[str, Any]:
        """The report, as plain data."""
        return {"ok": self.failure is None, "steps": as_data(self.terminal.steps), **self.figures.as_data()}

    def print_summary(self) -> None:
        """Print the summary table and the headline."""
        headline = self.figures.headline(self.terminal.screen.width)
        self.terminal.summary(self.figures.rows(), self.seconds, self.failure, headline)

    def _virtual_functions(self, host: Host) -> None:
        type_ = self.terminal.type
        self.terminal.heading(f"{host.name}: the NIC and its virtual functions")
        output = type_(host.name, "lspci | grep Mellanox", expect(r"^(\S+) .*\[(ConnectX-[^]]+)\]", "a {2} at {1}"))
        host.pci = f"0000:{output.split()[0]}"
        of_the_nic = rf"(\S+) -> \S+/{host.pci}/net/"
        output = type_(host.name, "ls -l /sys/class/net/", expect(of_the_nic, "its netdev is {1}"))
        host.pf = re.findall(of_the_nic, output)[0]
        device = f"/sys/class/net/{host.pf}/device"
        type_(host.name, f"echo {VFS} > {device}/sriov_numvfs")
        output = type_(host.name, f"ls -l {device}/ | grep virtfn", counts(r"virtfn\d+ -> ", VFS, "virtual functions"))
        host.vfs = re.findall(r"virtfn\d+ -> \.\./(\S+)", output)
        mac = expect(f"vf {host.guest.vf}.* (?i:{host.guest.mac})", f"VF {host.guest.vf} has the guest's MAC")
        type_(host.name, f"ip link set {host.pf} vf {host.guest.vf} mac {host.guest.mac}")
        type_(host.name, f"ip link show {host.pf}", mac)

    def _switchdev(self, host: Host) -> None:
        type_ = self.terminal.type
        self.terminal.heading(f"{host.name}: the eSwitch in switchdev mode, with offloading on")
        for vf in host.vfs:
            type_(host.name, f"echo {vf} > {DRIVER}/unbind")
        eswitch = f"pci/{host.pci}"
        type_(host.name, f"devlink dev eswitch set {eswitch} mode switchdev")
        type_(host.name, f"devlink dev eswitch show {eswitch}", expect("mode (switchdev)", "the mode is {1}"))
        type_(host.name, f"ethtool -K {host.pf} hw-tc-offload on")
        type_(host.name, f"ethtool -k {host.pf} | grep hw-tc-offload", expect(": on$", "offloading is on"))
        for vf in host.vfs:
            type_(host.name, f"echo {vf} > {DRIVER}/bind")
        type_(host.name, "ls -l /sys/class/net/ | grep eth", counts(r" eth\d+ -> ", VFS, "representors"))
        name = f"pf0vf{host.guest.vf}"
        output = type_(
            host.name,
            f"grep -l {name} /sys/class/net/eth*/phys_port_name",
            expect(r"net/(\S+)/phys", f"{{1}} is the representor of VF {host.guest.vf}"),
        )
        host.representor = output.split("/")[4]

    def _open_vswitch(self, host: Host) -> None:
        type_ = self.terminal.type
        self.terminal.heading(f"{host.name}: Open vSwitch")
        type_(host.name, "systemctl enable openvswitch.service")
        type_(host.name, "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true")
        type_(host.name, "systemctl restart openvswitch.service")
        type_(host.name, f"ovs-vsctl set Open_vSwitch . other_config:max-idle={MAX_IDLE}")
        type_(host.name, f"ovs-vsctl add-br {BRIDGE}")
        type_(host.name, f"ovs-vsctl add-port {BRIDGE} {host.pf}")
        type_(host.name, f"ovs-vsctl add-port {BRIDGE} {host.representor} tag={VLAN}")
        type_(host.name, f"ip link set {host.pf} up")
        type_(host.name, f"ip link set {host.representor} up")
        ports = expect(rf"port \d+: {host.representor}$", "the system datapath has the ports")
        type_(host.name, "ovs-dpctl show", ports)

    def _guest(self, host: Host) -> None:
        type_, guest = self.terminal.type, host.guest
        self.terminal.heading(f"{guest.name}: a guest on VF {guest.vf} of {host.name}")
        type_(host.name, f"ip link set {guest.vf_netdev} netns {guest.name}")
        type_(guest.name, f"ip link set {guest.vf_netdev} name {guest.device}")
        type_(guest.name, f"ip address add {guest.address} dev {guest.device}")
        type_(guest.name, f"ip link set {guest.device} up")
        has_mac = expect(f"(?i:{guest.mac})", "it has the MAC that its hypervisor gave")
        type_(guest.name, f"ip address show {guest.device}", has_mac)


def counts(pattern: str, number: int, noun: str) -> Any:
    """A judge that wants *pattern* to be in the output *number* times."""

    def judge(output: str) -> str:
        found = len(re.findall(pattern, output))
        if found != number:
            raise OutputError(f"there are {found} {noun}, and should be {number}")
        return f"{number} {noun}"

    return judge
