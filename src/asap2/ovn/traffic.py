# SPDX-License-Identifier: Apache-2.0
"""Traffic between guests, and how many of its packets the host's CPU has seen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from asap2.lab.terminal import OutputError, Terminal, expect

LEAST_SHARE = 0.99
"""Of a steady flow's packets, what hardware carries at the least."""
SECONDS = 1
UDP_RATE = "100M"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a guest's VF has its representor."""

    node: str
    representor: str


@dataclass(frozen=True, slots=True)
class Carried:
    """Packets of one kind that passed the guests' VFs, and how many of them the host's CPU has seen. A super-packet
    counts as one."""

    kind: str
    packets: int
    at_host: int

    @property
    def share(self) -> float:
        """The part that only hardware has seen."""
        return 1 - self.at_host / self.packets if self.packets else 0.0

    def __str__(self) -> str:
        return f"{self.packets - self.at_host} of {self.packets} packets in hardware: {100 * self.share:.2f} %"


class Traffic:
    """Sends packets between guests, whose representors are at *places*, and keeps in :attr:`carried` what was seen."""

    def __init__(self, terminal: Terminal, places: dict[str, Place]) -> None:
        self.terminal = terminal
        self.places = places
        self.carried: list[Carried] = []

    def tcp(self, kind: str, client: str, server: str, address: str, port: int = 5201, server_port: int = 5201) -> None:
        """One second of TCP from *client* to *address*:*port*, where *server* listens."""
        command = f"iperf3 -c {address} -p {port} -t {SECONDS} -f m"
        with self.listening(server, server_port), self.measured(f"{kind}, TCP", client, server):
            self.terminal.type(client, f"{command} | tail -4", expect(r"([\d.]+ Mbits/sec) +receiver", "{1}"))

    def udp(self, kind: str, client: str, server: str, address: str) -> None:
        """One second of UDP from *client* to *address*, where *server* listens."""
        command = f"iperf3 -c {address} -u -b {UDP_RATE} -l 1200 -t {SECONDS} -f m"
        with self.listening(server), self.measured(f"{kind}, UDP", client, server):
            self.terminal.type(client, f"{command} | tail -4", expect(r"([\d.]+ Mbits/sec) .*receiver", "{1}"))

    def ping(self, client: str, address: str, options: str = "-c 3 -i 0.1", ttl: int | None = None) -> None:
        """Ping without loss; *ttl* is what the answers have left of 64."""
        pattern = r"0% packet loss" if ttl is None else rf"ttl={ttl} (?s:.*) 0% packet loss"
        words = "none lost" if ttl is None else f"none lost, {64 - ttl} router between"
        self.terminal.type(client, f"ping {options} {address}", expect(rf"(?s:.*){pattern}", words))

    def wait_for_neighbour(self, client: str, address: str) -> None:
        """Ping until there is an answer: a router of OVN that must ask for the neighbour first buffers packets, and
        loses those that come to ovn-controller between the answer and the flow for it (run_buffered_binding)."""
        self.terminal.type(client, f"ping -c 1 -w 30 {address}", expect(r" 1 received", "an answer"))

    @contextlib.contextmanager
    def listening(self, server: str, port: int = 5201) -> Iterator[None]:
        """A server of iperf3 for one client."""
        with self.terminal.begin(server, f"iperf3 -s -1 -p {port}", "Server listening") as program:
            yield
            program.wait()

    @contextlib.contextmanager
    def measured(self, kind: str, *guests: str, least: float | None = LEAST_SHARE) -> Iterator[None]:
        """Count the packets that pass the VFs of *guests* meanwhile, and want hardware to carry the share *least* of
        them; None: less than half of them."""
        before = [self._counted(guest) for guest in guests]
        yield
        after = [self._counted(guest) for guest in guests]
        packets, at_host = (sum(b[i] - a[i] for a, b in zip(before, after, strict=True)) for i in (0, 1))
        found = Carried(kind, packets, at_host)
        self.carried.append(found)
        complaint = None
        if least is not None and found.share < least:
            complaint = f"{found}, and {100 * least:g} % should be"
        elif least is None and found.share > 0.5:
            complaint = f"{found}, and the host should see them"
        if complaint:
            place = self.places[guests[0]]
            raise self.terminal.failed(place.node, command_of(place), complaint)
        self.terminal.say("  ", ("✓", "green"), f" {found}")

    def _counted(self, guest: str) -> tuple[int, int]:
        place = self.places[guest]
        return counters(self.terminal.type(place.node, command_of(place), judge_counters, shown=False))


def command_of(place: Place) -> str:
    """What shows the counters of a representor."""
    return f"ip -j stats show dev {place.representor}"


def counters(output: str) -> tuple[int, int]:
    """Packets of a representor in both directions, and those of them that the CPU has seen, of what ``ip -j stats``
    printed."""
    found = {}
    for group in json.loads(output):
        if "stats64" in group:
            sums = group["stats64"]
            found[group.get("subgroup", group["group"])] = sums["rx"]["packets"] + sums["tx"]["packets"]
    return found["link"], found["cpu_hit"]


def judge_counters(output: str) -> str:
    """A judge for the counters of a representor."""
    try:
        packets, at_host = counters(output)
    except (ValueError, KeyError):
        raise OutputError("the representor has no counters of what the CPU has seen") from None
    return f"{packets} packets so far, {at_host} of them seen by the CPU"
