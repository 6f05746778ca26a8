# SPDX-License-Identifier: Apache-2.0
"""What the demo's firewall reads out of the outputs of tc and tcpdump, and how it judges them."""

from __future__ import annotations

import pytest

from asap2.lab.firewall import PINGS, counted, judge_capture, judge_counters, judge_pings
from asap2.lab.terminal import OutputError

FILTER = """\
filter protocol ip pref 2 flower handle 0x1
  eth_type ipv4
  ct_state -trk
  in_hw in_hw_count 1
\taction order 1: ct zone 1 pipe
\tAction statistics:
\tSent 1045096027 bytes 721439 pkt (dropped 0, overlimits 0 requeues 0)
\tSent software 596 bytes 11 pkt
\tSent hardware 1045095431 bytes 721428 pkt

\taction order 2: gact action goto chain 1
\tAction statistics:
\tSent hardware 1045095431 bytes 721428 pkt
"""
SYN = "12:00:00.0 IP 10.57.0.1.41316 > 10.57.0.2.5201: Flags [S], seq 249189962, win 64240, length 0\n"
PING = (
    "12:00:00.0 IP 10.57.0.1 > 10.57.0.2: ICMP echo request, id 1, seq 1, length 64\n"
    "12:00:00.1 IP 10.57.0.2 > 10.57.0.1: ICMP echo reply, id 1, seq 1, length 64\n"
)


def test_what_hardware_tracked_is_what_it_did_the_action_ct_with() -> None:
    assert counted(FILTER) == 721428
    assert counted("") == 0
    assert judge_counters(FILTER) == "721428 packets were tracked in hardware"


@pytest.mark.parametrize("output", ["", FILTER.replace("in_hw in_hw_count 1", "not_in_hw")])
def test_a_filter_that_is_not_in_hardware_is_told(output: str) -> None:
    with pytest.raises(OutputError, match="no filter with the action ct is in hardware"):
        judge_counters(output)


def test_the_host_sees_how_connections_begin() -> None:
    assert judge_capture(SYN + SYN.replace("[S]", "[.]")) == "2 packets, 1 of them with SYN"
    with pytest.raises(OutputError, match="should see how a connection begins"):
        judge_capture(SYN.replace("[S]", "[F.]"))


def test_the_host_sees_every_packet_of_a_ping() -> None:
    assert judge_pings(PING * PINGS) == f"all {2 * PINGS} packets"
    with pytest.raises(OutputError, match=f"should see all {PINGS} packets of kind request, and saw 1"):
        judge_pings(PING)
