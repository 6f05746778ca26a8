# SPDX-License-Identifier: Apache-2.0
"""What the demo shows of OVN, one thing after the other; each has a verdict that can fail.

Most of the logical network is there from the first scenario on. What makes a switch track connections comes late, so
that the first scenarios show traffic without it.
"""

from __future__ import annotations

import re

from asap2.lab.terminal import OutputError, Terminal, expect
from asap2.ovn import network
from asap2.ovn.network import (
    FLOATING,
    GATEWAY,
    ONE_BACKEND,
    OUTSIDE,
    OUTSIDE_GUEST,
    PORTS,
    ROUTER,
    TWO_BACKENDS,
    VM1,
    VM2,
    VM3,
    VM4,
)
from asap2.ovn.traffic import Traffic

SYNC = "ovn-nbctl --wait=hv sync"
FLOWS = "ovs-appctl dpctl/dump-flows -m"
GATEWAY_MTU = 1400
LIMIT = 50
"""Mbit/s of the QoS rule."""
DOWNLOADS = 20
"""With so few of them each backend gets one, but in one of 500,000 runs."""


class Scenarios:
    """Types everything on the node *central* and in the guests."""

    def __init__(self, terminal: Terminal, traffic: Traffic, central: str) -> None:
        self.terminal = terminal
        self.traffic = traffic
        self.central = central

    def all(self) -> None:
        """Show all, in an order in which one prepares the next."""
        self.networks()
        self.dhcp()
        self._arp()
        self._switching()
        self._routing()
        self._ipv6()
        self._stateless()
        self._snat()
        self._floating()
        self._qos()
        self._gateway_mtu()
        self._load_balancers()
        self._allow_related()
        self._explained()

    def _configure(self, *lines: str) -> None:
        for line in (*lines, SYNC):
            self.terminal.type(self.central, line)

    def networks(self) -> None:
        """Make the logical network."""
        self.terminal.heading("Logical switches, a distributed router, and the physical network as VLAN 100")
        self._configure(*network.switches(), *network.router(), *network.physical(self.central))

    def dhcp(self) -> None:
        """Have the guests ask for their addresses."""
        self.terminal.heading("DHCP: ovn-controller of the guest's own node answers")
        for port in PORTS:
            lease = expect(rf"lease of ({re.escape(port.address)}) obtained from {re.escape(port.gateway)}", "{1}")
            self.terminal.type(port.guest, "udhcpc -i eth0 -n -q -f", lease)

    def _arp(self) -> None:
        self.terminal.heading("ARP: the guest's own node answers, and no request reaches the other guest")
        with self.terminal.begin(VM2.guest, "tcpdump -nn -i eth0 arp", "listening on") as capture:
            self.traffic.ping(VM1.guest, VM2.address)
            answered = expect(rf"{VM2.address} .*{VM2.mac}", "vm1 knows vm2's MAC")
            self.terminal.type(VM1.guest, f"ip neighbour show {VM2.address}", answered)
            capture.read_until_quiet()
            self.terminal.interrupt(VM2.guest, capture, _judge_no_request)

    def _switching(self) -> None:
        self.terminal.heading("A logical switch on two nodes: TCP and UDP through the tunnel")
        self.traffic.tcp("switch", VM1.guest, VM2.guest, VM2.address)
        self.traffic.udp("switch", VM1.guest, VM2.guest, VM2.address)

    def _routing(self) -> None:
        self.terminal.heading("A distributed router: the sender's own node routes")
        self.traffic.ping(VM1.guest, VM4.address, ttl=63)
        self.traffic.tcp("router", VM1.guest, VM4.guest, VM4.address)
        self.traffic.udp("router", VM1.guest, VM4.guest, VM4.address)

    def _ipv6(self) -> None:
        self.terminal.heading("IPv6, through the router too")
        for port in PORTS:
            lines = f"ip address add {port.address6}/64 dev eth0 nodad && ip -6 route add default via {port.gateway6}"
            self.terminal.type(port.guest, lines)
        self.traffic.ping(VM1.guest, VM4.address6, ttl=63)
        self.traffic.tcp("router with IPv6", VM1.guest, VM4.guest, VM4.address6)

    def _stateless(self) -> None:
        self.terminal.heading("Stateless ACLs: port 9999 is closed, without connection tracking")
        self._configure(*network.stateless_acls())
        self._refused(VM1.guest, VM4.guest, VM4.address, 9999)
        self.traffic.tcp("stateless ACL", VM1.guest, VM4.guest, VM4.address)

    def _snat(self) -> None:
        self.terminal.heading(f"SNAT on {self.central}, the gateway chassis, and a localnet port with a VLAN")
        with self.terminal.begin(OUTSIDE_GUEST, "tcpdump -nn -i eth0 icmp", "listening on") as capture:
            self.traffic.wait_for_neighbour(VM4.guest, OUTSIDE)
            self.traffic.ping(VM4.guest, OUTSIDE)
            capture.read_until_quiet()
            seen = expect(
                rf"IP {re.escape(GATEWAY)} > {re.escape(OUTSIDE)}: ICMP echo request", "outside sees the router"
            )
            self.terminal.interrupt(OUTSIDE_GUEST, capture, seen)
        self.traffic.tcp("SNAT", VM4.guest, OUTSIDE_GUEST, OUTSIDE)
        tagged = expect(rf"offloaded:yes.*actions:.*push_vlan\(vid={network.VLAN}", "hardware pushes VLAN 100")
        self.terminal.type(self.central, f"{FLOWS} type=offloaded | grep push_vlan", tagged)

    def _floating(self) -> None:
        self.terminal.heading("A floating IP, distributed: the guest's own node translates")
        self.traffic.wait_for_neighbour(OUTSIDE_GUEST, FLOATING)
        self.traffic.ping(OUTSIDE_GUEST, FLOATING)
        self.traffic.tcp("floating IP", OUTSIDE_GUEST, VM2.guest, FLOATING)

    def _qos(self) -> None:
        self.terminal.heading(f"QoS: a meter lets vm3 send {LIMIT} Mbit/s, in hardware")
        rule = "sw1 from-lport 100 'inport == \"vm3\"'"
        self._configure(f"ovn-nbctl qos-add {rule} rate={LIMIT * 1000} burst={LIMIT * 100}")
        with self.traffic.listening(VM2.guest), self.traffic.measured("QoS meter, UDP", VM3.guest, VM2.guest):
            command = f"iperf3 -c {VM2.address} -u -b {4 * LIMIT}M -l 1200 -t 1 -f m | tail -4"
            self.terminal.type(VM3.guest, command, _judge_limited)
        self._configure("ovn-nbctl qos-del sw1")

    def _gateway_mtu(self) -> None:
        self.terminal.heading(
            f"A gateway MTU of {GATEWAY_MTU}: longer packets go to the controller, so no packet is in hardware"
        )
        port = f"{ROUTER}-public"
        self._configure(f"ovn-nbctl set Logical_Router_Port {port} options:gateway_mtu={GATEWAY_MTU}")
        told = expect(rf"(?s)mtu ?= ?{GATEWAY_MTU}", "the router says what fits")
        self.terminal.type(VM3.guest, f"ping -c 2 -i 0.2 -W 2 -M do -s 1450 {OUTSIDE} || true", told)
        self.traffic.wait_for_neighbour(VM3.guest, OUTSIDE)
        with self.traffic.measured("gateway MTU, ping", VM3.guest, least=None):
            self.traffic.ping(VM3.guest, OUTSIDE, "-c 20 -i 0.02")
        why = expect(r"check_pkt_len.*: longer packets go to the controller", "longer packets need the controller")
        self.terminal.type(self.central, "asap2 host explain --no-trial eth1 | grep longer", why)
        self._configure(f"ovn-nbctl remove Logical_Router_Port {port} options gateway_mtu")

    def _load_balancers(self) -> None:
        self.terminal.heading("Load balancers, with one backend and with two")
        self._configure(*network.load_balancers())
        self.traffic.tcp("load balancer", VM1.guest, VM4.guest, ONE_BACKEND, 80)
        root = "/run/www"
        servers = []
        for port in (VM3, VM4):
            files = f"mkdir -p {root} && echo {port.guest} > {root}/name && truncate -s 256M {root}/large"
            self.terminal.type(port.guest, files)
            command = f"python3 -m http.server -d {root} 80"
            servers.append(self.terminal.begin(port.guest, command, "Serving HTTP"))
        try:
            wget = f"busybox wget -q -O - http://{TWO_BACKENDS}"
            fetch = f"for i in $(seq {DOWNLOADS}); do {wget}/name; done | sort | uniq -c"
            self.terminal.type(VM1.guest, fetch, expect(r"(?s)\d+ vm3.*\d+ vm4", "both backends answer"))
            with self.traffic.measured("load balancer with two backends, TCP", VM1.guest, VM3.guest, VM4.guest):
                self.terminal.type(
                    VM1.guest,
                    f"busybox wget -q -O - http://{TWO_BACKENDS}/large | wc -c",
                    expect(r"^268435456$", "256 MiB"),
                )
        finally:
            for server in servers:
                server.kill()

    def _allow_related(self) -> None:
        self.terminal.heading("Stateful ACLs (allow-related): port 5201 and pings, and what belongs to them")
        self._configure(*network.stateful_acls())
        self.traffic.ping(VM4.guest, VM2.address)
        self._refused(VM4.guest, VM2.guest, VM2.address, 5202)
        self.traffic.tcp("stateful ACL", VM4.guest, VM2.guest, VM2.address)
        self.traffic.tcp("stateful ACL, outgoing", VM2.guest, VM4.guest, VM4.address)

    def _explained(self) -> None:
        self.terminal.heading("Flows that are not in hardware, and why")
        for node in sorted({place.node for place in self.traffic.places.values()}):
            self.terminal.type(node, "asap2 host explain", _judge_explained)

    def _refused(self, client: str, server: str, address: str, port: int) -> None:
        with self.terminal.begin(server, f"iperf3 -s -1 -p {port}", "Server listening"):
            command = f"! iperf3 -c {address} -p {port} --connect-timeout 500"
            self.terminal.type(client, command, expect("unable to connect", "the server is never reached"))


def _judge_no_request(output: str) -> str:
    asked = re.findall(r"Request who-has \S+ tell (\S+),", output)
    if VM1.address in asked:
        raise OutputError("the request reached the other guest")
    return "no request"


def _judge_limited(output: str) -> str:
    sent, found = (re.search(rf"([\d.]+) Mbits/sec .*{end}", output) for end in ("sender", "receiver"))
    if not sent or not found:
        raise OutputError("iperf3 did not measure anything")
    # On a machine too busy to send well above the limit, what arrives says nothing about who lost the rest.
    least = LIMIT / 2 if float(sent[1]) > 2 * LIMIT else 0
    if not least < float(found[1]) < LIMIT * 1.5:
        raise OutputError(f"{found[1]} Mbit/s of {sent[1]} arrived, and the limit is {LIMIT}")
    return f"{found[1]} Mbit/s of {sent[1]} arrive"


def _judge_explained(output: str) -> str:
    if re.search(r"unexplained", output):
        raise OutputError("a flow has no explanation")
    return "each has its reason"
