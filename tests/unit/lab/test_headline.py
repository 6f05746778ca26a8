# SPDX-License-Identifier: Apache-2.0
"""The demo's headline: every path's figures in bars, and verdicts that can be bad."""

from __future__ import annotations

import io

import pytest

from asap2.lab import headline
from asap2.lab.bench.against import SOFTWARE_GAINS, missed, targets
from asap2.screen import Screen
from tests.unit.lab.test_comparison import OFFLOADED, SOFTWARE, USERSPACE


def shown(columns: int = 80, **changed: float) -> list[str]:
    offloaded = OFFLOADED | changed
    comparison = {
        "rounds": 3,
        "userspace": USERSPACE,
        "software": SOFTWARE,
        "offloaded": offloaded,
        "targets": targets(offloaded, USERSPACE),
        "software_targets": targets(offloaded, SOFTWARE, SOFTWARE_GAINS),
    }
    file = io.StringIO()
    Screen(file=file).print(*headline.lines(comparison, columns))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("columns", [72, 80, 200])
def test_each_figure_has_a_bar_for_each_path(columns: int) -> None:
    lines = shown(columns)
    for title, written in (
        ("Throughput of one TCP stream", ("4 Gbit/s", "15 Gbit/s", "16 Gbit/s")),
        ("CPU time of both hosts for each gigabit", ("200 ms", "8 ms", "1 ms")),
        ("Packets that the first host handled", ("100,000", "300,000", "10")),
    ):
        place = lines.index(title)
        bars = lines[place + 1 : place + 4]
        assert [line.rstrip().endswith(text) for line, text in zip(bars, written, strict=True)] == [True] * 3
        assert [name in line for line, (name, _) in zip(bars, headline.WAYS.values(), strict=True)] == [True] * 3
        assert all("█" in line or "▏" in line or "▎" in line for line in bars)
        assert len({len(line) for line in bars}) == 1
    assert max(map(len, lines)) <= max(columns, 77)


def test_bars_are_in_proportion_to_their_figures() -> None:
    lines = shown()
    place = lines.index("Throughput of one TCP stream")
    userspace, _, offloaded = (line.count("█") for line in lines[place + 1 : place + 4])
    assert 4 * userspace == pytest.approx(offloaded, abs=4)


def test_a_gain_that_is_missed_is_marked_in_the_headline() -> None:
    assert not [line for line in shown() if "✗" in line]
    assert [line for line in shown(tcp_gbps=4.5) if "✗" in line] == [
        "  ✗ NIC: 1.1 times that of Open vSwitch in user space, at least 1.25 wanted"
    ]
    bad = [line for line in shown(host_packets=100_000) if "✗" in line]
    assert [line.split(",")[0] for line in bad] == [
        "  ✗ NIC: 1 times that of Open vSwitch in user space",
        "  ✗ NIC: 0.33 times that of software datapath",
    ]


def test_an_offload_whose_host_sees_as_much_as_the_software_datapath_fails() -> None:
    found = targets(OFFLOADED | {"host_packets": 300_000}, SOFTWARE, SOFTWARE_GAINS)
    assert missed(found, "the software datapath", SOFTWARE_GAINS) == (
        "offload gains too little over the software datapath: packets that the host saw 1 times (at most 0.01)"
    )
    assert missed(targets(OFFLOADED, SOFTWARE, SOFTWARE_GAINS), "the software datapath", SOFTWARE_GAINS) is None
