# SPDX-License-Identifier: Apache-2.0
"""What a meter lets through, by its specification."""

from __future__ import annotations

import pytest

from asap2.nic.silicon.metering import NSEC_PER_SEC, Counting, Limit, Price, ReferenceMeter


@pytest.mark.parametrize("rate", [1, 8, 125, 125_000, 10**7 // 8, 625_000_000, 1 << 33, 10**10])
def test_a_price_is_right_to_a_millionth(rate: int) -> None:
    octets = 1 << 19
    assert Price.at(rate).of(octets) == pytest.approx(octets * NSEC_PER_SEC / rate, rel=1e-6, abs=1)


@pytest.mark.parametrize("rate", [125_000, 12_500_000, 625_000_000])
@pytest.mark.parametrize("size", [64, 1514])
def test_ten_seconds_at_a_rate_let_through_that_rate(rate: int, size: int) -> None:
    meter = ReferenceMeter(Limit(rate, Price.at(rate).of(15_000)), 0)
    gap = size * NSEC_PER_SEC // rate // 2  # twice as much as may pass
    count = min(10_000, 10 * NSEC_PER_SEC // gap)
    passed = sum(not meter.over(1, size, size, at * gap) for at in range(count))
    assert passed * size == pytest.approx(rate * count * gap / NSEC_PER_SEC + 15_000, rel=0.01)


def test_a_packet_over_the_rate_takes_no_tokens() -> None:
    meter = ReferenceMeter(Limit(1000, Price.at(1000).of(100)), 0)
    assert meter.over(1, 101, 101, 0)
    assert not meter.over(1, 100, 100, 0)
    assert meter.counted[:5] == (2, 201, 1, 101, 1)


def test_the_first_segment_of_a_super_packet_decides_on_the_wire_and_all_pay() -> None:
    limit = Limit(1_000_000, Price.at(1_000_000).of(3000))
    meter = ReferenceMeter(limit, 0)
    assert not meter.over(40, 60_000, 1500, 0), "more than the bucket holds"
    assert meter.over(1, 1500, 1500, 58_000_000), "before what passed is paid for"
    assert not meter.over(1, 1500, 1500, 60_000_000)
    software = ReferenceMeter(Limit(10**6, limit.burst, counting=Counting.TC), 0)
    assert software.over(40, 60_000, 1500, 0)


def test_both_buckets_have_to_have_enough() -> None:
    limit = Limit(1000, Price.at(1000).of(1000), peak=10_000, peak_burst=Price.at(10_000).of(100))
    meter = ReferenceMeter(limit, 0)
    assert not meter.over(1, 100, 100, 0)
    assert meter.over(1, 100, 100, 0), "the peak"
    assert not meter.over(1, 100, 100, NSEC_PER_SEC // 100)


def test_a_packet_that_is_too_long_is_over_whatever_the_rate() -> None:
    meter = ReferenceMeter(Limit(most=1000), 0)
    assert meter.over(1, 987, 1001, 0)
    assert not meter.over(1, 986, 1000, 0)
    assert not meter.over(44, 60_000, 1000, 0), "each segment is compared"


def test_a_bucket_may_start_empty() -> None:
    meter = ReferenceMeter(Limit(10, Price.at(10).of(2), packets=True, empty=True), 0)
    assert meter.over(1, 60, 74, 0)
    assert not meter.over(1, 60, 74, NSEC_PER_SEC // 10)
