# SPDX-License-Identifier: Apache-2.0
"""Why tracked connections are not in hardware."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest

from asap2.cli.host_explain import show
from asap2.host.connections import Connections, Tracked
from asap2.host.explain.connections import HARDWARE, REASONS, placed, zones_in_hardware
from asap2.host.inventory import Host
from asap2.screen import Screen
from tests.unit.host.flow_texts import REASONS_PAGE
from tests.unit.host.hosts import offloading, with_switch

FLOW = "ufid:{}, recirc_id(0),in_port(eth0),eth_type(0x0800), packets:5, bytes:9, {}dp:tc, actions:{}"
SEEN_REPLY, ASSURED, OFFLOAD = 2, 4, 1 << 14
TCP, UDP, ICMP, GRE = 6, 17, 1, 47
CASES: dict[str, list[tuple[int, int, int, int | None, bool]]] = {
    HARDWARE: [(TCP, 7, SEEN_REPLY | ASSURED | OFFLOAD, 3, False)],
    "connection.protocol": [(ICMP, 7, SEEN_REPLY, None, False), (132, 9, 0, None, False)],
    "connection.helper": [(TCP, 7, SEEN_REPLY | ASSURED, 3, True)],
    "connection.no-rule": [(TCP, 8, SEEN_REPLY | ASSURED, 3, False), (UDP, 8, 0, None, False)],
    "connection.handshake": [(TCP, 7, 0, 1, False), (TCP, 7, SEEN_REPLY, 2, False), (TCP, 0, 0, 9, False)],
    "connection.closing": [(TCP, 7, SEEN_REPLY | ASSURED, state, False) for state in (4, 5, 6, 7, 8)],
    "connection.not-assured": [
        (TCP, 7, SEEN_REPLY, 3, False),
        (UDP, 7, 0, None, False),
        (GRE, 7, SEEN_REPLY, None, False),
    ],
    "connection.resting": [(TCP, 7, SEEN_REPLY | ASSURED, 3, False), (UDP, 0, SEEN_REPLY, None, False)],
}


def host(*tracked: Tracked) -> Host:
    """A host with flows in hardware that track in zones 7 and 0, and one in software that does in zone 8."""
    flows = (
        FLOW.format("1", "offloaded:yes, ", "ct(commit,zone=7,mark=0x5/0xf,nat(src=10.0.0.1)),recirc(0x1)"),
        FLOW.format("2", "offloaded:yes, ", "ct,recirc(0x2)").replace("ct,", "ct(commit),"),
        FLOW.format("3", "", "ct(zone=8),recirc(0x3)"),
    )
    count = sum(one.count for one in tracked)
    made = with_switch(offloading(), datapath_flows=flows)
    return dataclasses.replace(made, connections=Connections(count, 100, None, tracked))


@pytest.mark.parametrize(("code", "case"), [(code, case) for code, cases in CASES.items() for case in cases])
def test_each_reason_is_found(code: str, case: tuple[int, int, int, int | None, bool]) -> None:
    (row,) = placed(host(Tracked(*case, 3, "src=10.0.0.1 dst=10.0.0.2")))
    assert (row.code, row.count, row.why) == (code, 3, REASONS[code].why)


def test_every_reason_has_a_case() -> None:
    assert CASES.keys() == REASONS.keys()


def test_the_handshake_says_how_far_it_is() -> None:
    (row,) = placed(host(Tracked(TCP, 7, SEEN_REPLY, 2, False, 1, "")))
    assert row.what == "TCP in zone 7, 2 of 3 packets seen"


def test_zones_are_those_of_offloaded_flows() -> None:
    assert zones_in_hardware(host()) == {7, 0}
    assert zones_in_hardware(with_switch(host(), running=False)) is None


def test_connections_are_shown_together_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.StringIO()
    monkeypatch.setattr("asap2.screen.Screen", lambda: Screen(file=page))
    some = [Tracked(*case, 2, "src=10.0.0.1 dst=10.0.0.2") for code in CASES for case in CASES[code]]
    show(host(*some), [], every=False, what=None)
    text = page.getvalue()
    assert re.search(r"connection.handshake +6 connections: it is not established yet", text)
    assert re.search(r"2 of TCP in zone 7, 1 of 3 packets seen, such as src=10.0.0.1", text)
    assert text.index("connection.closing") < text.index(HARDWARE)
    show(host(*some), [], every=False, what="eth0")
    assert page.getvalue().count(HARDWARE) == 1


def test_the_page_has_every_reason() -> None:
    rows = re.findall(r"^\| `(connection\.[a-z-]+)` \| (.*) \| (.*) \|$", REASONS_PAGE.read_text(), re.MULTILINE)
    assert rows == [(code, meaning.why, meaning.fix) for code, meaning in REASONS.items()]
