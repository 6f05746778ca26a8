# SPDX-License-Identifier: Apache-2.0
"""The logical network of the demo, as the ``ovn-nbctl`` commands that make it.

Two logical switches with two guests each, a router between them, and a third switch that is VLAN 100 of the physical
network. Of each pair of guests one is on each node, so all traffic crosses the cable.
"""

from __future__ import annotations

from dataclasses import dataclass

ROUTER = "r0"
PHYSICAL_NETWORK, VLAN = "physnet1", 100
GATEWAY = "172.16.0.1"
"""The router's address in the physical network; the chassis of the central has it."""
OUTSIDE_GUEST, OUTSIDE = "outside", "172.16.0.200"
FLOATING = "172.16.0.102"
ROUTER_MACS = {"sw0": "00:00:00:00:ff:00", "sw1": "00:00:00:00:ff:01"}
ONE_BACKEND, TWO_BACKENDS = "30.0.0.1", "30.0.0.2"
"""Virtual addresses of the load balancers."""


@dataclass(frozen=True, slots=True)
class Port:
    """A guest's port of a logical switch; it has the guest's name."""

    guest: str
    switch: str
    mac: str
    address: str
    address6: str

    @property
    def gateway(self) -> str:
        """The router's address in the port's switch."""
        return f"{self.address.rpartition('.')[0]}.1"

    @property
    def gateway6(self) -> str:
        """The router's IPv6 address in the port's switch."""
        return f"{self.address6.rpartition(':')[0]}:1"


VM1 = Port("vm1", "sw0", "fa:16:3e:00:00:01", "10.0.0.11", "fd00::11")
VM2 = Port("vm2", "sw0", "fa:16:3e:00:00:02", "10.0.0.12", "fd00::12")
VM3 = Port("vm3", "sw1", "fa:16:3e:00:00:03", "10.0.1.13", "fd00:1::13")
VM4 = Port("vm4", "sw1", "fa:16:3e:00:00:04", "10.0.1.14", "fd00:1::14")
PORTS = (VM1, VM2, VM3, VM4)


def switches() -> list[str]:
    """Make the switches, their ports, and the DHCP options of each."""
    lines = []
    for switch in ROUTER_MACS:
        lines.append(f"ovn-nbctl ls-add {switch}")
    for port in PORTS:
        addresses = f"{port.mac} {port.address} {port.address6}"
        lines.append(
            f"ovn-nbctl lsp-add {port.switch} {port.guest} -- lsp-set-addresses {port.guest} '{addresses}'"
            f" -- lsp-set-port-security {port.guest} '{addresses}'"
        )
    for switch, mac in ROUTER_MACS.items():
        ports = [port for port in PORTS if port.switch == switch]
        router = ports[0].gateway
        options = f"server_id={router} server_mac={mac} router={router} lease_time=3600"
        lines.append(
            f"dhcp=$(ovn-nbctl create DHCP_Options cidr={router.rpartition('.')[0]}.0/24)"
            f" && ovn-nbctl dhcp-options-set-options $dhcp {options}"
            + "".join(f" && ovn-nbctl lsp-set-dhcpv4-options {port.guest} $dhcp" for port in ports)
        )
    return lines


def router() -> list[str]:
    """Join the switches by a distributed router."""
    lines = [f"ovn-nbctl lr-add {ROUTER}"]
    for switch, mac in ROUTER_MACS.items():
        port = next(port for port in PORTS if port.switch == switch)
        lines += [
            f"ovn-nbctl lrp-add {ROUTER} {ROUTER}-{switch} {mac} {port.gateway}/24 {port.gateway6}/64",
            _join(switch, f"{ROUTER}-{switch}"),
        ]
    return lines


def physical(gateway_chassis: str) -> list[str]:
    """Join the router to the physical network, by a localnet port with a VLAN: SNAT for both switches on
    *gateway_chassis*, and a floating IP of vm2 on vm2's own chassis."""
    snat = [f"lr-nat-add {ROUTER} snat {GATEWAY} {network}" for network in ("10.0.0.0/24", "10.0.1.0/24")]
    return [
        "ovn-nbctl ls-add public",
        f"ovn-nbctl lsp-add public physical '' {VLAN} -- lsp-set-type physical localnet"
        f" -- lsp-set-addresses physical unknown -- lsp-set-options physical network_name={PHYSICAL_NETWORK}",
        f"ovn-nbctl lrp-add {ROUTER} {ROUTER}-public 00:00:00:00:ff:99 {GATEWAY}/24",
        _join("public", f"{ROUTER}-public"),
        f"ovn-nbctl lrp-set-gateway-chassis {ROUTER}-public {gateway_chassis}",
        f"ovn-nbctl {' -- '.join(snat)}",
        f"ovn-nbctl lr-nat-add {ROUTER} dnat_and_snat {FLOATING} {VM2.address} {VM2.guest} 00:00:00:00:fe:02",
    ]


def _join(switch: str, router_port: str) -> str:
    name = f"{switch}-{ROUTER}"
    return (
        f"ovn-nbctl lsp-add {switch} {name} -- lsp-set-type {name} router -- lsp-set-addresses {name} router"
        f" -- lsp-set-options {name} router-port={router_port}"
    )


def stateless_acls() -> list[str]:
    """Let all pass to vm4 without connection tracking, but TCP to port 9999."""
    to = "sw1 to-lport"
    return [
        f"ovn-nbctl acl-add {to} 1002 'outport == \"vm4\" && tcp.dst == 9999' drop",
        f"ovn-nbctl acl-add {to} 1001 'outport == \"vm4\" && ip' allow-stateless",
    ]


def stateful_acls() -> list[str]:
    """Let guests of sw0 begin connections, and others begin some with them: to port 5201, and pings."""
    ports = "{" + ", ".join(f'"{port.guest}"' for port in PORTS if port.switch == "sw0") + "}"
    return [
        f"ovn-nbctl acl-add sw0 from-lport 1002 'inport == {ports} && ip' allow-related",
        f"ovn-nbctl acl-add sw0 to-lport 1002 'outport == {ports} && tcp.dst == 5201' allow-related",
        f"ovn-nbctl acl-add sw0 to-lport 1002 'outport == {ports} && icmp' allow-related",
        f"ovn-nbctl acl-add sw0 to-lport 1001 'outport == {ports} && ip' drop",
    ]


def load_balancers() -> list[str]:
    """Give sw0 a load balancer with one backend, and one with two."""
    return [
        f"ovn-nbctl lb-add one {ONE_BACKEND}:80 {VM4.address}:5201 tcp -- ls-lb-add sw0 one",
        f"ovn-nbctl lb-add two {TWO_BACKENDS}:80 {VM3.address}:80,{VM4.address}:80 tcp -- ls-lb-add sw0 two",
    ]
