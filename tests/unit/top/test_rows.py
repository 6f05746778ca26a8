# SPDX-License-Identifier: Apache-2.0
"""Rows, their order, and which columns a line has room for."""

from __future__ import annotations

import json

import pytest

from asap2.errors import UsageError
from asap2.host.records import to_data
from asap2.live import Counters, Node, Port, PortKind, Snapshot
from asap2.output import line
from asap2.quantities import percent, short
from asap2.top import plain, rows
from asap2.top.columns import fit, ordered
from asap2.top.plain import View
from asap2.top.rows import FLOWS, PORTS
from asap2.top.watch import Moment, Watch
from tests.unit.top.made import BEGUN, Collector


def looked(*rates: tuple[str, int, int], flows: bool = False) -> Moment:
    collector = Collector(*rates)
    watch = Watch(lambda: collector)
    watch.look(flows=flows)
    watch.look(flows=flows)
    return watch.look(flows=flows)


def test_a_vf_and_its_representor_are_one_row_and_patch_ports_none() -> None:
    found = rows.ports(looked(("hv1", 900, 100)))
    assert [(row.port, row.kind, row.guest, row.representor, row.bridge) for row in found] == [
        ("p0", "uplink", "", "", "br-int"),
        ("eth0", "vf", "vm-hv1", "eth0", "br-int"),
        ("br-int", "internal", "", "", "br-int"),
    ]
    assert (found[1].in_packets, found[1].out_bits, found[1].hardware, found[1].refused) == (1000, 800_000, 0.9, 1)
    assert found[2].hardware is None


def test_a_packet_counts_once_in_each_hypervisor() -> None:
    total = rows.totals(looked(("hv1", 900, 100), ("hv2", 0, 0)))
    assert (total.packets, total.bits, total.hardware) == (2000, 1_600_000, 0.9)
    assert total.refused == 2 * 2 + 2 * 5


def test_at_the_first_look_there_are_ports_and_no_rates() -> None:
    moment = Watch(lambda: Collector(("hv1", 5, 5))).look(flows=False)
    assert moment.rates is None
    assert {row.in_packets for row in rows.ports(moment)} == {0}
    assert rows.totals(moment).hardware is None


def test_flows_have_rates_a_place_and_a_reason() -> None:
    found = rows.flows(looked(("hv1", 900, 100), flows=True))
    assert found is not None
    first, second = found
    assert (first.packets, first.bits, first.where, first.reason) == (900, 720_000, "NIC", "")
    assert (second.packets, second.where, second.reason) == (100, "host", "nic.match")


def test_flows_that_were_not_read_again_keep_their_rates() -> None:
    collector = Collector(("hv1", 900, 100))
    watch = Watch(lambda: collector)
    for _ in range(3):
        watch.look(flows=True)
    collector.stale = True
    watch.look(flows=True)
    moment = watch.look(flows=True)
    assert moment.rates is not None
    assert [row.packets for row in rows.flows(moment) or ()] == [900, 100]


def test_flows_are_read_only_while_they_are_wanted() -> None:
    collector = Collector(("hv1", 1, 1), ("hv2", 1, 1))
    watch = Watch(lambda: collector)
    assert rows.flows(watch.look(flows=False)) is None
    watch.look(flows=True)
    assert collector.wanted == {"hv1", "hv2"}
    watch.look(flows=False)
    assert collector.wanted == frozenset()


def test_a_lab_that_is_down_is_an_error_each_time_and_is_looked_for_again() -> None:
    made: list[Collector] = []

    def opened() -> Collector:
        made.append(Collector(("hv1", 10, 0)))
        return made[-1]

    watch = Watch(opened)
    watch.look(flows=True)
    made[0].down = True
    with pytest.raises(UsageError, match="no lab is up"):
        watch.look(flows=True)
    assert made[0].closed == 1
    assert watch.look(flows=True).rates is None
    watch.look(flows=True)
    assert made[1].wanted == {"hv1"}
    watch.close()
    assert made[1].closed == 1


def test_rows_are_sorted_by_numbers_or_texts_and_those_without_come_last() -> None:
    found = rows.ports(looked(("hv1", 10, 10), ("hv2", 30, 10)))
    by = {column.name: column for column in PORTS}
    assert [row.node for row in ordered(found, by["in"], largest_first=True)][:2] == ["hv2", "hv2"]
    assert [row.hardware for row in ordered(found, by["hardware"], largest_first=False)] == [
        *([0.5] * 2),
        *([0.75] * 2),
        None,
        None,
    ]
    assert [row.port for row in ordered(found, by["port"], largest_first=False)][:2] == ["br-int", "br-int"]


def test_rows_are_chosen_by_all_words_in_any_case() -> None:
    found = rows.ports(looked(("hv1", 10, 10), ("hv2", 30, 10)))
    assert {row.id for row in rows.chosen(found, "VF hv2")} == {"hv2/nic0/pf0vf0"}
    assert rows.chosen(found, "hv1 hv2") == []
    assert rows.chosen(found, "  ") == found


@pytest.mark.parametrize("columns", [PORTS, FLOWS], ids=["ports", "flows"])
@pytest.mark.parametrize("width", [60, 80, 120, 250])
def test_a_table_is_never_wider_than_its_line(columns: object, width: int) -> None:
    moment = looked(("hv1", 123_456, 789), ("hypervisor-2", 5, 0), flows=True)
    for text in plain.lines(moment, View(flows=columns is FLOWS), width):
        assert len(text) <= width


def test_a_line_of_80_columns_has_what_matters() -> None:
    moment = looked(("hv1", 123_456, 789), ("hv2", 5, 0), flows=True)
    ports = {column.name for column, _ in fit(PORTS, rows.ports(moment), 80)}
    assert ports >= {"node", "port", "guest", "in", "out", "in-bits", "out-bits", "hardware", "refused"}
    flows = {column.name for column, _ in fit(FLOWS, rows.flows(moment) or [], 80)}
    assert flows >= {"node", "port", "in", "in-bits", "where", "reason", "match"}


def test_a_round_of_text_has_totals_troubles_and_rows_in_order() -> None:
    moment = looked(("hv1", 10, 10), ("hv2", 30, 10))
    down = Snapshot(BEGUN, "lab", "made", (*moment.snapshot.nodes, Node("hv3", "not there")))
    lines = plain.lines(Moment(down, moment.rates), View(), 160)
    assert lines[0].startswith("lab made, 3 nodes, 0 guests, ")
    assert lines[1] == "66.7 % in hardware, 120 packets/s, 96kbit/s, 14 refused/s"
    assert lines[2:4] == ["hv3: not there", ""]
    assert [line.split()[0] for line in lines[4:]] == ["node", "hv2", "hv2", "hv1", "hv1", "hv1", "hv2"]


def test_names_from_the_system_are_text_alone() -> None:
    name = "\x1b[31mred[bold]\n"
    port = Port("x", name, PortKind.OTHER, counters=Counters())
    shown = plain.lines(Moment(Snapshot(BEGUN, "lab", name, (Node(name, name, ports=(port,)),)), None), View(), 160)
    assert not any("\x1b" in text or "\n" in text for text in shown)
    assert any(line(name) in text for text in shown)


def test_a_round_as_data_is_what_the_schema_says() -> None:
    data = json.loads(json.dumps(to_data(rows.round_of(looked(("hv1", 10, 10), flows=True)))))
    assert data["seconds"] == 1
    assert data["totals"]["hardware"] == 0.5
    assert [port["id"] for port in data["ports"]] == ["hv1/p0", "hv1/nic0/pf0vf0", "hv1/br-int"]
    assert len(data["flows"]) == 2


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7.25, "7.25"), (999.4, "999"), (999.6, "1k"), (12_345, "12.3k"), (18.8e9, "18.8G"), (999_999, "1M")],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text


def test_only_all_is_100_percent_and_only_nothing_is_0() -> None:
    assert [percent(part) for part in (None, 0.0, 0.0004, 0.5, 0.99999, 1.0)] == [
        "",
        "0",
        "<0.1",
        "50.0",
        "99.9",
        "100",
    ]
