# SPDX-License-Identifier: Apache-2.0
"""A connection through security groups: hardware carries it, a port without a rule is refused, pings are the host's."""

from __future__ import annotations

import re

from asap2.lab.firewall import ALLOWED, judge_capture, ping, refuse
from asap2.lab.terminal import OutputError, expect
from asap2.openstack.demo_steps import Server, Steps

OFFLOADED = "ovs-appctl dpctl/dump-flows type=offloaded"
ESTABLISHED = f"{OFFLOADED} | grep 'ct_state(+est'"
PINGS = 5
SHARE = 100
"""Of so many packets of a connection, the host sees at most one."""


class Secured:
    """Connections from one server to the *address* of another, whose ports have a security group."""

    def __init__(self, steps: Steps, client: Server, server: Server, address: str) -> None:
        self.steps = steps
        self.terminal = steps.terminal
        self.client, self.server, self.address = client, server, address

    def carried(self, what: str) -> None:
        """Connect to the allowed port; hardware carries what follows the handshake."""
        self.terminal.heading(f"TCP port {ALLOWED}, {what}: the host sees how a connection begins and ends")
        self._connect("64K")
        host = self.client.node.node
        with self.terminal.begin(host, f"tcpdump -nn -i {self.client.representor} tcp", "listening on") as capture:
            self._connect("200M")
            capture.read_until_quiet()
            output = self.terminal.interrupt(host, capture, judge_capture)
        seen = len(re.findall(r"Flags \[", output))

        def judge(output: str) -> str:
            carried = self._carried(output)
            if seen * SHARE > carried:
                raise OutputError(f"the host saw {seen} packets of the connections, and hardware {carried}")
            self.steps.figures.tracked_in_hardware[what] = carried
            self.steps.figures.tracked_at_the_host[what] = seen
            return f"{carried} packets of established connections in hardware; the host saw {seen} packets"

        self.terminal.type(host, ESTABLISHED, judge)

    def refused(self) -> None:
        """Connect to a port that no rule allows."""
        refuse(self.terminal, self.client.name, self.server.name, self.address)

    def pinged(self) -> None:
        """Ping, and have `asap2 host explain` say why its packets are not in hardware."""
        host, words = self.client.node.node, f"-c {PINGS} -i 0.1 -W 10 {self.address}"
        ping(self.terminal, host, self.client.representor, words, self.client.name, PINGS)
        said = expect(r"connection.protocol .*ICMP is never in hardware", "{0}")
        self.terminal.type(host, "asap2 host explain", said)

    def _connect(self, octets: str) -> None:
        with self.terminal.begin(self.server.name, f"iperf3 -s -1 -p {ALLOWED}", "Server listening") as server:
            command = f"iperf3 -c {self.address} -p {ALLOWED} -n {octets}"
            self.terminal.type(self.client.name, command, expect(r"([\d.]+ \S*bits/sec)\s+\d+\s+sender", "{1}"))
            server.wait()

    def _carried(self, output: str) -> int:
        """The packets of established connections from the client that offloaded flows counted."""
        flows = [line for line in output.splitlines() if re.search(rf"ct_state\(\+est.*src={self.client.mac}", line)]
        return max((int(number) for flow in flows for number in re.findall(r"packets:(\d+)", flow)), default=0)
