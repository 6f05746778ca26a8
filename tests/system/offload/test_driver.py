# SPDX-License-Identifier: Apache-2.0
"""The driver as a person meets it: VFs, binding, links, namespaces, and a daemon that is killed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.offload.conftest import PCI, PF
from tests.system.offload.labs import IPV4, Bench, packets_of, until

SRIOV = f"/sys/class/net/{PF}/device/sriov_numvfs"


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (f"echo 2 > {SRIOV}", "Device or resource busy"),
        (f"echo 99 > {SRIOV}", "Numerical result out of range"),
        (f"echo four > {SRIOV}", "Invalid argument"),
        ("echo 0000:0f:00.0 > /sys/bus/pci/drivers/mlx5_core/unbind", "No such device"),
        ("echo 0000:03:00.3 > /sys/bus/pci/drivers/mlx5_core/bind", "Device or resource busy"),
        (f"echo x > /sys/class/net/{PF}/phys_switch_id", "Permission denied"),
        (f"ip link set {PF} vf 9 mac 02:00:00:00:00:01", "Invalid argument"),
        (f"ip link set {PF} vf 1 mac 01:00:5e:00:00:01", "Invalid argument"),
        (f"ip link set {PF} vf 1 vlan 57", "Operation not supported"),
        (f"ip link set {PF} vf 1 spoofchk on", "Operation not supported"),
        (f"ip link set {PF} vf 1 trust on", "Operation not supported"),
        (f"ip link set {PF} vf 1 state enable", "Operation not supported"),
        ("ip link del eth3", "Operation not supported"),
        (f"devlink dev eswitch set pci/{PCI} mode nonsense", "Unknown eswitch mode"),
        ("devlink dev eswitch show pci/0000:0f:00.0", "No such device"),
        ("devlink dev eswitch set pci/0000:03:00.2 mode switchdev", "Operation not supported"),
    ],
)
def test_the_kernels_own_error_is_given(lab: Bench, write: str, error: str) -> None:
    done = lab.run("hv1", write)
    assert done.returncode != 0
    assert error in done.stderr


def test_vf_attributes_are_shown(lab: Bench) -> None:
    lab.ok("hv1", f"ip link set {PF} vf 1 mac 02:00:00:00:01:01 && ip link set {PF} vf 1 max_tx_rate 100")
    shown = lab.ok("hv1", f"ip link show {PF}")
    assert "vf 1     link/ether 02:00:00:00:01:01 brd ff:ff:ff:ff:ff:ff, tx rate 100 (Mbps)" in shown
    lab.ok("hv1", f"ip link set {PF} vf 1 max_tx_rate 0")


def test_a_renamed_representor_is_still_that_representor(lab: Bench) -> None:
    lab.ok("hv1", "ip link set eth0 name rep0")
    try:
        assert lab.ok("hv1", "cat /sys/class/net/rep0/phys_port_name").strip() == "pf0vf0"
        assert "bus-info: 0000:03:00.0" in lab.ok("hv1", "ethtool -i rep0")
    finally:
        lab.ok("hv1", "ip link set rep0 name eth0")


def test_a_vf_comes_back_from_a_namespace_that_goes(lab: Bench) -> None:
    lab.ok("hv1", f"ip netns add inner && ip link set {PF}v1 netns inner")
    assert f"{PF}v1" in lab.ok("hv1", "ip netns exec inner ip -br link")
    assert f"{PF}v1" not in lab.ok("hv1", "ip -br link")
    lab.ok("hv1", "ip netns del inner")
    until(lambda: f"{PF}v1" in lab.ok("hv1", "ip -br link"))


def test_the_mode_cannot_change_while_rules_are_offloaded(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2")
    done = idle.run("hv1", f"devlink dev eswitch set pci/{PCI} mode legacy")
    assert done.returncode != 0
    assert "Can't change mode, E-Switch is busy" in done.stderr


def test_packets_are_forwarded_while_the_daemon_is_dead_and_the_next_one_goes_on(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2")
    idle.flow("hv1", f"in_port({PF})", IPV4)
    before = packets_of(idle.flow("hv1", "in_port(eth3)", IPV4))
    old = idle.kill_daemon("hv1")
    idle.ping("vm1", "10.57.0.2", 20)
    until(lambda: idle.daemon("hv1") not in (0, old), why="no daemon came up")
    flow = idle.flow("hv1", "in_port(eth3)", IPV4)
    assert packets_of(flow) >= before + 20
    assert "mode switchdev" in idle.ok("hv1", f"devlink dev eswitch show pci/{PCI}")
    idle.forget("hv1")
    idle.ping("vm1", "10.57.0.2", 5)
    assert idle.flow("hv1", "in_port(eth3)", IPV4)


def test_a_flow_may_have_actions_that_were_checked_for_another_key(idle: Bench) -> None:
    """Who changes actions by UFID gives any key, and that is what they are checked for (ovs_flow_cmd_set)."""
    ufid = "ufid:00000057-0000-0000-0000-000000000057"
    shown = "actions:set(udp(src=57)),"
    idle.ok("hv1", "ovs-appctl revalidator/pause")
    try:
        idle.ok("hv1", "ovs-vsctl add-port br-int p57 -- set interface p57 type=internal")
        ports = {name: number for number, name in re.findall(r"port (\d+): (\S+)", idle.ok("hv1", "ovs-dpctl show"))}
        key = f"{ufid},in_port({ports[PF]}),eth(),eth_type(0x0800)"
        idle.ok("hv1", f"ovs-dpctl add-flow '{key},ipv4(proto=1),icmp()' {ports['p57']}")
        idle.ok("hv1", f"ovs-dpctl mod-flow '{key},ipv4(proto=17),udp()' 'set(udp(src=57)),{ports['p57']}'")
        assert shown in idle.ok("hv1", "ovs-dpctl dump-flows")
        idle.ok("hv1", "ovs-vsctl del-port p57")
        assert "p57" not in idle.ok("hv1", "ip -br link")
        assert shown in idle.ok("hv1", "ovs-dpctl dump-flows")
        old = idle.kill_daemon("hv1")
        until(lambda: idle.daemon("hv1") not in (0, old), why="no daemon came up")
        assert shown in idle.ok("hv1", "ovs-dpctl dump-flows")
    finally:
        idle.ok("hv1", f"ovs-dpctl del-flow {ufid}; ovs-appctl revalidator/resume")


def test_a_meter_goes_on_while_the_daemon_is_dead_and_the_next_one_tells_of_it(idle: Bench) -> None:
    openflow = "ovs-ofctl -O OpenFlow13"
    meter = "meter=1 kbps burst stats bands=type=drop rate=8 burst_size=8"
    idle.ok("hv1", f"{openflow} add-meter br-int '{meter}'")
    idle.ok("hv1", f"{openflow} add-flow br-int 'priority=9,icmp,in_port=eth3 actions=meter:1,normal'")
    try:
        idle.ping("vm1", "10.57.0.2")
        assert "meter(0)" in idle.ok("hv1", "ovs-appctl dpctl/dump-flows")
        old = idle.kill_daemon("hv1")
        told = idle.run("vm1", "ping -n -q -c 200 -i 0.002 -W 0.1 10.57.0.2").stdout
        found = re.search(r"(\d+) received", told)
        assert found
        assert int(found[1]) < 100, "ten at once, and ten in each second"
        until(lambda: idle.daemon("hv1") not in (0, old), why="no daemon came up")
        stats = idle.ok("hv1", f"{openflow} meter-stats br-int meter=1")
        counted = re.search(r"packet_in_count:(\d+) .*\n?.*packet_count:(\d+)", stats)
        assert counted, stats
        assert int(counted[1]) >= 200
        assert int(counted[2]) > 100
    finally:
        idle.ok("hv1", f"{openflow} --strict del-flows br-int 'priority=9,icmp,in_port=eth3'")
        idle.ok("hv1", f"{openflow} del-meter br-int meter=1")


def test_no_packet_of_a_flow_is_lost_while_rules_come_and_go_beside_it(idle: Bench, tmp_path: Path) -> None:
    idle.ping("vm1", "10.57.0.2")
    for node in ("hv1", "hv2"):
        for port in ("eth3", PF):
            idle.flow(node, f"in_port({port})", IPV4)
    add = "".join(
        f"filter add dev eth3 ingress protocol ip prio {1 + 99 * (i % 2)} flower skip_sw "
        f"dst_mac 02:00:00:{i >> 8:02x}:{i & 255:02x}:01 "
        f"{f'src_ip 10.9.0.0/{8 + i % 24}' if i % 3 else 'ip_proto tcp'} action drop\n"
        for i in range(400)
    )
    batch = tmp_path / "rules"
    batch.write_text(add)
    with idle.flooding("vm1", "10.57.0.2"):
        for _ in range(6):
            done = idle.run(
                "hv1",
                f"tc -batch - < {batch} && tc filter show dev eth3 ingress | grep -c skip_sw; "
                "tc filter del dev eth3 ingress pref 1; tc filter del dev eth3 ingress pref 100",
            )
            assert done.stdout + done.stderr == "400\n"
