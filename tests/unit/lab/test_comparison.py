# SPDX-License-Identifier: Apache-2.0
"""What the demo and the benchmark make of the NIC's figures beside those of a switch that forwards every packet."""

from __future__ import annotations

import pytest

from asap2.errors import Asap2Error
from asap2.lab.bench.against import GAINS, missed, targets
from asap2.lab.bench.measure import answered, sent_for
from asap2.lab.comparison import Measured, echoes
from asap2.lab.proofs import Figures
from asap2.lab.terminal import OutputError
from asap2.lab.userspace_switch import lookups

USERSPACE = {
    "tcp_gbps": 4.0,
    "packets_per_second": 50000,
    "transactions_per_second": 7000,
    "host_cpu_seconds_per_gbit": 0.2,
    "host_packets": 100000,
}
OFFLOADED = {
    "tcp_gbps": 16.0,
    "packets_per_second": 200000,
    "transactions_per_second": 63000,
    "host_cpu_seconds_per_gbit": 0.001,
    "host_packets": 10,
}


def test_an_offload_that_gains_enough_misses_no_target() -> None:
    found = targets(OFFLOADED, USERSPACE)
    assert found["TCP"] == {"value": 4.0, "at_least": 1.25, "met": True}
    assert found["packets that the host saw"] == {"value": 0.0001, "at_most": 0.01, "met": True}
    assert missed(found) is None


@pytest.mark.parametrize("gain", GAINS, ids=lambda gain: gain.figure)
def test_each_figure_alone_can_make_the_verdict_fail(gain) -> None:  # type: ignore[no-untyped-def]
    found = targets(OFFLOADED | {gain.figure: USERSPACE[gain.figure]}, USERSPACE)
    assert [name for name in found if not found[name]["met"]] == [gain.name]
    assert missed(found) == (
        f"offload gains too little over Open vSwitch in user space: {gain.name} 1 times ({gain.wanted})"
    )


def test_an_offload_that_ends_after_half_of_the_rounds_fails() -> None:
    """What was counted is of all rounds, so that a median of good ones does not hide it."""
    software = Measured([4.0] * 4, [5e4] * 4, [7e3] * 4, 16, 4, 3.2, 0.0, 100_000)
    broken = Measured([16.0, 16.0, 4.0, 4.0], [2e5, 2e5, 5e4, 5e4], [6e4, 6e4, 7e3, 7e3], 40, 4, 1.6, 0.0, 50_010)
    found = targets(broken.figures(), software.figures())
    assert not found["packets that the host saw"]["met"]
    assert not found["CPU of the hosts' processes per gigabit"]["met"]
    assert missed(found)


def test_a_switch_that_did_nothing_proves_nothing() -> None:
    assert not targets(OFFLOADED, USERSPACE | {"host_packets": 0})["packets that the host saw"]["met"]


def test_speeds_are_medians_of_the_rounds_and_counts_are_of_all() -> None:
    measured = Measured([1.0, 9.0, 2.0], [5, 7, 6], [3, 1, 2], 12, 3, 0.5, 0.1, 77)
    assert measured.figures() == {
        "tcp_gbps": 2.0,
        "packets_per_second": 6,
        "transactions_per_second": 2,
        "host_cpu_seconds_per_gbit": 0.05,
        "host_packets": 77,
    }
    assert measured.cpu_percent() == {"vswitchd": 16.67, "daemon": 3.33}


def test_the_summary_has_both_figures_their_ratio_and_the_verdict() -> None:
    comparison = {"userspace": USERSPACE, "offloaded": OFFLOADED, "targets": targets(OFFLOADED, USERSPACE)}
    rows = dict(Figures(comparison=comparison).rows())
    assert rows["TCP: user space, offloaded"] == "4, 16 Gbit/s: 4 times (at least 1.25)"
    assert rows["packets that the host saw: user space, offloaded"] == "100,000, 10: 0.0001 times (at most 0.01)"


def test_lookups_are_hits_and_misses() -> None:
    assert lookups("system@ovs-system:\n  lookups: hit:40 missed:2 lost:1\n  flows: 1\n") == 42
    with pytest.raises(Asap2Error, match="did not show"):
        lookups("")


def test_sockperf_is_read() -> None:
    assert sent_for("sockperf: Summary: Total of 209105 messages sent in 1.100 sec\n") == 1.1
    line = "sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=22; ReceivedMessages=11\n"
    assert answered(line) == pytest.approx(20)
    for parse in (sent_for, answered):
        with pytest.raises(Asap2Error, match="sockperf"):
            parse("")


def test_a_flood_ping_is_read() -> None:
    shown = (
        "1500 packets transmitted, 1499 received, 0.06% packet loss, time 1500ms\nrtt min/avg/max/mdev = 1/2/3/4 ms\n"
    )
    assert echoes(shown) == pytest.approx(999.33, abs=0.01)
    with pytest.raises(OutputError, match="no packet came back"):
        echoes("100 packets transmitted, 0 received, 100% packet loss, time 1010ms\n")
