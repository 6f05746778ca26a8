# SPDX-License-Identifier: Apache-2.0
"""What the demo and the benchmark make of the NIC's figures beside those of a switch that forwards every packet."""

from __future__ import annotations

import pytest

from asap2.errors import Asap2Error
from asap2.lab.bench import measure
from asap2.lab.bench.against import GAINS, SOFTWARE_GAINS, missed, targets
from asap2.lab.comparison import Measured, echoes, sent_for
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
SOFTWARE = {
    "tcp_gbps": 15.0,
    "packets_per_second": 180000,
    "transactions_per_second": 50000,
    "host_cpu_seconds_per_gbit": 0.008,
    "host_packets": 300000,
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
    software = Measured([4.0] * 4, [5e4] * 4, [7e3] * 4, 16, 4, 3.2, 0.0, 0.0, 100_000)
    broken = Measured([16.0, 16.0, 4.0, 4.0], [2e5, 2e5, 5e4, 5e4], [6e4, 6e4, 7e3, 7e3], 40, 4, 1.6, 0.0, 0.0, 50_010)
    found = targets(broken.figures(), software.figures())
    assert not found["packets that the host saw"]["met"]
    assert not found["CPU of the hosts' processes per gigabit"]["met"]
    assert missed(found)


def test_a_switch_that_did_nothing_proves_nothing() -> None:
    assert not targets(OFFLOADED, USERSPACE | {"host_packets": 0})["packets that the host saw"]["met"]


def test_speeds_are_medians_of_the_rounds_and_counts_are_of_all() -> None:
    measured = Measured([1.0, 9.0, 2.0], [5, 7, 6], [3, 1, 2], 12, 3, 0.5, 0.1, 0.06, 77)
    assert measured.figures() == {
        "tcp_gbps": 2.0,
        "packets_per_second": 6,
        "transactions_per_second": 2,
        "host_cpu_seconds_per_gbit": 0.055,
        "host_packets": 77,
    }
    assert measured.cpu_percent() == {"vswitchd": 16.67, "daemon": 3.33}


def test_the_summary_has_the_figures_of_all_paths_the_ratio_and_the_verdict() -> None:
    comparison = {
        "userspace": USERSPACE,
        "software": SOFTWARE,
        "offloaded": OFFLOADED,
        "targets": targets(OFFLOADED, USERSPACE),
        "software_targets": targets(OFFLOADED, SOFTWARE, SOFTWARE_GAINS),
    }
    rows = dict(Figures(comparison=comparison).rows())
    assert rows["small packets: user space, software, NIC"] == (
        "50,000, 180,000, 200,000/s: 4 times user space (at least 1.25)"
    )


def test_lookups_are_hits_and_misses() -> None:
    assert lookups("system@ovs-system:\n  lookups: hit:40 missed:2 lost:1\n  flows: 1\n") == 42
    with pytest.raises(Asap2Error, match="did not show"):
        lookups("")


def test_sockperf_is_read() -> None:
    assert measure.sent_for("sockperf: Summary: Total of 209105 messages sent in 1.100 sec\n") == 1.1
    line = "sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=22; ReceivedMessages=11\n"
    assert measure.answered(line) == pytest.approx(20)
    for parse in (measure.sent_for, measure.answered):
        with pytest.raises(Asap2Error, match="sockperf"):
            parse("")


def test_how_long_iperf3_sent_datagrams_is_read() -> None:
    shown = (
        "[  5]   0.00-1.02   sec   830 KBytes  6.79 Mbits/sec  0.000 ms  0/47190 (0%)  sender\n"
        "[  5]   0.00-1.90   sec   582 KBytes  4.77 Mbits/sec  0.019 ms  14072/47190 (30%)  receiver\n"
    )
    assert sent_for(shown) == 1.02
    with pytest.raises(OutputError, match="iperf3 did not say how long it sent"):
        sent_for("iperf3: error - unable to connect to server\n")


def test_a_flood_ping_is_read() -> None:
    shown = (
        "1500 packets transmitted, 1499 received, 0.06% packet loss, time 1500ms\nrtt min/avg/max/mdev = 1/2/3/4 ms\n"
    )
    assert echoes(shown) == pytest.approx(999.33, abs=0.01)
    with pytest.raises(OutputError, match="no packet came back"):
        echoes("100 packets transmitted, 0 received, 100% packet loss, time 1010ms\n")
