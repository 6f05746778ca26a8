# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch's datapath beside a real kernel's: keys of packets, what flows are taken, and how they come back.

The kernel is Debian 12's, Linux 6.1. What later ones have besides is left out: the explicit drop, the symmetric hash,
and the limit of lists in lists.
"""

from __future__ import annotations

import errno
import os
from random import Random
from typing import Any

import pytest

from asap2.netlink.wire import NetlinkError
from asap2.nic.kernel import ovs_actions, ovs_key
from asap2.nic.kernel.ovs_extract import extract
from tests.system.realkernel import ovs_guest
from tests.system.realkernel.machine import Kernel
from tests.system.realkernel.ovs_cases import random_flow, random_frame, without_zone

FLOWS, FRAMES = 2000, 2000


def ours_of_flow(key: bytes, mask: bytes | None, actions: bytes) -> tuple[Any, ...]:
    """What our datapath says of a flow: the errno, or the flow as it gives it back."""
    try:
        match = ovs_key.match_of(key, mask)
        masked = match.masked()
        ovs_actions.parse(actions, masked)
    except NetlinkError as error:
        return error.errno, b"", b"", b""
    told = ovs_key.emit(masked, masked), ovs_key.emit(masked, match.mask, is_mask=True)
    return 0, *map(without_zone, told), ovs_actions.echoed(actions)


def ours_of_frame(frame: bytes) -> tuple[Any, ...]:
    """The key that our datapath tells with a frame."""
    key = extract(frame, {"in_port": 1})
    return (None,) if key is None else (without_zone(ovs_key.emit(key, key)),)


@pytest.mark.parametrize("seed", [1, int(os.environ.get("ASAP2_TEST_SEED", "5"))])
def test_keys_and_flows_are_a_real_kernels(seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    flows = [random_flow(random) for _ in range(FLOWS)]
    frames = [random_frame(random) for _ in range(FRAMES)]
    cases = [[("flow", *flow)] for flow in flows] + [[("packet", frame)] for frame in frames]
    with Kernel(cases, program=ovs_guest.__file__) as kernel:
        results = kernel.raw_results()
    for flow, told in zip(flows, results, strict=False):
        assert ours_of_flow(*flow) == told, flow
    for frame, told in zip(frames, results[FLOWS:], strict=True):
        assert ours_of_frame(frame) == told, frame.hex()
    taken = sum(not told[0] for told in results[:FLOWS])
    assert FLOWS // 10 < taken < FLOWS * 9 // 10
    assert {told[0] for told in results[:FLOWS]} <= {0, errno.EINVAL, errno.ERANGE}
