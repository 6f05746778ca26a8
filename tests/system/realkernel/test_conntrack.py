# SPDX-License-Identifier: Apache-2.0
"""Connection tracking beside a real kernel's: state, mark, labels and original tuple of each packet, and its bytes."""

from __future__ import annotations

import os
from random import Random

import pytest

from asap2.nic.conntrack.tracker import DroppedError, Tracker
from asap2.nic.faces.ovs import key as ovs_key
from tests.system.realkernel import ct_cases, ct_guest
from tests.system.realkernel.ct_cases import Packet
from tests.system.realkernel.machine import Kernel

CONVERSATIONS, PACKETS = 200, 40
_ENTROPY = 0, 0x2A2A
_WITH_PORTS = 1, 6, 17, 58, 132, 136
"""Of other protocols, where NAT makes two connections of one, the older kernel there does something else."""


class Ours:
    """Two trackers that draw other random numbers: where they disagree, nobody knows what a kernel would do."""

    def __init__(self) -> None:
        self._trackers = [Tracker(now=10**12) for _ in _ENTROPY]

    def told(self, packet: Packet) -> tuple[dict[str, int], bytes] | str | None:
        """The packet's ``ct_`` fields and what it has become, ``None`` where it is dropped; or that it is random."""
        one, other = (self._told(*each, packet) for each in zip(self._trackers, _ENTROPY, strict=True))
        return one if one == other else "random"

    @staticmethod
    def _told(tracker: Tracker, entropy: int, packet: Packet) -> tuple[dict[str, int], bytes] | str | None:
        head, data = packet.frame[:14], packet.frame[14:]
        try:
            done = tracker.execute(packet.action, data, packet.family, {}, entropy=entropy)
        except DroppedError:
            return None if packet.proto in _WITH_PORTS else "random"
        return done.fields, head + done.data


def theirs(key: bytes | None, frame: bytes | None) -> tuple[dict[str, int], bytes] | None:
    """The same of a real kernel."""
    if key is None or frame is None:
        return None
    fields = ovs_key.match_of(key, None).key
    return {name: value for name, value in fields.items() if name.startswith("ct_") and value}, frame


@pytest.mark.parametrize("seed", [1, int(os.environ.get("ASAP2_TEST_SEED", "5"))])
def test_connections_are_a_real_kernels(seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    conversations = [ct_cases.conversation(random, PACKETS) for _ in range(CONVERSATIONS)]
    cases = [[("conversation", [ct_cases.request(packet) for packet in talk])] for talk in conversations]
    with Kernel(cases, program=ct_guest.__file__) as kernel:
        results = kernel.raw_results()
    compared = 0
    for number, (talk, (told,)) in enumerate(zip(conversations, results, strict=True)):
        ours = Ours()
        for at, (packet, (error, *said)) in enumerate(zip(talk, told, strict=True)):
            assert error == 0, packet.action
            assert ct_cases.as_read(packet) == packet.action
            expected = ours.told(packet)
            if isinstance(expected, str):
                break
            got = theirs(*said)
            if got and expected and packet.about_sctp:  # whose checksum it makes right, though the rest is missing
                got = got[0], expected[1]
            assert got == expected, f"conversation {number}, packet {at}: {packet}"
            compared += 1
    assert compared > CONVERSATIONS * PACKETS // 2
