# SPDX-License-Identifier: Apache-2.0
"""The table of connections in the pipeline's maps, as user space sees and changes it."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from asap2.nic.conntrack.helpers import Expected
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.table import Connections
from asap2.nic.conntrack.view import Change, Connection, Expectation, Sctp, Tcp, Tuple
from asap2.nic.rules import Ct, Drop, Match, Rule
from asap2.nic.silicon.loader import TestRun
from asap2.nic.silicon.pipeline import Miss, Pipeline, Port, PortKind
from asap2.nic.silicon.timeouts import DEFAULTS, TimeoutPolicies, TimeoutPolicy
from tests.system.nic.silicon.campaign import network_of_its_own, private_bpffs
from tests.system.nic.silicon.packets import ipv4
from tests.system.nic.silicon.packets import udp as bytes_of_udp

A, B, N = (bytes((10, 0, 0, last)) for last in (1, 2, 200))
A6, B6 = (bytes((0xFD, *bytes(14), last)) for last in (1, 2))
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
MOST = 300


@pytest.fixture(scope="module")
def layout() -> Iterator[Any]:
    with network_of_its_own(), private_bpffs() as bpffs:
        pipeline = Pipeline.open(bpffs / "table", max_rules=64, max_connections=MOST)
        yield pipeline._layout
        pipeline.close()


@pytest.fixture
def table(layout: Any) -> Iterator[Connections]:
    found = Connections(layout)
    yield found
    for connection in found:
        assert found.delete(connection)
    assert found.count() == 0
    assert not list(layout.sources.items())


def udp(port: int, **values: Any) -> Connection:
    ways = Tuple(socket.AF_INET, UDP, A, B, port, 53), Tuple(socket.AF_INET, UDP, B, A, 53, port)
    return Connection(0, *ways, **{"timeout": 100, "status": int(Status.CONFIRMED), **values})


EVERY = (
    udp(1, zone=9, mark=7, labels=bytes(range(16))),
    Connection(
        0,
        Tuple(socket.AF_INET, TCP, A, B, 1000, 80),
        Tuple(socket.AF_INET, TCP, B, A, 80, 1000),
        status=int(Status.CONFIRMED | Status.SEEN_REPLY | Status.ASSURED),
        timeout=432000,
        tcp=Tcp(3, (7, 8), (10, 11)),
    ),
    Connection(
        0,
        Tuple(socket.AF_INET6, ICMPV6, A6, B6, 5, 128 << 8),
        Tuple(socket.AF_INET6, ICMPV6, B6, A6, 5, 129 << 8),
        timeout=30,
    ),
    Connection(0, Tuple(socket.AF_INET, ICMP, A, B, 5, 8 << 8), Tuple(socket.AF_INET, ICMP, B, A, 5, 0), timeout=30),
    Connection(
        0,
        Tuple(socket.AF_INET, SCTP, A, B, 1, 2),
        Tuple(socket.AF_INET, SCTP, B, A, 2, 1),
        timeout=30,
        sctp=Sctp(4, (5, 6)),
    ),
    Connection(
        0,
        Tuple(socket.AF_INET, UDP, A, B, 7, 8),
        Tuple(socket.AF_INET, UDP, B, N, 8, 5000),
        status=int(Status.CONFIRMED | Status.SRC_NAT | Status.SRC_NAT_DONE),
        timeout=30,
    ),
)


def same(found: Connection, made: Connection) -> Connection:
    """*made* with what the table alone knows; its time may have begun to run."""
    assert found.timeout in (made.timeout, made.timeout - 1)
    assert found.started is not None
    assert abs(found.started - time.time_ns()) < 60_000_000_000
    return replace(made, id=found.id, timeout=found.timeout, started=found.started, counters=found.counters)


def test_a_connection_is_found_by_both_tuples_as_it_was_put_in(table: Connections) -> None:
    for made in EVERY:
        table.insert(made)
    assert table.count() == len(EVERY)
    for made in EVERY:
        for way in (made.original, made.reply):
            found = table.find(made.zone, way)
            assert found is not None, way
            assert found == same(found, made)
        assert table.find(made.zone + 1, made.original) is None
    assert {found.original for found in table} == {made.original for made in EVERY}
    assert len({found.id for found in table}) == len(EVERY)
    assert sum(one.insert for one in table.statistics()) >= len(EVERY)


def test_there_is_one_connection_of_a_tuple(table: Connections) -> None:
    table.insert(udp(1))
    for other in (udp(1), replace(udp(1), original=udp(1).reply, reply=udp(1).original)):
        with pytest.raises(OSError, match=f"Errno {errno.EEXIST}"):
            table.insert(other)
    table.insert(udp(1, zone=3))


def test_a_translated_connection_has_a_helper_and_a_master(table: Connections, layout: Any) -> None:
    control, data = udp(1, helper="tftp"), udp(2, status=int(Status.CONFIRMED | Status.SRC_NAT))
    data = replace(data, reply=data.reply._replace(dst_port=5000), master=control.original)
    for one in (control, data):
        table.insert(one)
    (_key, mapping), *others = layout.sources.items()
    assert not others
    assert mapping[24:32] == (5000).to_bytes(2, "big") + bytes(2) + (1).to_bytes(4, "little")
    found = table.find(0, data.reply)
    assert found is not None
    assert found.master == control.original
    first = table.find(0, control.original)
    assert first is not None
    assert first.helper == "tftp"


class Heard:
    """What is told of expectations."""

    def __init__(self) -> None:
        self.of: list[tuple[str, Expectation]] = []

    def expected(self, expectation: Expectation) -> None:
        self.of.append(("expected", expectation))

    def gone(self, expectation: Expectation) -> None:
        self.of.append(("gone", expectation))

    def take(self) -> list[tuple[str, int]]:
        """What, and the port."""
        taken, self.of = self.of, []
        return [(what, one.tuple.dst_port) for what, one in taken]


def test_a_connection_expects_one_other_at_a_time(table: Connections) -> None:
    control = udp(1, helper="tftp", zone=3)
    table.insert(control)
    record = table._record_of(3, control.original)
    assert record is not None
    table.expecting = heard = Heard()
    other = control.reply._replace(src_port=0)
    table.expect(record, Expected(other, None), 300)
    (first,) = table.expectations()
    assert (first.tuple, first.zone, first.master, first.helper, first.way) == (other, 3, control.original, "tftp", 1)
    assert 298 <= first.timeout <= 300
    assert heard.take() == [("expected", 1)]
    assert not table.expected_by_another(record, other)
    table.insert(udp(2, zone=3))
    another = table._record_of(3, udp(2).original)
    assert another is not None
    assert table.expected_by_another(another, other._replace(src_port=9))
    assert not table.expected_by_another(another, other._replace(dst_port=9))
    table.expect(record, Expected(other._replace(dst_port=2), control.original._replace(src_port=7)), 300)
    (second,) = table.expectations()
    assert (second.tuple.dst_port, second.port) == (2, 7)
    assert heard.take() == [("gone", 1), ("expected", 2)]
    assert not table.unexpect(first)
    assert table.unexpect(second)
    assert table.expectations() == []
    table.expect(record, Expected(other, None), 300, now=time.monotonic_ns() - 400 * 10**9)
    table.sweep()
    assert heard.take() == [("expected", 1), ("gone", 1)]


@contextlib.contextmanager
def no_memory_for_tuples(layout: Any) -> Iterator[None]:
    """The map of tuples takes no more entries, as when the kernel has no memory for one."""
    *keys, one_more = (number.to_bytes(40, "big") for number in range(layout.tuples.max_entries + 1))
    for key in keys:
        layout.tuples.update(key, bytes(4))
    with pytest.raises(OSError, match=f"Errno {errno.E2BIG}"):
        layout.tuples.update(one_more, bytes(4))
    yield
    for key in keys:
        layout.tuples.delete(key)


def test_a_connection_without_memory_for_its_tuples_is_not_made(layout: Any, table: Connections) -> None:
    with no_memory_for_tuples(layout):
        for made in (udp(1), EVERY[-1]):
            with pytest.raises(OSError, match=f"Errno {errno.ENOMEM}"):
                table.insert(made)
            assert table.find(0, made.original) is None
    assert (table.count(), table.connections_in(0)) == (0, 0)


def test_a_packet_without_memory_for_its_connection_is_dropped_and_counted() -> None:
    with network_of_its_own(), private_bpffs() as bpffs:
        pipeline = Pipeline.open(bpffs / "short", max_rules=64, max_connections=8)
        table = pipeline.connections
        with no_memory_for_tuples(pipeline._layout):
            assert _committed(pipeline, 100) is None
        drops, failures = (sum(getattr(cpu, of) for cpu in table.statistics()) for of in ("drop", "insert_failed"))
        assert (drops, failures) == (1, 0)
        assert pipeline.drops()["action"] == 1
        assert _committed(pipeline, 100) is not None
        pipeline.close()


def test_a_full_table_takes_no_more(table: Connections) -> None:
    for port in range(MOST):
        table.insert(udp(port))
    with pytest.raises(OSError, match=f"Errno {errno.ENOMEM}"):
        table.insert(udp(MOST))
    assert table.count() == len(list(table)) == MOST == table.limit


def test_in_a_full_table_a_new_connection_takes_the_place_of_one_that_is_not_assured() -> None:
    full = 8
    with network_of_its_own(), private_bpffs() as bpffs:
        pipeline = Pipeline.open(bpffs / "small", max_rules=64, max_connections=full)
        table = pipeline.connections
        for port in range(full):
            table.insert(udp(port, status=int(Status.CONFIRMED | Status.ASSURED)))
        assert _committed(pipeline, 100) is None
        assert table.delete(next(iter(table)))
        table.insert(udp(50))
        assert _committed(pipeline, 100) is not None
        assert table.count() == full
        assert table.find(0, udp(50).original) is None
        assert sum(cpu.drop for cpu in table.statistics()) == 1
        assert sum(cpu.early_drop for cpu in table.statistics()) == 1
        pipeline.close()


def _committed(pipeline: Pipeline, port: int) -> Connection | None:
    """The connection that a packet of UDP from this *port* makes, by a rule that commits it."""
    ifindex = socket.if_nametoindex("lo")
    pipeline.set_port(Port(1, ifindex, PortKind.NODE, tables=(0,), miss=Miss.DROP))
    rule = pipeline.add(Rule(0, 1, 1, Match(), (Ct(commit=True), Drop())))
    datagram = ipv4("10.0.0.1", "10.0.0.2", UDP, bytes_of_udp(port, 53, b"x" * 20))
    TestRun(pipeline._layout.program, ifindex=ifindex).on(bytes(12) + b"\x08\0" + datagram)
    pipeline.remove(rule)
    pipeline.remove_port(1)
    return pipeline.connections.find(0, udp(port).original)


def test_one_that_has_gone_is_not_removed_again(table: Connections) -> None:
    table.insert(udp(1))
    (found,) = table
    assert table.delete(found)
    assert not table.delete(found)
    table.insert(udp(1))
    assert not table.delete(found)  # it is another one now
    assert table.count() == 1


def test_many_are_removed_together_and_those_that_have_gone_are_not_told(table: Connections) -> None:
    for port in range(200):
        table.insert(udp(port))
    every = list(table)
    assert table.delete(every[100])
    gone = [connection.id for connection in table.delete_all(every)]
    assert gone == [connection.id for connection in every if connection is not every[100]]
    assert table.count() == 0


def test_a_program_changes_what_it_may(table: Connections) -> None:
    table.insert(EVERY[1])
    (found,) = table
    labels = bytes(range(16, 32))
    table.change(found, Change(50, int(Status.FIXED_TIMEOUT), 9, labels, Tcp(5, (1, 2), (3, 4))))
    (changed,) = table
    assert changed == same(
        changed,
        replace(
            EVERY[1],
            status=EVERY[1].status | Status.FIXED_TIMEOUT,
            timeout=50,
            mark=9,
            labels=labels,
            tcp=Tcp(5, (1, 2), (3, 4)),
        ),
    )


def test_a_sweep_takes_those_whose_time_is_over(table: Connections) -> None:
    for port in range(150):
        table.insert(udp(port, timeout=100 if port % 2 else 0))
    assert {found.original.src_port % 2 for found in table} == {1}
    assert table.find(0, udp(0).original) is None
    gone: list[Connection] = []
    while len(gone) < 75:  # the program's clock is some milliseconds late
        gone += table.sweep()
    assert {one.original.src_port for one in gone} == set(range(0, 150, 2))
    assert table.sweep() == []
    assert table.count() == 75


def test_what_hardware_has_not_used_for_long_is_softwares_again(table: Connections, layout: Any) -> None:
    status = int(Status.CONFIRMED | Status.SEEN_REPLY | Status.ASSURED | Status.OFFLOAD | Status.HW_OFFLOAD)
    table.insert(udp(1, status=status, timeout=1))
    table.insert(udp(2, status=status, timeout=1))
    assert table.in_hardware() == 2
    for record in layout.connections:
        if record.status and record.original.src_port == socket.htons(1):
            record.used = time.monotonic_ns()
    assert table.sweep() == []
    used, idle = sorted(table, key=lambda one: one.original.src_port)
    assert used.timeout > 80000
    assert idle.status == status & ~(Status.OFFLOAD | Status.HW_OFFLOAD)
    assert idle.timeout <= 90
    assert table.in_hardware() == 1


def test_a_zones_connections_are_counted_and_limited(table: Connections, layout: Any) -> None:
    for port in range(3):
        table.insert(udp(port, zone=5))
    assert [table.connections_in(zone) for zone in (4, 5)] == [0, 3]
    limits = [(layout.zones[zone].limited, layout.zones[zone].limit) for zone in (4, 5)]
    assert [limited for limited, _limit in limits] == [0, 0]
    table.limit_zones(9, {5: 2})
    assert [(layout.zones[zone].limited, layout.zones[zone].limit) for zone in (4, 5)] == [(1, 9), (1, 2)]
    table.limit_zones(0, {})
    assert [layout.zones[zone].limited for zone in (4, 5, 65535)] == [0, 0, 0]


def test_timeout_policies_are_kept_in_the_maps(layout: Any) -> None:
    policies, again = layout.timeouts, TimeoutPolicies(layout.policies)
    assert {protocol: policies.defaults(protocol) for protocol in DEFAULTS} == DEFAULTS
    assert DEFAULTS[TCP] == (120, 60, 432000, 120, 60, 30, 120, 10, 120, 300, 300)
    assert DEFAULTS[SCTP] == (10, 3, 3, 210, 3, 3, 3, 30, 0)
    made = TimeoutPolicy("short", socket.AF_INET, TCP, tuple(range(1, 12)))
    policies.put(made)
    assert list(again) == [made]
    number = policies.number("short")
    assert list(layout.policies[number].seconds)[:14] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 10, 11]
    policies.put(replace(made, timeouts=(7,) * 11))
    assert policies.number("short") == number
    policies.used(number, 1)
    assert policies.get("short").uses == 1
    policies.delete("short")
    assert policies.get("short") is None
    policies.put(made)
    assert policies.number("short") != number  # an action still names that one
    policies.delete("short")
    policies.used(number, -1)
