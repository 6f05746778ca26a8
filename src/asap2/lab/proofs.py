# SPDX-License-Identifier: Apache-2.0
"""The demo's proofs: offloaded packets bypass the hosts, the counters are right, and what it costs."""

from __future__ import annotations

import contextlib
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asap2.lab import headline
from asap2.lab.background import Program
from asap2.lab.bench.against import GAINS, SOFTWARE_GAINS, Gain, missed
from asap2.lab.comparison import WAYS, Comparison
from asap2.lab.execute import run
from asap2.lab.firewall import Firewall
from asap2.lab.packet_way import Passage, draw, shares
from asap2.lab.reading import Host, address, deeds, find_flow, packets
from asap2.lab.terminal import OutputError, StepError, Terminal
from asap2.quantities import significant
from asap2.screen import Text

PINGS = 20
PING_INTERVAL = 0.1
"""Seconds between two echo requests."""
SHORT_IDLE = 1000
"""Milliseconds: the max-idle with which flows are seen to age out."""
AGEING_SECONDS = 120.0
"""How long that may take: the revalidators look every 500 ms, and dump in rounds."""
OFFLOADING_SECONDS = 120.0
"""How long flows may take to reach the eSwitch."""
BRIDGE, VLAN = "br-int", 57
MAX_IDLE = 30000
"""Milliseconds that an unused flow stays, as on the page."""
WORDS = "user space, software, NIC"

DRAWN = (1, 2)
"""The echo requests whose ways are drawn."""
IN_THE_TABLE = ("packets_per_second", "transactions_per_second")
"""Figures of the comparison that the headline does not show."""
OFFLOADED_FLOWS = "ovs-appctl dpctl/dump-flows -m type=offloaded"
SET = "ovs-vsctl set Open_vSwitch . other_config:"


@dataclass(slots=True)
class Figures:
    """What was measured; None where it did not come to that. Packets are those of the pings from the first guest:
    ``representor_packets`` of their requests were seen on its representor, ``offloaded_packets`` were counted by the
    silicon's rule for them. TCP's figures and the processes' CPU are of the paths ``userspace`` (a switch that forwards
    every packet itself), ``software`` (hw-offload=false) and ``offloaded``; ``comparison`` is what :class:`Comparison`
    found, ``firewall`` what :class:`Firewall` did."""

    ping_loss_percent: float | None = None
    packets_sent: int | None = None
    representor_packets: int | None = None
    offloaded_packets: int | None = None
    first_ping_ms: float | None = None
    second_ping_ms: float | None = None
    later_ping_ms: float | None = None
    tcp_gbps: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(WAYS))
    cpu_percent: dict[str, float | None] = field(default_factory=lambda: {"vswitchd": None, "daemon": None})
    software_cpu_percent: dict[str, float | None] = field(default_factory=lambda: {"vswitchd": None, "daemon": None})
    comparison: dict[str, Any] | None = None
    firewall: dict[str, int] | None = None
    passages: list[Passage] = field(default_factory=list)
    """What each hypervisor did with the echo requests."""

    def as_data(self) -> dict[str, Any]:
        """For the report."""
        return {
            "ping_loss_percent": self.ping_loss_percent,
            "packets_sent": self.packets_sent,
            "representor_packets": self.representor_packets,
            "offloaded_packets": self.offloaded_packets,
            "tcp_gbps": self.tcp_gbps,
            "cpu_percent": self.cpu_percent,
            "comparison": self.comparison,
            "firewall": self.firewall,
            "packet_ways": {
                str(number): {one.host: one.way(number, self.packets_sent or 0).value for one in self.passages}
                for number in DRAWN
            },
        }

    def rows(self) -> list[tuple[str, str]]:
        """For the table."""

        def show(value: float | None, unit: str = "") -> str:
            return "not measured" if value is None else f"{value:g}{unit}"

        return [
            ("pings lost", show(self.ping_loss_percent, " %")),
            ("first ping: upcall, offload, delivery", show(self.first_ping_ms, " ms")),
            ("later pings, median", show(self.later_ping_ms, " ms")),
            ("echo requests sent", show(self.packets_sent)),
            ("of these seen on the representor", show(self.representor_packets)),
            ("of these counted by the eSwitch's rule", show(self.offloaded_packets)),
            *((f"{gain.name}: {WORDS}", self._gain(gain)) for gain in GAINS if gain.figure in IN_THE_TABLE),
            ("packets of tracked connections: in hardware, seen by the host", self._tracked()),
            ("CPU of both ovs-vswitchd: hw-offload=false, true", self._pair("vswitchd")),
            ("CPU of both asap2 daemons: hw-offload=false, true", self._pair("daemon")),
        ]

    def headline(self, columns: int) -> list[Text]:
        """The comparison in bars, in lines of at most *columns*; none before it was made."""
        return headline.lines(self.comparison, columns) if self.comparison else []

    def _tracked(self) -> str:
        found = self.firewall
        return f"{found['in_hardware']}, {found['at_the_host']}" if found else "not measured"

    def _pair(self, who: str) -> str:
        values = (self.software_cpu_percent[who], self.cpu_percent[who])
        return ", ".join("not measured" if value is None else f"{value:.1f} %" for value in values)

    def _gain(self, gain: Gain) -> str:
        if self.comparison is None:
            return "not measured"
        found = self.comparison["targets"][gain.name]
        both = gain.show(*(self.comparison[way][gain.figure] for way in WAYS))
        times = "no ratio" if found["value"] is None else f"{significant(found['value'], 2)} times"
        return f"{both}: {times} user space ({gain.wanted}{'' if found['met'] else ', missed'})"


class Proofs:
    """Shows what the offload does, on two hosts set up for it."""

    def __init__(self, terminal: Terminal, hosts: Sequence[Host], figures: Figures) -> None:
        self.terminal = terminal
        self.hosts = hosts
        self.figures = figures
        self.client, self.server = (host.guest for host in hosts)
        self.seen: dict[str, list[int]] = {}
        """Numbers of the echo requests that each host saw: 1 for the first program's, from 2 on the second's."""

    def all(self, rounds: int) -> None:
        """Run every proof, with *rounds* rounds of the comparison; StepError at the first one that fails."""
        self.only_first_packets_reach_the_host()
        self.the_silicon_counts()
        self.compare(rounds)
        self.flows_age_out()
        self.figures.firewall = Firewall(self.terminal, self.hosts, BRIDGE).prove()
        assert self.figures.comparison
        complaint = missed(self.figures.comparison["targets"]) or missed(
            self.figures.comparison["software_targets"], "the software datapath", SOFTWARE_GAINS
        )
        if complaint:
            raise StepError(complaint)

    def only_first_packets_reach_the_host(self) -> None:
        """Ping while tcpdump watches both representors."""
        terminal = self.terminal
        terminal.heading("Only the first packet of each flow is seen by a host")
        with contextlib.ExitStack() as captures:
            capturing = []
            for host in self.hosts:
                capture = terminal.begin(host.name, f"tcpdump -nnn -i {host.representor}", "listening on")
                capturing.append((host, captures.enter_context(capture)))
            terminal.type(self.client.name, f"ping -c 1 -W 10 {address(self.server)}", self._judge_first_ping)
            self._wait_for_the_flows()
            first = {host.name: self._seen_so_far(capture) for host, capture in capturing}
            command = f"ping -c {PINGS - 1} -i {PING_INTERVAL} {address(self.server)}"
            terminal.type(self.client.name, command, self._judge_later_pings)
            for host, capture in capturing:
                capture.read_until_quiet()
                output = terminal.interrupt(host.name, capture, self._judge_capture)
                before = first[host.name]
                self.seen[host.name] = before + [1 + number for number in self._requests(output)[len(before) :]]
            self.figures.representor_packets = len(self.seen[self.hosts[0].name])

    def _seen_so_far(self, capture: Program) -> list[int]:
        """Sequence numbers of the echo requests that *capture* has shown."""
        capture.read_until_quiet()
        return self._requests(capture.output)

    def _wait_for_the_flows(self) -> None:
        """Return when the rules for the pings are in both eSwitches: a slow machine takes its time to make them."""
        deadline = time.monotonic() + OFFLOADING_SECONDS
        for host, other in (self.hosts, self.hosts[::-1]):
            ends = ((host.representor, host.guest.mac, other.guest.mac), (host.pf, other.guest.mac, host.guest.mac))
            while time.monotonic() < deadline:
                shown = run(self._bundle(host), *OFFLOADED_FLOWS.split())
                if all(find_flow(shown, *each) for each in ends):
                    break

    def the_silicon_counts(self) -> None:
        """The flows of the pings, as Open vSwitch reads them from the silicon."""
        self.terminal.heading("The flows are in the eSwitch, which tags and untags, and counts")
        for host, other in (self.hosts, self.hosts[::-1]):
            out = (host.representor, host.guest.mac, other.guest.mac, ["push_vlan"])
            into = (host.pf, other.guest.mac, host.guest.mac, ["pop_vlan"])
            output = self.terminal.type(host.name, OFFLOADED_FLOWS, lambda text: self._judge_flows(text, out, into))  # noqa: B023
            requests = find_flow(output, *(out if host is self.hosts[0] else into)[:3])
            counted, seen = packets(requests), self.seen.get(host.name, [])
            if host is self.hosts[0]:
                self.figures.offloaded_packets = counted
            self.figures.passages.append(
                Passage(host.name, host.guest.vf, host.representor, seen, counted, deeds(requests))
            )
        self._draw()

    def _draw(self) -> None:
        """The ways of the first two requests, and how many of all went which way."""
        figures, sent = self.figures, self.figures.packets_sent or 0
        first, second = figures.passages
        for number, milliseconds in zip(DRAWN, (figures.first_ping_ms, figures.second_ping_ms), strict=True):
            self.terminal.heading(f"The way of echo request {number}, {milliseconds} ms until the reply")
            self.terminal.screen.print(*draw(number, sent, (self.client.name, self.server.name), (first, second)))
        self.terminal.heading(f"Who handled the {sent} echo requests")
        self.terminal.screen.print(*shares(figures.passages, sent))

    def compare(self, rounds: int) -> None:
        """Compare the NIC with what a host without offload has."""
        comparison = Comparison(
            self.terminal, self.hosts, BRIDGE, lambda host: {host.pf: "", host.representor: f"tag={VLAN}"}
        )
        self.figures.comparison = comparison.run(rounds)
        for way, measured in comparison.measured.items():
            self.figures.tcp_gbps[way] = measured.figures()["tcp_gbps"]
        self.figures.cpu_percent = comparison.measured["offloaded"].cpu_percent()
        self.figures.software_cpu_percent = comparison.measured["software"].cpu_percent()

    def flows_age_out(self) -> None:
        """Show that unused flows expire after max-idle."""
        self.terminal.heading("Flows that are not used go")
        for host in self.hosts:
            self.terminal.type(host.name, f"{SET}max-idle={SHORT_IDLE}")
        began = time.monotonic()
        for host in self.hosts:
            while self._guests_flows(run(self._bundle(host), *OFFLOADED_FLOWS.split())):
                if time.monotonic() - began > AGEING_SECONDS:
                    break
                time.sleep(0.1)
        seconds = time.monotonic() - began

        def judge(output: str) -> str:
            if left := self._guests_flows(output):
                raise OutputError(f"{left} flows between the guests are still there after {AGEING_SECONDS:g} s")
            return f"none between the guests any more, {seconds:.1f} s after max-idle was set to {SHORT_IDLE} ms"

        for host in self.hosts:
            self.terminal.type(host.name, OFFLOADED_FLOWS, judge)
        for host in self.hosts:
            self.terminal.type(host.name, f"{SET}max-idle={MAX_IDLE}")

    def _bundle(self, host: Host) -> Any:
        return self.terminal.layout.bundle(host.name)

    def _judge_first_ping(self, output: str) -> str:
        found = re.search(r"time=([\d.]+) ms", output)
        if not found:
            raise OutputError("no packet came back")
        self.figures.first_ping_ms = float(found[1])
        return f"it took {found[1]} ms: upcalls to both switches, and rules made, each way"

    def _judge_later_pings(self, output: str) -> str:
        found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
        times = [float(each) for each in re.findall(r"time=([\d.]+) ms", output)]
        if not found or not times:
            raise OutputError("no packet came back")
        lost = int(found[1]) - int(found[2])
        self.figures.packets_sent = 1 + int(found[1])
        self.figures.ping_loss_percent = round(100 * lost / self.figures.packets_sent, 3)
        self.figures.second_ping_ms = times[0]
        self.figures.later_ping_ms = round(statistics.median(times), 3)
        if lost:
            raise OutputError(f"{lost} packets were lost")
        return f"none lost; {self.figures.later_ping_ms} ms (median)"

    def _requests(self, output: str) -> list[int]:
        """Sequence numbers of the echo requests that tcpdump printed."""
        return [int(number) for number in re.findall(self._icmp("request"), output)]

    def _icmp(self, kind: str) -> str:
        ends = (address(self.client), address(self.server))
        one, other = map(re.escape, ends if kind == "request" else ends[::-1])
        return rf"IP {one} > {other}: ICMP echo {kind}, .* seq (\d+),"

    def _judge_capture(self, output: str) -> str:
        for kind in ("request", "reply"):
            seen = re.findall(self._icmp(kind), output)
            if seen != ["1"]:
                numbers = ", ".join(seen) or "none"
                raise OutputError(f"of the echo {kind} packets, only number 1 should be seen here, and was: {numbers}")
        return f"the first request and the first reply, and none of the other {2 * (PINGS - 1)}"

    def _judge_flows(self, output: str, *wanted: tuple[str, str | None, str | None, list[str]]) -> str:
        for in_port, source, destination, actions in wanted:
            flow = find_flow(output, in_port, source, destination)
            if flow is None:
                raise OutputError(f"there is no offloaded IPv4 flow from {in_port}, {source} to {destination}")
            done = [name for action in flow.actions for name in action]
            if not set(actions) <= set(done) or (flow.info.get("offloaded"), flow.info.get("dp")) != ("yes", "tc"):
                raise OutputError(f"the flow from {in_port} should be offloaded and do {actions[0]}, and does {done}")
            if packets(flow) != PINGS - 1:
                raise OutputError(f"the flow from {in_port} counted {packets(flow)} packets, and {PINGS - 1} were sent")
        return f"push_vlan and pop_vlan of VLAN {VLAN}; {PINGS - 1} packets each way, all but the first"

    def _guests_flows(self, output: str) -> int:
        macs = f"{self.client.mac}|{self.server.mac}"
        return len(re.findall(rf"eth\(src=(?:{macs}),dst=(?:{macs})\),eth_type\((?:0x0800|0x8100)\)", output))
