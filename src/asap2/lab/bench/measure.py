# SPDX-License-Identifier: Apache-2.0
"""One measurement of one path, with iperf3 and sockperf."""

from __future__ import annotations

import contextlib
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.background import Program
from asap2.lab.bench.paths import TrafficPath
from asap2.lab.cpu import machine_seconds, process_seconds
from asap2.lab.execute import run

TCP_SECONDS = 2
SMALL_SECONDS = 1
SMALL_BYTES = 18
"""UDP payload of a small packet: with all headers and the frame check sequence 64 bytes, Ethernet's least."""
PORT = 7777


def measure(path: TrafficPath) -> dict[str, float]:
    """All figures of one round: ``tcp_gbps`` and ``cpu_seconds_per_gbit`` of one TCP stream, ``packets_per_second`` of
    small UDP packets that the receiver got, ``transactions_per_second`` of one small UDP packet there and one back. Of
    a path with a host, also ``host_cpu_seconds_per_gbit``, what its processes took for the TCP stream, and
    ``host_packets``, those of all of these that its switch handled."""
    before = path.host.lookups() if path.host else 0
    figures = tcp(path)
    with _sockperf_server(path) as server:
        figures |= small_packets(path, server) | transactions(path)
    if path.host:
        figures["host_packets"] = path.host.lookups() - before
    return figures


def packets_in_turn(paths: Sequence[TrafficPath], turns: int) -> dict[str, dict[str, float]]:
    """``packets_per_second`` of each path, as :func:`measure` has it: the median of *turns*, in each of which the paths
    follow one another closely, as what else the machine does changes from second to second."""
    measured: dict[str, list[float]] = {path.name: [] for path in paths}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_sockperf_server(path)) for path in paths]
        for _ in range(turns):
            for path, server in zip(paths, servers, strict=True):
                measured[path.name].append(small_packets(path, server)["packets_per_second"])
    return {name: {"packets_per_second": statistics.median(values)} for name, values in measured.items()}


@contextlib.contextmanager
def _sockperf_server(path: TrafficPath) -> Iterator[Program]:
    with Program(path.server, ["sockperf", "server", "-i", path.listen or path.address, "-p", str(PORT)]) as server:
        server.read_until("to block on socket")
        yield server


def tcp(path: TrafficPath) -> dict[str, float]:
    """One TCP stream; CPU seconds are those of the whole machine meanwhile, the two guests' included, and those of the
    host's processes."""
    processes = path.host.processes() if path.host else []
    with Program(path.server, ["iperf3", "--server", "--one-off"]) as server:
        server.read_until("Server listening")
        before, of_host = machine_seconds(), process_seconds(processes)
        output = run(path.client, "iperf3", "--client", path.address, "--time", str(TCP_SECONDS), "--json")
        spent, by_host = machine_seconds() - before, process_seconds(processes) - of_host
    received = json.loads(output)["end"]["sum_received"]
    gbit = received["bytes"] * 8 / 1e9
    if not gbit:
        raise Asap2Error(f"no TCP data came through the path {path.name}")
    figures = {"tcp_gbps": received["bits_per_second"] / 1e9, "cpu_seconds_per_gbit": spent / gbit}
    return figures | ({"host_cpu_seconds_per_gbit": by_host / gbit} if path.host else {})


def small_packets(path: TrafficPath, server: Program) -> dict[str, float]:
    """Small UDP packets to the sockperf *server* as fast as one sender can."""
    before = udp_datagrams(server.process.pid)
    seconds = sent_for(run(path.client, *sockperf("throughput", path.address)))
    return {"packets_per_second": (udp_datagrams(server.process.pid) - before) / seconds}


def transactions(path: TrafficPath) -> dict[str, float]:
    """One small UDP packet at a time, there and back."""
    return {"transactions_per_second": answered(run(path.client, *sockperf("ping-pong", path.address)))}


def sockperf(kind: str, address: str) -> list[str]:
    """The command that sends small packets: ``throughput``, as fast as it can, or ``ping-pong``, one at a time."""
    where = ["-i", address, "-p", str(PORT)]
    return ["sockperf", kind, *where, "-m", str(SMALL_BYTES), "-t", str(SMALL_SECONDS)]


def sent_for(output: str) -> float:
    """How long, in seconds, ``sockperf throughput`` sent; Asap2Error when it does not say."""
    found = re.search(r"Total of \d+ messages sent in ([\d.]+) sec", output)
    if not found:
        raise Asap2Error("sockperf did not say how long it sent")
    return float(found[1])


def answered(output: str) -> float:
    """Transactions per second of ``sockperf ping-pong``; Asap2Error when there were no answers."""
    found = re.search(r"\[Valid Duration\] RunTime=([\d.]+) sec; SentMessages=\d+; ReceivedMessages=(\d+)", output)
    if not found:
        raise Asap2Error("sockperf got no answers")
    return int(found[2]) / float(found[1])


def udp_datagrams(pid: int, *counters: str) -> int:
    """UDP datagrams that programs have received in the network namespace of process *pid*, or what other *counters* say
    together (netstat -su)."""
    names, values = (line.split() for line in Path(f"/proc/{pid}/net/snmp").read_text().splitlines() if "Udp:" in line)
    return sum(int(values[names.index(counter)]) for counter in counters or ("InDatagrams",))
