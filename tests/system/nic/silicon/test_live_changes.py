# SPDX-License-Identifier: Apache-2.0
"""Rules change while packets flow: no packet of a flow is lost, or goes where no rule ever sent it."""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asap2.nic.rules import Action, Drop, Masked, Match, Output, PushVlan, Rule
from tests.system.nic.silicon.conftest import MAC, REP1, VF1, VF2, WIRE, Nic
from tests.system.nic.silicon.network import Namespace, ethernet, eventually

CHANGES = 5000
FULL48 = 2**48 - 1
FLOW = Match(eth_dst=Masked(int.from_bytes(MAC[VF2], "big"), FULL48), eth_src=Masked(0x020000000001, FULL48))


class Stream:
    """A process that sends one frame again and again; how many, when it has ended."""

    def __init__(self) -> None:
        self.sent = 0

    @staticmethod
    def _send(namespace: Namespace, device: str, frame: bytes, started: int, stop: int, result: int) -> None:
        sender = namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        sender.bind((device, 0))
        sent = 0
        while not select.select([stop], [], [], 0)[0]:
            for _ in range(64):
                sender.send(frame)
            sent += 64
            if sent == 64:
                os.write(started, b"!")
        os.write(result, sent.to_bytes(8, "big"))


@contextmanager
def stream(nic: Nic, frame: bytes) -> Iterator[Stream]:
    """Send *frame* from VF 1 all the while."""
    made = Stream()
    started, stop, result = os.pipe(), os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(stop[1])
            made._send(nic.guests[VF1], "vf1", frame, started[1], stop[0], result[1])
            status = 0
        finally:
            os._exit(status)
    try:
        assert os.read(started[0], 1) == b"!"
        yield made
        os.close(stop[1])
        made.sent = int.from_bytes(os.read(result[0], 8), "big")
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)
        for fd in (*started, stop[0], *result):
            os.close(fd)


def received(nic: Nic, port: int) -> int:
    """Packets that came out of a port."""
    namespace, name, _ = nic.devices[port]
    return namespace.received(name)


def others() -> Iterator[Match]:
    """Matches that the flow is not among: many values under a few masks, then ever new masks."""
    for number in itertools.count(1):
        yield Match(eth_dst=Masked(number, FULL48))
        yield Match(eth_dst=Masked(1, FULL48), ip_src=Masked(number % 251, 0xFF), l4_dst=Masked(0, number % 65535 + 1))


@pytest.mark.parametrize("priority", [0, 1, 2])
def test_no_packet_of_a_flow_is_lost_while_rules_change_beside_it(small_nic: Nic, priority: int) -> None:
    pipeline = small_nic.pipeline
    flow = pipeline.add(Rule(0, VF1, 1, FLOW, (Output(VF2),)))
    matches = others()
    with stream(small_nic, ethernet(MAC[VF2], MAC[VF1])) as traffic:
        for _ in range(CHANGES // 25):
            made = [
                pipeline.add(Rule(0, VF1, priority, match, (PushVlan(5), Output(WIRE))))
                for match in itertools.islice(matches, 25)
            ]
            for handle in made:
                assert pipeline.remove(handle).packets == 0
    assert traffic.sent > 1000
    assert eventually(lambda: received(small_nic, VF2) == traffic.sent)
    assert pipeline.counters([flow])[0].packets == traffic.sent
    assert received(small_nic, REP1) == 0
    assert not any(pipeline.drops().values())


def test_actions_are_replaced_at_once_for_every_packet(small_nic: Nic) -> None:
    pipeline = small_nic.pipeline
    flow = pipeline.add(Rule(0, VF1, 1, FLOW, (Output(VF2),)))
    variants: list[tuple[Action, ...]] = [(Output(WIRE),), (Output(VF2),), (PushVlan(7), PushVlan(8), Output(WIRE))]
    with stream(small_nic, ethernet(MAC[VF2], MAC[VF1])) as traffic:
        for turn in range(CHANGES):
            pipeline.replace(flow, variants[turn % 3])
    assert eventually(lambda: received(small_nic, VF2) + received(small_nic, WIRE) == traffic.sent)
    assert pipeline.counters([flow])[0].packets == traffic.sent
    assert received(small_nic, WIRE) > 0
    assert received(small_nic, REP1) == 0


def test_a_rule_that_comes_before_and_goes_again_leaves_no_packet_without_a_rule(small_nic: Nic) -> None:
    pipeline = small_nic.pipeline
    flow = pipeline.add(Rule(0, VF1, 5, FLOW, (Output(VF2),)))
    taken = 0
    with stream(small_nic, ethernet(MAC[VF2], MAC[VF1])) as traffic:
        for _ in range(CHANGES):
            better = pipeline.add(Rule(0, VF1, 1, Match(eth_dst=FLOW.eth_dst), (Output(WIRE),)))
            taken += pipeline.remove(better).packets
    assert eventually(lambda: received(small_nic, VF2) + received(small_nic, WIRE) == traffic.sent)
    assert received(small_nic, WIRE) >= taken > 0
    assert pipeline.counters([flow])[0].packets == received(small_nic, VF2)
    assert received(small_nic, REP1) == 0


def test_a_port_set_again_as_it_is_loses_nothing(small_nic: Nic) -> None:
    pipeline = small_nic.pipeline
    pipeline.add(Rule(0, VF1, 1, FLOW, (Output(VF2),)))
    with stream(small_nic, ethernet(MAC[VF2], MAC[VF1])) as traffic:
        for _ in range(20):
            for port in small_nic.devices:
                small_nic.set_port(port)
                pipeline.attach(small_nic.port(port).ifindex, small_nic.silicon.fd)
    assert eventually(lambda: received(small_nic, VF2) == traffic.sent)
    assert received(small_nic, REP1) == 0


def test_the_cache_answers_for_a_flow_and_forgets_it_when_rules_change(nic: Nic) -> None:
    pipeline = nic.pipeline
    for priority, match in enumerate(itertools.islice(others(), 20)):
        pipeline.add(Rule(0, VF1, priority, match, (Drop(),)))
    guest, host, seen = nic.tap(VF1), nic.tap(REP1), nic.tap(VF2)
    frame = ethernet(MAC[VF2], MAC[VF1])
    for _ in range(20):
        guest.send(frame)
        host.receive()
    # A cache for each CPU, and the sender may move.
    assert pipeline.lookups().cache_hits >= 10
    handle = pipeline.add(Rule(0, VF1, 99, FLOW, (Output(VF2),)))
    for _ in range(20):
        guest.send(frame)
        seen.receive()
    pipeline.remove(handle)
    guest.send(frame)
    assert host.receive() == frame
