# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from asap2.testing.connections import parse_connections

LINES = """\
ipv4     2 icmp     1 27 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 \
mark=0 zone=5 use=2
ipv4     2 tcp      6 119 TIME_WAIT src=10.0.0.1 dst=10.0.0.2 sport=52804 dport=5201 src=10.0.0.2 dst=10.0.0.9 \
sport=5201 dport=1024 [ASSURED] mark=3 zone=5 use=2
ipv4     2 tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1 [HW_OFFLOAD] \
mark=0 use=2
""".splitlines()


def test_a_connection_has_its_two_directions() -> None:
    _, tcp, _ = parse_connections(LINES)
    assert (tcp.protocol, tcp.state, tcp.zone, tcp.mark, tcp.assured) == ("tcp", "TIME_WAIT", 5, 3, True)
    assert tcp.original == {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": "52804", "dport": "5201"}
    assert tcp.reply == {"src": "10.0.0.2", "dst": "10.0.0.9", "sport": "5201", "dport": "1024"}


def test_one_without_states_has_none() -> None:
    icmp, _, _ = parse_connections(LINES)
    assert (icmp.protocol, icmp.state, icmp.original["id"], icmp.offloaded) == ("icmp", None, "7", False)


def test_one_in_hardware_is_offloaded() -> None:
    assert [one.offloaded for one in parse_connections(LINES)] == [False, False, True]
    assert parse_connections(LINES)[2].state is None
