# SPDX-License-Identifier: Apache-2.0
"""What all chapters of the demo type with the ``openstack`` client: services, image, networks, ports and servers."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field

from asap2.lab.firewall import ALLOWED
from asap2.lab.terminal import Judge, OutputError, Terminal, expect
from asap2.openstack.cloud import Cloud
from asap2.openstack.plan import CONTROLLER, Compute

IMAGE, FLAVOR = "mellanox_fedora", "m1.small"
"""As on the page. A guest is a namespace: the image is only there to be asked for."""
GROUP = "web"
"""The security group: connections to one port, and pings."""
SWITCHDEV = """'{"capabilities": ["switchdev"]}'"""


@dataclass(slots=True)
class Server:
    """A server and what the commands said of it."""

    name: str
    node: Compute
    port: str = ""
    mac: str = ""
    address: str = ""
    representor: str = ""


@dataclass(slots=True)
class Figures:
    """What was measured: by mechanism driver, by server, by network, or by what connections went through."""

    up_seconds: dict[str, float] = field(default_factory=dict)
    down_seconds: dict[str, float] = field(default_factory=dict)
    create_seconds: dict[str, float] = field(default_factory=dict)
    ping_loss_percent: dict[str, float] = field(default_factory=dict)
    later_ping_ms: dict[str, float] = field(default_factory=dict)
    representor_packets: dict[str, int] = field(default_factory=dict)
    offloaded_packets: dict[str, int] = field(default_factory=dict)
    tracked_in_hardware: dict[str, int] = field(default_factory=dict)
    tracked_at_the_host: dict[str, int] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """For the table."""
        rows = []
        for what, values, unit in (
            ("cloud up", self.up_seconds, " s"),
            ("server create --wait", self.create_seconds, " s"),
            ("pings lost", self.ping_loss_percent, " %"),
            ("later pings, median", self.later_ping_ms, " ms"),
            ("echo requests seen by the host", self.representor_packets, ""),
            ("echo requests counted by the eSwitch's rule", self.offloaded_packets, ""),
            ("TCP packets in hardware", self.tracked_in_hardware, ""),
            ("TCP packets seen by the host", self.tracked_at_the_host, ""),
        ):
            rows += [(f"{what}: {key}", f"{value:g}{unit}" if unit else str(value)) for key, value in values.items()]
        return rows


class Steps:
    """The commands, and what is measured on the way."""

    def __init__(self, cloud: Cloud, terminal: Terminal, figures: Figures) -> None:
        self.cloud = cloud
        self.terminal = terminal
        self.figures = figures
        self.nodes = cloud.nodes()

    def openstack(self, words: str, judge: Judge | None = None) -> str:
        """Type a command of the client."""
        return self.terminal.type(CONTROLLER, f"openstack {words}", judge)

    def services(self, agent: str) -> None:
        """See that nova-compute and *agent* live on every node, and that Open vSwitch offloads."""
        self.terminal.heading("The cloud: its compute services and its network agents")
        up = [rf"nova-compute .*\| {node.host} .*\| up " for node in self.nodes]
        self.openstack("compute service list", every(up, f"nova-compute is up on {len(self.nodes)} hosts"))
        alive = [rf"{agent} .*\| {node.host} .*\| :-\) " for node in self.nodes]
        self.openstack("network agent list", every(alive, f"{agent} is alive on {len(self.nodes)} hosts"))
        for node in self.nodes:
            words = "ovs-vsctl get Open_vSwitch . other_config:hw-offload"
            self.terminal.type(node.node, words, expect('"?true"?', "Open vSwitch offloads"))

    def image(self) -> None:
        """Make image and flavour."""
        self.terminal.heading("Image and flavour")
        self.terminal.type(CONTROLLER, f"echo 'A guest is a namespace and needs no image.' > /run/{IMAGE}.img")
        file = f"--disk-format raw --container-format bare --file /run/{IMAGE}.img"
        self.openstack(f"image create {IMAGE} --public {file} -f value -c status", expect("^active$", "it is active"))
        self.openstack(f"flavor create {FLAVOR} --vcpus 1 --ram 64 --disk 1 -f value -c name")

    def security_group(self) -> None:
        """Make the security group."""
        self.openstack(f"security group create {GROUP} -f value -c name")
        for rule in (f"--protocol tcp --dst-port {ALLOWED}", "--protocol icmp"):
            self.openstack(f"security group rule create {GROUP} {rule} -f value -c protocol -c port_range_min")

    def port(self, server: Server, network: str, options: str) -> None:
        """Make the direct port of *server* on *network*, with more *options*."""
        direct = f"--vnic-type direct --binding-profile {SWITCHDEV}"
        shown = "-f json -c id -c mac_address -c fixed_ips -c binding_vnic_type"
        words = f"port create direct_{server.name} --network {network} {direct} {options} {shown}"
        port = json.loads(self.openstack(words, expect('"direct"', "a direct port")))
        server.port, server.mac = port["id"], port["mac_address"]
        server.address = port["fixed_ips"][0]["ip_address"]

    def server(self, server: Server) -> None:
        """Make *server* on its node, with its port."""
        where = f"--availability-zone nova:{server.node.host}"
        words = f"--flavor {FLAVOR} --image {IMAGE} --nic port-id={server.port} {where} --wait {server.name}"
        began = time.monotonic()
        self.openstack(f"server create {words} -f value -c status", expect("^ACTIVE$", "the server is active"))
        self.figures.create_seconds[f"{server.name}, {self.cloud.mechanism()}"] = round(time.monotonic() - began, 1)
        words = f"port show {server.port} -f value -c binding_vif_type -c binding_profile -c status"
        self.openstack(words, every(["ovs", "pci_slot", "ACTIVE"], "bound to Open vSwitch, with a VF"))
        has = expect(f"(?i:{server.mac})", "the guest has the port's MAC")
        self.terminal.type(server.name, "ip address show eth0", has)

    def find_representor(self, server: Server) -> None:
        """Ask Open vSwitch which representor belongs to *server*'s port."""
        find = f"ovs-vsctl --bare --columns=name find Interface external_ids:iface-id={server.port}"
        output = self.terminal.type(server.node.node, find, expect(r"^\S+$", "{0} is its representor"))
        server.representor = output.strip()


def every(patterns: list[str], words: str) -> Judge:
    """A judge that wants all *patterns* to be in the output."""

    def judge(output: str) -> str:
        for pattern in patterns:
            if not re.search(pattern, output):
                raise OutputError(f"the output does not have {pattern!r}")
        return words

    return judge
