# SPDX-License-Identifier: Apache-2.0
"""Limits of connections in each zone, as user space asks for them (ovs_ct_limit)."""

from __future__ import annotations

import errno
import struct
from pathlib import Path
from typing import Any

import pytest

from asap2.netlink.request import GenlHeader
from asap2.netlink.wire import NetlinkError, attribute, attributes
from asap2.nic.faces.ovs.ct_limit import CT_LIMIT_ID, DEFAULT_ZONE, DEL, GET, SET, CtLimitFace
from asap2.nic.journal import Journal
from tests.unit.nic.faces.faces import StillServer, request

Limit = tuple[int, int]
HEADER = struct.pack("=i", 9)


class FewZones:
    """Zones with as many connections as their number."""

    def __init__(self) -> None:
        self.given: tuple[int, dict[int, int]] = (0, {})

    def limit_zones(self, default: int, limits: dict[int, int]) -> None:
        self.given = default, limits

    def connections_in(self, zone: int) -> int:
        return zone


def face(path: Path, zones: FewZones | None = None) -> CtLimitFace:
    server: Any = StillServer()
    return CtLimitFace(server, Journal(path / "limits"), zones or FewZones())


def records(*limits: Limit) -> bytes:
    return b"".join(struct.pack("=iII", zone, limit, 0) for zone, limit in limits)


def ask(face: CtLimitFace, command: int, payload: bytes | None = None) -> list[tuple[int, int, int]]:
    """What the family answers: zones, limits and counts."""
    genl = GenlHeader(command, 1, HEADER, b"" if payload is None else attribute(1, payload))
    answer = face.family.handlers[command](request(CT_LIMIT_ID, b""), genl)
    assert isinstance(answer, list)
    (message,) = answer
    assert message.payload[:8] == bytes((command, 1, 0, 0)) + HEADER
    found = dict(attributes(message.payload[8:]))
    assert (1 in found) == (command == GET)
    return list(struct.iter_unpack("=iII", found.get(1, b"")))


def test_at_first_there_is_no_limit(tmp_path: Path) -> None:
    assert ask(face(tmp_path), GET) == [(DEFAULT_ZONE, 0, 0)]
    assert ask(face(tmp_path), GET, records((7, 0))) == [(7, 0, 0)]


def test_limits_are_set_told_and_deleted(tmp_path: Path) -> None:
    zones = FewZones()
    limits = face(tmp_path, zones)
    ask(limits, SET, records((DEFAULT_ZONE, 10), (3, 5), (4, 6)))
    assert zones.given == (10, {3: 5, 4: 6})
    assert ask(limits, GET) == [(DEFAULT_ZONE, 10, 0), (3, 5, 3), (4, 6, 4)]
    assert ask(limits, GET, records((4, 0), (9, 0), (DEFAULT_ZONE, 0))) == [
        (4, 6, 4),
        (9, 10, 9),
        (DEFAULT_ZONE, 10, 0),
    ]
    ask(limits, DEL, records((3, 0), (8, 0)))
    assert zones.given == (10, {4: 6})
    ask(limits, DEL, records((DEFAULT_ZONE, 0)))
    assert ask(limits, GET) == [(DEFAULT_ZONE, 0, 0), (4, 6, 4)]


def test_a_zone_without_a_limit_counts_nothing(tmp_path: Path) -> None:
    limits = face(tmp_path, FewZones())
    ask(limits, SET, records((3, 0), (DEFAULT_ZONE, 2)))
    assert ask(limits, GET, records((3, 0))) == [(3, 0, 0)]


def test_zones_are_told_as_the_kernels_hash_table_has_them(tmp_path: Path) -> None:
    limits = face(tmp_path)
    ask(limits, SET, records((513, 1), (1, 1), (512, 1), (2, 1)))
    assert [zone for zone, _limit, _count in ask(limits, GET)] == [DEFAULT_ZONE, 512, 1, 513, 2]


def test_a_daemon_that_is_restarted_knows_the_limits(tmp_path: Path) -> None:
    ask(face(tmp_path), SET, records((DEFAULT_ZONE, 4), (1, 2)))
    zones = FewZones()
    assert ask(face(tmp_path, zones), GET) == [(DEFAULT_ZONE, 4, 0), (1, 2, 1)]
    assert zones.given == (4, {1: 2})


@pytest.mark.parametrize("payload", [b"", records((70000, 1)), records((-2, 1)), records((1, 1))[:8]])
def test_what_is_no_zone_is_passed_over(tmp_path: Path, payload: bytes) -> None:
    limits = face(tmp_path)
    ask(limits, SET, payload)
    assert ask(limits, GET) == [(DEFAULT_ZONE, 0, 0)]


@pytest.mark.parametrize(
    ("command", "payload", "number"),
    [(SET, None, errno.EINVAL), (DEL, None, errno.EINVAL), (SET, b"\0\0", errno.ERANGE), (GET, b"\0", errno.ERANGE)],
)
def test_a_request_that_says_nothing_is_refused(
    tmp_path: Path, command: int, payload: bytes | None, number: int
) -> None:
    with pytest.raises(NetlinkError) as error:
        ask(face(tmp_path), command, payload)
    assert error.value.errno == number


def test_limits_go_with_the_module(tmp_path: Path) -> None:
    zones = FewZones()
    limits = face(tmp_path, zones)
    ask(limits, SET, records((DEFAULT_ZONE, 10), (0, 5)))
    limits.reset()
    assert ask(limits, GET) == ask(face(tmp_path), GET) == [(DEFAULT_ZONE, 0, 0)]
    assert zones.given == (0, {})
