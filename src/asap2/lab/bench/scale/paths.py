# SPDX-License-Identifier: Apache-2.0
"""The paths whose throughput is compared, all in namespaces of one lab.

=================  ==========================================================================================
``direct``         the two guests are the ends of one veth pair: what the machine can do
``same_node``      VFs of one software ConnectX, Open vSwitch with hw-offload=true
``vlan``           VFs of two, joined by a cable; Open vSwitch tags with hw-offload=true
``vxlan``          VFs of two, joined by a cable; Open vSwitch encapsulates in VXLAN with hw-offload=true
``geneve``         the same in Geneve
``kernel_vxlan``   two namespaces, each with a Linux bridge that has a guest's veth and the kernel's vxlan device
=================  ==========================================================================================
"""

from __future__ import annotations

from importlib import resources

from asap2.lab.bench.paths import TrafficPath, direct, give_address, plain, switch_on
from asap2.lab.execute import ip, run
from asap2.lab.layout import Layout
from asap2.lab.topology import Guest, Topology, parse

NAMES = ("direct", "same_node", "vlan", "vxlan", "geneve", "kernel_vxlan")
PF = "enp3s0f0"
"""The uplink of a node whose NIC has the default PCI address."""
UNDERLAY_MTU, OVERLAY_MTU = 1600, 1450
"""Bytes: what guests whose packets get tunnel headers may send, and room for these on the wire."""


def topology() -> Topology:
    """The lab's nodes and guests."""
    return parse(resources.files("asap2.lab").joinpath("bench/topologies/scale.toml").read_text())


def build(layout: Layout, plan: Topology) -> list[TrafficPath]:
    """Set all paths up in the lab that has come up from *plan*, each proven by a ping."""
    guests = {guest.name: guest for guest in plan.guests}

    def path(name: str, first: str, second: str) -> TrafficPath:
        one, other = guests[first], guests[second]
        return TrafficPath(name, layout.guest(one.name) / "ns", layout.guest(other.name) / "ns", address(other))

    switch_on(layout, "same-node", offload=True)
    for node in ("vlan-1", "vlan-2"):
        switch_on(layout, node, offload=True, options=("tag=57",))
        _uplink(layout, node)
    for kind in ("vxlan", "geneve"):
        for number in (1, 2):
            _tunnel(layout, kind, number)
    for guest in ("vxlan-a", "vxlan-b", "geneve-a", "geneve-b"):
        ip(layout.guest(guest) / "ns" / "net", f"link set dev eth0 mtu {OVERLAY_MTU}")
    found = {
        "direct": direct(layout),
        "same_node": path("same_node", "same-node-a", "same-node-b"),
        "vlan": path("vlan", "vlan-a", "vlan-b"),
        "vxlan": path("vxlan", "vxlan-a", "vxlan-b"),
        "geneve": path("geneve", "geneve-a", "geneve-b"),
        "kernel_vxlan": _kernel_vxlan(layout),
    }
    for each in found.values():
        run(each.client, "ping", "-q", "-c", "2", "-i", "0.2", "-W", "5", each.address)
    return [found[name] for name in NAMES]


def address(guest: Guest) -> str:
    """The guest's address without the length of its network."""
    return (guest.address or "").split("/")[0]


def _uplink(layout: Layout, node: str) -> None:
    bundle = layout.node(node) / "ns"
    run(bundle, "ovs-vsctl", "add-port", "br0", PF)
    run(bundle, "ip", "link", "set", PF, "up")


def _tunnel(layout: Layout, kind: str, number: int) -> None:
    """Join the guest of node *number* to the other by a tunnel of a *kind* between the uplinks' addresses."""
    node = f"{kind}-{number}"
    bundle = layout.node(node) / "ns"
    run(bundle, "ip", "link", "set", PF, "mtu", str(UNDERLAY_MTU), "up")
    run(bundle, "ip", "address", "add", f"172.16.0.{number}/24", "dev", PF)
    switch_on(layout, node, offload=True)
    remote = f"options:remote_ip=172.16.0.{3 - number}"
    run(
        bundle,
        *("ovs-vsctl", "add-port", "br0", "vx0", "--", "set", "Interface", "vx0", f"type={kind}"),
        remote,
        "options:key=77",
    )


def _kernel_vxlan(layout: Layout) -> TrafficPath:
    """The same shape as ``vxlan`` without a NIC: the cable is a veth pair between the two namespaces."""
    nodes = plain(layout, "kernel-vxlan-1", "kernel-vxlan-2")
    guests = plain(layout, "kernel-vxlan-a", "kernel-vxlan-b")
    one, other = (node / "net" for node in nodes)
    ip(one, f"link add name wire mtu {UNDERLAY_MTU} type veth peer name wire mtu {UNDERLAY_MTU} netns {other}")
    for number, (node, guest) in enumerate(zip(nodes, guests, strict=True), 1):
        remote = f"remote 172.16.0.{3 - number} local 172.16.0.{number}"
        ip(guest / "net", f"link add name eth0 mtu {OVERLAY_MTU} type veth peer name p0 netns {node / 'net'}")
        ip(
            node / "net",
            f"address add 172.16.0.{number}/24 dev wire",
            "link set dev wire up",
            "link add name br0 type bridge",
            f"link add name vx0 type vxlan id 77 {remote} dstport 4789 dev wire",
            *(f"link set dev {name} master br0" for name in ("p0", "vx0")),
            *(f"link set dev {name} up" for name in ("p0", "vx0", "br0")),
        )
        give_address(guest, f"10.9.9.{number}")
    return TrafficPath("kernel_vxlan", guests[0], guests[1], "10.9.9.2")
