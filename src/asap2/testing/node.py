# SPDX-License-Identifier: Apache-2.0
"""A node of a lab, as a test drives it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable

from asap2.host.explain.flow import Flow
from asap2.lab import topology
from asap2.lab.description import daemon_pid
from asap2.lab.layout import Layout
from asap2.testing.connections import CONNECTIONS, Connection, parse_connections
from asap2.testing.flows import Reason, Wanted, describe, explain, read_flows, wait_for_flow, wait_until_all
from asap2.testing.looks import looks
from asap2.testing.place import Place

__tracebackhide__ = True  # pytest shows the line of the test, not ours

DAEMON = "daemon"
"""What :meth:`Node.kill` calls the program that serves the node's NICs."""
SERVICES = (DAEMON, "ovs-vswitchd", "ovsdb-server")
_VF = re.compile(r"pf(\d+)vf(\d+)")
_IDENTITIES = "cd /sys/class/net; for n in *; do echo $n $(cat $n/phys_switch_id $n/phys_port_name); done 2>/dev/null"


class Node(Place):
    """A hypervisor."""

    def __init__(self, layout: Layout, what: topology.Node, guests: Iterable[topology.Guest], patience: float) -> None:
        super().__init__(layout, what.name, patience)
        self.topology = what
        """What the topology says of it."""
        self._guests = [guest for guest in guests if guest.node == what.name]

    @property
    def uplinks(self) -> tuple[str, ...]:
        """The network devices of its physical functions: ``("enp3s0f0",)``."""
        return tuple(nic.netdev(port) for nic in self.topology.nics for port in range(nic.ports))

    def representor(self, vf: int | str, *, uplink: str | None = None) -> str:
        """The representor of a VF, given by its number on *uplink* (default: the first), or by its guest's name.

        LookupError when there is none: the VF does not exist, or the eSwitch is not in switchdev mode.
        """
        if isinstance(vf, str):
            guest = next((guest for guest in self._guests if guest.name == vf), None)
            if guest is None:
                raise LookupError(f"{self.name} has no guest {vf!r}; it has {', '.join(g.name for g in self._guests)}")
            vf, uplink = guest.vf, guest.nic.netdev(guest.port)
        uplink = uplink or self.uplinks[0]
        rows = [line.split() for line in self.run(_IDENTITIES).stdout.splitlines()]
        identities = {name: (switch, port) for name, switch, port in (row for row in rows if len(row) == 3)}
        switch, port = identities.get(uplink, ("", ""))
        for name, (its_switch, its_port) in identities.items():
            found = _VF.fullmatch(its_port)
            if found and its_switch == switch and (f"p{found[1]}", int(found[2])) == (port, vf):
                return name
        raise LookupError(f"{self.name} has no representor of VF {vf} of {uplink}: is {uplink} in switchdev mode?")

    def add_bridge(self, name: str = "br-int", ports: Iterable[str] | None = None, *, hw_offload: bool = True) -> None:
        """Add an Open vSwitch bridge with *ports*, which are set up; by default the uplinks and the representors of
        this node's guests. Open vSwitch is restarted if *hw_offload* is not as it was."""
        if ports is None:
            ports = [*self.uplinks, *(self.representor(guest.name) for guest in self._guests)]
        self.set_hw_offload(hw_offload)
        words = ["ovs-vsctl", "add-br", name]
        for port in ports:
            self.run(["ip", "link", "set", port, "up"])
            words += "--", "add-port", name, port
        self.run(words)

    def set_hw_offload(self, on: bool) -> None:
        """Set ``other_config:hw-offload``, and restart Open vSwitch if that is a change."""
        value = str(on).lower()
        line = (
            "systemctl start openvswitch-switch && "
            f'[ "$(ovs-vsctl --if-exists get Open_vSwitch . other_config:hw-offload)" = \'"{value}"\' ] || '
            f"{{ ovs-vsctl --no-wait set Open_vSwitch . other_config:hw-offload={value} && "
            "systemctl reset-failed ovs-vswitchd && systemctl restart ovs-vswitchd; }"
        )
        self.run(line)

    def flows(self, *parts: str, in_port: str | None = None, offloaded: bool | None = None) -> list[Flow]:
        """The flows of the datapath that have all *parts* in their text, as ``dpctl/dump-flows -m`` prints it:
        ``node.flows("eth_type(0x0800)", in_port="eth0", offloaded=True)``."""
        return list(filter(Wanted(parts, in_port, offloaded).matches, read_flows(self)))

    def wait_for_flow(
        self,
        *parts: str,
        in_port: str | None = None,
        offloaded: bool | None = True,
        packets: int = 0,
        timeout: float | None = None,
    ) -> Flow:
        """The first such flow that has counted at least *packets*, as soon as there is one.

        AssertionError, with all flows and the reason for each that is not offloaded, if there is none in time.
        """
        wanted = Wanted(parts, in_port, offloaded)
        return wait_for_flow(self, wanted, packets, self.patience if timeout is None else timeout)

    def assert_offloaded(self, *parts: str, in_port: str | None = None, timeout: float | None = None) -> list[Flow]:
        """Return the flows that have all *parts*, when there is at least one and all of them are offloaded.

        AssertionError, with the reasons why they are not, if that does not come about in time.
        """
        wanted = Wanted(parts, in_port, True)
        return wait_until_all(self, wanted, self.patience if timeout is None else timeout)

    def assert_not_offloaded(
        self, *parts: str, in_port: str | None = None, reason: str | None = None, timeout: float | None = None
    ) -> list[Reason]:
        """Return why the flows that have all *parts* are not offloaded, when there is at least one and none is.

        With *reason*, a code of ``asap2 host explain``, each must have that reason; else AssertionError.
        """
        wanted = Wanted(parts, in_port, False)
        flows = wait_until_all(self, wanted, self.patience if timeout is None else timeout)
        ufids = {flow.ufid for flow in flows}
        reasons = [one for one in self.explain() if one.flow.ufid in ufids]
        others = [one for one in reasons if one.code != reason]
        if reason is not None and (others or not reasons):
            said = "\n".join(map(str, others)) or "nothing: the flows have aged out"
            raise AssertionError(f"the reason must be {reason}; `asap2 host explain` in {self.name} says\n{said}")
        return reasons

    def explain(self, *what: str) -> list[Reason]:
        """Why flows are not offloaded, as ``asap2 host explain`` says: of all, or of a flow id, port or flow."""
        return explain(self, *what)

    def describe_flows(self) -> str:
        """All flows, one a line, each that is not offloaded with its reason, for a message."""
        return describe(self, read_flows(self))

    def forget_flows(self) -> None:
        """Remove all flows from the datapath; the next packet of each goes to Open vSwitch again."""
        self.run("ovs-appctl revalidator/purge")

    def connections(self, *parts: str, offloaded: bool | None = None) -> list[Connection]:
        """The connections that the node tracks, those with all *parts* in their text, as /proc/net/nf_conntrack."""
        found = parse_connections(self.run(["cat", CONNECTIONS]).stdout.splitlines())
        wanted = [one for one in found if all(part in one.text for part in parts)]
        return [one for one in wanted if offloaded is None or one.offloaded == offloaded]

    def pid(self, service: str) -> int | None:
        """The process id of one of :data:`SERVICES`; None while it does not run."""
        if service == DAEMON:
            pid = daemon_pid(self._layout, self.name)
            return pid if (self._layout.node(self.name) / "ready").exists() else None
        if service not in SERVICES:
            raise ValueError(f"{service!r} is not one of {', '.join(SERVICES)}")
        return int(self.run(["systemctl", "show", "-p", "MainPID", "--value", service]).stdout) or None

    def kill(self, service: str) -> int:
        """Kill one of :data:`SERVICES` (SIGKILL) and return the process id that it had. All are restarted by
        themselves; :meth:`wait_for_restart` waits for that. LookupError if it does not run."""
        pid = self.pid(service)
        if pid is None:
            raise LookupError(f"{service} does not run in {self.name}")
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_for_restart(self, service: str, killed: int, timeout: float | None = None) -> int:
        """The new process id of *service*, as soon as it serves after process *killed* has died."""
        seconds = self.patience if timeout is None else timeout
        for _ in looks(seconds):
            pid = self.pid(service)
            if pid is not None and pid != killed:
                return pid
        raise AssertionError(f"{service} of {self.name} was not restarted within {seconds:g} s")

    def restart(self, unit: str = "openvswitch-switch") -> None:
        """``systemctl restart`` of a unit of Open vSwitch, however often it was restarted before."""
        self.run(f"systemctl reset-failed {unit} && systemctl restart {unit}")
