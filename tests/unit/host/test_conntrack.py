# SPDX-License-Identifier: Apache-2.0
"""Connections that the kernel tracks, counted by where they are."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from asap2.host.connections import Connections, Tracked
from asap2.host.kernel import conntrack
from asap2.netlink.tables.ctnetlink import CT
from asap2.netlink.tables.nfnetlink import Nfgenmsg
from asap2.netlink.wire import NetlinkError, NlMsg

CONFIRMED, CARRIED = 0x300, 0xC000
"""IPS_SRC_NAT_DONE and others, which do not count; IPS_OFFLOAD and IPS_HW_OFFLOAD."""


def connection(port: int, status: int, zone: int = 7) -> bytes:
    """One of TCP, established."""
    ip = {"v4_src": b"\x0a\0\0\1", "v4_dst": b"\x0a\0\0\2"}
    original = {"ip": ip, "proto": {"num": 6, "src_port": port, "dst_port": 80}}
    attrs = {"tuple_orig": original, "status": status, "zone": zone, "protoinfo": {"tcp": {"state": 3}}}
    return CT.encode(Nfgenmsg(2), attrs)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes | NetlinkError]:
    """A kernel with so many connections, which it gives whatever the request says of their status."""
    there: list[bytes | NetlinkError] = []

    class Answering:
        def __init__(self, _protocol: int) -> None:
            pass

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        def request(self, _type: int, _flags: int, _payload: bytes) -> list[NlMsg]:
            for one in there:
                if isinstance(one, NetlinkError):
                    raise one
            return [NlMsg(0x100, 2, 1, 0, one) for one in there if isinstance(one, bytes)]

    (tmp_path / "nf_conntrack_count").write_text("3\n")
    (tmp_path / "nf_conntrack_max").write_text("1000\n")
    monkeypatch.setattr(conntrack, "SYSCTLS", tmp_path)
    monkeypatch.setattr(conntrack, "Connection", Answering)
    return there


def test_those_that_a_nic_carries_are_counted_alike_with_and_without_the_others(kernel: list[bytes]) -> None:
    kernel += [connection(1, 6 | CONFIRMED | CARRIED), connection(2, 6 | CONFIRMED | CARRIED), connection(3, 6)]
    example = "src=10.0.0.1 dst=10.0.0.2 sport={} dport=80"
    assert conntrack.connections() == Connections(3, 1000, 2)
    assert conntrack.connections(each=True) == Connections(
        3,
        1000,
        2,
        (
            Tracked(6, 7, 6 | CARRIED, 3, False, 2, example.format(1)),
            Tracked(6, 7, 6, 3, False, 1, example.format(3)),
        ),
    )


@pytest.mark.parametrize("each", [False, True])
def test_without_permission_it_is_unknown_how_many_a_nic_carries(kernel: list[NetlinkError], each: bool) -> None:
    kernel.append(NetlinkError(errno.EPERM))
    assert conntrack.connections(each=each) == Connections(3, 1000, None)


def test_connections_are_listed_by_the_words_that_they_have(kernel: list[bytes]) -> None:
    udp = {"num": 17, "src_port": 5, "dst_port": 53}
    ip = {"v4_src": b"\x0a\0\0\1", "v4_dst": b"\x0a\0\0\2"}
    attrs = {"tuple_orig": {"ip": ip, "proto": udp}, "status": 2, "mark": 9}
    kernel += [connection(1, 6 | CARRIED), connection(2, 6), connection(3, 6, zone=8), CT.encode(Nfgenmsg(2), attrs)]
    found = {one.words: one for one in conntrack.listings(["TCP zone=7", "", "dport=53", "hardware sport=3"], 2)}
    assert (found[""].matching, len(found[""].entries)) == (4, 2)
    assert [(one.original.split()[2], one.state, one.hardware) for one in found["TCP zone=7"].entries] == [
        ("sport=1", "ESTABLISHED", True),
        ("sport=2", "ESTABLISHED", False),
    ]
    (name,) = found["dport=53"].entries
    assert (name.protocol, name.state, name.zone, name.mark) == ("udp", "REPLIED", 0, 9)
    assert (found["hardware sport=3"].matching, found["hardware sport=3"].entries) == (0, ())
    assert conntrack.listings([], 2) == ()
