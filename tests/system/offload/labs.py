# SPDX-License-Identifier: Apache-2.0
"""Labs that a test brings up and takes down, and programs run in their nodes and guests."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from asap2 import testing
from asap2.lab.topology import Topology
from asap2.testing import Lab, Result
from asap2.testing.looks import looks
from tests.system.patience import PATIENCE

IPV4 = "eth_type(0x0800)"
"""What flows of IPv4 have in them, and no other."""
LASTING = "other_config:max-idle=600000 other_config:max-revalidator=2000 other_config:min-revalidate-pps=1"
"""Settings with which Open vSwitch keeps the flows that a test counts by. With its own, revalidators that are late, as
on a busy machine, remove flows that carry little."""


class Bench(Lab):
    """The lab, and what many tests do in its nodes and guests."""

    def __init__(self, root: Path, topology: Topology) -> None:
        super().__init__(root, topology, PATIENCE)
        self._offloads: dict[str, bool] = {}

    @classmethod
    @contextlib.contextmanager
    def running(cls, topology: str) -> Iterator[Self]:
        """A lab with *topology*, taken down at the end."""
        with testing.lab(topology) as lab:
            yield cls(lab.root, lab.topology)

    def run(self, where: str, command: str, timeout: float = 5 * PATIENCE) -> Result:
        """Run a shell command line in a node or guest."""
        return self[where].run(command, check=False, timeout=timeout)

    def run_words(self, where: str, *words: str, timeout: float = 5 * PATIENCE) -> Result:
        """Run a program in a node or guest."""
        return self[where].run(words, check=False, timeout=timeout)

    def ok(self, where: str, command: str, timeout: float = 5 * PATIENCE) -> str:
        """As :meth:`run`; its output, when it succeeds."""
        return self[where].run(command, timeout=timeout).stdout

    def start(self, where: str, *words: str, stdin: int | None = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a program in a node or guest."""
        return self[where].start(words, stdin=stdin)

    def socket(self, guest: str, family: int, kind: int, address: tuple[str, int]) -> socket.socket:
        """A socket of this process in a guest, bound to *address*."""
        made = self[guest].socket(family, kind)
        made.bind(address)
        return made

    def switch(self, node: str, *, offload: bool = True) -> None:
        """Restart the node's switch so that it offloads, or does not, and keeps flows for long."""
        settings = f"other_config:hw-offload={str(offload).lower()} {LASTING}"
        restart = "systemctl reset-failed ovs-vswitchd && systemctl restart ovs-vswitchd"
        self.ok(node, f"ovs-vsctl --no-wait set Open_vSwitch . {settings} && {restart}")
        self._offloads[node] = offload

    def switched(self, node: str, *, offload: bool = True) -> None:
        """As :meth:`switch`, without a restart where the node's Open vSwitch is like that."""
        if self._offloads.get(node) != offload:
            self.switch(node, offload=offload)

    def flows(self, node: str, *parts: str, kind: str = "offloaded") -> list[str]:
        """The datapath's flows of one type that hold every part; without parts, those of a guest that looks for a
        neighbour too, which it may do at any time."""
        shown = self.ok(node, f"ovs-appctl dpctl/dump-flows -m type={kind}").splitlines()
        return [flow for flow in shown if all(part in flow for part in parts)]

    def flow(self, node: str, *parts: str, kind: str = "offloaded") -> str:
        """The one flow that holds every part; it may take a moment to be there."""
        found: list[str] = []

        def one() -> bool:
            found[:] = self.flows(node, *parts, kind=kind)
            return len(found) == 1

        until(one, why=f"{node} has not one flow with {parts}")
        return found[0]

    def forget(self, node: str) -> None:
        """Remove the datapath's flows of IPv4, and what else there is."""

        def gone() -> bool:
            self.ok(node, "ovs-appctl revalidator/purge")
            return not self.flows(node, IPV4, kind="all")

        until(gone, why=f"{node} has flows of IPv4 while nobody sends")

    def program(self, node: str, *rules: str) -> None:
        """Give the node's bridge br-int these OpenFlow rules and no other; the datapath's flows go."""
        self.ok(node, "ovs-ofctl del-flows br-int")
        for rule in rules:
            self.ok(node, f"ovs-ofctl add-flow br-int '{rule}'")
        self.forget(node)

    def ping(self, guest: str, address: str, count: int = 3, options: str = "-i 0.01") -> str:
        """Ping without loss; its output."""
        output = self.ok(guest, f"ping -n -c {count} -W 20 {options} {address}")
        assert f"{count} received, 0% packet loss" in output, output
        return output

    def counted(
        self, guest: str, address: str, count: int, *flows: tuple[str, ...], kind: str = "offloaded", options: str = ""
    ) -> list[str]:
        """Ping; each flow, a node and its parts, counts each ping; the flows. Where Open vSwitch changes a flow
        meanwhile, as it does when it has learned where a guest is, the count begins anew: so it is done again then."""
        for _ in range(9):
            before = [self.flow(node, *parts, kind=kind) for node, *parts in flows]
            self.ping(guest, address, count, options or "-i 0.01")
            after = [self.flow(node, *parts, kind=kind) for node, *parts in flows]
            if list(map(_what, before)) == list(map(_what, after)):
                break
        assert [packets_of(flow) for flow in after] == [packets_of(flow) + count for flow in before]
        return after

    @contextlib.contextmanager
    def flooding(self, guest: str, address: str) -> Iterator[None]:
        """Ping as fast as answers come, and lose none. (A ping that is broken off may be between packet and answer.)"""
        stop, lost = threading.Event(), list[str]()

        def flood() -> None:
            while not stop.is_set():
                output = self.run(guest, f"ping -n -q -f -c 2000 -W 20 {address}").stdout
                if ", 0% packet loss" not in output:
                    lost.append(output)

        beside = threading.Thread(target=flood)
        beside.start()
        try:
            yield
        finally:
            stop.set()
            beside.join()
        assert not lost, lost

    def daemon(self, node: str) -> int:
        """The process id of the node's daemon; 0 while none serves."""
        return self.node(node).pid("daemon") or 0

    def kill_daemon(self, node: str) -> int:
        """Kill the node's daemon without warning; the process id that it had."""
        return self.node(node).kill("daemon")


def packets_of(flow: str) -> int:
    """The packet count of a flow."""
    found = re.search(r"packets:(\d+)", flow)
    assert found
    return int(found[1])


def tracked_packets(bench: Bench, node: str, device: str) -> tuple[int, int]:
    """Packets from *device* that tc's rules with ``ct`` let pass in software, and in hardware."""
    software = hardware = 0
    for filter_ in json.loads(bench.ok(node, f"tc -s -j filter show dev {device} ingress")):
        for action in filter_.get("options", {}).get("actions", ()):
            if action["kind"] == "ct" and "commit" not in action.get("action", ""):
                of_hardware = action["stats"].get("hw_packets", 0)
                hardware += of_hardware
                software += action["stats"]["packets"] - of_hardware
    return software, hardware


def _what(flow: str) -> str:
    """What a flow is, without what it has counted."""
    return re.sub(r", packets:.*?, (?=offloaded|dp)", ", ", flow)


def until(what: Callable[[], bool], seconds: float = PATIENCE, why: str = "it did not happen") -> None:
    """Wait for a condition that no event announces."""
    for _ in looks(seconds):
        if what():
            return
    raise AssertionError(why)
