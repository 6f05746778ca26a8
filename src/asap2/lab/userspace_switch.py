# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch on a hypervisor without offload: it forwards every packet itself, in user space.

This is the distribution's own ovs-vswitchd, with ``datapath_type=netdev``. A guest leaves checksums and the cutting of
its super-packets to its NIC; ``userspace-tso-enable=true`` has Open vSwitch pass these on whole, with which it is
fastest. (Without it, packets that a guest left unfinished are lost.)

It runs in a node's network namespace, on the node's own devices, but outside the node's mount namespace, so that its
netlink requests go to the machine's kernel itself. It sends one about the port with each batch of packets, and would be
slower than on a real host if it waited for the node's daemon each time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.execute import run
from asap2.lab.layout import Layout

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
BRIDGE = "br-user"
TSO = "other_config:userspace-tso-enable=true"


@dataclass(frozen=True, slots=True)
class UserspaceSwitch:
    """One such switch; its methods give the shell commands to be run outside the lab's nodes."""

    netns: Path
    directory: Path

    @classmethod
    def of(cls, layout: Layout, node: str) -> UserspaceSwitch:
        """The one in *node*."""
        return cls(layout.node(node) / "ns" / "net", layout.root / "userspace" / node)

    def start(self) -> list[str]:
        """Start it, with a bridge that has no ports yet."""
        where, quiet = self.directory, "-vconsole:off --detach --no-chdir --pidfile"
        inside = f"nsenter --net={self.netns} env OVS_RUNDIR={where}"
        return [
            f"mkdir -p {where} && ovsdb-tool create {where}/conf.db {SCHEMA}",
            f"{inside} ovsdb-server {where}/conf.db --remote=punix:{where}/db.sock {quiet}",
            self._vsctl(f"--no-wait init -- set Open_vSwitch . {TSO}"),
            f"{inside} ovs-vswitchd unix:{where}/db.sock {quiet} --log-file={where}/ovs-vswitchd.log",
            self._vsctl(f"add-br {BRIDGE} -- set Bridge {BRIDGE} datapath_type=netdev"),
        ]

    def join(self, ports: Mapping[str, str]) -> str:
        """Take *ports* (their options by their names) into its bridge."""
        return self._vsctl(" -- ".join(f"add-port {BRIDGE} {port} {ports[port]}".strip() for port in ports))

    def leave(self, ports: Mapping[str, str]) -> str:
        """Take them out again."""
        return self._vsctl(" -- ".join(f"del-port {BRIDGE} {port}" for port in ports))

    def stop(self) -> list[str]:
        """Stop it."""
        appctl = f"OVS_RUNDIR={self.directory} ovs-appctl"
        return [f"{appctl} exit", f"{appctl} -t ovsdb-server exit"]

    def pid(self) -> int:
        """The process that forwards."""
        return int((self.directory / "ovs-vswitchd.pid").read_text())

    def lookups(self) -> int:
        """Packets that it has looked up so far."""
        return lookups(run(None, "env", f"OVS_RUNDIR={self.directory}", "ovs-appctl", "dpctl/show"))

    def _vsctl(self, words: str) -> str:
        return f"OVS_RUNDIR={self.directory} ovs-vsctl {words}"


def lookups(shown: str) -> int:
    """Packets that a datapath of Open vSwitch has looked up, as ``ovs-appctl dpctl/show`` printed it: super-packets
    count once."""
    found = re.search(r"lookups: hit:(\d+) missed:(\d+)", shown)
    if not found:
        raise Asap2Error("Open vSwitch did not show how many packets its datapath has looked up")
    return int(found[1]) + int(found[2])
