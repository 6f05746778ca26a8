# SPDX-License-Identifier: Apache-2.0
"""The demo's comparison: the NIC beside what a host without offload has, between the same guests.

Such a host has Open vSwitch that forwards every packet itself in user space, or Open vSwitch's kernel datapath. Round
after round, the second one in the opposite order, the ports (the VF's representor, where each packet comes that the
NIC has no rule for, and the uplink) move from one switch to the other and back, and ``hw-offload`` is turned off and
on. All else stays.
"""

from __future__ import annotations

import contextlib
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from asap2.lab.background import Program
from asap2.lab.bench.against import SOFTWARE_GAINS, targets
from asap2.lab.bench.measure import SMALL_BYTES, udp_datagrams
from asap2.lab.cpu import process_seconds
from asap2.lab.execute import run
from asap2.lab.reading import Host, address, gbps, judge_iperf
from asap2.lab.terminal import MACHINE, OutputError, Terminal
from asap2.lab.units import RUN_DIRECTORY, SWITCH
from asap2.lab.userspace_switch import UserspaceSwitch, lookups
from asap2.nic.silicon import running_time
from asap2.nic.silicon.map_sizes import ONWARD, PROGRAM

WAYS = ("userspace", "software", "offloaded")
TCP_SECONDS = 1
SMALL_SECONDS = 1
PORT = 5202
"""Of the server for small packets; the TCP stream's is iperf3's own."""
PING_SECONDS = 1
ARRIVED = ("InDatagrams", "RcvbufErrors")
"""A packet counts when it reaches the guest, even if the program there is too slow to read it: the program's speed says
nothing about the path."""
WARM_UP = 5
"""Echo requests sent before a measurement, after which the flows are in place."""
OFFLOADED_FLOWS = "ovs-appctl dpctl/dump-flows type=offloaded"


@dataclass(slots=True)
class Measured:
    """Results of one path, over all rounds."""

    tcp_gbps: list[float] = field(default_factory=list)
    packets_per_second: list[float] = field(default_factory=list)
    transactions_per_second: list[float] = field(default_factory=list)
    gbit: float = 0
    seconds: float = 0
    switch_cpu: float = 0
    daemon_cpu: float = 0
    program_cpu: float = 0
    """CPU time, in seconds, of both nodes' switches, of both daemons and of both hosts' own eBPF programs (the software
    datapath) during the TCP streams."""
    host_packets: int = 0
    """Packets that the first node's switches looked up."""

    def figures(self) -> dict[str, float]:
        """Medians over the rounds, and totals of the counters."""
        return {
            "tcp_gbps": statistics.median(self.tcp_gbps),
            "packets_per_second": round(statistics.median(self.packets_per_second)),
            "transactions_per_second": round(statistics.median(self.transactions_per_second)),
            "host_cpu_seconds_per_gbit": round(self.host_cpu / self.gbit, 5),
            "host_packets": self.host_packets,
        }

    @property
    def host_cpu(self) -> float:
        """CPU time, in seconds, that the hosts took for the TCP streams."""
        return self.switch_cpu + self.daemon_cpu + self.program_cpu

    def cpu_percent(self) -> dict[str, float | None]:
        """CPU during the TCP streams, in percent of a core."""
        return {
            "vswitchd": round(100 * self.switch_cpu / self.seconds, 2),
            "daemon": round(100 * self.daemon_cpu / self.seconds, 2),
        }


class Comparison:
    """A run on two hosts that offload, each of which has *options* for its two ports in the bridge *bridge*."""

    def __init__(
        self, terminal: Terminal, hosts: Sequence[Host], bridge: str, options: Callable[[Host], dict[str, str]]
    ) -> None:
        self.terminal = terminal
        self.hosts = hosts
        self.bridge = bridge
        self.ports = {host.name: options(host) for host in hosts}
        self.switches = {host.name: UserspaceSwitch.of(terminal.layout, host.name) for host in hosts}
        self.client, self.server = (host.guest for host in hosts)
        self.measured = {way: Measured() for way in WAYS}
        self._away = False
        """Whether the userspace switches have the ports."""
        self._hw_offload = "true"

    def run(self, rounds: int) -> dict[str, Any]:
        """Measure *rounds* times; the figures of each way and what became of each target, as plain data.

        The NIC has the ports then, as before.
        """
        terminal = self.terminal
        terminal.heading("A hypervisor without offload: Open vSwitch forwards every packet itself, in user space")
        for switch in self.switches.values():
            for command in switch.start():
                terminal.type(MACHINE, command)
        terminal.heading("Or it has Open vSwitch's kernel datapath, with hw-offload=false")
        for line in SOFTWARE_WORDS:
            terminal.say(f"  {line}")
        with contextlib.ExitStack() as servers:
            servers.enter_context(terminal.begin(self.server.name, "iperf3 -s", "Server listening"))
            server = servers.enter_context(terminal.begin(self.server.name, f"iperf3 -s -p {PORT}", "Server listening"))
            for number in range(rounds):
                for way in reversed(WAYS) if number % 2 else WAYS:
                    terminal.heading(f"Round {number + 1} of {rounds}, {SENTENCES[way]}")
                    self._take(way)
                    self._measure(way, server)
        self._take("offloaded")
        for switch in self.switches.values():
            for command in switch.stop():
                terminal.type(MACHINE, command)
        figures = {way: self.measured[way].figures() for way in WAYS}
        return {
            "rounds": rounds,
            **figures,
            "targets": targets(figures["offloaded"], figures["userspace"]),
            "software_targets": targets(figures["offloaded"], figures["software"], SOFTWARE_GAINS),
        }

    def _take(self, way: str) -> None:
        """Have packets take *way*; what is so already is left alone."""
        if way == "userspace":
            self._to_userspace()
            return
        offload = "true" if way == "offloaded" else "false"
        for host in self.hosts:
            ports = self.ports[host.name]
            if self._away:
                self.terminal.type(MACHINE, self.switches[host.name].leave(ports))
            if self._hw_offload != offload:
                self.terminal.type(host.name, f"ovs-vsctl set Open_vSwitch . other_config:hw-offload={offload}")
                self.terminal.type(host.name, "systemctl restart openvswitch.service")
            if self._away:
                join = " -- ".join(f"add-port {self.bridge} {port} {ports[port]}".strip() for port in ports)
                self.terminal.type(host.name, f"ovs-vsctl {join}")
        self._away, self._hw_offload = False, offload

    def _to_userspace(self) -> None:
        if self._away:
            return
        for host in self.hosts:
            leave = " -- ".join(f"del-port {self.bridge} {port}" for port in self.ports[host.name])
            self.terminal.type(host.name, f"ovs-vsctl {leave}")
            self.terminal.type(MACHINE, self.switches[host.name].join(self.ports[host.name]))
        self._away = True

    def _measure(self, way: str, server: Program) -> None:
        """One round of one way. TCP last: by then the switches are done with the ports that came and went, which is not
        to count as what packets cost."""
        measured, before = self.measured[way], self._lookups(way)
        self._type(f"ping -q -c {WARM_UP} -i 0.1 -W 10 {address(self.server)}", _none_lost)
        for host in self.hosts if way != "offloaded" else ():
            self.terminal.type(host.name, OFFLOADED_FLOWS, _no_flows)
        self._small_packets(measured, server)
        spent = self._tcp(measured, *self._processes(way))
        looked_up = self._lookups(way) - before
        measured.host_packets += looked_up
        self.terminal.say(
            f"  {self.hosts[0].name}'s switch handled {looked_up:,} packets of these; "
            f"for TCP both hosts took {spent:.3f} s of CPU"
        )

    def _small_packets(self, measured: Measured, server: Program) -> None:
        received = udp_datagrams(server.process.pid, *ARRIVED)

        def throughput(output: str) -> str:
            rate = (udp_datagrams(server.process.pid, *ARRIVED) - received) / sent_for(output)
            measured.packets_per_second.append(rate)
            return f"{rate:,.0f} packets/s came through"

        to = address(self.server)
        self._type(f"iperf3 -c {to} -p {PORT} -u -b 0 -l {SMALL_BYTES} -t {SMALL_SECONDS}", throughput)
        output = self._type(f"ping -q -f -w {PING_SECONDS} {to}", lambda text: f"{echoes(text):,.0f} echoes/s")
        measured.transactions_per_second.append(echoes(output))

    def _tcp(self, measured: Measured, switches: list[int], daemons: list[int]) -> float:
        """CPU time, in seconds, that the hosts took for one TCP stream."""
        earlier = measured.host_cpu
        with running_time.counted():
            before = process_seconds(switches), process_seconds(daemons), self._programs()
            output = self._type(f"iperf3 -c {address(self.server)} -t {TCP_SECONDS} -f g", judge_iperf)
            after = process_seconds(switches), process_seconds(daemons), self._programs()
        measured.tcp_gbps.append(gbps(output))
        measured.gbit += gbps(output) * TCP_SECONDS
        measured.seconds += TCP_SECONDS
        measured.switch_cpu += after[0] - before[0]
        measured.daemon_cpu += after[1] - before[1]
        measured.program_cpu += after[2] - before[2]
        return measured.host_cpu - earlier

    def _programs(self) -> float:
        """Seconds that the eBPF programs of both hosts' own datapaths have run, those of their NICs not among them."""
        pins = (self.terminal.layout.node(host.name) / "bpf" / "node" for host in self.hosts)
        return sum(running_time.seconds(pin / program) for pin in pins for program in (PROGRAM, ONWARD))

    def _type(self, command: str, judge: Callable[[str], str]) -> str:
        return self.terminal.type(self.client.name, command, judge, shown=False)

    def _processes(self, way: str) -> tuple[list[int], list[int]]:
        """The processes of both hosts that have to do with packets: switches, and the NICs' daemons."""
        layout = self.terminal.layout
        switches = [int(run(layout.bundle(host.name), "cat", f"{RUN_DIRECTORY}/{SWITCH}.pid")) for host in self.hosts]
        if way == "userspace":
            switches += [switch.pid() for switch in self.switches.values()]
        return switches, [int((layout.node(host.name) / "daemon.pid").read_text()) for host in self.hosts]

    def _lookups(self, way: str) -> int:
        """Packets that the first host's switches have looked up."""
        host = self.hosts[0]
        found = lookups(run(self.terminal.layout.bundle(host.name), "ovs-appctl", "dpctl/show"))
        return found + (self.switches[host.name].lookups() if way == "userspace" else 0)


SENTENCES = {
    "userspace": "user space: the ports go to the switch there, and the NICs have no rules",
    "software": "software datapath: the ports come back, hw-offload=false, and the NICs have no rules",
    "offloaded": "offloaded: hw-offload=true, and the NICs get rules",
}
SOFTWARE_WORDS = (
    "In these nodes that is the NIC's own eBPF program, attached in the host: about as fast as",
    "the NIC. But each packet is the host's, whose CPU runs that program.",
)


def _no_flows(output: str) -> str:
    if output.strip():
        raise OutputError("the NIC still has flows")
    return "the NIC has no flows"


def _none_lost(output: str) -> str:
    found = re.search(r"(\d+) packets transmitted, (\d+) received.*\n(?:rtt \S+ = (.*))?", output)
    if not found or found[1] != found[2]:
        raise OutputError("packets were lost")
    return f"none lost; round trip: {found[3]}"


def echoes(output: str) -> float:
    """Echo replies per second that a flood ping got, which sends the next request when the last one was answered."""
    found = re.search(r" (\d+) received.* time (\d+)ms", output)
    if not found or not int(found[1]) or not int(found[2]):
        raise OutputError("no packet came back")
    return int(found[1]) / int(found[2]) * 1000


def sent_for(output: str) -> float:
    """How long, in seconds, ``iperf3 -u`` sent; OutputError when it does not say."""
    found = re.search(r"[\d.]+-([\d.]+) +sec .* sender", output)
    if not found or not float(found[1]):
        raise OutputError("iperf3 did not say how long it sent")
    return float(found[1])
