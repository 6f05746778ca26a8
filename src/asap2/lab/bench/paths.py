# SPDX-License-Identifier: Apache-2.0
"""The five paths from guest to guest that are compared, all in namespaces of a lab of their own.

=================  ========================================================================================
``direct``         the two guests are the ends of one veth pair: what the machine can do
``offloaded``      VFs of a software ConnectX, Open vSwitch with hw-offload=true
``bridge``         a Linux bridge
``software``       VFs of a software ConnectX, Open vSwitch with hw-offload=false: our software datapath
``ovs_userspace``  VFs of a software ConnectX without rules, Open vSwitch forwarding every packet in user space
=================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from asap2.lab.execute import ip, run
from asap2.lab.lab import Lab
from asap2.lab.layout import Layout
from asap2.lab.namespaces import create
from asap2.lab.network import no_ipv6
from asap2.lab.topology import Topology, parse
from asap2.lab.units import RUN_DIRECTORY, SWITCH
from asap2.lab.userspace_switch import UserspaceSwitch, lookups

NAMES = ("direct", "offloaded", "bridge", "software", "ovs_userspace")
MAX_IDLE = 30000
"""Milliseconds that an unused flow stays, as in the getting-started procedure."""
SET = "other_config:"
SWITCH_PID = f"{RUN_DIRECTORY}/{SWITCH}.pid"
USERSPACE = "ovs-userspace"
"""The node that has a switch in user space."""


@dataclass(frozen=True, slots=True)
class SwitchingHost:
    """A node whose Open vSwitch, or a *userspace* switch in its place, joins two guests."""

    layout: Layout
    node: str
    userspace: UserspaceSwitch | None = None

    def processes(self) -> list[int]:
        """The processes that have to do with packets: the switch and the NIC's daemon."""
        place = self.layout.node(self.node)
        switch = self.userspace.pid() if self.userspace else int(run(place / "ns", "cat", SWITCH_PID))
        return [switch, int((place / "daemon.pid").read_text())]

    def lookups(self) -> int:
        """Packets that the switch has looked up."""
        if self.userspace:
            return self.userspace.lookups()
        return lookups(run(self.layout.node(self.node) / "ns", "ovs-appctl", "dpctl/show"))


@dataclass(frozen=True, slots=True)
class TrafficPath:
    """Two guests' namespaces, the address of the second, and the host between them, if there is one."""

    name: str
    client: Path
    server: Path
    address: str
    host: SwitchingHost | None = None
    listen: str = ""
    """The address of the second guest itself, where NAT stands between it and the other."""


def topology() -> Topology:
    """The nodes and guests of the paths ``offloaded``, ``software`` and ``ovs_userspace``."""
    return parse(resources.files("asap2.lab").joinpath("bench/topologies/paths.toml").read_text())


def build(lab: Lab) -> list[TrafficPath]:
    """Bring *lab* up with all five paths, each proven by a ping."""
    plan = topology()
    lab.up(plan)
    layout = lab.layout
    found = {}
    for node in plan.nodes:
        if node.name == USERSPACE:
            host = SwitchingHost(layout, node.name, userspace_switch(layout, node.name))
        else:
            switch_on(layout, node.name, offload=node.name == "offloaded")
            host = SwitchingHost(layout, node.name)
        one, other = (guest for guest in plan.guests if guest.node == node.name)
        address = (other.address or "").split("/")[0]
        ends = layout.guest(one.name) / "ns", layout.guest(other.name) / "ns"
        name = node.name.replace("-", "_")
        found[name] = TrafficPath(name, *ends, address, host)
    found["direct"] = direct(layout)
    found["bridge"] = _bridge(layout)
    for path in found.values():
        run(path.client, "ping", "-q", "-c", "2", "-i", "0.2", "-W", "5", path.address)
    return [found[name] for name in NAMES]


def representors(bundle: Path) -> list[str]:
    """The representors of a node, in the order of their VFs."""
    found = run(bundle, "sh", "-c", "grep -H pf0vf /sys/class/net/eth*/phys_port_name").split()
    return [line.split("/")[4] for line in sorted(found, key=lambda line: int(line.rpartition("vf")[2]))]


def switch_on(layout: Layout, node: str, *, offload: bool, options: Sequence[str] = ()) -> None:
    """Join the representors of *node*, each a port with these *options*, by the bridge br0 of its Open vSwitch."""
    bundle = layout.node(node) / "ns"
    settings = [f"{SET}hw-offload={str(offload).lower()}", f"{SET}max-idle={MAX_IDLE}"]
    run(bundle, "ovs-vsctl", "set", "Open_vSwitch", ".", *settings)
    run(bundle, "systemctl", "restart", "openvswitch.service")
    run(bundle, "ovs-vsctl", "add-br", "br0")
    for representor in representors(bundle):
        run(bundle, "ovs-vsctl", "add-port", "br0", representor, *options)
        run(bundle, "ip", "link", "set", representor, "up")


def userspace_switch(layout: Layout, node: str) -> UserspaceSwitch:
    """Join the representors of *node* by a switch in user space."""
    bundle, switch = layout.node(node) / "ns", UserspaceSwitch.of(layout, node)
    ports = representors(bundle)
    for command in [*switch.start(), switch.join(dict.fromkeys(ports, ""))]:
        run(None, "sh", "-c", command)
    for port in ports:
        run(bundle, "ip", "link", "set", port, "up")
    return switch


def plain(layout: Layout, *names: str) -> list[Path]:
    """New network namespaces, and nothing more, below the lab's guests; their bundles."""
    bundles = [layout.guest(name) / "ns" for name in names]
    for bundle in bundles:
        create(bundle, ["net"], no_ipv6)
        ip(bundle / "net", "link set dev lo up")
    return bundles


def give_address(bundle: Path, address: str) -> None:
    """Give eth0 of *bundle* an *address* of a /24 network, and set it up."""
    ip(bundle / "net", f"address add {address}/24 dev eth0", "link set dev eth0 up")


def direct(layout: Layout) -> TrafficPath:
    """Two guests that are the ends of one veth pair."""
    one, other = plain(layout, "direct-a", "direct-b")
    ip(one / "net", f"link add name eth0 type veth peer name eth0 netns {other / 'net'}")
    give_address(one, "10.9.3.1")
    give_address(other, "10.9.3.2")
    return TrafficPath("direct", one, other, "10.9.3.2")


def _bridge(layout: Layout) -> TrafficPath:
    """A namespace with a Linux bridge, whose ports p0 and p1 each lead to a guest."""
    middle, *guests = plain(layout, "bridge", "bridge-a", "bridge-b")
    ip(middle / "net", "link add name br0 type bridge", "link set dev br0 up")
    for number, guest in enumerate(guests):
        ip(guest / "net", f"link add name eth0 type veth peer name p{number} netns {middle / 'net'}")
        give_address(guest, f"10.9.4.{number + 1}")
        ip(middle / "net", f"link set dev p{number} master br0", f"link set dev p{number} up")
    return TrafficPath("bridge", guests[0], guests[1], "10.9.4.2")
