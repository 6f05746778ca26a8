# SPDX-License-Identifier: Apache-2.0
"""Plain tc on representors: what goes into hardware, what is refused and how, what software does."""

from __future__ import annotations

import re
import time

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import Bench, until
from tests.system.offload.samples import listening

ADD = "tc filter add dev eth3 ingress"
HW_STATS = "mlx5_core: Flow action HW stats type is not supported"


@pytest.fixture
def tc(lab: Bench) -> Bench:
    """hv1 with Open vSwitch stopped, and a bare ingress qdisc on the representor and the uplink."""
    lab.ok("hv1", "systemctl stop openvswitch")
    for device in ("eth3", PF):
        lab.run("hv1", f"tc qdisc del dev {device} ingress")
        lab.ok("hv1", f"tc qdisc add dev {device} ingress")
    return lab


def shown(bench: Bench, device: str = "eth3") -> str:
    return bench.ok("hv1", f"tc -s filter show dev {device} ingress")


def ping_nobody(bench: Bench, count: int) -> None:
    """vm1 sends so many pings to an address that no guest has, and waits for no answer."""
    bench.ok("vm1", "ip neigh replace 10.57.0.9 lladdr 02:00:00:00:00:09 dev eth0")
    bench.run("vm1", f"ping -c {count} -i 0.01 -W 0.1 10.57.0.9")


def test_a_second_qdisc_is_refused(tc: Bench) -> None:
    done = tc.run("hv1", "tc qdisc add dev eth3 ingress")
    assert done.returncode == 2
    assert done.stderr.strip() == "Error: Exclusivity flag on, cannot modify."


def test_a_rule_goes_into_hardware_and_counts(tc: Bench) -> None:
    tc.ok("hv1", f"{ADD} protocol ip prio 7 flower skip_sw ip_proto icmp dst_ip 10.57.0.9 action drop")
    ping_nobody(tc, 5)
    rule = shown(tc)
    assert "filter protocol ip pref 7 flower chain 0 handle 0x1" in rule
    assert "skip_sw\n  in_hw in_hw_count 1" in rule
    assert "Sent 490 bytes 5 pkt" in rule  # hardware counts the Ethernet header
    assert "Sent hardware 490 bytes 5 pkt" in rule


def test_a_chain_is_followed(tc: Bench) -> None:
    tc.ok("hv1", f"{ADD} protocol ip prio 1 flower skip_sw dst_ip 10.57.0.9 action goto chain 3")
    tc.ok("hv1", f"{ADD} protocol ip chain 3 prio 1 flower skip_sw ip_proto icmp action drop")
    ping_nobody(tc, 3)
    assert len(re.findall(r"Sent 294 bytes 3 pkt", shown(tc))) == 2


def test_a_chain_may_go_back_to_one_before(tc: Bench) -> None:
    """With ignore_flow_level; a packet that goes round has an end."""
    tc.ok("hv1", f"{ADD} protocol ip prio 1 flower skip_sw ip_proto icmp dst_ip 10.57.0.9 action goto chain 5")
    tc.ok("hv1", f"{ADD} protocol ip chain 5 prio 1 flower skip_sw action goto chain 2")
    tc.ok("hv1", f"{ADD} protocol ip chain 2 prio 1 flower skip_sw action drop")
    ping_nobody(tc, 3)
    assert len(re.findall(r"Sent 294 bytes 3 pkt", shown(tc))) == 3


def test_what_hardware_lets_pass_is_the_hosts(tc: Bench) -> None:
    tc.ok("hv1", f"{ADD} protocol ip prio 1 flower skip_sw ip_proto icmp dst_ip 10.57.0.9 action pass")
    tc.ok("hv1", f"{ADD} protocol ip prio 2 flower skip_hw ip_proto icmp dst_ip 10.57.0.9 action drop")
    ping_nobody(tc, 3)
    passed, dropped = shown(tc).split("pref 2 flower chain 0 handle")
    assert "Sent hardware 294 bytes 3 pkt" in passed
    assert "Sent 252 bytes 3 pkt (dropped 3" in dropped  # software counts from the IP header on


def test_devices_that_share_a_block_have_its_filters(tc: Bench) -> None:
    for device in ("eth2", "eth3"):
        tc.run("hv1", f"tc qdisc del dev {device} ingress")
        tc.ok("hv1", f"tc qdisc add dev {device} ingress_block 11 ingress")
    drop = "protocol ip flower skip_sw ip_proto icmp dst_ip 10.57.0.9 action drop"
    refused = tc.run("hv1", f"{ADD} {drop}")
    assert "This filter block is shared. Please use the block index to manipulate the filters" in refused.stderr
    tc.ok("hv1", f"tc filter add block 11 {drop}")
    ping_nobody(tc, 3)
    assert "filter block 11 protocol ip pref 49152" in shown(tc)
    assert "in_hw in_hw_count 2" in shown(tc)
    assert "Sent hardware 294 bytes 3 pkt" in shown(tc)
    tc.ok("hv1", "tc qdisc del dev eth3 ingress")
    counted = tc.ok("hv1", "tc -s filter show block 11")
    assert "in_hw in_hw_count 1" in counted
    assert "Sent hardware 294 bytes 3 pkt" in counted
    tc.ok("hv1", "tc qdisc del dev eth2 ingress")
    assert tc.run("hv1", f"tc filter add block 11 {drop}").returncode == 2


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("protocol ip flower skip_sw action mirred egress redirect dev lo", "devices are not on same switch HW"),
        ("protocol ip flower skip_sw", "mlx5_core: Flow action doesn't have any entries"),
        ("protocol ip flower skip_sw action vlan pop", "Rule must have at least one forward/drop action"),
        ("protocol ip flower skip_sw action continue", 'act_gact: Offload of "continue" action is not supported'),
        ("protocol ip flower skip_sw action drop hw_stats disabled", HW_STATS),
        ("protocol ip flower skip_sw action drop hw_stats immediate", HW_STATS),
        ("protocol ip prio 1 matchall skip_sw action drop", "mlx5 supports only police action for matchall"),
        (
            "protocol ip flower skip_sw action pedit ex munge ip ttl set 5 pipe action drop",
            "mlx5_core: Drop with modify header action is not supported",
        ),
        ("protocol ip flower skip_sw skip_hw action drop", "Invalid argument"),
        ("protocol ip u32 match u32 1 1 at 0 action drop", "Matching by u32 is not supported"),
    ],
)
def test_a_rule_that_cannot_be_taken_is_refused_with_its_reason(tc: Bench, rule: str, error: str) -> None:
    done = tc.run("hv1", f"{ADD} {rule}")
    assert done.returncode == 2
    assert error in done.stderr
    assert shown(tc).strip() == ""


@pytest.mark.parametrize("flag", ["", "skip_hw"])
def test_a_policer_drops_and_counts_what_is_over_its_rate(tc: Bench, flag: str) -> None:
    """As a ConnectX-5 has no meters, in software: 300 octets, and 10 more in each second."""
    police = "action police rate 80bit burst 300 conform-exceed drop/pipe action drop"
    tc.ok("hv1", f"{ADD} protocol ip prio 1 flower {flag} dst_ip 10.57.0.9 {police}")
    ping_nobody(tc, 10)
    rule = shown(tc)
    assert "not_in_hw" in rule
    assert "Sent 840 bytes 10 pkt (dropped 7, overlimits 7" in rule
    assert "Sent 252 bytes 3 pkt (dropped 3, overlimits 0" in rule, "what is within the rate goes on"
    refused = tc.run("hv1", f"{ADD} protocol ip prio 2 flower skip_sw dst_ip 10.57.0.9 {police}")
    assert refused.returncode == 2


def test_a_limit_of_all_that_a_vf_sends_is_in_hardware(tc: Bench) -> None:
    tc.ok("hv1", f"{ADD} prio 2 protocol ip flower skip_sw dst_ip 10.57.0.9 action drop")
    police = "action police rate 1mbit burst 10k conform-exceed"
    done = tc.run("hv1", f"{ADD} prio 1 matchall skip_sw {police} drop/pipe")
    assert "mlx5_core: Offload not supported when conform action is not continue" in done.stderr
    tc.ok("hv1", f"{ADD} prio 1 matchall skip_sw {police} drop/continue")
    ping_nobody(tc, 5)
    assert "in_hw (rule hit 5)" in shown(tc)
    assert "Sent 490 bytes 5 pkt (dropped 5" in shown(tc), "the filter behind it gets them"
    send = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        '[s.sendto(bytes(1000), ("10.57.0.9", 9)) for _ in range(40)]'
    )
    tc.ok("vm1", f"python3 -c '{send}'")
    until(
        lambda: "Sent 42170 bytes 45 pkt (dropped 45" in shown(tc), why="what is beyond the rate waits, and is not lost"
    )
    tc.ok("hv1", "tc filter del dev eth3 ingress prio 1")
    ping_nobody(tc, 5)
    assert "Sent 42660 bytes 50 pkt (dropped 50" in shown(tc)


@pytest.mark.parametrize(("flag", "numbered"), [("skip_sw", False), ("skip_hw", True)])
def test_packets_are_sampled_for_whoever_listens_to_psample(tc: Bench, flag: str, numbered: bool) -> None:
    """mlx5 gives its samples no number."""
    index = int(tc.ok("hv1", "cat /sys/class/net/eth3/ifindex"))
    with listening(tc, "hv1") as listener:
        sample = "action sample rate 1 group 5 trunc 40"
        tc.ok("hv1", f"{ADD} protocol ip prio 1 flower {flag} ip_proto icmp dst_ip 10.57.0.9 {sample} action drop")
        assert listener.next() == (2, {"sample_group": 5, "group_refcount": 0, "group_seq": 0})
        ping_nobody(tc, 3)
        samples = [listener.next() for _ in range(3)]
        for number, (command, told) in enumerate(samples):
            data, taken = told.pop("data"), told.pop("timestamp")
            assert (command, told) == (
                0,
                {
                    "iifindex": index,
                    "sample_rate": 1,
                    "origsize": 98,
                    "sample_group": 5,
                    "group_seq": number if numbered else 0,
                    "proto": 0x0800,
                },
            )
            assert abs(taken - time.time_ns()) < 600 * 10**9
            assert (len(data), data[:6], data[30:34]) == (40, bytes.fromhex("020000000009"), bytes((10, 57, 0, 9)))
        assert shown(tc).count("3 pkt") >= 2, "action and verdict count all packets"
        tc.ok("hv1", "tc filter del dev eth3 ingress prio 1")
        assert listener.next()[0] == 3, "the group goes with its last action"


def test_with_hw_tc_offload_off_nothing_is_in_hardware(tc: Bench) -> None:
    tc.ok("hv1", "ethtool -K eth3 hw-tc-offload off")
    try:
        refused = tc.run("hv1", f"{ADD} protocol ip flower skip_sw action drop")
        assert "TC offload is disabled on net device" in refused.stderr
        tc.ok("hv1", f"{ADD} protocol ip flower dst_ip 10.57.0.9 action drop")
        assert "not_in_hw" in shown(tc)
        ping_nobody(tc, 5)
        assert "Sent 420 bytes 5 pkt" in shown(tc)  # software counts from the IP header on
    finally:
        tc.ok("hv1", "ethtool -K eth3 hw-tc-offload on")


def test_the_same_rule_twice_is_refused(tc: Bench) -> None:
    tc.ok("hv1", f"{ADD} protocol ip prio 5 flower dst_ip 10.0.0.1 action drop")
    done = tc.run("hv1", f"{ADD} protocol ip prio 5 flower dst_ip 10.0.0.1 action drop")
    assert "File exists" in done.stderr


def test_what_is_not_there_cannot_be_deleted(tc: Bench) -> None:
    done = tc.run("hv1", "tc filter del dev eth3 ingress pref 9")
    assert "Error: Cannot find specified filter chain." in done.stderr
    tc.ok("hv1", f"{ADD} protocol ip prio 5 flower action drop")
    done = tc.run("hv1", "tc filter del dev eth3 ingress pref 9")
    assert "Error: Filter with specified priority/protocol not found." in done.stderr
    done = tc.run("hv1", "tc filter del dev eth3 ingress pref 5 handle 7 flower")
    assert "Error: Specified filter handle not found." in done.stderr
    tc.ok("hv1", "tc filter del dev eth3 ingress pref 5 handle 1 flower")
    assert shown(tc).strip() == ""


def test_no_device_and_no_qdisc(tc: Bench) -> None:
    assert 'Cannot find device "nosuch"' in tc.run("hv1", "tc filter add dev nosuch ingress flower").stderr
    done = tc.run("hv1", "tc filter add dev eth2 ingress protocol ip flower action drop")
    assert "Error: Parent Qdisc doesn't exists." in done.stderr
    tc.ok("hv1", "tc qdisc add dev eth2 ingress && tc qdisc del dev eth2 ingress")
    done = tc.run("hv1", "tc qdisc del dev eth2 ingress")  # its queue stays, with the qdisc that does nothing
    assert "Error: Invalid handle." in done.stderr


def test_priorities_decide_and_a_batch_is_taken_whole(tc: Bench) -> None:
    rules = "".join(
        f"filter add dev eth3 ingress protocol ip prio {prio} flower skip_sw "
        "dst_ip 10.57.0.9 ip_proto icmp action drop\n"
        for prio in range(10, 60)
    )
    tc.ok("hv1", f"printf '%s' '{rules}' | tc -batch -")
    assert shown(tc).count("in_hw in_hw_count 1") == 50
    ping_nobody(tc, 4)
    first = shown(tc).split("pref 11 flower")[0]
    assert "Sent 392 bytes 4 pkt" in first
    assert shown(tc).count("Sent 392 bytes 4 pkt") == 1
