# SPDX-License-Identifier: Apache-2.0
"""The getting-started page's OpenStack part, over VLAN and then over VXLAN, and the same ports with security groups.

Networks, two ``direct`` ports with the capability ``switchdev`` on each, a server on each compute node, ping between
them, the representor of a server's port, ``tcpdump`` on it, and the flows. The page's ports have no port security, as
its time had no connection tracking in hardware; then it is turned on.
"""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass

from asap2.lab.execute import run
from asap2.lab.firewall import ALLOWED
from asap2.lab.terminal import OutputError, Terminal, expect
from asap2.openstack.demo_secured import Secured
from asap2.openstack.demo_steps import GROUP, Server, Steps
from asap2.openstack.plan import INTEGRATION_BRIDGE, PHYSICAL_NETWORK

VLAN = 57
PINGS, PING_INTERVAL = 20, 0.1
FLOWS = "ovs-appctl dpctl/dump-flows -m type=offloaded"
OFFLOADING_SECONDS = 60.0
"""How long a slow machine may take to make the rules of the first packets."""


@dataclass(frozen=True, slots=True)
class Network:
    """One of the demo's two networks: what its creation says beside its name, and what its flows must do."""

    name: str
    kind: str
    options: str
    prefix: str
    actions: tuple[str, str]
    servers: tuple[str, str]


NETWORKS = (
    Network(
        "private",
        "VLAN",
        f"--provider-network-type vlan --provider-physical-network {PHYSICAL_NETWORK} --provider-segment {VLAN}",
        "10.57.0",
        (r"push_vlan\(vid=57,", r"pop_vlan"),
        ("vm1", "vm2"),
    ),
    Network(
        "tunnelled",
        "VXLAN",
        "--provider-network-type vxlan",
        "10.58.0",
        (r"set\(tunnel\(tun_id=0x|tnl_push\(", r"in_port\(vxlan_sys_4789\)"),
        ("vm3", "vm4"),
    ),
)


class Page:
    """The page's procedure, in a cloud with neutron's Open vSwitch agent."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.terminal: Terminal = steps.terminal

    def run(self) -> None:
        """All of it."""
        self.steps.services("Open vSwitch agent")
        self.steps.image()
        secured = []
        for network in NETWORKS:
            secured.append((network, self._network(network)))
        self.terminal.heading("Security groups: one port, pings, and what belongs to them")
        self.steps.security_group()
        for network, servers in secured:
            self._secure(network, servers)

    def _network(self, network: Network) -> list[Server]:
        self.terminal.heading(f"{network.kind}: the network and its two direct ports")
        create = f"network create {network.name} {network.options} -f value -c provider:segmentation_id"
        self.steps.openstack(create)
        subnet = f"--subnet-range {network.prefix}.0/24 --no-dhcp --gateway none"
        self.steps.openstack(f"subnet create {network.name} --network {network.name} {subnet} -f value -c cidr")
        servers = [Server(name, node) for name, node in zip(network.servers, self.steps.nodes, strict=True)]
        for server in servers:
            self.steps.port(server, network.name, "--disable-port-security --no-security-group")
        self.terminal.heading(f"{network.kind}: a server on each compute node")
        for server in servers:
            self.steps.server(server)
        self._find_representors(servers, network)
        self._ping(servers, network)
        self._flows(servers, network)
        return servers

    def _secure(self, network: Network, servers: list[Server]) -> None:
        """Turn port security on, and show what it leaves to the NIC."""
        self.terminal.heading(f"{network.kind}: port security is turned on")
        for server in servers:
            self.steps.openstack(f"port set --enable-port-security --security-group {GROUP} {server.port}")
        for server in servers:
            self._wait_for_the_firewall(server)
        client, other = servers
        shown = Secured(self.steps, client, other, other.address)
        shown.carried(network.kind)
        if network is NETWORKS[0]:
            shown.refused()
            shown.pinged()

    def _wait_for_the_firewall(self, server: Server) -> None:
        """Wait until the agent has made the rules of *server*'s port."""
        where = server.node.node
        number = self.terminal.type(where, f"ovs-vsctl get Interface {server.representor} ofport").strip()
        table = f"ovs-ofctl dump-flows {INTEGRATION_BRIDGE} table=82"
        rule = f"reg5={int(number):#x}.*tp_dst={ALLOWED}"
        command = f"until {table} | grep '{rule}'; do sleep 0.2; done"
        self.terminal.type(where, command, expect(rule, f"neutron's agent filters {server.representor}"))

    def _find_representors(self, servers: list[Server], network: Network) -> None:
        self.terminal.heading("Which representor is whose")
        for server in servers:
            at = server.node.uplink
            has_mac = expect(rf"vf (\d+) .*(?i:{server.mac})", "VF {1} has the server's MAC")
            self.terminal.type(server.node.node, f"ip link show {at}", has_mac)
            self.steps.find_representor(server)
        ports = expect(rf"port \d+: {servers[0].representor}$", "the system datapath has it")
        self.terminal.type(servers[0].node.node, "ovs-dpctl show", ports)
        if network.name == "private":
            self.terminal.type(servers[0].node.node, f"ovs-vsctl list-ports {INTEGRATION_BRIDGE}")

    def _ping(self, servers: list[Server], network: Network) -> None:
        one, other = servers
        self.terminal.heading(f"Ping from {one.name} to {other.name}: a host sees the first packet of each flow alone")
        with contextlib.ExitStack() as captures:
            capturing = []
            for server in servers:
                words = f"tcpdump -nnn -i {server.representor} icmp"
                capture = self.terminal.begin(server.node.node, words, "listening on")
                capturing.append((server, captures.enter_context(capture)))
            first = f"ping -c 1 -W 10 {other.address}"
            self.terminal.type(one.name, first, expect(" 0% packet loss", "it came back"))
            self._wait_for_the_flows(servers, network)
            command = f"ping -c {PINGS - 1} -i {PING_INTERVAL} {other.address}"
            self.terminal.type(one.name, command, lambda text: self._judge_ping(text, network))
            for server, capture in capturing:
                capture.read_until_quiet()
                output = self.terminal.interrupt(server.node.node, capture, self._judge_capture)
                if server is one:
                    self.steps.figures.representor_packets[network.name] = len(re.findall("ICMP echo request", output))

    def _wait_for_the_flows(self, servers: list[Server], network: Network) -> None:
        """Return when the rules for the pings are in both eSwitches: a slow machine takes its time to make them."""
        deadline = time.monotonic() + OFFLOADING_SECONDS
        for server, other in (servers, servers[::-1]):
            bundle = self.terminal.layout.bundle(server.node.node)
            while time.monotonic() < deadline:
                if not missing(run(bundle, *FLOWS.split()), server, other, network):
                    break

    def _flows(self, servers: list[Server], network: Network) -> None:
        self.terminal.heading("The flows are in the eSwitch")
        for server, other in (servers, servers[::-1]):

            def judge(output: str, server: Server = server, other: Server = other) -> str:
                if complaint := missing(output, server, other, network):
                    raise OutputError(complaint)
                counted = max(packets(flow) for flow in flows_between(output, server.mac, other.mac))
                if server is servers[0]:
                    self.steps.figures.offloaded_packets[network.name] = counted
                return f"offloaded both ways; {counted} packets sent were counted"

            self.terminal.type(server.node.node, FLOWS, judge)

    def _judge_ping(self, output: str, network: Network) -> str:
        found = re.search(r"(\d+) packets transmitted, (\d+) received.* ([\d.]+)% packet loss", output)
        times = sorted(float(each) for each in re.findall(r"time=([\d.]+) ms", output))
        if not found or not times:
            raise OutputError("no packet came back")
        self.steps.figures.ping_loss_percent[network.name] = float(found[3])
        self.steps.figures.later_ping_ms[network.name] = times[len(times) // 2]
        if found[1] != found[2]:
            raise OutputError(f"{found[3]} % of the packets were lost")
        return f"none lost; {times[len(times) // 2]:g} ms (median)"

    def _judge_capture(self, output: str) -> str:
        seen = {kind: re.findall(rf"ICMP echo {kind}, .* seq (\d+),", output) for kind in ("request", "reply")}
        for kind, numbers in seen.items():
            if numbers != ["1"]:
                were = ", ".join(numbers) or "none"
                raise OutputError(f"of the echo {kind} packets, only number 1 should be seen here, and was: {were}")
        return f"the first request and the first reply, and none of the other {2 * (PINGS - 1)}"


def missing(output: str, server: Server, other: Server, network: Network) -> str | None:
    """What is not among the offloaded flows that ``dpctl/dump-flows`` printed on *server*'s node, if anything."""
    out, into = network.actions
    if not any(re.search(out, flow) for flow in flows_between(output, server.mac, other.mac)):
        return f"there is no offloaded IPv4 flow from {server.name} that does {out}"
    if not any(re.search(into, flow) for flow in flows_between(output, other.mac, server.mac)):
        return f"there is no offloaded IPv4 flow to {server.name} with {into}"
    return None


def flows_between(output: str, source: str, destination: str) -> list[str]:
    """The IPv4 flows from one MAC to another, of those that ``dpctl/dump-flows`` printed."""
    ends = rf"eth\(src={source}(/[0-9a-f:]+)?,dst={destination}(/[0-9a-f:]+)?\)"
    return [line for line in output.splitlines() if re.search(ends, line) and "eth_type(0x0800)" in line]


def packets(flow: str) -> int:
    """The packets that *flow* counted."""
    found = re.search(r"packets:(\d+)", flow)
    return int(found[1]) if found else 0
