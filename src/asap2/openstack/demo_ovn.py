# SPDX-License-Identifier: Apache-2.0
"""A cloud with OVN: its DHCP, a distributed router between a VLAN and a tunnel, security groups, a floating IP."""

from __future__ import annotations

import re

from asap2.lab.terminal import OutputError, Terminal, expect
from asap2.openstack.demo_secured import OFFLOADED, Secured
from asap2.openstack.demo_steps import GROUP, Server, Steps
from asap2.openstack.plan import CONTROLLER, OVN_TUNNEL, PHYSICAL_NETWORK

PRIVATE, TUNNELLED, PUBLIC = "private", "tunnelled", "public"
ROUTER = "router"
ROUTED = f"VLAN to {OVN_TUNNEL.capitalize()} by OVN's router"
METADATA_ADDRESS, METADATA_PATH = "169.254.169.254", "openstack/latest/meta_data.json"
VLAN = f"--provider-network-type vlan --provider-physical-network {PHYSICAL_NETWORK} --provider-segment"
NETWORKS = {
    PRIVATE: (f"{VLAN} 57", "10.57.0"),
    TUNNELLED: (f"--provider-network-type {OVN_TUNNEL}", "10.58.0"),
    PUBLIC: (f"--external {VLAN} 58", "10.59.0"),
}


class Ovn:
    """The scenario, in a cloud whose mechanism driver is OVN."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.terminal: Terminal = steps.terminal

    def run(self) -> None:
        """All of it."""
        self.steps.services("OVN Controller Gateway agent")
        self.steps.image()
        self._networks()
        here, there = self.steps.nodes
        private, tunnelled, outside = Server("vm1", here), Server("vm2", there), Server("vm3", there)
        for server, network in ((private, PRIVATE), (tunnelled, TUNNELLED), (outside, PUBLIC)):
            self.terminal.heading(f"{network}: a server on {server.node.host}")
            self.steps.port(server, network, f"--security-group {GROUP}")
            self.steps.server(server)
            self.steps.find_representor(server)
        self._dhcp(private)
        self._metadata(private)
        routed = Secured(self.steps, private, tunnelled, tunnelled.address)
        routed.carried(ROUTED)
        routed.refused()
        routed.pinged()
        self._floating_ip(private, outside)

    def _networks(self) -> None:
        self.terminal.heading("A VLAN network, a tunnelled one, the way out, and a router between them")
        for name, (options, prefix) in NETWORKS.items():
            self.steps.openstack(f"network create {name} {options} -f value -c provider:network_type -c mtu")
            self.steps.openstack(f"subnet create {name} --network {name} --subnet-range {prefix}.0/24 -f value -c cidr")
        self.steps.openstack(f"router create {ROUTER} --external-gateway {PUBLIC} -f value -c status")
        for name in (PRIVATE, TUNNELLED):
            self.steps.openstack(f"router add subnet {ROUTER} {name}")
        self.terminal.heading("A security group: one port, pings, and what belongs to them")
        self.steps.security_group()

    def _dhcp(self, server: Server) -> None:
        self.terminal.heading("OVN answers DHCP itself, on the server's node")
        lease = expect(f"lease of {server.address} obtained", "{0}")
        self.terminal.type(server.name, "udhcpc -f -n -q -i eth0 -s /bin/true", lease)

    def _metadata(self, server: Server) -> None:
        self.terminal.heading("nova's metadata, by the agent on the server's node: the route is one that DHCP gives")
        ports = "port list --device-owner network:distributed"
        of_network = self.steps.openstack(f"{ports} --network {PRIVATE} -f value -c fixed_ips")
        found = re.search(r"'ip_address': '([\d.]+)'", of_network)
        if not found:
            raise self.terminal.failed(CONTROLLER, f"openstack {ports}", f"{PRIVATE} has no port for metadata")
        self.terminal.type(server.name, f"ip route add {METADATA_ADDRESS} via {found[1]}")
        own = expect(f'"name": "{server.name}"', "it is this server's")
        self.terminal.type(server.name, f"curl -sS --noproxy '*' http://{METADATA_ADDRESS}/{METADATA_PATH}", own)

    def _floating_ip(self, server: Server, outside: Server) -> None:
        self.terminal.heading(f"A floating IP of {server.name}: translated on its own node, in hardware")
        words = f"floating ip create {PUBLIC} --port {server.port} -f value -c floating_ip_address"
        floating = self.steps.openstack(words).strip()
        table = f"ovn-nbctl --bare --columns=external_mac,logical_port find NAT external_ip={floating}"
        own = expect(rf"^(\S+)\n{server.port}$", "distributed: {1} is its own MAC")
        self.terminal.type(CONTROLLER, table, own)
        Secured(self.steps, outside, server, floating).carried("floating IP")

        def judge(output: str) -> str:
            if not re.search(rf"ct_state\(\+est.*src={outside.mac}.*ipv4\(dst={server.address}[,/]", output):
                raise OutputError(f"no offloaded flow from {outside.name} has been translated to {server.address}")
            return f"{server.node.host}'s eSwitch translates it to {server.address}"

        self.terminal.type(server.node.node, f"{OFFLOADED} | grep {outside.mac}", judge)
