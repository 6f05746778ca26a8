# SPDX-License-Identifier: Apache-2.0
"""TCP connections as the tracker sees them, from the first SYN to the tuple's next use."""

from __future__ import annotations

import pytest

from asap2.nic.conntrack.states import Status, TcpState
from asap2.nic.conntrack.tracker import DroppedError, Tracker
from asap2.nic.rules import Ct
from tests.unit.nic.conntrack.packets import (
    ACK,
    CLIENT,
    CLIENT6,
    EST,
    FIN,
    INV,
    NEW,
    PSH,
    RPL,
    RST,
    SERVER,
    SERVER6,
    SYN,
    TRK,
    URG,
    End,
    Firewall,
)

SCALED = bytes((2, 4, 5, 180, 1, 3, 3, 7))
"""Options of a SYN: a segment size, and windows of 2^7 octets."""


class Connection(Firewall):
    """A client and a server, and what they say."""

    def __init__(self, client: str = CLIENT, server: str = SERVER) -> None:
        super().__init__()
        self.client, self.server = End(client, 40000, 5000), End(server, 80, 900_000)

    def says(self, flags: int, data: bytes = b"", options: bytes = b"", *, seq: int | None = None) -> int:
        return self.see(self.client.segment(self.server, flags, data, options, seq=seq))

    def answers(self, flags: int, data: bytes = b"", options: bytes = b"", *, seq: int | None = None) -> int:
        return self.see(self.server.segment(self.client, flags, data, options, seq=seq))

    def shake(self) -> Connection:
        self.says(SYN)
        self.answers(SYN | ACK)
        self.says(ACK)
        return self

    def state(self) -> TcpState:
        (connection,) = self.tracker.connections()
        return connection.tcp.state

    @property
    def status(self) -> Status:
        (connection,) = self.tracker.connections()
        return connection.status


@pytest.mark.parametrize("ends", [(CLIENT, SERVER), (CLIENT6, SERVER6)])
def test_a_handshake_establishes(ends: tuple[str, str]) -> None:
    tcp = Connection(*ends)
    assert tcp.says(SYN) == TRK | NEW
    assert (tcp.state(), tcp.lifetime) == (TcpState.SYN_SENT, 120)
    assert tcp.answers(SYN | ACK) == TRK | EST | RPL
    assert (tcp.state(), tcp.lifetime) == (TcpState.SYN_RECV, 60)
    assert not tcp.status & Status.ASSURED
    assert tcp.says(ACK) == TRK | EST
    assert (tcp.state(), tcp.lifetime) == (TcpState.ESTABLISHED, 432000)
    assert tcp.status & Status.ASSURED


def test_a_connection_that_nobody_commits_leaves_nothing() -> None:
    tcp = Connection()
    assert tcp.see(tcp.client.segment(tcp.server, SYN), Ct()) == TRK | NEW
    assert not list(tcp.tracker.connections())
    assert tcp.see(tcp.server.segment(tcp.client, SYN | ACK), Ct()) == TRK | INV


def test_both_ends_close() -> None:
    tcp = Connection().shake()
    seen = []
    for step, flags in ((tcp.says, FIN | ACK), (tcp.answers, ACK), (tcp.answers, FIN | ACK), (tcp.says, ACK)):
        step(flags)
        seen.append((tcp.state(), tcp.lifetime))
    assert seen == [
        (TcpState.FIN_WAIT, 120),
        (TcpState.CLOSE_WAIT, 60),
        (TcpState.LAST_ACK, 30),
        (TcpState.TIME_WAIT, 120),
    ]


def test_both_ends_open_at_once() -> None:
    tcp = Connection()
    assert tcp.says(SYN) == TRK | NEW
    assert tcp.answers(SYN) == TRK | EST | RPL
    assert tcp.state() is TcpState.SYN_SENT2
    tcp.client.seq, tcp.server.seq = tcp.client.seq - 1, tcp.server.seq - 1
    assert tcp.says(SYN | ACK) == TRK | EST
    assert tcp.state() is TcpState.SYN_RECV
    assert tcp.answers(SYN | ACK) == TRK | EST | RPL
    assert tcp.answers(ACK) == TRK | EST | RPL
    assert tcp.state() is TcpState.ESTABLISHED


def test_a_half_open_connection_is_reset_by_who_does_not_know_it() -> None:
    tcp = Connection()
    tcp.says(SYN)
    assert tcp.answers(ACK, seq=77) == TRK | EST | RPL
    assert tcp.state() is TcpState.SYN_SENT, "an answer to the SYN that is no SYN changes nothing"
    tcp.server.heard, tcp.client.seq = 0, 77
    tcp.client.heard = 77
    assert tcp.says(RST) == TRK | EST
    assert tcp.state() is TcpState.CLOSE


def test_a_refused_connection_is_gone_at_once() -> None:
    tcp = Connection()
    tcp.says(SYN)
    tcp.server.seq = 0
    assert tcp.answers(RST | ACK) == TRK | EST | RPL
    assert not list(tcp.tracker.connections())


def test_a_syn_sent_again_does_not_keep_a_connection_alive() -> None:
    tcp = Connection()
    tcp.says(SYN)
    tcp.wait(100)
    assert tcp.says(SYN, seq=5000) == TRK | NEW
    assert tcp.lifetime == 20
    tcp.wait(20)
    assert not list(tcp.tracker.connections())


def test_the_tuple_is_used_again_in_time_wait() -> None:
    tcp = Connection().shake()
    tcp.says(FIN | ACK)
    tcp.answers(FIN | ACK)
    tcp.says(ACK)
    assert tcp.state() is TcpState.TIME_WAIT
    tcp.client.seq += 100_000
    assert tcp.says(SYN) == TRK | NEW
    assert tcp.state() is TcpState.SYN_SENT
    tcp.server.seq += 100_000
    assert tcp.answers(SYN | ACK) == TRK | EST | RPL


def test_the_server_opens_with_the_tuple_that_is_in_time_wait() -> None:
    tcp = Connection().shake()
    tcp.says(FIN | ACK)
    tcp.answers(FIN | ACK)
    tcp.says(ACK)
    assert tcp.answers(SYN) == TRK | NEW
    (connection,) = tcp.tracker.connections()
    assert connection.tuples[0].sport == 80


def test_the_tuple_is_used_again_after_a_reset() -> None:
    tcp = Connection().shake()
    assert tcp.says(RST | ACK) == TRK | EST
    assert (tcp.state(), tcp.lifetime) == (TcpState.CLOSE, 10)
    assert tcp.says(SYN) == TRK | NEW
    assert tcp.state() is TcpState.SYN_SENT


def test_segments_after_a_reset_do_not_revive_a_connection() -> None:
    tcp = Connection().shake()
    tcp.says(RST | ACK)
    tcp.wait(9)
    assert tcp.answers(PSH | ACK, b"late") == TRK | EST | RPL
    assert tcp.state() is TcpState.CLOSE


def test_a_reset_that_is_not_in_sequence_is_invalid_or_changes_nothing() -> None:
    tcp = Connection().shake()
    tcp.answers(ACK, b"x" * 100)
    tcp.says(ACK)
    assert tcp.answers(RST | ACK, seq=tcp.server.seq - 50) == TRK | INV
    assert tcp.answers(RST | ACK, seq=tcp.server.seq + 50) == TRK | EST | RPL
    assert tcp.state() is TcpState.ESTABLISHED
    assert tcp.lifetime == 10
    assert tcp.answers(RST | ACK) == TRK | EST | RPL
    assert tcp.state() is TcpState.CLOSE


def test_a_connection_that_is_there_already_is_picked_up() -> None:
    tcp = Connection()
    assert tcp.says(ACK, b"request") == TRK | NEW
    assert (tcp.state(), tcp.lifetime) == (TcpState.ESTABLISHED, 300)
    assert tcp.answers(ACK, b"answer") == TRK | EST | RPL
    assert not tcp.status & Status.ASSURED
    assert tcp.says(ACK) == TRK | EST
    assert tcp.status & Status.ASSURED


@pytest.mark.parametrize("flags", [SYN | FIN, SYN | RST, 0, FIN, URG, RST | FIN | ACK])
def test_flags_that_no_tcp_sends_are_invalid(flags: int) -> None:
    tcp = Connection()
    assert tcp.says(flags) == TRK | INV
    assert not list(tcp.tracker.connections())


@pytest.mark.parametrize("flags", [SYN | ACK, FIN | ACK, RST, RST | ACK])
def test_no_connection_begins_so(flags: int) -> None:
    assert Connection().says(flags) == TRK | INV


@pytest.mark.parametrize("cut", [20, 23, 30, 39])
def test_a_header_that_is_cut_short_is_invalid(cut: int) -> None:
    tcp = Connection()
    assert tcp.see(tcp.client.segment(tcp.server, SYN)[:cut]) == TRK | INV


def test_until_a_connection_is_established_segments_have_to_be_in_the_window() -> None:
    tcp = Connection()
    tcp.says(SYN)
    tcp.answers(SYN | ACK)
    assert tcp.says(ACK, b"x", seq=tcp.client.seq + 100_000) == TRK | INV
    assert tcp.answers(ACK, b"x", seq=tcp.server.seq - 100_000) == TRK | EST | RPL, "of old, and ignored"
    assert tcp.state() is TcpState.SYN_RECV


def test_an_established_connection_of_open_vswitch_is_tracked_liberally() -> None:
    tcp = Connection().shake()
    assert tcp.says(ACK, b"x", seq=tcp.client.seq + 100_000) == TRK | EST
    assert tcp.answers(ACK, b"x", seq=tcp.server.seq - 100_000) == TRK | EST | RPL


def test_one_of_tc_is_not_unless_hardware_carries_it() -> None:
    tcp = Connection()
    tcp.ovs = False
    tcp.shake()
    late = tcp.client.segment(tcp.server, ACK, b"x", seq=tcp.client.seq + 100_000)
    assert tcp.see(late) == TRK | INV
    assert not tcp.status & Status.HW_OFFLOAD
    tcp.see(tcp.client.segment(tcp.server, ACK), Ct(offload=True))
    assert tcp.status & Status.HW_OFFLOAD
    assert tcp.see(late) == TRK | EST


def test_windows_are_scaled_when_both_ends_offer_it() -> None:
    tcp = Connection()
    tcp.says(SYN, options=SCALED)
    tcp.answers(SYN | ACK, options=SCALED)
    tcp.says(ACK)
    (connection,) = tcp.tracker.connections()
    assert [side.scale for side in connection.tcp.seen] == [7, 7]
    assert connection.tcp.seen[0].maxwin == 1000 << 7
    other = Connection()
    other.says(SYN, options=SCALED)
    other.answers(SYN | ACK)
    (connection,) = other.tracker.connections()
    assert [side.scale for side in connection.tcp.seen] == [0, 0]


def test_retransmissions_and_data_that_nobody_acknowledges_shorten_its_life() -> None:
    tcp = Connection().shake()
    tcp.says(ACK, b"data")
    assert tcp.lifetime == 300
    tcp.answers(ACK)
    assert tcp.lifetime == 432000
    for _ in range(4):
        tcp.answers(ACK, seq=tcp.server.seq)
    assert tcp.lifetime == 300


def test_an_ignored_syn_brings_it_into_step_when_it_is_answered() -> None:
    tcp = Connection().shake()
    tcp.client.seq, tcp.server.seq = 77_000_000, 88_000_000
    assert tcp.says(SYN) == TRK | EST
    assert tcp.state() is TcpState.ESTABLISHED
    assert tcp.answers(SYN | ACK) == TRK | EST | RPL
    assert tcp.state() is TcpState.SYN_RECV
    assert tcp.says(ACK) == TRK | EST
    assert tcp.state() is TcpState.ESTABLISHED


def test_a_challenge_does_not_end_the_last_acknowledgement() -> None:
    tcp = Connection().shake()
    tcp.says(FIN | ACK)
    tcp.answers(FIN | ACK)
    assert tcp.state() is TcpState.LAST_ACK
    tcp.says(SYN, seq=1)
    assert tcp.answers(ACK) == TRK | EST | RPL
    assert tcp.state() is TcpState.LAST_ACK
    tcp.says(ACK)
    assert tcp.state() is TcpState.TIME_WAIT


def test_a_full_table_takes_no_new_connection_and_keeps_the_others() -> None:
    tcp = Connection()
    tcp.tracker = Tracker(now=1, max_connections=1)
    tcp.shake()
    other = End(CLIENT, 40001, 1)
    with pytest.raises(DroppedError):
        tcp.see(other.segment(tcp.server, SYN))
    assert tcp.says(ACK) == TRK | EST
