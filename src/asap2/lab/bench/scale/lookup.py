# SPDX-License-Identifier: Apache-2.0
"""Lookups in the silicon: NICs with many rules under many masks, and what one packet costs them.

This reaches into the NIC, as nothing else in the lab does: rules come by its own :class:`Pipeline`, which takes a
million in seconds, and no Open vSwitch is there. The eBPF program, its maps and how it hangs at its devices are those
of a node.
"""

from __future__ import annotations

import ctypes
import gc
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from asap2.lab.bench.scale import table
from asap2.lab.bench.scale.bare import IN, OUT, Bare, netns
from asap2.lab.bench.scale.generator import Generator
from asap2.lab.bench.scale.sizes import Sizes
from asap2.lab.child import Child
from asap2.lab.execute import ip
from asap2.lab.layout import Layout as Place
from asap2.namespaces import in_netns
from asap2.nic.model import MODELS
from asap2.nic.rules import Output
from asap2.nic.silicon import loader
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.pipeline import Pipeline

OBJECT = Path(__file__).with_name("flows.bpf.o")


def room_for(rules: int) -> int:
    """How many rules the smallest NIC has room for that has room for these."""
    return min(model.max_rules for model in MODELS.values() if model.max_rules >= rules)


def name_of(rules: int, masks: int) -> str:
    """What a table is called in the result."""
    return f"{rules} rule{'s' if rules > 1 else ''}, {masks} mask{'s' if masks > 1 else ''}"


@dataclass(slots=True)
class Nic:
    """One NIC's silicon with a table of *rules* under *masks*, between a device of the sending guest and one of the
    receiving guest."""

    rules: int
    masks: int
    maps: Layout
    ifindex: int
    flows: bytes
    generator: Generator


class Lookups:
    """NICs with tables of all sizes, in network namespaces below *place*, which a lab has."""

    def __init__(self, place: Place, sizes: Sizes) -> None:
        self._sizes = sizes
        self._bare = Bare(place, "lookup")
        self._processor = max(os.sched_getaffinity(0))
        self._program = Flows(self._bare.bpf / "flows", sizes.many_flows)
        self._fill()
        self.nics = [self._nic(number) for number in range(len(sizes.tables))]
        self._direct = self._wire()

    def _device(self, number: int) -> str:
        return f"nic{number}"

    def _fill(self) -> None:
        """Make every NIC. Each is a process of its own, as many as there are processors: what it keeps of a million
        rules goes with it."""
        waiting: list[Child] = []
        for number in range(len(self._sizes.tables)):
            if len(waiting) == os.cpu_count():
                waiting.pop(0).result()
            self._bare.wire(self._device(number))
            waiting.append(Child(lambda number=number: self._fill_one(number)))  # type: ignore[misc]
        for child in waiting:
            child.result()

    def _fill_one(self, number: int) -> None:
        gc.disable()
        rules, masks = self._sizes.tables[number]
        name = self._device(number)
        pipeline = Pipeline.open(self._bare.bpf / name, max_rules=room_for(rules))
        self._bare.set_ports(pipeline, name)
        for rule in table.rules(rules, masks, IN, (Output(OUT),)):
            pipeline.add(rule)
        self._bare.attach(pipeline, name)

    def _nic(self, number: int) -> Nic:
        rules, masks = self._sizes.tables[number]
        name = self._device(number)
        index, _ = self._bare.ends(name)
        flows = [table.flow(n, rules, masks) for n in range(self._sizes.many_flows)]
        generator = Generator(self._bare.sender, name, [table.frame(*flow) for flow in flows])
        return Nic(rules, masks, Layout(self._bare.bpf / name), index, packed(flows), generator)

    def _wire(self) -> Generator:
        """Sends by one end of a veth pair, the other end of which the receiving guest has."""
        one, other = netns(self._bare.sender), netns(self._bare.receiver)
        far = f"name direct address {table.DST_MAC.hex(':')} netns {other}"
        ip(one, f"link add name direct type veth peer {far}", "link set dev direct up")
        ip(other, "link set dev direct up")
        frames = [table.frame(*table.flow(n, 1, 1)) for n in range(self._sizes.many_flows)]
        return Generator(self._bare.sender, "direct", frames)

    def close(self) -> None:
        """Let go of everything; the lab's end ends it."""
        for nic in self.nics:
            nic.maps.close()
            nic.generator.close()
        self._direct.close()
        self._program.close()
        self._bare.close()

    # ---- one round

    def direct(self) -> dict[str, float]:
        """Packets a second through a veth pair alone."""
        return {"round_robin_packets_per_second": self._packets(self._direct, "direct", self._sizes.many_flows)}

    def measure(self, number: int) -> dict[str, float]:
        """Figures of NIC *number*: nanoseconds that the program takes for a packet when its caches are hot, cold, or
        too small, and packets a second from guest to guest of few flows and of many."""
        sizes, nic = self._sizes, self.nics[number]
        few, many = sizes.few_flows, sizes.many_flows
        program = nic.maps.program
        own = self._program
        own.load(nic.flows)
        overhead_few = self._run(own.nothing, 0, few, sizes.runs)
        overhead_many = self._run(own.nothing, 0, many, sizes.runs)
        self._run(program, nic.ifindex, few, few)
        hot = self._run(program, nic.ifindex, few, sizes.runs) - overhead_few
        _forget(nic.maps)
        cold = self._run(program, nic.ifindex, many, sizes.cold_flows) - overhead_many
        self._run(program, nic.ifindex, many, many)
        round_robin = self._run(program, nic.ifindex, many, sizes.runs) - overhead_many
        return {
            "hot_ns": hot,
            "cold_ns": cold,
            "round_robin_ns": round_robin,
            "hot_packets_per_second": self._packets(nic.generator, self._device(number), few),
            "round_robin_packets_per_second": self._packets(nic.generator, self._device(number), many),
        }

    def _run(self, program: int, ifindex: int, flows: int, runs: int) -> float:
        """Nanoseconds of one of so many *runs* of *program*."""

        def run() -> float:
            os.sched_setaffinity(0, {self._processor})
            return self._program.run(program, ifindex, flows, runs)

        return in_netns(self._bare.silicon, run)

    def _packets(self, generator: Generator, device: str, flows: int) -> float:
        """Packets a second that *device* of the receiving guest received."""

        def run() -> float:
            os.sched_setaffinity(0, {self._processor})
            return generator.rate(self._sizes.packets_seconds, flows, device)

        return in_netns(self._bare.receiver, run)


def _forget(maps: Layout) -> None:
    """Make what the caches hold stale, as every change of the rules does."""
    for _, at in maps.mask_list_of.items():
        maps.mask_lists[int.from_bytes(at, sys.byteorder)].generation = maps.next_generation()


class Flows:
    """The program that gives each run another flow (``flows.bpf.c``), with room for *many*."""

    def __init__(self, directory: Path, many: int) -> None:
        directory.mkdir()
        programs = ("next_flow", "nothing")
        loader.load(OBJECT, directory, {"flows": many, "measured": None, "turn": None}, programs)
        self._next, self.nothing = (loader.pinned(directory / name) for name in programs)
        self._maps = [loader.Map(loader.pinned(directory / name), name) for name in ("flows", "measured", "turn")]
        self._flows = self._maps[0].memory()
        self._turn = self._maps[2].mapped(ctypes.c_uint64)

    def load(self, flows: bytes) -> None:
        """Make these the flows (:func:`packed`)."""
        self._flows[: len(flows)] = flows

    def run(self, program: int, ifindex: int, flows: int, runs: int) -> float:
        """Nanoseconds a run, of so many *runs* of *program* with the first *flows* in turn, as if from *ifindex*."""
        self._maps[1].update(bytes(4), program.to_bytes(4, sys.byteorder))
        self._turn[0], self._turn[1] = 0, flows
        packet = table.frame(*table.flow(0, 1, 1))
        return float(loader.TestRun(self._next, ifindex=ifindex, repeat=runs).on(packet))

    def close(self) -> None:
        """Let go of it."""
        for fd in (self._next, self.nothing, *(each.fd for each in self._maps)):
            os.close(fd)


def packed(flows: Iterable[tuple[int, int, int]]) -> bytes:
    """Flows as ``struct flow``."""
    return b"".join(struct.pack(">IIHHI", *flow, table.DST_PORT, 0) for flow in flows)
