# SPDX-License-Identifier: Apache-2.0
"""The paths from guest to guest that are compared, all in namespaces of one lab.

=============  ==========================================================================================
``plain``      VFs of a software ConnectX, Open vSwitch with hw-offload=true, rules without state
``tracked``    the same, every connection tracked, and its destination translated
``software``   the rules of ``tracked`` with hw-offload=false: the software datapath
``router``     a Linux router's namespace, whose nftables tracks and translates
=============  ==========================================================================================
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from asap2.lab.bench.paths import SwitchingHost, TrafficPath, plain, representors, switch_on
from asap2.lab.bench.scale.paths import address
from asap2.lab.execute import ip, run
from asap2.lab.layout import Layout
from asap2.lab.topology import Guest, Topology, parse

NAMES = ("plain", "tracked", "software", "router")
SERVICE = 99
"""The last octet of the address that the client uses: nobody has it, NAT makes the server's of it."""
ZONE = 7
_CLIENT, _SERVER, _SERVED = "10.9.24.1", "10.9.25.2", "10.9.26.9"


def topology() -> Topology:
    """The lab's nodes and guests."""
    return parse(resources.files("asap2.lab").joinpath("bench/topologies/stateful.toml").read_text())


def build(layout: Layout, plan: Topology) -> list[TrafficPath]:
    """Set all paths up in the lab that has come up from *plan*, each proven by a ping."""
    found = {}
    for node in plan.nodes:
        client, server = (guest for guest in plan.guests if guest.node == node.name)
        switch_on(layout, node.name, offload=node.name != "software")
        stateful = node.name != "plain"
        _openflow(layout.node(node.name) / "ns", service(server) if stateful else "", address(server))
        if stateful:
            _know(layout.guest(client.name) / "ns", service(server), server.mac or "")
        found[node.name] = TrafficPath(
            node.name,
            layout.guest(client.name) / "ns",
            layout.guest(server.name) / "ns",
            service(server) if stateful else address(server),
            SwitchingHost(layout, node.name),
            address(server),
        )
    found["router"] = _router(layout)
    for each in found.values():
        run(each.client, "ping", "-q", "-c", "2", "-i", "0.2", "-W", "5", each.address)
    return [found[name] for name in NAMES]


def service(server: Guest) -> str:
    """The address by which the client reaches *server*."""
    return f"{address(server).rpartition('.')[0]}.{SERVICE}"


def _know(guest: Path, service_address: str, mac: str) -> None:
    ip(guest / "net", f"neighbour replace {service_address} lladdr {mac} dev eth0")


def _openflow(node: Path, service_address: str, server: str) -> None:
    """Rules of a stateful firewall that translates *service_address* to *server*, or (empty) of two ports joined."""
    one, other = (run(node, "ovs-vsctl", "get", "Interface", name, "ofport").strip() for name in representors(node))
    flows = ["table=0,priority=9,arp,actions=NORMAL"]
    if service_address:
        commit = f"ct(commit,zone={ZONE},nat(dst={server}))"
        flows += [
            f"table=0,priority=5,ip,ct_state=-trk,actions=ct(table=1,zone={ZONE},nat)",
            f"table=1,priority=5,ip,ct_state=+trk+new,in_port={one},nw_dst={service_address},actions={commit},{other}",
            f"table=1,priority=4,ip,ct_state=+trk+new,in_port={one},actions=ct(commit,zone={ZONE}),{other}",
            f"table=1,priority=5,ip,ct_state=+trk+est,in_port={one},actions={other}",
            f"table=1,priority=5,ip,ct_state=+trk+est,in_port={other},actions={one}",
        ]
    else:
        flows += [f"table=0,priority=5,ip,in_port={a},actions={b}" for a, b in ((one, other), (other, one))]
    run(node, "ovs-ofctl", "del-flows", "br0")
    for flow in flows:
        run(node, "ovs-ofctl", "add-flow", "br0", flow)


def _router(layout: Layout) -> TrafficPath:
    """The same by what Linux has: a router between two networks that accepts what is established, and what is new from
    the client's side."""
    router, client, server = plain(layout, "router", "router-a", "router-b")
    for guest, own, number in ((client, _CLIENT, 0), (server, _SERVER, 1)):
        gateway = f"{own.rpartition('.')[0]}.254"
        ip(guest / "net", f"link add name eth0 type veth peer name p{number} netns {router / 'net'}")
        ip(guest / "net", f"address add {own}/24 dev eth0", "link set dev eth0 up", f"route add default via {gateway}")
        ip(router / "net", f"address add {gateway}/24 dev p{number}", f"link set dev p{number} up")
    run(router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    run(router, "nft", RULES)
    return TrafficPath("router", client, server, _SERVED, None, _SERVER)


RULES = f"""
table ip firewall {{
  chain translate {{ type nat hook prerouting priority dstnat; ip daddr {_SERVED} dnat to {_SERVER}; }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname p0 ct state new accept
  }}
}}
"""
