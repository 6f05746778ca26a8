# SPDX-License-Identifier: Apache-2.0
"""What OVN-Kubernetes asks of a NIC on a node (ovnkube-node, its CNI plugin, the library sriovnet), without Kubernetes.

A pod is a network namespace of the node. The device plugin has chosen a VF by its PCI address. The CNI plugin finds the
VF's representor, moves the VF into the pod, and plugs the representor into br-int.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from asap2.ovn.programs import INTEGRATION_BRIDGE
from tests.system.offload.labs import Bench, until

MTU = 1400
NET, PCI = "/sys/class/net", "/sys/bus/pci/devices"


@dataclass(frozen=True)
class Pod:
    """A pod: where it runs, its sandbox's id, and the network that ovnkube's annotation gives it."""

    node: str
    name: str
    sandbox: str
    vf: str
    mac: str
    address: str

    @property
    def host_interface(self) -> str:
        """What the plugin names the representor."""
        return self.sandbox[:15]


PODS = (
    Pod("hv1", "default_web", "0a58c0ffee0123456789", "0000:03:00.5", "0a:58:0a:f4:00:05", "10.244.0.5"),
    Pod("hv2", "default_client", "1b58c0ffee0123456789", "0000:03:00.5", "0a:58:0a:f4:00:06", "10.244.0.6"),
)


class Plugin:
    """The CNI plugin of one node."""

    def __init__(self, bench: Bench, node: str) -> None:
        self.bench, self.node = bench, node

    def ok(self, command: str) -> str:
        return self.bench.ok(self.node, command).strip()

    def uplink(self, vf: str) -> str:
        """Of the devices of the VF's PF, that with a switch id and a port name as p0."""
        for name in self.ok(f"ls {PCI}/{vf}/physfn/net").split():
            switch = self.bench.run(self.node, f"cat {NET}/{name}/phys_switch_id")
            port = self.bench.run(self.node, f"cat {NET}/{name}/phys_port_name")
            if switch.returncode == 0 and switch.stdout.strip() and re.fullmatch(r"p\d+\n", port.stdout):
                return name
        raise AssertionError(f"no uplink of {vf}")

    def number(self, vf: str) -> int:
        """Of the VF, by the link virtfn* of its PF that leads to it."""
        found = self.ok(f"cd {PCI}/{vf}/physfn && for link in virtfn*; do echo $link $(readlink $link); done")
        (name,) = [line.split()[0] for line in found.splitlines() if line.endswith(f"/{vf}")]
        return int(name.removeprefix("virtfn"))

    def representor_by_devlink(self, uplink: str, number: int) -> str:
        """The device of the devlink port of flavour pcivf with this number, at controller 0."""
        address = self.ok(f"basename $(readlink -f {NET}/{uplink}/device)")
        ports = json.loads(self.ok("devlink -j port show"))["port"]
        (name,) = [
            port["netdev"]
            for place, port in ports.items()
            if place.startswith(f"pci/{address}/")
            and (port["flavour"], port.get("controller"), port.get("vfnum")) == ("pcivf", 0, number)
        ]
        return str(name)

    def representor_by_name(self, uplink: str, number: int) -> str:
        """The device beside the uplink whose port name ends with this number."""
        found = self.ok(f"cd {NET}/{uplink}/device/net && grep -s . */phys_port_name || true")
        (name,) = re.findall(rf"^(\S+)/phys_port_name:pf\d+vf{number}$", found, re.MULTILINE)
        return str(name)

    def add(self, pod: Pod) -> None:
        """CNI's ADD."""
        uplink = self.uplink(pod.vf)
        representor = self.representor_by_name(uplink, self.number(pod.vf))
        device = self.ok(f"ls {PCI}/{pod.vf}/net")
        self.ok(f"ip link set {device} down && ip link set {device} netns {pod.name}")
        inside = f"ip -n {pod.name}"
        self.ok(f"{inside} link set {device} name eth0 && {inside} link set eth0 address {pod.mac} mtu {MTU} up")
        self.ok(f"{inside} address add {pod.address}/24 dev eth0")
        self.ok(f"ip link set {representor} down && ip link set {representor} name {pod.host_interface}")
        self.ok(f"ip link set {pod.host_interface} mtu {MTU} up")
        ids = {
            "attached_mac": pod.mac,
            "iface-id": pod.name,
            "ip_addresses": pod.address,
            "sandbox": pod.sandbox,
            "vf-netdev-name": device,
        }
        words = " ".join(f'external_ids:{key}="{value}"' for key, value in ids.items())
        name = pod.host_interface
        self.ok(f"ovs-vsctl --timeout=30 add-port {INTEGRATION_BRIDGE} {name} -- set Interface {name} {words}")
        installed = f"ovs-vsctl --if-exists get Interface {name} external_ids:ovn-installed"
        until(lambda: self.ok(installed) == '"true"', why=f"{name} is not installed")

    def delete(self, pod: Pod) -> None:
        """CNI's DEL."""
        device = self.ok(f"ovs-vsctl get Interface {pod.host_interface} external_ids:vf-netdev-name").strip('"')
        inside = f"ip -n {pod.name}"
        self.ok(f"{inside} link set eth0 down && {inside} link set eth0 name {device}")
        # to the namespace of the shell, which stays: it has another command to do
        self.ok(f"ip netns exec {pod.name} ip link set {device} netns $$ && true")
        self.ok(f"ovs-vsctl --if-exists del-port {INTEGRATION_BRIDGE} {pod.host_interface}")


@pytest.fixture(scope="module")
def plugins(bench: Bench) -> Iterator[dict[str, Plugin]]:
    """Both nodes' plugins, and the logical switch of the pods."""
    bench.ok("hv1", "ovn-nbctl ls-add pods")
    for pod in PODS:
        bench.ok("hv1", f"ovn-nbctl lsp-add pods {pod.name} -- lsp-set-addresses {pod.name} '{pod.mac} {pod.address}'")
        bench.ok(pod.node, f"ip netns add {pod.name}")
    yield {pod.node: Plugin(bench, pod.node) for pod in PODS}
    bench.ok("hv1", "ovn-nbctl --wait=hv ls-del pods")
    for pod in PODS:
        bench.ok(pod.node, f"ip netns del {pod.name}")


def test_the_switch_offloads_as_ovnkube_node_wants_it(plugins: dict[str, Plugin]) -> None:
    for plugin in plugins.values():
        assert plugin.ok("ovs-vsctl --if-exists get Open_vSwitch . other_config:hw-offload") == '"true"'


@pytest.mark.parametrize("vf", ["0000:03:00.2", "0000:03:00.3", "0000:03:00.4", "0000:03:00.5"])
def test_a_representor_is_found_by_devlink_and_by_its_name(plugins: dict[str, Plugin], vf: str) -> None:
    plugin = plugins["hv1"]
    uplink = plugin.uplink(vf)
    number = plugin.number(vf)
    assert (uplink, number) == ("enp3s0f0", int(vf[-1]) - 2)
    found = plugin.representor_by_devlink(uplink, number)
    assert found == plugin.representor_by_name(uplink, number)
    assert plugin.ok(f"cat {NET}/{found}/phys_switch_id") == plugin.ok(f"cat {NET}/{uplink}/phys_switch_id")


def test_the_hypervisor_may_give_a_vf_its_mac_by_devlink(plugins: dict[str, Plugin]) -> None:
    plugin, (pod, _) = plugins["hv1"], PODS
    uplink, number = plugin.uplink(pod.vf), plugin.number(pod.vf)
    representor = plugin.representor_by_devlink(uplink, number)
    plugin.ok(f"devlink port function set {representor} hw_addr {pod.mac}")
    assert f"hw_addr {pod.mac}" in plugin.ok(f"devlink port show {representor}")
    assert f"vf {number} " in (shown := plugin.ok(f"ip link show {uplink}"))
    assert pod.mac in shown
    plugin.ok(f"devlink port function set {representor} hw_addr 00:00:00:00:00:00")


def test_pods_come_talk_in_hardware_and_go(plugins: dict[str, Plugin], bench: Bench) -> None:
    devices = {}
    for pod in PODS:
        devices[pod] = plugins[pod.node].ok(f"ls {PCI}/{pod.vf}/net")
        plugins[pod.node].add(pod)
    bench.ok("hv1", "ovn-nbctl --timeout=120 --wait=hv sync")
    try:
        web, client = PODS
        shown = json.loads(bench.ok(web.node, f"ip -n {web.name} -j link show eth0"))[0]
        assert (shown["address"], shown["mtu"]) == (web.mac, MTU)
        ping = f"ip netns exec {client.name} ping -q -c 20 -i 0.01 {web.address}"
        assert "20 received, 0% packet loss" in bench.ok(client.node, ping)
        flow = bench.flow(client.node, f"in_port({client.host_interface})", "eth_type(0x0800)", "set(tunnel(")
        assert "offloaded:yes" in flow
        assert bench.flows(web.node, "_sys_", "tunnel(tun_id=", f"actions:{web.host_interface}")
    finally:
        for pod in PODS:
            plugins[pod.node].delete(pod)
    for pod in PODS:
        assert plugins[pod.node].ok(f"ls {PCI}/{pod.vf}/net") == devices[pod]
        assert pod.host_interface not in bench.ok(pod.node, f"ovs-vsctl list-ports {INTEGRATION_BRIDGE}")
