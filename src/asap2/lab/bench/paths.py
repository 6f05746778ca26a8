# SPDX-License-Identifier: Apache-2.0
"""The five paths from guest to guest that are compared, all in namespaces of a lab of their own.

=================  ======================================================================================
``direct``         the two guests are the ends of one veth pair: what the machine can do
``offloaded``      VFs of a software ConnectX, Open vSwitch with hw-offload=true
``bridge``         a Linux bridge
``software``       VFs of a software ConnectX, Open vSwitch with hw-offload=false: our software datapath
``ovs_userspace``  Open vSwitch's own userspace datapath (datapath_type=netdev, userspace-tso-enable=true)
=================  ======================================================================================
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

NAMES = ("direct", "offloaded", "bridge", "software", "ovs_userspace")
MAX_IDLE = 30000
"""Milliseconds that an unused flow stays, as in the getting-started procedure."""
SET = "other_config:"


@dataclass(frozen=True, slots=True)
class TrafficPath:
    """Two guests' namespaces, and the address of the second."""

    name: str
    client: Path
    server: Path
    address: str


def topology() -> Topology:
    """The nodes and guests of the paths ``offloaded`` and ``software``."""
    return parse(resources.files("asap2.lab").joinpath("topologies/bench.toml").read_text())


def build(lab: Lab) -> list[TrafficPath]:
    """Bring *lab* up with all five paths, each proven by a ping."""
    plan = topology()
    lab.up(plan)
    layout = lab.layout
    found = {}
    for node in plan.nodes:
        switch_on(layout, node.name, offload=node.name == "offloaded")
        one, other = (guest for guest in plan.guests if guest.node == node.name)
        address = (other.address or "").split("/")[0]
        ends = layout.guest(one.name) / "ns", layout.guest(other.name) / "ns"
        found[node.name] = TrafficPath(node.name, *ends, address)
    found["direct"] = direct(layout)
    found["bridge"] = _bridge(layout)
    found["ovs_userspace"] = _ovs_userspace(layout)
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


def _star(layout: Layout, name: str, network: str) -> tuple[Path, TrafficPath]:
    """A namespace with ports p0 and p1, each leading to a guest."""
    middle, *guests = plain(layout, name, f"{name}-a", f"{name}-b")
    for number, guest in enumerate(guests):
        ip(guest / "net", f"link add name eth0 type veth peer name p{number} netns {middle / 'net'}")
        give_address(guest, f"{network}.{number + 1}")
        ip(middle / "net", f"link set dev p{number} up")
    return middle, TrafficPath(name.replace("-", "_"), guests[0], guests[1], f"{network}.2")


def _bridge(layout: Layout) -> TrafficPath:
    middle, path = _star(layout, "bridge", "10.9.4")
    ip(middle / "net", "link add name br0 type bridge", "link set dev p0 master br0", "link set dev p1 master br0")
    ip(middle / "net", "link set dev br0 up")
    return path


def _ovs_userspace(layout: Layout) -> TrafficPath:
    """An Open vSwitch that needs no datapath in the kernel, its files away from where a node's or machine's are."""
    middle, path = _star(layout, "ovs-userspace", "10.9.5")
    place = layout.root / "ovs-userspace"
    place.mkdir()
    variables = [f"OVS_{kind}DIR={place}" for kind in ("RUN", "LOG", "DB", "SYSCONF")]

    def ovs(*command: str) -> None:
        run(middle, "env", *variables, *command)

    database, socket = place / "conf.db", place / "db.sock"
    schema = "/usr/share/openvswitch/vswitch.ovsschema"
    ovs("ovsdb-tool", "create", str(database), schema)
    quiet = ("-vconsole:off", "--detach", "--no-chdir", "--pidfile", "--log-file")
    ovs("ovsdb-server", str(database), f"--remote=punix:{socket}", *quiet)
    ovs("ovs-vsctl", "--no-wait", "init")
    ovs("ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".", f"{SET}userspace-tso-enable=true")
    ovs("ovs-vswitchd", f"unix:{socket}", *quiet)
    ovs("ovs-vsctl", "add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev")
    ovs("ovs-vsctl", "add-port", "br0", "p0", "--", "add-port", "br0", "p1")
    return path
