# SPDX-License-Identifier: Apache-2.0
"""The getting-started page's OpenStack part, typed with the ``openstack`` client: over VLAN, then over VXLAN.

Image, network, two ``direct`` ports with the capability ``switchdev``, a server on each compute node, ping between
them, the representor of a server's port, ``tcpdump`` on it, and the flows.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from asap2.errors import Asap2Error
from asap2.lab.terminal import Judge, OutputError, Terminal, as_data, expect
from asap2.lab.topology import parse
from asap2.openstack.cloud import Cloud
from asap2.openstack.plan import CONTROLLER, INTEGRATION_BRIDGE, PHYSICAL_NETWORK, Compute
from asap2.screen import Screen

IMAGE, FLAVOR = "mellanox_fedora", "m1.small"
"""As on the page. A guest is a namespace: the image is only there to be asked for."""
VLAN = 57
PINGS, PING_INTERVAL = 20, 0.1
FLOWS = "ovs-appctl dpctl/dump-flows -m type=offloaded"
SWITCHDEV = """'{"capabilities": ["switchdev"]}'"""


@dataclass(frozen=True, slots=True)
class Network:
    """One of the demo's two networks: what its creation says beside its name, and what its flows must do."""

    name: str
    options: str
    prefix: str
    actions: tuple[str, str]
    servers: tuple[str, str]


NETWORKS = (
    Network(
        "private",
        f"--provider-network-type vlan --provider-physical-network {PHYSICAL_NETWORK} --provider-segment {VLAN}",
        "10.57.0",
        (r"push_vlan\(vid=57,", r"pop_vlan"),
        ("vm1", "vm2"),
    ),
    Network(
        "tunnelled",
        "--provider-network-type vxlan",
        "10.58.0",
        (r"set\(tunnel\(tun_id=0x|tnl_push\(", r"in_port\(vxlan_sys_4789\)"),
        ("vm3", "vm4"),
    ),
)


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
    """What was measured, by network; seconds that `server create --wait` took, by server."""

    up_seconds: float | None = None
    down_seconds: float | None = None
    create_seconds: dict[str, float] = field(default_factory=dict)
    ping_loss_percent: dict[str, float] = field(default_factory=dict)
    later_ping_ms: dict[str, float] = field(default_factory=dict)
    representor_packets: dict[str, int] = field(default_factory=dict)
    offloaded_packets: dict[str, int] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """For the table."""
        rows = [("cloud up", "not measured" if self.up_seconds is None else f"{self.up_seconds:.0f} s")]
        for what, values, unit in (
            ("server create --wait", self.create_seconds, " s"),
            ("pings lost", self.ping_loss_percent, " %"),
            ("later pings, median", self.later_ping_ms, " ms"),
            (f"of {PINGS} echo requests seen by the host", self.representor_packets, ""),
            ("of these counted by the eSwitch's rule", self.offloaded_packets, ""),
        ):
            rows += [(f"{what}: {key}", f"{value:g}{unit}") for key, value in values.items()]
        return rows


class Demo:
    """One run; :meth:`report` tells how it went."""

    def __init__(self, cloud: Cloud, screen: Screen) -> None:
        self.cloud = cloud
        self.topology = parse(resources.files("asap2.openstack").joinpath("topology.toml").read_text())
        self.terminal = Terminal(cloud.lab.layout, screen)
        self.figures = Figures()
        self.failure: str | None = "it was not done"
        self.seconds = 0.0

    def run(self, keep: bool) -> None:
        """Bring the cloud up, do the procedure, and take the cloud down, unless told to *keep* it."""
        began = time.monotonic()
        self.terminal.heading("OpenStack on two software hypervisors, each with a ConnectX-5, joined by a cable")
        self.cloud.up(self.topology)
        self.figures.up_seconds = round(time.monotonic() - began, 1)
        try:
            self._services()
            for network in NETWORKS:
                self._network(network)
            self.failure = None
        except Asap2Error as error:
            self.failure = str(error)
        finally:
            if not keep:
                down = time.monotonic()
                self.cloud.down()
                self.figures.down_seconds = round(time.monotonic() - down, 1)
        self.seconds = round(time.monotonic() - began, 1)

    def report(self) -> dict[str, Any]:
        """How it went, as plain data."""
        figures = {name: getattr(self.figures, name) for name in Figures.__slots__}
        return {
            "ok": self.failure is None,
            "failure": self.failure,
            "seconds": self.seconds,
            "steps": as_data(self.terminal.steps),
            **figures,
        }

    def print_summary(self) -> None:
        """Print the short table of the end."""
        self.terminal.summary(self.figures.rows(), self.seconds, self.failure)

    def openstack(self, words: str, judge: Judge | None = None) -> str:
        """Type a command of the client."""
        return self.terminal.type(CONTROLLER, f"openstack {words}", judge)

    def _services(self) -> None:
        nodes = self.cloud.nodes()
        self.terminal.heading("The cloud: its compute services and its network agents")
        up = [rf"nova-compute .*\| {node.host} .*\| up " for node in nodes]
        self.openstack("compute service list", every(up, f"nova-compute is up on {len(nodes)} hosts"))
        alive = [rf"\| {node.host} .*\| :-\) " for node in nodes]
        self.openstack("network agent list", every(alive, f"an Open vSwitch agent is alive on {len(nodes)} hosts"))
        for node in nodes:
            words = "ovs-vsctl get Open_vSwitch . other_config:hw-offload"
            self.terminal.type(node.node, words, expect('"?true"?', "Open vSwitch offloads"))
        self.terminal.heading("Image and flavour")
        self.terminal.type(CONTROLLER, f"echo 'A guest is a namespace and needs no image.' > /run/{IMAGE}.img")
        file = f"--disk-format raw --container-format bare --file /run/{IMAGE}.img"
        self.openstack(f"image create {IMAGE} --public {file}", expect(r"\| status +\| active", "the image is active"))
        self.openstack(f"flavor create {FLAVOR} --vcpus 1 --ram 64 --disk 1 -f value -c name")

    def _network(self, network: Network) -> None:
        kind = "VLAN" if network.name == "private" else "VXLAN"
        self.terminal.heading(f"{kind}: the network and its two direct ports")
        self.openstack(f"network create {network.name} {network.options} -f value -c provider:segmentation_id")
        subnet = f"--subnet-range {network.prefix}.0/24 --no-dhcp --gateway none"
        self.openstack(f"subnet create {network.name} --network {network.name} {subnet} -f value -c cidr")
        servers = [Server(name, node) for name, node in zip(network.servers, self.cloud.nodes(), strict=True)]
        for server in servers:
            self._port(server, network)
        self.terminal.heading(f"{kind}: a server on each compute node")
        for server in servers:
            self._server(server)
        self._find_representors(servers, network)
        self._ping(servers, network)
        self._flows(servers, network)

    def _port(self, server: Server, network: Network) -> None:
        direct = f"--vnic-type direct --binding-profile {SWITCHDEV}"
        shown = "-f json -c id -c mac_address -c fixed_ips -c binding_vnic_type"
        words = f"port create direct_{server.name} --network {network.name} {direct} {shown}"
        port = json.loads(self.openstack(words, expect('"direct"', "a direct port")))
        server.port, server.mac = port["id"], port["mac_address"]
        server.address = port["fixed_ips"][0]["ip_address"]

    def _server(self, server: Server) -> None:
        where = f"--availability-zone nova:{server.node.host}"
        words = f"--flavor {FLAVOR} --image {IMAGE} --nic port-id={server.port} {where} --wait {server.name}"
        began = time.monotonic()
        self.openstack(f"server create {words} -f value -c status", expect("^ACTIVE$", "the server is active"))
        self.figures.create_seconds[server.name] = round(time.monotonic() - began, 1)
        words = f"port show {server.port} -f value -c binding_vif_type -c binding_profile -c status"
        self.openstack(words, every(["ovs", "pci_slot", "ACTIVE"], "bound to Open vSwitch, with a VF"))
        has = expect(f"(?i:{server.mac})", "the guest has the port's MAC")
        self.terminal.type(server.name, "ip address show eth0", has)

    def _find_representors(self, servers: list[Server], network: Network) -> None:
        self.terminal.heading("Which representor is whose")
        for server in servers:
            at = server.node.uplink
            has_mac = expect(rf"vf (\d+) .*(?i:{server.mac})", "VF {1} has the server's MAC")
            self.terminal.type(server.node.node, f"ip link show {at}", has_mac)
            find = f"ovs-vsctl --bare --columns=name find Interface external_ids:iface-id={server.port}"
            output = self.terminal.type(server.node.node, find, expect(r"^\S+$", "{0} is its representor"))
            server.representor = output.strip()
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
            command = f"ping -c {PINGS} -i {PING_INTERVAL} {other.address}"
            self.terminal.type(one.name, command, lambda text: self._judge_ping(text, network))
            for server, capture in capturing:
                capture.read_until_quiet()
                output = self.terminal.interrupt(server.node.node, capture, self._judge_capture)
                if server is one:
                    self.figures.representor_packets[network.name] = len(re.findall("ICMP echo request", output))

    def _flows(self, servers: list[Server], network: Network) -> None:
        self.terminal.heading("The flows are in the eSwitch")
        for server, other in (servers, servers[::-1]):
            out, into = network.actions

            def judge(output: str, server: Server = server, other: Server = other) -> str:
                sent = flows_between(output, server.mac, other.mac)
                came = flows_between(output, other.mac, server.mac)
                if not any(re.search(out, flow) for flow in sent):  # noqa: B023
                    raise OutputError(f"there is no offloaded IPv4 flow from {server.name} that does {out}")  # noqa: B023
                if not any(re.search(into, flow) for flow in came):  # noqa: B023
                    raise OutputError(f"there is no offloaded IPv4 flow to {server.name} with {into}")  # noqa: B023
                counted = max(packets(flow) for flow in sent)
                if server is servers[0]:
                    self.figures.offloaded_packets[network.name] = counted
                return f"offloaded both ways; {counted} packets sent were counted"

            self.terminal.type(server.node.node, FLOWS, judge)

    def _judge_ping(self, output: str, network: Network) -> str:
        found = re.search(r"(\d+) packets transmitted, (\d+) received.* ([\d.]+)% packet loss", output)
        times = sorted(float(each) for each in re.findall(r"time=([\d.]+) ms", output))
        if not found or not times:
            raise OutputError("no packet came back")
        self.figures.ping_loss_percent[network.name] = float(found[3])
        self.figures.later_ping_ms[network.name] = times[len(times) // 2]
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


def flows_between(output: str, source: str, destination: str) -> list[str]:
    """The IPv4 flows from one MAC to another, of those that ``dpctl/dump-flows`` printed."""
    ends = rf"eth\(src={source}(/[0-9a-f:]+)?,dst={destination}(/[0-9a-f:]+)?\)"
    return [line for line in output.splitlines() if re.search(ends, line) and "eth_type(0x0800)" in line]


def packets(flow: str) -> int:
    """The packets that *flow* counted."""
    found = re.search(r"packets:(\d+)", flow)
    return int(found[1]) if found else 0


def every(patterns: list[str], words: str) -> Judge:
    """A judge that wants all *patterns* to be in the output."""

    def judge(output: str) -> str:
        for pattern in patterns:
            if not re.search(pattern, output):
                raise OutputError(f"the output does not have {pattern!r}")
        return words

    return judge
