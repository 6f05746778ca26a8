# SPDX-License-Identifier: Apache-2.0
"""How bad a cable is: its values, and the words of `asap2 lab cable`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.cli.cable_words import read
from asap2.errors import UsageError
from asap2.lab.cables import Cable, find
from asap2.lab.impairment import GOOD, LEAST_RATE, MOST_RATE, MOST_TIME, Impairment
from asap2.lab.layout import Layout
from asap2.lab.topology import TopologyError, parse


def test_values_are_in_the_units_of_tc() -> None:
    words = {"delay": "10ms", "jitter": "250us", "loss": "0.5%", "rate": "1.5gbit"}
    made = GOOD.changed(words)
    assert made == Impairment(10_000_000, 250_000, 5_000, 1_500_000_000)
    assert made.as_words() == words
    assert str(made) == "delay 10ms jitter 250us loss 0.5% rate 1.5gbit"
    assert made.as_data() == {"delay_ms": 10.0, "jitter_ms": 0.25, "loss_percent": 0.5, "rate_mbit": 1500.0}


def test_what_is_not_given_stays_and_0_takes_it_back() -> None:
    made = GOOD.changed({"delay": "1s", "loss": "1%"})
    assert made.changed({"loss": "0", "rate": "8kbit"}) == Impairment(delay=10**9, rate=8000)
    assert not made.changed({"loss": "0%", "delay": "0ms"})


@given(st.integers(0, MOST_TIME), st.integers(0, 10**6), st.integers(LEAST_RATE, MOST_RATE))
def test_values_come_back_as_they_are_written(delay: int, loss: int, rate: int) -> None:
    made = Impairment(delay, delay, loss, rate)
    back = GOOD.changed(made.as_words())
    assert (back.loss, back.delay == back.jitter) == (loss, True)
    assert back.delay == pytest.approx(delay, rel=1e-8)
    assert back.rate == pytest.approx(rate, rel=1e-8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"loss": "1"}, "loss '1' must be 0% to 100%"),
        ({"loss": "101%"}, "loss '101%' must be 0% to 100%"),
        ({"delay": "10"}, "delay '10' must be 0 to 60s, as 10ms or 250us"),
        ({"delay": "61s"}, "delay '61s' must be 0 to 60s"),
        ({"delay": "-1ms"}, "delay '-1ms' must be"),
        ({"rate": "1kbit"}, "rate '1kbit' must be 8kbit to 400gbit"),
        ({"rate": "1mbps"}, "rate '1mbps' must be"),
        ({"jitter": "2ms", "delay": "1ms"}, "jitter 2ms is more than the delay"),
        ({"colour": "red"}, "'colour' is not one of delay, jitter, loss, rate"),
    ],
)
def test_what_makes_no_sense_is_refused(words: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        GOOD.changed(words)


def test_a_topology_has_cables_that_are_bad() -> None:
    file = """
    [[node]]
    name = "a"
    [[node.nic]]
    ports = 2
    [[cable]]
    ends = ["a/nic0/p0", "a/nic0/p1"]
    """
    assert not parse(file).cables[0].impairment
    assert parse(file + 'delay = "1ms"\nloss = "2%"').cables[0].impairment == Impairment(10**6, 0, 20_000)
    with pytest.raises(TopologyError, match="cable 1: loss '2' must be"):
        parse(file + 'loss = "2"')
    with pytest.raises(TopologyError, match="cable 1: loss must be a string"):
        parse(file + "loss = 2")


def test_words_are_ends_then_keys_and_values() -> None:
    assert read([]).ends == ()
    assert read(["hv1", "tor"]).ends == ("hv1", "tor")
    asked = read(["hv1", "clear", "loss", "1%"])
    assert asked.change(Impairment(5)) == Impairment(loss=10_000)
    assert read(["hv1", "rate", "1gbit"]).change(Impairment(5)) == Impairment(5, rate=10**9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a b c", "'c' is neither an end of the cable nor one of delay, jitter, loss, rate, clear"),
        ("delay 1ms", "which cable"),
        ("clear", "which cable"),
        ("a b delay", "delay needs a value"),
    ],
)
def test_words_that_make_no_sense_are_refused(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(words.split())


@pytest.fixture
def known(tmp_path: Path) -> list[Cable]:
    """Three cables: between two ports, and two to a switch."""
    nodes = [{"name": name, "nics": [{"name": "nic0"}]} for name in ("hv1", "hv2", "hv3")]
    ends = [["hv1/nic0/p0", "hv2/nic0/p0"], ["hv1/nic0/p1", "tor"], ["hv3/nic0/p0", "tor"]]
    record = {"nodes": nodes, "cables": [{"ends": each} for each in ends]}
    record = json.loads(json.dumps(record))
    return [Cable(Layout(tmp_path), record, number) for number in range(3)]


@pytest.mark.parametrize(
    ("one", "other", "number"),
    [
        ("hv1", "hv2", 0),
        ("hv2:nic0:p0", None, 0),
        ("hv2/nic0", "hv1/nic0/p0", 0),
        ("tor", "hv1", 1),
        ("hv3", None, 2),
    ],
)
def test_a_cable_is_found_by_as_much_of_its_ends_as_is_needed(
    known: list[Cable], one: str, other: str | None, number: int
) -> None:
    assert find(known, one, other) is known[number]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("hv1", None, "more than one cable joins hv1; there is hv1/nic0/p0 — hv2/nic0/p0; "),
        ("hv", None, "no cable joins hv;"),
        ("hv1", "hv1", "no cable joins hv1 and hv1;"),
        ("tor", "tor", "no cable joins"),
    ],
)
def test_what_is_no_cable_or_more_than_one_is_told_with_those_that_there_are(
    known: list[Cable], one: str, other: str | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        find(known, one, other)
