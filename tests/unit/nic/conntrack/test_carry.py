# SPDX-License-Identifier: Apache-2.0
"""Which packets of a connection a NIC carries, and what it does with them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from asap2.nic.conntrack.carry import carry, restore
from asap2.nic.conntrack.connection import Connection
from asap2.nic.conntrack.fields import Fields
from asap2.nic.conntrack.flow_table import IDLE
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.states import SECOND, Status
from asap2.nic.conntrack.tracker import Tracked
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, CtHardware, CtState
from tests.unit.nic.conntrack.packets import (
    ACK,
    CLIENT,
    CLIENT6,
    EST,
    FIN,
    INV,
    NEW,
    OUTSIDE,
    PSH,
    RPL,
    RST,
    SERVER,
    SERVER6,
    SYN,
    TRK,
    End,
    Firewall,
    address,
    datagram,
    icmp,
    right,
    udp,
)

OFFLOAD = Ct(zone=5, commit=True, offload=True)
ANSWERS = Ct(zone=5, nat=Nat(None), offload=True)


@dataclass
class Nic:
    """A NIC beside the software that tracks."""

    software: Firewall = field(default_factory=lambda: Firewall(ovs=False))
    client: End = field(default_factory=lambda: End(CLIENT, 1000, 100))
    server: End = field(default_factory=lambda: End(SERVER, 80, 500))
    zone: int = 5
    nat: bool = False

    def carries(self, data: bytes, known: Fields | None = None, seen: Seen | None = None) -> Tracked | None:
        action = CtHardware(self.zone, self.nat, 1)
        return carry(self.software.tracker, action, data, data[0] >> 4, known or {}, seen, 1)

    def state(self, data: bytes) -> CtState | None:
        done = self.carries(data)
        return None if done is None else CtState(done.fields["ct_state"])

    def handshake(self, action: Ct = OFFLOAD, ip6: bool = False) -> None:
        if ip6:
            self.client, self.server = replace(self.client, address=CLIENT6), replace(self.server, address=SERVER6)
        see = self.software.see
        see(self.client.segment(self.server, SYN), action)
        see(self.server.segment(self.client, SYN | ACK), ANSWERS)
        see(self.client.segment(self.server, ACK), replace(action, commit=False))

    @property
    def connection(self) -> Connection:
        (one,) = self.software.tracker.connections()
        return one

    def ask(self) -> bytes:
        return self.client.segment(self.server, ACK | PSH, b"?")

    def answer(self) -> bytes:
        return self.server.segment(self.client, ACK | PSH, b"!")


@pytest.fixture
def nic() -> Nic:
    return Nic()


@pytest.mark.parametrize("ip6", [False, True])
def test_tcp_is_carried_from_the_end_of_the_handshake_on(nic: Nic, ip6: bool) -> None:
    nic.handshake(ip6=ip6)
    assert nic.state(nic.ask()) == TRK | EST
    assert nic.state(nic.answer()) == TRK | EST | RPL


def test_before_the_handshake_ends_it_is_not(nic: Nic) -> None:
    nic.software.see(nic.client.segment(nic.server, SYN), OFFLOAD)
    nic.software.see(nic.server.segment(nic.client, SYN | ACK), ANSWERS)
    assert nic.state(nic.client.segment(nic.server, ACK)) is None


def test_neither_is_what_no_flow_table_has_or_is_of_another_zone(nic: Nic) -> None:
    nic.handshake(replace(OFFLOAD, offload=False))
    ask = nic.ask()
    assert nic.state(ask) is None
    nic.software.see(ask, ANSWERS)
    assert nic.state(nic.ask()) == TRK | EST
    nic.zone = 6
    assert nic.state(nic.ask()) is None


@pytest.mark.parametrize("flags", [FIN | ACK, RST])
def test_fin_and_rst_give_the_connection_back(nic: Nic, flags: int) -> None:
    nic.handshake()
    assert nic.state(nic.client.segment(nic.server, flags)) is None
    assert not nic.connection.status & Status.HW_OFFLOAD
    assert nic.state(nic.ask()) is None


def test_software_takes_what_hardware_has_left_by_the_flow_table_alone(nic: Nic) -> None:
    nic.handshake()
    out_of_window = nic.client.segment(nic.server, ACK, b"?", seq=nic.client.seq + 500_000)
    without_flags = nic.client.segment(nic.server, 0)
    for data in (out_of_window, without_flags):
        assert nic.software.see(data, ANSWERS) == TRK | EST
    assert nic.connection.packets == [4, 1]
    assert nic.software.see(without_flags, replace(ANSWERS, offload=False)) == TRK | INV
    nic.software.see(nic.client.segment(nic.server, FIN | ACK), ANSWERS)
    assert nic.software.see(without_flags, ANSWERS) == TRK | INV


def test_software_tracks_udp_until_it_is_assured(nic: Nic) -> None:
    nic.software.see(udp(CLIENT, SERVER), OFFLOAD)
    nic.software.see(udp(SERVER, CLIENT, 53, 1000), ANSWERS)
    nic.software.wait(3)
    nic.software.see(udp(CLIENT, SERVER), ANSWERS)
    assert nic.connection.status & Status.ASSURED


def test_a_ping_is_never_carried(nic: Nic) -> None:
    for data in (icmp(CLIENT, SERVER, 8), icmp(SERVER, CLIENT, 0), icmp(CLIENT, SERVER, 8)):
        nic.software.see(data, OFFLOAD)
        assert nic.state(data) is None


def test_udp_is_carried_one_way_first_and_both_when_it_is_assured(nic: Nic) -> None:
    there, back = udp(CLIENT, SERVER), udp(SERVER, CLIENT, 53, 1000)
    nic.software.see(there, OFFLOAD)
    assert nic.state(there) == TRK | NEW
    assert nic.state(back) is None
    nic.software.see(back, ANSWERS)
    assert nic.state(there) == TRK | EST
    assert nic.state(back) is None
    nic.software.wait(3)
    nic.software.see(back, ANSWERS)
    assert nic.state(back) == TRK | EST | RPL


def test_what_a_packet_must_not_be(nic: Nic) -> None:
    nic.handshake()
    ask = nic.ask()
    for at, octet in ((8, 1), (6, 0x20), (7, 1)):  # one hop left; a first and a later fragment
        assert nic.state(ask[:at] + bytes([octet]) + ask[at + 1 :]) is None
    options = bytes([0x46]) + ask[1:20] + bytes([1, 1, 1, 0]) + ask[20:]
    assert nic.state(options) is None
    assert nic.state(ask[:30]) is None
    assert nic.state(ask) == TRK | EST


def test_what_hardware_carries_lives_on_and_what_rests_is_softwares_again(nic: Nic) -> None:
    nic.software.see(udp(CLIENT, SERVER), OFFLOAD)
    for _ in range(4):
        nic.software.wait(20)
        assert nic.state(udp(CLIENT, SERVER)) == TRK | NEW
    assert nic.connection.packets == [5, 0]
    nic.software.wait(IDLE / SECOND - 1)
    nic.connection.expires += IDLE
    nic.software.wait(1)
    assert nic.state(udp(CLIENT, SERVER)) is None
    assert not nic.connection.status & Status.HW_OFFLOAD


def test_a_packet_has_the_connections_mark_labels_and_tuple(nic: Nic) -> None:
    nic.handshake()
    nic.connection.mark, nic.connection.labels = 7, 1 << 127
    done = nic.carries(nic.answer())
    assert done is not None
    assert done.fields == {
        "ct_state": int(TRK | EST | RPL),
        "ct_zone": 5,
        "ct_mark": 7,
        "ct_labels": 1 << 127,
        "ct_src": int.from_bytes(address(CLIENT), "big"),
        "ct_dst": int.from_bytes(address(SERVER), "big"),
        "ct_proto": 6,
        "ct_tp_src": 1000,
        "ct_tp_dst": 80,
    }


@pytest.mark.parametrize("kind", NatKind)
def test_both_directions_are_translated(nic: Nic, kind: NatKind) -> None:
    outside = address(OUTSIDE)
    action = replace(OFFLOAD, nat=Nat(kind, outside, outside))
    first = udp(CLIENT, SERVER)
    nic.software.see(first, action)
    there = nic.software.data
    back = udp(OUTSIDE, CLIENT, 53, 1000) if kind is NatKind.DST else udp(SERVER, OUTSIDE, 53, 1000)
    nic.software.see(back, ANSWERS)
    nic.software.wait(3)
    nic.software.see(back, ANSWERS)
    expected = nic.software.data
    nic.nat = True
    for data, wanted in ((first, there), (back, expected)):
        done = nic.carries(data)
        assert done is not None
        assert done.data == wanted
        assert right(done.data)


def test_a_packet_is_translated_inside_its_tunnel_too(nic: Nic) -> None:
    outside = address(OUTSIDE)
    nic.software.see(udp(CLIENT, SERVER), replace(OFFLOAD, nat=Nat(NatKind.SRC, outside, outside)))
    for nat, source in ((True, outside), (False, address(CLIENT))):
        action = CtHardware(5, nat, 0, inside=True)
        done = carry(nic.software.tracker, action, udp(CLIENT, SERVER), 4, {}, None, 1)
        assert done is not None
        assert done.data[12:16] == source


def test_a_packet_is_looked_up_and_translated_once_in_a_zone(nic: Nic) -> None:
    outside = address(OUTSIDE)
    nic.software.see(udp(CLIENT, SERVER), replace(OFFLOAD, nat=Nat(NatKind.SRC, outside, outside)))
    plain = nic.carries(udp(CLIENT, SERVER))
    assert plain is not None
    nic.nat = True
    translated = nic.carries(plain.data, plain.fields, plain.seen)
    assert translated is not None
    assert translated.data[12:16] == outside
    assert nic.carries(translated.data, translated.fields, translated.seen) == translated
    assert nic.connection.packets == [3, 0]


def test_other_protocols_are_not_carried(nic: Nic) -> None:
    data = datagram(CLIENT, SERVER, 132, bytes(16))
    nic.software.see(data, OFFLOAD)
    assert nic.state(data) is None


@pytest.mark.parametrize("kind", [None, *NatKind])
def test_software_knows_again_what_hardware_knew(nic: Nic, kind: NatKind | None) -> None:
    outside = address(OUTSIDE)
    nic.software.see(udp(CLIENT, SERVER), replace(OFFLOAD, nat=Nat(kind, outside, outside) if kind else None))
    nic.nat = True
    done = nic.carries(udp(CLIENT, SERVER))
    assert done is not None
    again = restore(nic.software.tracker, done.data, 4, 5, done.fields["ct_state"])
    assert again == done
    assert restore(nic.software.tracker, done.data, 4, 6, done.fields["ct_state"]) is None
