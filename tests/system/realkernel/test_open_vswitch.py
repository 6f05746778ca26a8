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
from asap2.nic.faces.ovs import actions as ovs_actions
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.extract import extract
from asap2.nic.faces.ovs.flows import FlowTable, flow_of
from tests.system.realkernel import ovs_guest
from tests.system.realkernel.machine import Kernel
from tests.system.realkernel.ovs_cases import (
    Request,
    actions_without_zone,
    random_flow,
    random_frame,
    random_requests,
    without_zone,
)

FLOWS, FRAMES, REQUESTS = 2000, 2000, 100
NEW, DEL = 1, 2


def ours_of_flow(key: bytes, mask: bytes | None, actions: bytes) -> tuple[Any, ...]:
    """What our datapath says of a flow: the errno, or the flow as it gives it back."""
    try:
        match = ovs_key.match_of(key, mask)
        masked = match.masked()
        ovs_actions.parse(actions, masked)
    except NetlinkError as error:
        return error.errno, b"", b"", b""
    told = ovs_key.emit(masked, masked), ovs_key.emit(masked, match.mask, is_mask=True)
    return 0, *map(without_zone, told), actions_without_zone(ovs_actions.echoed(actions))


def ours_of_frame(frame: bytes) -> tuple[Any, ...]:
    """The key that our datapath tells with a frame."""
    key = extract(frame, {"in_port": 1})
    return (None,) if key is None else (without_zone(ovs_key.emit(key, key)),)


def ours_of_requests(requests: list[Request]) -> tuple[Any, ...]:
    """The errnos that our datapath answers with, having no flows at first."""
    table = FlowTable()
    told: list[int | None] = []
    for command, flags, ufid, key, mask, actions in requests:
        try:
            match = None if key is None else ovs_key.match_of(key, mask)
            if command == NEW and match is not None:
                if table.to_change(ufid, match, modify=not flags) is None:
                    table.add(flow_of(ufid, match, actions or b""))
            else:
                flow = table.of(ufid, None if match is None else ovs_key.emit(match.key, match.key))
                if flow is None:
                    raise NetlinkError(errno.ENOENT)
                if command == DEL:
                    table.remove(flow)
            told.append(0)
        except NetlinkError as error:
            told.append(error.errno)
    return (told,)


@pytest.mark.parametrize("seed", [1, int(os.environ.get("ASAP2_TEST_SEED", "5"))])
def test_keys_and_flows_are_a_real_kernels(seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    flows = [random_flow(random) for _ in range(FLOWS)]
    frames = [random_frame(random) for _ in range(FRAMES)]
    asked = [random_requests(random) for _ in range(REQUESTS)]
    cases: list[list[tuple[Any, ...]]] = [[("requests", requests)] for requests in asked]
    cases += [[("flow", *flow)] for flow in flows] + [[("packet", frame)] for frame in frames]
    with Kernel(cases, program=ovs_guest.__file__) as kernel:
        results = kernel.raw_results()
    for requests, told in zip(asked, results, strict=False):
        assert ours_of_requests(requests) == told, requests
    results = results[REQUESTS:]
    for flow, told in zip(flows, results, strict=False):
        assert ours_of_flow(*flow) == told, flow
    for frame, told in zip(frames, results[FLOWS:], strict=True):
        assert ours_of_frame(frame) == told, frame.hex()
    taken = sum(not told[0] for told in results[:FLOWS])
    assert FLOWS // 10 < taken < FLOWS * 9 // 10
    assert {told[0] for told in results[:FLOWS]} <= {0, errno.EINVAL, errno.ERANGE}
