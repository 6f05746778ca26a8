# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch's datapath beside a real kernel's: keys of packets, what flows are taken, and how they come back.

The kernel is Debian 12's, Linux 6.1. What later ones have besides is left out: the explicit drop, the symmetric hash,
and the limit of lists in lists.
"""

from __future__ import annotations

import errno
import os
import sys
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asap2.netlink.request import GenlHeader
from asap2.netlink.wire import NetlinkError, attribute, attributes
from asap2.nic.faces.ovs import actions as ovs_actions
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs import meter
from asap2.nic.faces.ovs.datapath import Datapath
from asap2.nic.faces.ovs.extract import extract
from asap2.nic.faces.ovs.flows import FlowTable, flow_of
from asap2.nic.silicon import abi, maps
from asap2.nic.silicon.meters import Meters
from tests.system.realkernel import ovs_guest
from tests.system.realkernel.machine import Kernel
from tests.system.realkernel.ovs_cases import (
    MeterRequest,
    Request,
    actions_without_zone,
    random_flow,
    random_frame,
    random_meter_requests,
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


class _Memory:
    """What :class:`Meters` uses of a pipeline."""

    def __init__(self) -> None:
        self.meters = (maps.MeterRecord * abi.METERS)()

    def grace_period(self) -> None:
        """Nothing runs."""


def ours_of_meters(requests: list[MeterRequest]) -> tuple[Any, ...]:
    """What our datapath answers, having no meters at first: without the time of last use, and how many there may be."""
    datapath: Any = SimpleNamespace(ifindex=1, pipeline=SimpleNamespace(meters=Meters(cast("Any", _Memory()))))

    def of(header: bytes) -> Datapath:
        if int.from_bytes(header, sys.byteorder) != datapath.ifindex:
            raise NetlinkError(errno.ENODEV)
        return cast("Datapath", datapath)

    face = meter.MeterFace(of)
    told = []
    for command, named, attrs in requests:
        header = int(named).to_bytes(4, sys.byteorder)
        try:
            genl = GenlHeader(command, 1, header, attrs)
            answer: Any = face.family.handlers[command](cast("Any", None), genl)
            told.append((0, without_time(answer[0].payload[8:])))
        except NetlinkError as error:
            told.append((error.errno or 0, b""))
    return (told,)


def without_time(answer: bytes) -> bytes:
    """An answer about meters without what differs from one system to another."""
    return b"".join(
        attribute(kind, bytes(value))
        for kind, value in attributes(answer)
        if kind not in (meter.ATTR_USED, meter.ATTR_MAX_METERS)
    )


@pytest.mark.parametrize("seed", [1, int(os.environ.get("ASAP2_TEST_SEED", "5"))])
def test_keys_and_flows_are_a_real_kernels(seed: int) -> None:
    print(f"seed {seed}")
    random = Random(seed)
    flows = [random_flow(random) for _ in range(FLOWS)]
    frames = [random_frame(random) for _ in range(FRAMES)]
    asked = [random_requests(random) for _ in range(REQUESTS)]
    metered = [random_meter_requests(random) for _ in range(REQUESTS)]
    cases: list[list[tuple[Any, ...]]] = [[("requests", requests)] for requests in asked]
    cases += [[("meters", requests)] for requests in metered]
    cases += [[("flow", *flow)] for flow in flows] + [[("packet", frame)] for frame in frames]
    with Kernel(cases, program=ovs_guest.__file__) as kernel:
        results = kernel.raw_results()
    for requests, told in zip(asked, results, strict=False):
        assert ours_of_requests(requests) == told, requests
    results = results[REQUESTS:]
    for about, (answers,) in zip(metered, results, strict=False):
        theirs = [(error, without_time(answer)) for error, answer in answers]
        for request, mine, theirs_of_it in zip(about, ours_of_meters(about)[0], theirs, strict=True):
            assert mine == theirs_of_it, (request, about)
    results = results[REQUESTS:]
    for flow, told in zip(flows, results, strict=False):
        assert ours_of_flow(*flow) == told, flow
    for frame, told in zip(frames, results[FLOWS:], strict=True):
        assert ours_of_frame(frame) == told, frame.hex()
    taken = sum(not told[0] for told in results[:FLOWS])
    assert FLOWS // 10 < taken < FLOWS * 9 // 10
    assert {told[0] for told in results[:FLOWS]} <= {0, errno.EINVAL, errno.ERANGE}
