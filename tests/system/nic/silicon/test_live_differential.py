# SPDX-License-Identifier: Apache-2.0
"""What comes out of real devices is what the reference eSwitch says: random rules, real packets, every octet.

The program of :mod:`.test_differential` only tells what it would send. Here the kernel copies, sends and receives. The
source port of a tunnel is the kernel's to choose: it has to be in its range, and the same for the same packet.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random, SystemRandom

import pytest

from asap2.nic.rules import Encap, Enter, Goto, LookOn, Psample, Rule, SetField
from asap2.nic.silicon import packet
from asap2.nic.silicon.events import Event, Sent
from asap2.nic.silicon.reference import ReferenceSwitch
from asap2.nic.silicon.tunnel import look_into
from tests.system.nic.silicon.conftest import REP1, VF1, VF2, WIRE, Nic
from tests.system.nic.silicon.network import Tap
from tests.system.nic.silicon.programs import Author

PROGRAMS, PACKETS = 100, 50
_SHORTEST = 60
_HASHES = 0, 0x0123_4567
"""Two hashes whose source ports differ in both octets."""
_SOURCE_PORTS = range(32768, 60999)
_LENGTHS = 0x0001, 0x0004  # ETH_P_802_3, ETH_P_802_2


class Live:
    """The NIC with a tap on every device, and the reference."""

    def __init__(self, nic: Nic) -> None:
        self._nic = nic
        self._taps: dict[int, Tap] = {port: nic.tap(port) for port in nic.devices}
        for port in (WIRE, REP1):
            nic.pipeline.set_port(replace(nic.port(port), peer_any=True))

    def run(self, random: Random) -> None:
        """Rules, and packets."""
        pipeline, reference, probe = self._nic.pipeline, ReferenceSwitch(upcall=False), ReferenceSwitch(upcall=False)
        for port in self._nic.devices:
            reference.set_port(self._nic.port(port))
            probe.set_port(self._nic.port(port))
        ports = VF1, VF1, VF1, WIRE, WIRE, VF2
        author = Author(random, silicon=True, ports=(VF1, VF2, WIRE, REP1), in_ports=ports, tables=(0, 1, 7))
        drops = pipeline.drops()
        for _ in range(12):
            rule = _of_its_own_ports(_sampling_all(author.rule()))
            try:
                probe.add(rule, reference.add(rule, pipeline.add(rule)))
            except FileExistsError:
                continue
        for _ in range(PACKETS):
            frame, port = author.frame().ljust(_SHORTEST, b"\0"), random.choice(ports)
            if _whole(frame) and all(_whole(sent.frame) for sent in _sent(probe.process(frame, port))):
                self._send(reference, frame, port)
        for handle in list(pipeline.rules):
            got, expected = pipeline.remove(handle), reference.remove(handle)
            assert (got.packets, got.bytes) == (expected.packets, expected.bytes)
        assert {name: count - drops[name] for name, count in pipeline.drops().items()} == reference.drops()

    def _send(self, reference: ReferenceSwitch, frame: bytes, port: int) -> None:
        """A packet, twice: what comes out is the same, but for source ports what the reference says of either hash."""
        said = [_sent(reference.process(frame, port, flow_hash=flow_hash)) for flow_hash in _HASHES]
        came = []
        for _ in said:
            self._taps[port].send(frame)
            came.append([self._received(sent.port) for sent in said[0]])
        for to, tap in self._taps.items():
            with pytest.raises(TimeoutError):
                print(f"{frame.hex()} by {port} also comes out at {to}: {tap.receive(0).hex()}; expected: {said[0]}")
        assert sorted(came[0], key=_order) == sorted(came[1], key=_order)
        # The last copy may overtake others to the same port: it takes a shorter way, bpf_redirect_peer().
        missing = list(zip(*said, strict=True))
        for one in came[0]:
            found = [pair for pair in missing if _with_source_ports(one, *pair) == pair[0]]
            assert found, f"{frame.hex()} by {port} comes out as {one}; expected: {said[0]}"
            missing.remove(found[0])

    def _received(self, port: int) -> Sent:
        """What came there; the kernel knows of which type it is, behind a tag."""
        tap = self._taps[port]
        frame = tap.receive()
        at = 12 + 4 * packet.tagged(frame)
        ethertype = int.from_bytes(frame[at : at + 2], "big")
        assert tap.protocol == ethertype if ethertype >= 0x600 else tap.protocol in _LENGTHS, frame.hex()
        return Sent(port, frame)


def _of_its_own_ports(rule: Rule) -> Rule:
    """*rule*, or one like it after which nothing else depends on a tunnel's source port."""
    if not any(isinstance(action, Encap) for action in rule.actions):
        return rule
    looks = Goto | LookOn | Enter
    depends = [isinstance(a, looks) or (isinstance(a, SetField) and a.field == "l4_src") for a in rule.actions]
    actions = [action for action, drop in zip(rule.actions, depends, strict=True) if not drop]
    return replace(rule, actions=tuple(actions))


def _sampling_all(rule: Rule) -> Rule:
    """*rule*, but it samples every packet: which ones are sampled, if not all, is chosen at random."""
    every = tuple(replace(action, every=1) if isinstance(action, Psample) else action for action in rule.actions)
    return replace(rule, actions=every)


def _order(sent: Sent) -> tuple[int, bytes]:
    return sent.port, sent.frame


def _sent(events: list[Event]) -> list[Sent]:
    """What comes out; what is told to a node is not to be seen."""
    return [Sent(event.port, event.frame) for event in events if isinstance(event, Sent)]


def _whole(frame: bytes) -> bool:
    """Whether neither it nor what is in a tunnel in it ends in its tag or right behind its header: the kernel may drop
    such a frame, and what it takes it for, and so its hash, depends on what lies behind it in memory."""
    inside = look_into(frame)
    header = packet.HEADER + 4 * packet.tagged(frame)
    return len(frame) >= header + 2 and (inside is None or _whole(frame[inside.at :]))


def _with_source_ports(came: Sent, one: Sent, another: Sent) -> Sent:
    """*came* with the source ports of *one*, where its own are in range: they are where *one* and *another* differ."""
    frame = came.frame
    if len(frame) != len(one.frame):
        return came
    places = [at for at, octet in enumerate(one.frame) if octet != another.frame[at]]
    for at in places:
        if at + 1 in places and int.from_bytes(frame[at : at + 2], "big") in _SOURCE_PORTS:
            frame = frame[:at] + one.frame[at : at + 2] + frame[at + 2 :]
    return Sent(came.port, frame)


@pytest.mark.parametrize("seed", [1, SystemRandom().randrange(1 << 31)], ids=["fixed seed", "new seed"])
def test_what_comes_out_is_what_the_reference_says(nic: Nic, seed: int) -> None:
    print(f"seed {seed}")
    live = Live(nic)
    for number in range(PROGRAMS):
        live.run(Random(f"{seed} {number}"))
