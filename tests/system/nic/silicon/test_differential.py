# SPDX-License-Identifier: Apache-2.0
"""The eBPF program and the reference eSwitch do the same with random frames under random, changing rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asap2.nic.silicon import packet
from asap2.nic.silicon.pipeline import Miss, Pipeline, Port, PortKind
from asap2.nic.silicon.reference import ReferenceSwitch
from tests.system.nic.silicon import traffic

STEPS = 20
KINDS = ("packets", "packets", "packets", "add", "replace", "remove", "ports")
ALIKE = 10
UPCALL_DEVICE = 1


@pytest.fixture(scope="module", params=[None, 2], ids=["large cache", "cache of two"])
def pipeline(bpffs: Path, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    """A program that tells what it would do. With two places, entries of the cache displace one another."""
    opened = Pipeline.open(
        bpffs / f"tracing-{request.param}",
        max_rules=256,
        tracing=True,
        upcall_ifindex=UPCALL_DEVICE,
        cache_entries=request.param,
    )
    yield opened
    opened.destroy()


def split(frame: bytes) -> tuple[tuple[int, int] | None, bytes]:
    """The frame as it is received: its outer tag in the metadata. What a host sends may have it in the frame."""
    if not packet.tagged(frame) or len(frame) < packet.HEADER + 5:
        return None, frame
    return (int.from_bytes(frame[12:14], "big"), int.from_bytes(frame[14:16], "big")), frame[:12] + frame[16:]


class Both:
    """The program and the reference, side by side."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.reference = ReferenceSwitch()
        self.ports: dict[int, Port] = {}
        self.handles: list[int] = []
        self._drops = pipeline.drops()
        self._lookups = [pipeline.lookups(ovs) for ovs in (False, True)]

    def set_ports(self, ports: list[Port]) -> None:
        """Make the ports."""
        for port in ports:
            self.ports[port.id] = port
            self.pipeline.set_port(port)
            self.reference.set_port(port)

    def add(self, data: st.DataObject, seen: list[bytes]) -> None:
        """A rule more."""
        rule = data.draw(traffic.rules(seen))
        assert self.pipeline.supports(rule) is None
        try:
            handle = self.pipeline.add(rule)
        except FileExistsError:
            with pytest.raises(FileExistsError):
                self.reference.add(rule)
            return
        self.reference.add(rule, handle)
        assert self.pipeline.rules[handle] == rule
        self.handles.append(handle)

    def replace(self, data: st.DataObject) -> None:
        """Other actions for a rule."""
        handle, actions = data.draw(st.sampled_from(self.handles)), data.draw(traffic.actions())
        self.pipeline.replace(handle, actions)
        self.reference.replace(handle, actions)

    def remove(self, data: st.DataObject) -> None:
        """A rule less."""
        handle = data.draw(st.sampled_from(self.handles))
        self.handles.remove(handle)
        got, expected = self.pipeline.remove(handle), self.reference.remove(handle)
        assert (got.packets, got.bytes) == (expected.packets, expected.bytes)

    def packets(self, data: st.DataObject, frame: bytes) -> None:
        """A packet in, then some like it that the cache must tell from it, then the first again."""
        port = self.ports[data.draw(st.sampled_from([1, 1, 1, *traffic.PORTS]))]
        chance = Random(data.draw(st.integers(0, 2**32 - 1)))
        for sent in (frame, *(traffic.alike(frame, chance) for _ in range(ALIKE)), frame):
            segments = chance.choice([1, 1, 1, 44]) if len(frame) >= 64 else 1
            tag, rest = split(sent) if chance.random() < 0.5 else (None, sent)
            expected = self.reference.process(sent, port.id, segments=segments)
            assert self.pipeline.trace(rest, port, tag=tag, gso_segs=segments if segments > 1 else 0) == expected

    def check_counts(self) -> None:
        """All that was counted agrees."""
        for handle, counted in zip(self.handles, self.pipeline.counters(self.handles), strict=True):
            expected = self.reference.counters(handle)
            assert (counted.packets, counted.bytes) == (expected.packets, expected.bytes)
            assert bool(counted.used_ns) is bool(expected.packets)
        drops = self.pipeline.drops()
        assert {name: drops[name] - self._drops[name] for name in drops} == self.reference.drops()
        for ovs in (False, True):
            now, before = self.pipeline.lookups(ovs), self._lookups[ovs]
            expected_lookups = self.reference.lookups(ovs)
            assert now.hit - before.hit == expected_lookups.hit
            assert now.missed - before.missed == expected_lookups.missed

    def clear(self) -> None:
        """Leave the program empty."""
        for handle in self.pipeline.rules:
            self.pipeline.remove(handle)
        for port in self.pipeline.ports:
            self.pipeline.remove_port(port)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_program_and_reference_agree(pipeline: Pipeline, data: st.DataObject) -> None:
    both = Both(pipeline)
    try:
        both.set_ports(data.draw(traffic.ports()))
        seen = data.draw(st.lists(traffic.frames(), min_size=1, max_size=3))
        for _ in range(data.draw(st.integers(2, 8))):
            both.add(data, seen)
        for step in data.draw(st.lists(st.sampled_from(KINDS), min_size=STEPS // 2, max_size=STEPS)):
            if step == "add":
                both.add(data, seen)
            elif step == "replace" and both.handles:
                both.replace(data)
            elif step == "remove" and both.handles:
                both.remove(data)
            elif step == "ports":
                both.set_ports(data.draw(traffic.ports()))
            else:
                both.packets(data, data.draw(st.sampled_from(seen) | traffic.frames()))
        both.check_counts()
    finally:
        both.clear()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=traffic.frames(), in_metadata=st.booleans())
def test_every_field_is_read_alike(pipeline: Pipeline, frame: bytes, in_metadata: bool) -> None:
    both = Both(pipeline)
    try:
        port = Port(1, 101, PortKind.VF, miss=Miss.UPCALL)
        both.set_ports([port])
        tag, rest = split(frame) if in_metadata else (None, frame)
        pipeline.trace(rest, port, tag=tag)
        assert {name: value for name, value in pipeline.traced_fields().items() if value} == packet.parse(frame)
    finally:
        both.clear()
