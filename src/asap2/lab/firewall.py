# SPDX-License-Identifier: Apache-2.0
"""The demo's stateful firewall: what connection tracking leaves to the NIC, and what it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from asap2.lab.reading import Host, address, judge_iperf
from asap2.lab.terminal import OutputError, Terminal, expect

ZONE = 1
ALLOWED, REFUSED = 5201, 5202
"""TCP ports of the second guest."""
PINGS = 20
FLOWS = "ovs-appctl dpctl/dump-flows -m type=offloaded | grep 'ct(zone'"
RULES = (
    "priority=9,arp,actions=normal",
    f"priority=5,ip,ct_state=-trk,actions=ct(table=1,zone={ZONE})",
    "table=1,priority=5,ip,ct_state=+trk+est,actions=normal",
    f"table=1,priority=5,tcp,ct_state=+trk+new,tp_dst={ALLOWED},actions=ct(commit,zone={ZONE}),normal",
    f"table=1,priority=5,icmp,ct_state=+trk+new,actions=ct(commit,zone={ZONE}),normal",
    "table=1,priority=0,actions=drop",
)
WORDS = (
    "A NIC carries connections of TCP, UDP and GRE, and no other (net/sched/act_ct.c): each packet of a ping is looked",
    "at by the host, with a ConnectX too.",
)
_FLAGS = re.compile(r"Flags \[([^]]+)\].* length \d+")
_SHARE = 20
"""Of so many packets of a connection, the host sees fewer than one."""


class Firewall:
    """Has the bridges of two hosts let connections to one port pass, and pings, and nothing else."""

    def __init__(self, terminal: Terminal, hosts: Sequence[Host], bridge: str) -> None:
        self.terminal = terminal
        self.hosts = hosts
        self.bridge = bridge
        self.client, self.server = (host.guest for host in hosts)

    def prove(self) -> dict[str, int]:
        """Set it up, show what it does, and take it away; the packets of a connection ``in_hardware``, and those
        ``at_the_host``."""
        self.terminal.heading("A stateful firewall on both nodes: one port, pings, and what belongs to them")
        self._rules(*RULES)
        seen = self._allowed()
        host, server = self.hosts[0], address(self.server)
        refuse(self.terminal, self.client.name, self.server.name, server)
        ping(self.terminal, host.name, host.representor, f"-c {PINGS} -i 0.05 {server}", self.client.name, PINGS)
        self.terminal.heading("The bridges forward as before")
        self._rules("priority=0,actions=normal")
        return seen

    def _rules(self, *rules: str) -> None:
        for host in self.hosts:
            self.terminal.type(host.name, f"ovs-ofctl del-flows {self.bridge}")
            for rule in rules:
                self.terminal.type(host.name, f"ovs-ofctl add-flow {self.bridge} '{rule}'")

    def _allowed(self) -> dict[str, int]:
        terminal, host = self.terminal, self.hosts[0]
        terminal.heading(f"Port {ALLOWED}: the host sees how a connection begins and ends, the NIC carries it")
        self._connect("-n 64K")
        terminal.type(host.name, FLOWS, self._judge_flows)
        table = f"tc -s filter show dev {host.representor} ingress chain 0"
        before = counted(terminal.type(host.name, table, judge_counters))
        with terminal.begin(host.name, f"tcpdump -nn -i {host.representor} tcp", "listening on") as capture:
            self._connect("-t 1")
            capture.read_until_quiet()
            shown = _FLAGS.findall(terminal.interrupt(host.name, capture, judge_capture))
        found = counted(terminal.type(host.name, table, judge_counters)) - before
        if len(shown) * _SHARE > found:
            words = f"the host saw {len(shown)} packets of the two connections, and hardware {found}"
            raise terminal.failed(host.name, table, words)
        return {"in_hardware": found, "at_the_host": len(shown)}

    def _connect(self, options: str) -> None:
        with self.terminal.begin(self.server.name, f"iperf3 -s -1 -p {ALLOWED}", "Server listening") as server:
            command = f"iperf3 -c {address(self.server)} -p {ALLOWED} {options} -f g"
            self.terminal.type(self.client.name, command, judge_iperf)
            server.wait()

    def _judge_flows(self, output: str) -> str:
        for port in (self.hosts[0].representor, self.hosts[0].pf):
            tracking = rf"recirc_id\(0\).*in_port\({port}\).*offloaded:yes.*actions:ct\(zone={ZONE}\),recirc"
            if not re.search(tracking, output):
                raise OutputError(f"packets from {port} are not tracked in hardware")
        return "connection tracking is in the eSwitch, both ways"


def refuse(terminal: Terminal, client: str, server: str, to: str) -> None:
    """Connect to the server's address *to*, at a port that no rule allows."""
    terminal.heading(f"Port {REFUSED}: refused")
    with terminal.begin(server, f"iperf3 -s -1 -p {REFUSED}", "Server listening"):
        command = f"! iperf3 -c {to} -p {REFUSED} --connect-timeout 1000"
        terminal.type(client, command, expect("unable to connect", "the server is never reached"))


def ping(terminal: Terminal, host: str, representor: str, words: str, client: str, count: int) -> None:
    """Ping with *words*, *count* times; *host* sees each packet at the client's *representor*."""
    terminal.heading("A ping passes, and every packet of it is the host's")
    for line in WORDS:
        terminal.say(f"  {line}")
    with terminal.begin(host, f"tcpdump -nn -i {representor} icmp", "listening on") as capture:
        terminal.type(client, f"ping -q {words}", expect(f"{count} received, 0% packet loss", "none lost"))
        capture.read_until_quiet()
        terminal.interrupt(host, capture, lambda output: judge_pings(output, count))


def counted(output: str) -> int:
    """Packets that hardware did the action ct with, of what ``tc -s filter`` printed."""
    actions = re.findall(r"action order \d+: ct .*?(?=action order|\Z)", output, re.DOTALL)
    return sum(int(packets) for one in actions for packets in re.findall(r"Sent hardware \d+ bytes (\d+) pkt", one))


def judge_counters(output: str) -> str:
    """A judge for the filters of chain 0."""
    if "action order 1: ct" not in output or "not_in_hw" in output:
        raise OutputError("no filter with the action ct is in hardware")
    return f"{counted(output)} packets were tracked in hardware"


def judge_capture(output: str) -> str:
    """A judge for the packets of connections that a host saw."""
    shown = _FLAGS.findall(output)
    begun = sum("S" in flags for flags in shown)
    if not begun:
        raise OutputError("the host should see how a connection begins, and did not")
    return f"{len(shown)} packets, {begun} of them with SYN"


def judge_pings(output: str, count: int = PINGS) -> str:
    """A judge for the packets of *count* pings that a host saw."""
    for kind in ("request", "reply"):
        seen = len(re.findall(rf"ICMP echo {kind}", output))
        if seen != count:
            raise OutputError(f"the host should see all {count} packets of kind {kind}, and saw {seen}")
    return f"all {2 * count} packets"
