# SPDX-License-Identifier: Apache-2.0
"""Files of /proc that tell of connections, as recorded on Linux 6.18."""

from __future__ import annotations

import errno
import socket
from typing import Any
from unittest.mock import Mock

import pytest

from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Connection, Counters, Sctp, Tcp, Tuple
from asap2.nic.faces.conntrack.face import ConntrackFace
from asap2.nic.faces.conntrack.procfs import files, line
from asap2.nic.faces.sysfs.tree import Attribute
from tests.connections import Table, Timeouts

A, B = b"\x0a\0\0\1", b"\x0a\0\0\2"
A6, B6 = (bytes((0xFD, *bytes(14), last)) for last in (1, 2))
NOTHING = Counters(), Counters()
RECORDED = {
    "ipv6     10 icmpv6   58 99 "
    "src=fd00:0000:0000:0000:0000:0000:0000:0001 dst=fd00:0000:0000:0000:0000:0000:0000:0002 type=128 code=0 id=5 "
    "packets=0 bytes=0 [UNREPLIED] "
    "src=fd00:0000:0000:0000:0000:0000:0000:0002 dst=fd00:0000:0000:0000:0000:0000:0000:0001 type=129 code=0 id=5 "
    "packets=0 bytes=0 mark=0 zone=0 use=2\n": Connection(
        1, Tuple(10, 58, A6, B6, 5, 128 << 8), Tuple(10, 58, B6, A6, 5, 129 << 8), timeout=99, counters=NOTHING
    ),
    "ipv4     2 unknown  99 99 src=10.0.0.1 dst=10.0.0.2 packets=0 bytes=0 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 "
    "packets=0 bytes=0 mark=0 zone=0 use=2\n": Connection(
        1, Tuple(2, 99, A, B), Tuple(2, 99, B, A), timeout=99, counters=NOTHING
    ),
    "ipv4     2 gre      47 99 timeout=30, stream_timeout=180 src=10.0.0.1 dst=10.0.0.2 srckey=0x1000 dstkey=0x2000 "
    "[UNREPLIED] src=10.0.0.2 dst=10.0.0.1 srckey=0x2000 dstkey=0x1000 mark=0 zone=0 use=2\n": Connection(
        1, Tuple(2, 47, A, B, 0x1000, 0x2000), Tuple(2, 47, B, A, 0x2000, 0x1000), timeout=99
    ),
    "ipv4     2 sctp     132 99 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=53 [UNREPLIED] "
    "src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1000 mark=0 zone=0 use=2\n": Connection(
        1, Tuple(2, 132, A, B, 1000, 53), Tuple(2, 132, B, A, 53, 1000), timeout=99, sctp=Sctp(4)
    ),
    "ipv4     2 tcp      6 99 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80 packets=0 bytes=0 "
    "src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1000 packets=0 bytes=0 [ASSURED] mark=7 zone=5 use=2\n": Connection(
        1,
        Tuple(2, 6, A, B, 1000, 80),
        Tuple(2, 6, B, A, 80, 1000),
        5,
        int(Status.CONFIRMED | Status.SEEN_REPLY | Status.ASSURED),
        99,
        7,
        tcp=Tcp(3),
        counters=NOTHING,
    ),
}
OFFLOADED = (
    "ipv4     2 udp      17 src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=53 "
    "src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1000 [HW_OFFLOAD] mark=0 zone=0 use=2\n"
)


@pytest.mark.parametrize(("expected", "connection"), RECORDED.items(), ids=[one.split()[2] for one in RECORDED])
def test_a_connection_has_the_kernels_line(expected: str, connection: Connection) -> None:
    assert line(connection) == expected


def test_one_in_hardware_has_no_timeout() -> None:
    status = int(Status.CONFIRMED | Status.SEEN_REPLY | Status.OFFLOAD | Status.HW_OFFLOAD)
    ways = Tuple(2, socket.IPPROTO_UDP, A, B, 1000, 53), Tuple(2, socket.IPPROTO_UDP, B, A, 53, 1000)
    assert line(Connection(1, *ways, status=status, timeout=9)) == OFFLOADED


@pytest.fixture
def served() -> dict[str, Attribute]:
    nowhere: Any = Mock()
    return files(ConntrackFace(nowhere, Table(*RECORDED.values()), Timeouts()))


def shown(file: Attribute) -> str:
    assert file.show is not None
    content = file.show()
    assert isinstance(content, str)
    return content


def test_counters_are_seen_when_nf_conntrack_acct_is_on(served: dict[str, Attribute]) -> None:
    acct = served["sys/net/netfilter/nf_conntrack_acct"]
    assert acct.store is not None
    assert "packets=" not in shown(served["net/nf_conntrack"])
    acct.store(b"1\n")
    assert shown(served["net/nf_conntrack"]).count("packets=0 bytes=0") == 6
    for wrong in (b"2", b"x", b"", b"-1"):
        with pytest.raises(OSError, match=f"Errno {errno.EINVAL}"):
            acct.store(wrong)


def test_sysctls_show_and_set_timeouts(served: dict[str, Attribute]) -> None:
    values = {
        "count": 5,
        "max": 262144,
        "tcp_timeout_established": 432000,
        "tcp_timeout_max_retrans": 300,
        "tcp_timeout_unacknowledged": 300,
        "tcp_timeout_syn_sent": 120,
        "sctp_timeout_heartbeat_sent": 30,
        "udp_timeout_stream": 120,
        "generic_timeout": 600,
    }
    for name, value in values.items():
        assert shown(served[f"sys/net/netfilter/nf_conntrack_{name}"]) == f"{value}\n", name
    stream = served["sys/net/netfilter/nf_conntrack_udp_timeout_stream"]
    assert stream.store is not None
    stream.store(b"77\n")
    assert shown(stream) == "77\n"
    assert served["sys/net/netfilter/nf_conntrack_count"].store is None


def test_statistics_have_a_line_of_each_cpu(served: dict[str, Attribute]) -> None:
    head, first, *_others = shown(served["net/stat/nf_conntrack"]).splitlines()
    assert head.split()[0] == "entries"
    assert len(first.split()) == len(head.split())
    assert first.split()[0] == f"{5:08x}"
    assert first.split()[8] == f"{5:08x}"
