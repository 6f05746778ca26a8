# SPDX-License-Identifier: Apache-2.0
"""What a cloud on a lab consists of: its hosts, addresses, ports and places, computed from the topology alone.

All addresses are of the lab: the management network is a bridge in the controller's network namespace. Paths are as the
controller and the nodes see them, where the cloud's directory is :data:`DIRECTORY`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.topology import Node, Topology

RELEASE = "2025.1"
"""The OpenStack release whose packages scripts/openstack-2025.1.txt names."""

CONTROLLER = "controller"
"""The name of the controller's namespaces, and its host name."""
DIRECTORY = Path("/run/openstack")
"""Where controller and nodes see the cloud's configuration, state and logs."""
SERVERS = Path("/run/openstack-servers")
"""Where nodes see the directory in which the virt driver names its guests."""

MANAGEMENT = "192.168.57"
"""First three bytes of the management network's addresses; /24, the controller is .1, the nodes follow from .11."""
UNDERLAY = "10.57.255"
"""The same of the addresses between which tunnels run; /24, on each node's physical bridge."""
CONTROLLER_ADDRESS = f"{MANAGEMENT}.1"

PHYSICAL_NETWORK = "default"
VLAN_RANGE = (100, 199)
VNI_RANGE = (1001, 2000)
OVN_TUNNEL = "geneve"
"""The type of tunnelled networks with OVN, and of its tunnels."""
INTEGRATION_BRIDGE = "br-int"

PORTS = {
    "database": 3306,
    "rabbitmq": 5672,
    "compute": 8774,
    "metadata": 8775,
    "placement": 8778,
    "image": 9292,
    "network": 9696,
}
"""TCP ports of the controller, those that the services have by default."""

CLOUD = "asap2"
"""The cloud's name in clouds.yaml."""
PROJECT = "fake_project_id"
"""There is no Keystone: neutron's noauth gives everything to a project of this name (neutron/auth.py)."""
TOKEN = f"admin:{PROJECT}"


def url(service: str, path: str = "") -> str:
    """The URL of a service of :data:`PORTS`."""
    return f"http://{CONTROLLER_ADDRESS}:{PORTS[service]}{path}"


@dataclass(frozen=True, slots=True)
class Compute:
    """A compute node. ``host`` is its name in OpenStack, the node's own: neutron takes no underscore. Its
    VFs, by PCI address, are for networks of the physical network (``vlan_vfs``) or for tunnelled ones
    (``tunnel_vfs``): nova asks for one or the other."""

    node: str
    host: str
    address: str
    tunnel_address: str
    uplink: str
    vlan_vfs: tuple[str, ...]
    tunnel_vfs: tuple[str, ...]

    @property
    def bridge(self) -> str:
        """The bridge that joins the integration bridge to the uplink."""
        return f"br-{self.uplink}"

    @property
    def settings(self) -> Path:
        """Its directory of configuration files."""
        return DIRECTORY / "etc" / self.host


def computes(topology: Topology) -> list[Compute]:
    """The compute nodes of *topology*; Asap2Error for a node that cannot be one."""
    return [_compute(node, 11 + number) for number, node in enumerate(topology.nodes)]


def _compute(node: Node, last: int) -> Compute:
    nic = node.nics[0]
    if not node.openvswitch:
        raise Asap2Error(f"node {node.name}: a compute node runs Open vSwitch; take out `openvswitch = false`")
    if not nic.switchdev or nic.vfs < 2:
        raise Asap2Error(f'node {node.name}: {nic.name} must have mode = "switchdev" and vfs of at least 2')
    addresses = tuple(nic.vf_address(0, vf) for vf in range(nic.vfs))
    half = (nic.vfs + 1) // 2
    return Compute(
        node.name,
        node.name,
        f"{MANAGEMENT}.{last}",
        f"{UNDERLAY}.{last}",
        nic.netdev(0),
        addresses[:half],
        addresses[half:],
    )
