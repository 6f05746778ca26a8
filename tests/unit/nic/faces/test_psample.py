# SPDX-License-Identifier: Apache-2.0
"""Sampling: TC's action sample, what a NIC makes of it, and the messages of the generic netlink family psample."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asap2.netlink.request import Netns
from asap2.netlink.server import Server
from asap2.netlink.tables import actions as ta
from asap2.netlink.tables.psample import PSAMPLE, PSAMPLE_CMD_DEL_GROUP, PSAMPLE_CMD_NEW_GROUP, PSAMPLE_CMD_SAMPLE
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.ovs.spare_time import MOST_NS, SpareTime
from asap2.nic.faces.psample.face import PsampleFace, sample_body
from asap2.nic.faces.tc.steps import Mirred, Step, sampled, sampled_first
from asap2.nic.rules import Ct, Decap, PopVlan, Psample, SetTunnel
from asap2.nic.silicon.events import Sampled
from tests.unit.nic.faces.tc_requests import parsed

OUT = Mirred(9, ingress=False, final=True)


def sample(**options: Any) -> dict[str, Any]:
    return {"kind": "sample", "options": {"parms": ta.Generic(action=ta.TC_ACT_PIPE), **options}}


def test_the_action_takes_one_of_so_many_packets() -> None:
    steps, listed = parsed(sample(rate=100, psample_group=7, trunc_size=64))
    assert steps[0] == Psample(7, 100, every=100, length=64, counted=True)
    assert [name for name, _ in listed[0].options] == ["parms", "tm", "rate", "trunc_size", "psample_group"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": 1}, None),
        ({"psample_group": 1}, None),
        ({"rate": 0, "psample_group": 1}, "invalid sample rate"),
        ({"rate": 1, "psample_group": 1, "parms": ta.Generic(action=9)}, "invalid control action"),
    ],
)
def test_what_the_kernel_refuses_of_it(options: dict[str, Any], text: str | None) -> None:
    with pytest.raises(NetlinkError) as error:
        parsed(sample(**options))
    assert (error.value.errno, error.value.text) == (errno.EINVAL, text)


def test_software_samples_where_the_action_stands_and_tells_of_the_device() -> None:
    steps: tuple[Step, ...] = (PopVlan(), Psample(1, 1, counted=True), OUT)
    assert sampled(steps, 5) == (PopVlan(), Psample(1, 1, ifindex=5, counted=True), OUT)
    assert sampled(steps, 0, 5)[1] == Psample(1, 1, out=5, counted=True)


def test_a_nic_samples_a_packet_as_it_came_in_or_out_of_its_tunnel() -> None:
    tunnel = SetTunnel(42, bytes(4), bytes(4))
    first, second = Psample(1, 1, ifindex=5), Psample(2, 1, ifindex=5)
    steps: tuple[Step, ...] = (PopVlan(), Psample(1, 1, counted=True), Ct(), PopVlan(), Psample(2, 1), OUT)
    assert sampled_first(steps, 5, None) == (first, PopVlan(), Ct(), second, PopVlan(), OUT)
    inside = Psample(1, 1, ifindex=5, tunnel=tunnel)
    assert sampled_first((Decap(), PopVlan(), Psample(1, 1), OUT), 5, tunnel) == (Decap(), inside, PopVlan(), OUT)


# ---- messages


def test_a_sample_is_told_as_the_kernel_tells_it() -> None:
    tunnel = SetTunnel(42, b"\x0a\0\0\1", b"\x0a\0\0\2", 4, 63, 4789, csum=True)
    action = Psample(7, 100, ifindex=5, out=6, cookie=b"abc", probability=True)
    body = sample_body(Sampled(action, 1500, 0x0800, tunnel, b"packet"), 3, 1_000)
    _, told = PSAMPLE.decode(bytes(4) + body)
    assert list(told.items()) == [
        *(("iifindex", 5), ("oifindex", 6), ("sample_rate", 100), ("origsize", 1500), ("sample_group", 7)),
        *(("group_seq", 3), ("timestamp", 1000), ("proto", 0x0800), ("data", b"packet")),
        ("tunnel", told["tunnel"]),
        *(("user_cookie", b"abc"), ("sample_probability", True)),
    ]
    assert list(told["tunnel"].items()) == [
        *(("id", (42).to_bytes(8, "big")), ("ipv4_src", b"\x0a\0\0\1"), ("ipv4_dst", b"\x0a\0\0\2"), ("tos", 4)),
        *(("ttl", 63), ("csum", True), ("tp_dst", 4789)),
    ]


def test_what_is_not_known_is_not_told() -> None:
    _, told = PSAMPLE.decode(bytes(4) + sample_body(Sampled(Psample(7, 1), 60, 0x0806, None, b""), 0, 1))
    assert list(told) == ["sample_rate", "origsize", "sample_group", "group_seq", "timestamp", "proto"]


def test_a_packet_that_is_too_long_for_a_message_is_cut() -> None:
    body = sample_body(Sampled(Psample(7, 1, ifindex=5), 65535, 0x0800, None, bytes(65535)), 0, 1)
    assert len(body) <= 0xFFFF
    assert len(PSAMPLE.decode(bytes(4) + body)[1]["data"]) == 0xFFFF - 60 - 8


class _Server:
    """Takes down what is sent to the groups."""

    def __init__(self) -> None:
        self.netns = Netns(1, 0)
        self.listening = True
        self.sent: list[tuple[str, int, dict[Any, Any]]] = []

    def family(self, family: Any) -> None:
        self.served = family

    def listens(self, _family: str, _group: str) -> bool:
        return self.listening

    def multicast(self, _family: str, group: str, payload: bytes, *, flags: int = 0) -> None:
        header, told = PSAMPLE.decode(payload)
        self.sent.append((group, header.cmd, {**dict(told), "flags": flags}))


class _Ring:
    """Holds samples."""

    def __init__(self) -> None:
        self.held: list[Sampled] = []

    def read(self, most: int) -> Iterator[tuple[int, Sampled]]:
        for _ in range(min(most, len(self.held))):
            yield 0, self.held.pop(0)

    def discard(self) -> None:
        self.held.clear()


class _Node:
    def __init__(self) -> None:
        self.now = MOST_NS
        self.server, self.ring = _Server(), _Ring()
        self.groups: dict[int, int] = {}
        self.listens: list[bool] = []
        spare = SpareTime(lambda: self.now)
        self.face = PsampleFace(cast(Server, self.server), self.ring, lambda: self.groups, self.listens.append, spare)

    def come(self, *samples: Sampled) -> float | None:
        self.ring.held += samples
        self.face.came()
        return self.face.serve()


def of(group: int, *, counted: bool = True) -> Sampled:
    return Sampled(Psample(group, 1, counted=counted), 60, 0x0800, None, b"")


def test_a_group_numbers_its_packets_but_not_those_of_hardware() -> None:
    node = _Node()
    node.groups = {7: 2}
    node.face.settle()
    node.come(of(7), of(7), of(7, counted=False), of(7))
    told = [(cmd, one["group_seq"]) for group, cmd, one in node.server.sent if group == "packets"]
    assert told == [(PSAMPLE_CMD_SAMPLE, seq) for seq in (0, 1, 0, 2)]


def test_groups_that_come_and_go_are_announced() -> None:
    node = _Node()
    for groups in ({7: 1, 8: 1}, {7: 3, 8: 1}, {8: 1}):
        node.groups = groups
        node.face.settle()
    told = [(cmd, one["sample_group"], one["group_refcount"], one["flags"]) for _, cmd, one in node.server.sent]
    assert told == [
        (PSAMPLE_CMD_NEW_GROUP, 7, 0, 2),
        (PSAMPLE_CMD_NEW_GROUP, 8, 0, 2),
        (PSAMPLE_CMD_DEL_GROUP, 7, 0, 2),
    ]
    (message,) = cast(Any, node.face._dump(cast(Any, None), cast(Any, SimpleNamespace())))
    assert dict(PSAMPLE.decode(message.payload)[1]) == {"sample_group": 8, "group_refcount": 1, "group_seq": 0}


def test_packets_are_sampled_only_while_somebody_listens() -> None:
    node = _Node()
    node.server.listening = False
    node.face.look()
    assert node.come(of(7)) is None
    assert node.listens == [True, False]
    assert not node.ring.held
    assert not node.server.sent


def test_a_flood_of_samples_takes_no_more_time_than_is_left() -> None:
    node = _Node()

    def slow(*_: Any, **__: Any) -> None:
        node.now += MOST_NS  # the work takes long

    node.server.multicast = slow  # type: ignore[method-assign]
    assert node.come(*[of(7)] * 100) == 0
    left = len(node.ring.held)
    assert node.face.serve() == pytest.approx(0.002), "there was more work than rest"
    assert len(node.ring.held) == left
    node.now += 2 * MOST_NS
    node.face.serve()
    assert len(node.ring.held) < left
