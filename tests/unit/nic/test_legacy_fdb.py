# SPDX-License-Identifier: Apache-2.0
"""Legacy mode's rules in a pipeline: changed one by one, taken over, counted."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from asap2.nic import legacy
from asap2.nic.fdb import Fdb
from asap2.nic.function import LinkState
from asap2.nic.port_ids import vf_port, wire_port
from asap2.nic.rules import Action, Counters, Match, Rule
from asap2.nic.silicon.pipeline import Pipeline
from tests.unit.nic.legacy_lab import Lab, mac, plan


class Recorder:
    """A pipeline of rules only, which writes down what changes; ``room`` is how many rules it takes."""

    directory = Path("/bpf/nic0")

    def __init__(self) -> None:
        self.rules: dict[int, Rule] = {}
        self.packets: dict[int, int] = {}
        self.done: list[tuple[str, Rule]] = []
        self.room = 10_000
        self._next = 0

    def add(self, rule: Rule) -> int:
        if len(self.rules) >= self.room:
            raise OSError(errno.ENOSPC, "no room")
        self._next += 1
        self.rules[self._next] = rule
        self.done.append(("add", rule))
        return self._next

    def replace(self, handle: int, actions: tuple[Action, ...]) -> None:
        old = self.rules[handle]
        self.rules[handle] = Rule(old.table, old.in_port, old.priority, old.match, actions)
        self.done.append(("replace", self.rules[handle]))

    def remove(self, handle: int) -> Counters:
        self.done.append(("remove", self.rules.pop(handle)))
        return Counters(self.packets.pop(handle, 0))

    def counters(self, handles: Sequence[int]) -> list[Counters]:
        return [Counters(self.packets.get(handle, 0)) for handle in handles]

    def hit(self, key: legacy.Key, packets: int = 1) -> None:
        (handle,) = (handle for handle, rule in self.rules.items() if legacy.Key.of(rule) == key)
        self.packets[handle] = self.packets.get(handle, 0) + packets

    def take(self) -> list[str]:
        done, self.done = self.done, []
        return [what for what, _ in done]


def applied(fdb: Fdb, lab: Lab) -> None:
    fdb.extend(lab.switch())
    fdb.prune()


@pytest.fixture
def pipeline() -> Recorder:
    return Recorder()


@pytest.fixture
def fdb(pipeline: Recorder) -> Fdb:
    return Fdb(cast(Pipeline, pipeline), 0)


@pytest.fixture
def lab() -> Lab:
    return Lab()


BROADCAST = legacy.Key(legacy.FDB, wire_port(0), legacy.Order.BROADCAST, (1 << 48) - 1)


def to_vf(vf: int, order: legacy.Order = legacy.Order.UNICAST, vlan: int = legacy.Vlan.ANY) -> legacy.Key:
    """The rule for what comes from the wire to a VF's address."""
    return legacy.Key(legacy.FDB, wire_port(0), order, int.from_bytes(mac(vf), "big"), vlan)


def test_the_same_state_changes_nothing(fdb: Fdb, pipeline: Recorder, lab: Lab) -> None:
    applied(fdb, lab)
    assert set(pipeline.take()) == {"add"}
    applied(fdb, lab)
    assert pipeline.take() == []


def test_a_change_touches_only_what_it_concerns(fdb: Fdb, pipeline: Recorder, lab: Lab) -> None:
    applied(fdb, lab)
    pipeline.take()
    lab.macs[0] = mac(6)
    fdb.extend(lab.switch())
    added = pipeline.done.copy()
    assert [what for what, _ in added] == ["add"] * 5  # one for each way in
    assert {rule.match.eth_dst.value for _, rule in added} == {int.from_bytes(mac(6), "big")}
    pipeline.take()
    fdb.prune()
    gone = pipeline.done.copy()
    assert [what for what, _ in gone] == ["remove"] * 5
    assert {rule.match.eth_dst.value for _, rule in gone} == {int.from_bytes(mac(0), "big")}


def test_new_rules_are_there_before_old_ones_go(fdb: Fdb, pipeline: Recorder, lab: Lab) -> None:
    applied(fdb, lab)
    pipeline.take()
    lab.vf(0).vlan = 57
    applied(fdb, lab)
    done = pipeline.take()
    assert "remove" not in done[: len(done) - done.count("remove")]
    assert {"add", "replace"} <= set(done)


def test_switchdev_mode_leaves_no_rule(fdb: Fdb, pipeline: Recorder, lab: Lab) -> None:
    applied(fdb, lab)
    fdb.extend(None)
    fdb.prune()
    assert pipeline.rules == {}


def test_rules_of_others_are_left_alone(pipeline: Recorder, lab: Lab) -> None:
    chain = pipeline.add(Rule(0, vf_port(0, 0), 1, Match()))
    neighbour = pipeline.add(legacy.rule(legacy.Key(legacy.FDB, wire_port(1), legacy.Order.REST), legacy.Planned(())))
    fdb = Fdb(cast(Pipeline, pipeline), 0)
    applied(fdb, lab)
    fdb.extend(None)
    fdb.prune()
    assert set(pipeline.rules) == {chain, neighbour}


def test_the_next_process_takes_the_rules_over_with_their_counts(fdb: Fdb, pipeline: Recorder, lab: Lab) -> None:
    applied(fdb, lab)
    pipeline.hit(BROADCAST, 4)
    pipeline.take()
    following = Fdb(cast(Pipeline, pipeline), 0)
    applied(following, lab)
    assert pipeline.take() == []
    assert following.counted(1)["broadcast"] == 4
    lab.vf(1).link_state = LinkState.DISABLE
    third = Fdb(cast(Pipeline, pipeline), 0)
    applied(third, lab)
    assert third.counted(1) == {"rx_dropped": 0}  # what the changed rule had counted, and for whom, is not known


def test_packets_count_for_whom_they_were_for_when_they_came(fdb: Fdb, pipeline: Recorder, lab: Lab) -> None:
    applied(fdb, lab)
    pipeline.hit(BROADCAST, 4)
    lab.vf(1).vlan = 57
    applied(fdb, lab)
    pipeline.hit(BROADCAST, 3)
    pipeline.hit(to_vf(1), 2)
    assert fdb.counted(1) == {"broadcast": 4, "multicast": 0, "rx_dropped": 5}
    assert fdb.counted(0)["broadcast"] == 7
    lab.vf(1).vlan = 0
    applied(fdb, lab)
    assert fdb.counted(1) == {"broadcast": 4, "multicast": 0, "rx_dropped": 5}
    pipeline.hit(BROADCAST)
    assert fdb.counted(1)["broadcast"] == 5
    fdb.extend(None)
    fdb.prune()
    assert fdb.counted(1) == {}


def test_a_full_eswitch_is_no_end_of_the_world(
    fdb: Fdb, pipeline: Recorder, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.room = 7
    applied(fdb, lab)
    assert "takes no more rules" in caplog.text
    assert len(pipeline.rules) == 7
    pipeline.room = 10_000
    lab.macs[0] = mac(6)
    applied(fdb, lab)
    switch = lab.switch()
    assert switch
    assert {legacy.Key.of(rule) for rule in pipeline.rules.values()} == set(plan(switch))


def test_what_a_full_eswitch_took_goes_too(fdb: Fdb, pipeline: Recorder, lab: Lab) -> None:
    pipeline.room = 7
    applied(fdb, lab)
    fdb.extend(None)
    fdb.prune()
    assert pipeline.rules == {}
