# SPDX-License-Identifier: Apache-2.0
"""The demo's proofs: that offloaded packets pass the hosts by, that the counters are right, and what it costs."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from asap2.lab.cpu import process_seconds
from asap2.lab.execute import run
from asap2.lab.openvswitch import RUN_DIRECTORY, SWITCH
from asap2.lab.terminal import OutputError, Terminal
from asap2.lab.topology import Guest

if TYPE_CHECKING:
    from ovs.flow.odp import ODPFlow

PINGS = 20
PING_INTERVAL = 0.1
"""Seconds between two echo requests."""
TCP_SECONDS = 5
SHORT_IDLE = 1000
"""Milliseconds: the max-idle with which flows are seen to age out."""
AGEING_SECONDS = 20.0
"""How long that may take: the revalidators look every 500 ms, and dump in rounds."""
VLAN, MAX_IDLE = 57, 30000

OFFLOADED_FLOWS = "ovs-appctl dpctl/dump-flows -m type=offloaded"
SET = "ovs-vsctl set Open_vSwitch . other_config:"


class Host(Protocol):
    """What the proofs need to know of a node."""

    name: str
    guest: Guest
    pf: str
    representor: str


@dataclass(slots=True)
class Figures:
    """What was measured; None where it did not come to that. Packets are those of the pings from the first guest:
    ``representor_packets`` of their requests were seen on its representor, ``offloaded_packets`` were counted by the
    silicon's rule for them."""

    ping_loss_percent: float | None = None
    packets_sent: int | None = None
    representor_packets: int | None = None
    offloaded_packets: int | None = None
    first_ping_ms: float | None = None
    later_ping_ms: float | None = None
    tcp_gbps: dict[str, float | None] = field(default_factory=lambda: {"software": None, "offloaded": None})
    cpu_percent: dict[str, float | None] = field(default_factory=lambda: {"vswitchd": None, "daemon": None})
    software_cpu_percent: dict[str, float | None] = field(default_factory=lambda: {"vswitchd": None, "daemon": None})

    def as_data(self) -> dict[str, Any]:
        """For the report."""
        return {
            "ping_loss_percent": self.ping_loss_percent,
            "packets_sent": self.packets_sent,
            "representor_packets": self.representor_packets,
            "offloaded_packets": self.offloaded_packets,
            "tcp_gbps": self.tcp_gbps,
            "cpu_percent": self.cpu_percent,
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
            ("TCP, hw-offload=false", show(self.tcp_gbps["software"], " Gbit/s")),
            ("TCP, hw-offload=true", show(self.tcp_gbps["offloaded"], " Gbit/s")),
            ("CPU of both ovs-vswitchd meanwhile: off, on", self._pair("vswitchd")),
            ("CPU of both asap2 daemons meanwhile: off, on", self._pair("daemon")),
        ]

    def _pair(self, who: str) -> str:
        values = (self.software_cpu_percent[who], self.cpu_percent[who])
        return ", ".join("not measured" if value is None else f"{value:.1f} %" for value in values)


class Proofs:
    """Shows what the offload does, on two hosts set up for it."""

    def __init__(self, terminal: Terminal, hosts: Sequence[Host], figures: Figures) -> None:
        self.terminal = terminal
        self.hosts = hosts
        self.figures = figures
        self.client, self.server = (host.guest for host in hosts)

    def all(self) -> None:
        """Prove everything; StepError for the first thing that is not so."""
        self.only_first_packets_reach_the_host()
        self.the_silicon_counts()
        self.figures.tcp_gbps["offloaded"], self.figures.cpu_percent = self.tcp("on")
        self.flows_age_out()
        for host in self.hosts:
            self.offload(host, False)
        self.figures.tcp_gbps["software"], self.figures.software_cpu_percent = self.tcp("off")
        for host in self.hosts:
            self.offload(host, True)

    def only_first_packets_reach_the_host(self) -> None:
        """Ping while tcpdump watches both representors."""
        terminal = self.terminal
        terminal.heading("Only the first packet of each flow is seen by a host")
        with contextlib.ExitStack() as captures:
            capturing = []
            for host in self.hosts:
                capture = terminal.begin(host.name, f"tcpdump -nnn -i {host.representor}", "listening on")
                capturing.append((host, captures.enter_context(capture)))
            command = f"ping -c {PINGS} -i {PING_INTERVAL} {address(self.server)}"
            terminal.type(self.client.name, command, self._judge_ping)
            for host, capture in capturing:
                capture.read_until_quiet()
                output = terminal.interrupt(host.name, capture, self._judge_capture)
                if host is self.hosts[0]:
                    self.figures.representor_packets = len(re.findall(self._icmp("request"), output))

    def the_silicon_counts(self) -> None:
        """The flows of the pings, as Open vSwitch reads them from the silicon."""
        self.terminal.heading("The flows are in the eSwitch, which tags and untags, and counts")
        for host, other in (self.hosts, self.hosts[::-1]):
            out = (host.representor, host.guest.mac, other.guest.mac, ["push_vlan"])
            into = (host.pf, other.guest.mac, host.guest.mac, ["pop_vlan"])
            output = self.terminal.type(host.name, OFFLOADED_FLOWS, lambda text: self._judge_flows(text, out, into))  # noqa: B023
            if host is self.hosts[0]:
                self.figures.offloaded_packets = packets(find_flow(output, *out[:3]))

    def tcp(self, offload: str) -> tuple[float, dict[str, float | None]]:
        """Gbit/s of one TCP stream, and the CPU, in percent of a core, that both switches and both daemons took."""
        self.terminal.heading(f"TCP from guest to guest, hw-offload {offload}")
        switches = [int(run(self._bundle(host), "cat", f"{RUN_DIRECTORY}/{SWITCH}.pid")) for host in self.hosts]
        daemons = [int((self.terminal.layout.node(host.name) / "daemon.pid").read_text()) for host in self.hosts]
        with self.terminal.begin(self.server.name, "iperf3 -s -1", "Server listening") as server:
            before, began = (process_seconds(switches), process_seconds(daemons)), time.monotonic()
            command = f"iperf3 -c {address(self.server)} -t {TCP_SECONDS} -f g"
            output = self.terminal.type(self.client.name, command, judge_iperf)
            elapsed = time.monotonic() - began
            after = (process_seconds(switches), process_seconds(daemons))
            server.wait()
        percent = [round(100 * (late - early) / elapsed, 2) for early, late in zip(before, after, strict=True)]
        self.terminal.say(
            f"  ovs-vswitchd took {percent[0]:.1f} % of a core, our daemons {percent[1]:.1f} %, of both nodes"
        )
        return gbps(output), {"vswitchd": percent[0], "daemon": percent[1]}

    def flows_age_out(self) -> None:
        """Flows that nobody uses go, after max-idle."""
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

    def offload(self, host: Host, on: bool) -> None:
        """Turn hardware offload on or off in *host*."""
        self.terminal.heading(f"{host.name}: hardware offload {'on' if on else 'off'}")
        self.terminal.type(host.name, f"{SET}hw-offload={'true' if on else 'false'}")
        self.terminal.type(host.name, "systemctl restart openvswitch.service")

    def _bundle(self, host: Host) -> Any:
        return self.terminal.layout.bundle(host.name)

    def _judge_ping(self, output: str) -> str:
        found = re.search(r"(\d+) packets transmitted, (\d+) received.* ([\d.]+)% packet loss", output)
        times = [float(each) for each in re.findall(r"time=([\d.]+) ms", output)]
        if not found or not times:
            raise OutputError("no packet came back")
        self.figures.packets_sent, self.figures.ping_loss_percent = int(found[1]), float(found[3])
        self.figures.first_ping_ms = times[0]
        self.figures.later_ping_ms = round(sorted(times[1:])[len(times) // 2], 3) if len(times) > 2 else None
        if found[1] != found[2]:
            raise OutputError(f"{found[3]} % of the packets were lost")
        return f"none lost; the first took {times[0]:g} ms, the others {self.figures.later_ping_ms} ms (median)"

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


def parse_flows(output: str) -> list[ODPFlow]:
    """The flows that ``dpctl/dump-flows -m`` printed."""
    from ovs.flow.odp import ODPFlow

    return [ODPFlow(line) for line in output.splitlines() if line.startswith("ufid:")]


def find_flow(output: str, in_port: str, source: str | None, destination: str | None) -> ODPFlow | None:
    """The IPv4 flow from *in_port* between two MACs, among those that ``dpctl/dump-flows -m`` printed."""
    from ovs.flow.decoders import EthMask

    ends = {"src": str(EthMask(source)), "dst": str(EthMask(destination))}
    for flow in parse_flows(output):
        its_ends = {end: str(mac) for end, mac in flow.match.get("eth", {}).items()}
        inner = flow.match.get("encap", flow.match)
        if flow.match.get("in_port") == in_port and its_ends == ends and "ipv4" in inner:
            return flow
    return None


def packets(flow: ODPFlow | None) -> int:
    """The packets that *flow* counted."""
    return int(flow.info["packets"]) if flow else 0


def gbps(output: str) -> float:
    """The receiver's throughput as ``iperf3 -f g`` printed it; OutputError when it did not."""
    found = re.search(r"([\d.]+) Gbits/sec\s+receiver", output)
    if not found:
        raise OutputError("iperf3 did not measure anything")
    return float(found[1])


def judge_iperf(output: str) -> str:
    """A judge for a run of iperf3."""
    return f"{gbps(output):g} Gbit/s"


def address(guest: Guest) -> str:
    """A guest's address without the prefix length."""
    return (guest.address or "").split("/")[0]
