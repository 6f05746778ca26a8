# SPDX-License-Identifier: Apache-2.0
"""ERSPAN devices: what is refused, and what the programs are told. Their packets: tests/system/nic."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds.erspan import Erspan, Ip6erspan, headers, metadata
from asap2.nic.kinds.kind import Wanted
from asap2.nic.kinds.tunnel_programs import Device

SEQUENCE_AND_KEY = {"iflags": 0x3000, "oflags": 0x3000}
REMOTE = {"remote": "0a000002"}


@pytest.mark.parametrize(
    "data",
    [
        {"erspan_ver": 1},
        {"erspan_ver": 3, **SEQUENCE_AND_KEY},
        {"erspan_ver": 1, "oflags": 0x2000},
        {"erspan_ver": 1, **SEQUENCE_AND_KEY, "okey": 1024},
        {"erspan_ver": 1, **SEQUENCE_AND_KEY, "erspan_index": 1 << 20},
        {"erspan_ver": 2, **SEQUENCE_AND_KEY, "erspan_hwid": 64},
        {"erspan_ver": 2, **SEQUENCE_AND_KEY, "erspan_dir": 2},
    ],
)
@pytest.mark.parametrize("kind", [Erspan(), Ip6erspan()])
def test_what_the_kernel_refuses(kind: Erspan, data: dict[str, Any]) -> None:
    with pytest.raises(NetlinkError) as refused:
        kind.check(Wanted({}, data, None))
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "data",
    [
        {"erspan_ver": 0},
        {"collect_metadata": True},
        {**SEQUENCE_AND_KEY, "okey": 1023, "erspan_index": 0xFFFFF},
        {"erspan_ver": 1, **SEQUENCE_AND_KEY, "erspan_hwid": 64},
    ],
)
def test_what_the_kernel_takes(data: dict[str, Any]) -> None:
    Erspan().check(Wanted({}, data, None))


def test_the_metadata_of_a_device_is_that_of_the_wire() -> None:
    assert metadata({"erspan_ver": 1, "erspan_index": 7}) == (1, b"\0\0\0\7")
    assert metadata({"erspan_ver": 2, "erspan_hwid": 0x2F, "erspan_dir": 1}) == (2, bytes(6) + b"\2\xf8")
    assert [headers(version) for version in (0, 1, 2)] == [4, 16, 20]


def test_devices_of_gre_and_of_erspan_are_for_different_packets() -> None:
    kept = {"collect_metadata": False, "pmtudisc": 1, "oflags": 0x3000, "okey": 9, **REMOTE}
    of_gre = Device(2, False, 9, 0, bytes(4), bytes.fromhex(REMOTE["remote"]))
    one, other = (Erspan().device(kept | {"erspan_ver": version}) for version in (0, 1))
    assert len({of_gre.place(), one.place(), other.place()}) == 3
    assert other.tun_id == 9
    assert one.tun_id is None
