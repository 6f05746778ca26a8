# SPDX-License-Identifier: Apache-2.0
"""Rules into the silicon by ``tc -batch``, beside entries into the kernel by ``ip -batch``, both iproute2's own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from asap2.errors import Asap2Error
from asap2.lab.bench.paths import plain, representors
from asap2.lab.bench.scale import table
from asap2.lab.enter import environment, move_in
from asap2.lab.execute import ip, run
from asap2.lab.layout import Layout


class Insertion:
    """Files of *count* lines, for the representors of *node* and for a network namespace with the kernel alone."""

    def __init__(self, place: Layout, node: str, count: int) -> None:
        self._count = count
        self._node = place.node(node) / "ns"
        self._ports = representors(self._node)
        (self._kernel,) = plain(place, "kernel")
        ip(self._kernel / "net", "link add name one type veth peer name two", "link set dev one up")
        self._rules, self._entries = place.root / "rules.batch", place.root / "entries.batch"
        self._rules.write_text("".join(f"{line}\n" for line in self._filters()))
        self._entries.write_text("".join(f"{line}\n" for line in self._neighbours()))

    def _filters(self) -> Iterator[str]:
        one, other = self._ports[:2]
        macs = f"src_mac {table.SRC_MAC.hex(':')} dst_mac {table.DST_MAC.hex(':')}"
        for number in range(self._count):
            source, destination = (_dotted(each) for each in table.addresses(number, 1))
            yield (
                f"filter add dev {one} ingress protocol ip prio 1 flower skip_sw {macs} ip_proto udp "
                f"src_ip {source} dst_ip {destination} dst_port {table.DST_PORT} "
                f"action mirred egress redirect dev {other}"
            )

    def _neighbours(self) -> Iterator[str]:
        for number in range(self._count):
            yield f"neighbour add {_dotted(0x0A000000 + number)} lladdr {table.SRC_MAC.hex(':')} nud permanent dev one"

    def measure(self) -> dict[str, float]:
        """Rules a second by ``tc -batch`` into the silicon; neighbours a second by ``ip -batch`` into the kernel."""
        representor = self._ports[0]
        run(self._node, "tc", "qdisc", "add", "dev", representor, "ingress")
        rules = self._count / _seconds(self._node, "tc", self._rules)
        inserted = run(self._node, "tc", "filter", "show", "dev", representor, "ingress").count("in_hw in_hw_count 1")
        run(self._node, "tc", "qdisc", "del", "dev", representor, "ingress")
        if inserted != self._count:
            raise Asap2Error(f"of {self._count} rules, {inserted} are in hardware")
        entries = self._count / _seconds(self._kernel, "ip", self._entries)
        run(self._kernel, "ip", "neighbour", "flush", "nud", "permanent", "dev", "one")
        return {"rules_per_second": rules, "kernel_neighbours_per_second": entries}


def _dotted(address: int) -> str:
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))


def _seconds(bundle: Path, program: str, batch: Path) -> float:
    """How long *program* takes for the file *batch*, which is its input: a node does not see the lab's files."""
    with batch.open() as lines:
        began = time.perf_counter()
        done = subprocess.run(
            [program, "-batch", "-"],
            stdin=lines,
            capture_output=True,
            text=True,
            env=environment(),
            preexec_fn=lambda: move_in(bundle),
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise Asap2Error(f"`{program} -batch` failed: {' '.join(done.stderr.split())[:500]}")
    return seconds
