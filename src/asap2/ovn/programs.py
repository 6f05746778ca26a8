# SPDX-License-Identifier: Apache-2.0
"""How OVN's programs are started: the command lines that a person types, for one central and for each chassis.

The *central* is ovn-northd with the northbound and the southbound database; a *chassis* is a node with ovn-controller.
All are started by ``ovn-ctl``, as Debian's units do. The functions only make command lines (for ``sh -c``), in the
order in which they are to be typed; who calls them decides where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.extras import remedy

CTL = "/usr/share/ovn/scripts/ovn-ctl"
NEEDED = (CTL, "/usr/bin/ovn-northd", "/usr/bin/ovn-controller", "/usr/bin/ovn-nbctl")
"""Of Debian's packages ovn-central, ovn-host and ovn-common."""

NORTHBOUND_PORT, SOUTHBOUND_PORT = 6641, 6642
"""TCP ports of the databases, by convention (ovn-architecture(7))."""
INTEGRATION_BRIDGE = "br-int"
"""The bridge that ovn-controller makes, and in which it looks for the guests' interfaces."""

PROBE_MILLISECONDS = 60000
"""Time without a word after which one end of a database connection asks the other whether it lives (default: 5000). A
busy machine may need longer to answer than the default, and each reconnection has the controller compute everything
again."""
CLEAR_MILLISECONDS = 2000
"""Time that a controller has when it starts to compute its rules, before it replaces those of its predecessor (default:
0). With the default it takes them all away first, and all packets are lost meanwhile."""


def lacking() -> None:
    """Asap2Error when OVN is not installed."""
    for needed in NEEDED:
        if not Path(needed).exists():
            how = remedy("setup-ovn", "ovn-central ovn-host")
            raise Asap2Error(f"OVN is not installed ({needed} is missing); {how} installs it")


def northbound(address: str) -> str:
    """What ``ovn-nbctl --db`` is told to reach a central at *address*."""
    return f"tcp:{address}:{NORTHBOUND_PORT}"


def southbound(address: str) -> str:
    """What a chassis is told (``external_ids:ovn-remote``) to reach a central at *address*."""
    return f"tcp:{address}:{SOUTHBOUND_PORT}"


def start_central() -> tuple[str, ...]:
    """Start the databases and ovn-northd, and have the databases listen at all addresses."""
    probe = f"--inactivity-probe={PROBE_MILLISECONDS}"
    return (
        f"{CTL} start_northd",
        f"ovn-nbctl {probe} set-connection ptcp:{NORTHBOUND_PORT}",
        f"ovn-sbctl {probe} set-connection ptcp:{SOUTHBOUND_PORT}",
    )


@dataclass(frozen=True, slots=True)
class Chassis:
    """A node that OVN uses: its name in OVN, the address of its *central*, and how tunnels reach it.

    ``mappings`` names the bridge of each physical network (localnet ports' ``network_name``); ``more`` are further
    ``external_ids`` of the table Open_vSwitch, by name (ovn-controller(8)).
    """

    name: str
    central: str
    tunnel_address: str
    encapsulation: str = "vxlan"
    mappings: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)

    def external_ids(self) -> dict[str, str]:
        """What ovn-controller reads in the table Open_vSwitch."""
        found = {
            "system-id": self.name,
            "ovn-remote": southbound(self.central),
            "ovn-remote-probe-interval": str(PROBE_MILLISECONDS),
            "ovn-openflow-probe-interval": str(PROBE_MILLISECONDS // 1000),
            "ovn-ofctrl-wait-before-clear": str(CLEAR_MILLISECONDS),
            "ovn-encap-type": self.encapsulation,
            "ovn-encap-ip": self.tunnel_address,
        }
        if self.mappings:
            found["ovn-bridge-mappings"] = ",".join(f"{network}:{bridge}" for network, bridge in self.mappings.items())
        return found | dict(self.more)

    def start(self) -> tuple[str, ...]:
        """Tell the node's Open vSwitch what ovn-controller needs, and start it."""
        words = " ".join(f'external_ids:{name}="{value}"' for name, value in self.external_ids().items())
        return (f"ovs-vsctl set Open_vSwitch . {words}", f"{CTL} start_controller")


def plug(representor: str, port: str) -> tuple[str, ...]:
    """Give the logical switch port *port* the VF whose *representor* this is, as libvirt, os-vif and CNI plugins do."""
    bridge = f"--may-exist add-port {INTEGRATION_BRIDGE} {representor}"
    return (
        f"ovs-vsctl {bridge} -- set Interface {representor} external_ids:iface-id={port}",
        f"ip link set {representor} up",
    )
