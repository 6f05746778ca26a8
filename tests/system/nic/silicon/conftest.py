# SPDX-License-Identifier: Apache-2.0
"""A private bpffs, and a NIC of two VFs and a wire with its silicon, for every test that asks."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.nic.silicon.pipeline import Deliver, Miss, Pipeline, Port, PortKind
from tests.system.nic.silicon.campaign import private_bpffs
from tests.system.nic.silicon.network import Namespace, Tap, veth

VF1, VF2, REP1, REP2, WIRE, WIRE_REP = 1, 2, 11, 12, 20, 21
MAC = {VF1: bytes.fromhex("020000000001"), VF2: bytes.fromhex("020000000002"), WIRE: bytes.fromhex("0200000000aa")}


@pytest.fixture(scope="session")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bpffs that nobody else sees, and that ends with this process however it ends."""
    with private_bpffs(tmp_path_factory.mktemp(f"t-silicon-{os.getpid()}")) as root:
        yield root


@pytest.fixture
def pin_dir(bpffs: Path, counter: Iterator[int] = itertools.count()) -> Path:  # noqa: B008
    """A directory for one pipeline."""
    return bpffs / f"pipeline{next(counter)}"


class Nic:
    """Two guests with a VF each, a host with the representors, and what is at the other end of the wire."""

    def __init__(self, pin_dir: Path, max_rules: int = 8192) -> None:
        self.silicon, self.host, self.far = Namespace(), Namespace(), Namespace()
        self.guests = {VF1: Namespace(), VF2: Namespace()}
        self.devices: dict[int, tuple[Namespace, str, str]] = {
            VF1: (self.guests[VF1], "vf1", "pf0vf1"),
            VF2: (self.guests[VF2], "vf2", "pf0vf2"),
            REP1: (self.host, "rep1", "pf0rep1"),
            REP2: (self.host, "rep2", "pf0rep2"),
            WIRE: (self.far, "far", "p0"),
            WIRE_REP: (self.host, "uplink", "pf0"),
        }
        self.pipeline = Pipeline.open(pin_dir, max_rules=max_rules)
        self._taps: list[Tap] = []
        for port, (namespace, name, far_name) in self.devices.items():
            veth(namespace, name, self.silicon, far_name, MAC.get(port))
            self.set_port(port)
            self.pipeline.attach(self.silicon.ifindex(far_name), self.silicon.fd)

    def port(self, number: int) -> Port:
        """What a switchdev driver sets: a miss goes to the representor, and back."""
        other = {VF1: REP1, VF2: REP2, REP1: VF1, REP2: VF2, WIRE: WIRE_REP, WIRE_REP: WIRE}[number]
        kinds = {WIRE: PortKind.UPLINK, WIRE_REP: PortKind.UPLINK_REP}
        return Port(
            number,
            self.silicon.ifindex(self.devices[number][2]),
            kinds.get(number, PortKind.VF if number in self.guests else PortKind.REP),
            mac=MAC.get(number, bytes(6)),
            deliver=Deliver.PEER,
            tables=(0,) if number in (VF1, VF2, WIRE) else (),
            miss=Miss.REDIRECT,
            miss_port=other,
        )

    def set_port(self, number: int) -> None:
        """(Re)set one port."""
        self.pipeline.set_port(self.port(number))

    def tap(self, number: int) -> Tap:
        """Raw access to the device outside the silicon."""
        namespace, name, _ = self.devices[number]
        self._taps.append(Tap(namespace, name))
        return self._taps[-1]

    def close(self) -> None:
        """Everything ends."""
        for tap in self._taps:
            tap.close()
        self.pipeline.destroy()
        for namespace in (self.silicon, self.host, self.far, *self.guests.values()):
            namespace.close()


@pytest.fixture
def nic(pin_dir: Path) -> Iterator[Nic]:
    """A NIC in switchdev mode without rules."""
    made = Nic(pin_dir)
    yield made
    made.close()


@pytest.fixture(scope="module")
def lasting_nic(bpffs: Path, request: pytest.FixtureRequest) -> Iterator[Nic]:
    """The same for all tests of a module that leave it without rules, and for which old counters are none."""
    made = Nic(bpffs / f"pipeline-{request.module.__name__.rpartition('.')[2]}")
    yield made
    made.close()


@pytest.fixture
def small_nic(pin_dir: Path) -> Iterator[Nic]:
    """A NIC with room for so few rules that what a removed rule had is soon used again."""
    made = Nic(pin_dir, max_rules=64)
    yield made
    made.close()
