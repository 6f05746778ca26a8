# SPDX-License-Identifier: Apache-2.0
"""OVN on two software hypervisors: a logical network with everything that OVN has for guests, and each kind of traffic
in hardware, or the reason why not."""

from __future__ import annotations

import re
import time
from importlib import resources
from typing import Any

from asap2.errors import Asap2Error
from asap2.lab.execute import run
from asap2.lab.lab import Lab
from asap2.lab.terminal import Terminal, as_data, expect
from asap2.lab.topology import Guest, Topology, parse
from asap2.ovn import network
from asap2.ovn.programs import Chassis, lacking, plug, start_central
from asap2.ovn.scenarios import Scenarios
from asap2.ovn.traffic import Place, Traffic
from asap2.screen import Screen

UNDERLAY = "10.57.255"
"""First three bytes of the addresses between which tunnels run; /24, on each node's physical bridge."""
UNDERLAY_MTU = 1600
"""Bytes: room for the guests' 1500 and a tunnel's headers."""
BRIDGE = "br-ex"
"""The bridge of the physical network, with the uplink."""
MAX_IDLE = 30000
"""Milliseconds that an unused flow stays."""


def topology() -> Topology:
    """The demo's lab: two nodes in switchdev mode, a cable, and the guests."""
    return parse(resources.files("asap2.ovn").joinpath("topology.toml").read_text())


class Demo:
    """One run, with tunnels of the kind *encapsulation* (None: Geneve, where nodes have such devices, else VXLAN);
    :meth:`report` tells how it went."""

    def __init__(self, lab: Lab, screen: Screen, encapsulation: str | None) -> None:
        self.lab = lab
        self.encapsulation = encapsulation
        self.topology = topology()
        self.terminal = Terminal(lab.layout, screen)
        self.nodes = [node.name for node in self.topology.nodes]
        self.central = self.nodes[0]
        self.traffic = Traffic(self.terminal, {})
        self.failure: str | None = "it was not done"
        self.seconds = 0.0

    def run(self, keep: bool) -> None:
        """Bring the lab and OVN up, show what OVN does, and take all down, unless told to *keep* it."""
        began = time.monotonic()
        self.up()
        try:
            self.begin()
            Scenarios(self.terminal, self.traffic, self.central).all()
            self.failure = None
        except Asap2Error as error:
            self.failure = str(error)
        finally:
            if not keep:
                self.lab.down()
        self.seconds = round(time.monotonic() - began, 1)

    def report(self) -> dict[str, Any]:
        """How it went, as plain data."""
        return {
            "ok": self.failure is None,
            "failure": self.failure,
            "seconds": self.seconds,
            "encapsulation": self.encapsulation,
            "steps": as_data(self.terminal.steps),
            "carried": [
                {"kind": one.kind, "packets": one.packets, "at_host": one.at_host} for one in self.traffic.carried
            ],
        }

    def print_summary(self) -> None:
        """Print the table of the end."""
        rows = [(one.kind, f"{100 * one.share:.2f} % of {one.packets} packets") for one in self.traffic.carried]
        self.terminal.summary(rows, self.seconds, self.failure)

    def up(self) -> None:
        """Bring the lab up."""
        lacking()
        began = time.monotonic()
        self.terminal.heading("Two hypervisors, each with a software ConnectX-6 Dx, joined by a cable")
        self.lab.up(self.topology)
        self.terminal.done("the lab is up", time.monotonic() - began)

    def begin(self) -> None:
        """Start OVN on the lab."""
        if self.encapsulation is None:
            self.encapsulation = self._best_encapsulation()
        for number, node in enumerate(self.nodes, 1):
            self._switch(node, f"{UNDERLAY}.{number}")
        self.terminal.heading(f"{self.central}: OVN's databases and ovn-northd")
        for line in start_central():
            self.terminal.type(self.central, line)
        for number, node in enumerate(self.nodes, 1):
            self._chassis(node, f"{UNDERLAY}.{number}")
        names = "|".join(self.nodes)
        self.terminal.type(
            self.central, "ovn-sbctl show", expect(rf"(?s)(?:Chassis \S*(?:{names}).*){{2}}", "2 chassis")
        )

    def _best_encapsulation(self) -> str:
        bundle = self.lab.layout.bundle(self.central)
        try:
            run(bundle, "ip", "link", "add", "try-geneve", "type", "geneve", "external")
        except Asap2Error:
            self.terminal.say("  There are no Geneve devices here: the tunnels are VXLAN.")
            return "vxlan"
        run(bundle, "ip", "link", "delete", "try-geneve")
        return "geneve"

    def _switch(self, node: str, address: str) -> None:
        type_, uplink = self.terminal.type, self._uplink(node)
        self.terminal.heading(f"{node}: Open vSwitch with hardware offload, and the bridge of the physical network")
        type_(node, "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true")
        type_(node, "systemctl restart openvswitch-switch")
        type_(node, f"ovs-vsctl set Open_vSwitch . other_config:max-idle={MAX_IDLE}")
        type_(node, f"ovs-vsctl add-br {BRIDGE} -- add-port {BRIDGE} {uplink}")
        type_(node, f"ip link set {uplink} mtu {UNDERLAY_MTU} up")
        type_(node, f"ip address add {address}/24 dev {BRIDGE} && ip link set {BRIDGE} mtu {UNDERLAY_MTU} up")

    def _chassis(self, node: str, address: str) -> None:
        type_ = self.terminal.type
        self.terminal.heading(f"{node}: ovn-controller, and the guests' representors")
        mappings = {network.PHYSICAL_NETWORK: BRIDGE}
        for line in Chassis(node, f"{UNDERLAY}.1", address, self.encapsulation or "", mappings).start():
            type_(node, line)
        output = type_(node, "grep . /sys/class/net/eth*/phys_port_name", expect("pf0vf0", "the representors' names"))
        names = {port: name for name, port in re.findall(r"net/(\S+)/phys_port_name:(\S+)", output)}
        type_(node, "ovs-vsctl --may-exist add-br br-int -- set Bridge br-int fail-mode=secure")
        for guest in self.topology.guests:
            if guest.node != node:
                continue
            representor = names[f"pf{guest.port}vf{guest.vf}"]
            self.traffic.places[guest.name] = Place(node, representor)
            for line in self._plugged(guest, representor):
                type_(node, line)

    def _plugged(self, guest: Guest, representor: str) -> tuple[str, ...]:
        if guest.name == network.OUTSIDE_GUEST:
            return (
                f"ovs-vsctl add-port {BRIDGE} {representor} tag={network.VLAN}",
                f"ip link set {representor} up",
            )
        return plug(representor, guest.name)

    def _uplink(self, node: str) -> str:
        return next(each.nics[0].netdev(0) for each in self.topology.nodes if each.name == node)
