# SPDX-License-Identifier: Apache-2.0
"""Device models driven by the real programs: what each says that it is, what it refuses, and that traffic flows on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.nic.model import MODELS
from tests.system.offload.conftest import PCI, PF, TOPOLOGY, set_up
from tests.system.offload.labs import IPV4, Bench, until
from tests.system.patience import PATIENCE

ADD = "tc filter add dev eth3 ingress"
ALONE = """
[[node]]
name = "hv3"
openvswitch = false
[[node.nic]]
model = "ConnectX-6 Dx"
vfs = 1
"""
CX4, CX5, CX6 = "ConnectX-4 Lx", "ConnectX-5", "ConnectX-6 Dx"
NODES = {CX4: "hv1", CX5: "hv2", CX6: "hv3"}
RULES = 4096
"""Room for so few that it is soon full."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """The page's two hypervisors, the first with a ConnectX-4 Lx, and a third with a ConnectX-6 Dx by itself."""
    with Bench.running(
        TOPOLOGY.replace("[[node.nic]]", f'[[node.nic]]\nmodel = "{CX4}"\nrules = {RULES}', 1) + ALONE
    ) as bench:
        set_up(bench, "hv1", "vm1")
        set_up(bench, "hv2", "vm2")
        yield bench


@pytest.fixture
def idle(lab: Bench) -> Bench:
    """The lab without a flow in the datapath, and guests that know each other's address."""
    lab.ping("vm1", "10.57.0.2")
    for node in ("hv1", "hv2"):
        lab.forget(node)
    return lab


def carries_tcp(bench: Bench) -> None:
    """20 Mbyte from guest to guest."""
    server = bench.start("vm2", "iperf3", "-s", "-1")
    until(lambda: ":5201" in bench.ok("vm2", "ss -ltn"))
    bench.ok("vm1", "iperf3 -c 10.57.0.2 -n 20M", 120)
    server.communicate(timeout=PATIENCE)


def out(bench: Bench) -> str:
    """The flow of IPv4 from the guest on hv1."""
    return bench.flow("hv1", "in_port(eth3)", "eth_type(0x0800)", kind="all")


# ---- identity


@pytest.mark.parametrize(("name", "chip"), [(CX4, "MT27710"), (CX5, "MT27800"), (CX6, "MT2892")])
def test_a_model_says_what_it_is(lab: Bench, name: str, chip: str) -> None:
    node, model = NODES[name], MODELS[name]
    functions = lab.ok(node, "lspci -nn -d 15b3:").splitlines()
    assert f"Mellanox Technologies {chip} Family [{name}] [15b3:{model.device_id:04x}]" in functions[0]
    assert f"[15b3:{model.vf_device_id:04x}]" in functions[1]
    data = lab.ok(node, f"lspci -vvv -s {PCI}")
    assert f"[PN] Part number: {model.part_number}" in data
    assert f"Product Name: {model.product}" in data
    assert f"firmware-version: {model.firmware} ({model.board_id})" in lab.ok(node, f"ethtool -i {PF}")
    lab.ok(node, f"ip link set {PF} up")
    cabled = name != CX6
    assert f"Speed: {f'{model.port_speed}Mb/s' if cabled else 'Unknown!'}" in lab.ok(node, f"ethtool {PF}")
    assert lab.ok(node, f"cat /sys/class/net/{PF}/speed") == f"{model.port_speed if cabled else -1}\n"
    info = lab.ok(node, f"devlink dev info pci/{PCI}")
    assert f"fw.psid {model.board_id}" in info
    assert f"fw.version {model.firmware}" in info


def test_eswitch_settings_are_the_models(lab: Bench) -> None:
    show = f"devlink dev eswitch show pci/{PCI}"
    assert "inline-mode link encap-mode none" in lab.ok("hv1", show)
    assert "inline-mode none encap-mode basic" in lab.ok("hv2", show)
    refused = lab.run("hv1", f"devlink dev eswitch set pci/{PCI} encap-mode basic")
    assert "Operation not supported" in refused.stderr
    refused = lab.run("hv2", f"devlink dev eswitch set pci/{PCI} inline-mode transport")
    assert "Inline mode can't be set" in refused.stderr


# ---- ConnectX-4 Lx


def test_vlan_flows_of_open_vswitch_are_offloaded(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2", 10)
    assert "offloaded:yes, dp:tc, actions:push_vlan(vid=57,pcp=0)" in out(idle)
    into = idle.flow("hv1", f"in_port({PF})", "vlan(vid=57,pcp=0)", "eth_type(0x0800)")
    assert "offloaded:yes, dp:tc, actions:pop_vlan,eth3" in into


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("protocol ip flower ip_proto tcp action drop", "Flow is not offloaded due to min inline setting"),
        ("protocol ip flower action goto chain 1", "Requested destination chain is out of supported range"),
        ("protocol ip chain 1 flower action drop", "Requested chain is out of supported range"),
        (
            f"protocol ip flower action vlan push id 5 priority 3 pipe action mirred egress redirect dev {PF}",
            "vlan push",
        ),
        (
            f"protocol ip flower action mirred egress mirror dev eth2 action vlan push id 5 "
            f"action mirred egress redirect dev {PF}",
            "current firmware doesn't support split rule for port mirroring",
        ),
        (
            "protocol ip flower action pedit ex munge eth dst set 02:00:00:00:00:01 pipe "
            "action mirred egress redirect dev eth2",
            "The pedit offload action is not supported",
        ),
        ("protocol arp flower arp_op request action drop", "Unsupported key"),
    ],
)
def test_a_rule_that_the_model_cannot_take_is_refused_as_by_the_driver(idle: Bench, rule: str, text: str) -> None:
    words = f"{ADD} prio 77 {rule}"
    refused = idle.run("hv1", words.replace(" flower", " flower skip_sw"))
    assert refused.returncode == 2
    assert f"Error: mlx5_core: {text}" in refused.stderr
    if "pedit" not in rule:
        idle.ok("hv1", words)
        try:
            assert "not_in_hw" in idle.ok("hv1", "tc filter show dev eth3 ingress")
        finally:
            idle.ok("hv1", f"tc filter del dev eth3 ingress pref 77 {'chain 1' if 'chain 1 flower' in rule else ''}")


def test_one_vf_has_one_vlan_in_hardware(idle: Bench) -> None:
    push = "flower skip_sw dst_mac 02:00:00:00:00:0{0} action vlan push id {0} action mirred egress redirect dev {1}"
    idle.ok("hv1", f"{ADD} prio 77 protocol ip {push.format(5, PF)}")
    try:
        refused = idle.run("hv1", f"{ADD} prio 77 protocol ip {push.format(6, PF)}")
        assert "Operation not supported" in refused.stderr
        idle.ok("hv1", f"{ADD} prio 77 protocol ip {push.format(7, PF).replace('id 7', 'id 5')}")
        idle.ping("vm1", "10.57.0.2")  # in VLAN 57: by software now
        assert "offloaded" not in out(idle)
    finally:
        idle.ok("hv1", "tc filter del dev eth3 ingress pref 77")


def set_inline_mode(bench: Bench, mode: str) -> None:
    """When no flow is offloaded; a guest that looks for a neighbour may be quicker, so again and again."""
    command = f"ovs-appctl revalidator/purge && devlink dev eswitch set pci/{PCI} inline-mode {mode}"
    until(lambda: bench.run("hv1", command).returncode == 0, why=f"the inline mode cannot be {mode}")


def test_filters_that_look_deeper_than_the_inline_mode_stay_in_software_until_it_is_set(idle: Bench) -> None:
    idle.ping("vm1", "10.57.0.2")
    idle.flow("hv1", "in_port(eth3)", IPV4)
    refused = idle.run("hv1", f"devlink dev eswitch set pci/{PCI} inline-mode transport")
    assert "Can't set inline mode when flows are configured" in refused.stderr
    idle.ok("hv1", "ovs-ofctl add-flow br-int priority=100,tcp,tp_dst=5201,actions=normal")
    try:
        carries_tcp(idle)
        flow = idle.flow("hv1", "in_port(eth3)", "tcp(", kind="all")
        assert "offloaded" not in flow
        set_inline_mode(idle, "transport")
        carries_tcp(idle)
        flow = idle.flow("hv1", "in_port(eth3)", "tcp(", "dst=5201", kind="all")
        assert "offloaded:yes" in flow
    finally:
        idle.ok("hv1", "ovs-ofctl del-flows br-int tcp")
        set_inline_mode(idle, "link")


@pytest.mark.slow
def test_a_full_eswitch_refuses_and_open_vswitch_goes_on_in_software(idle: Bench, tmp_path: Path) -> None:
    limit, more = RULES, 5
    rules = tmp_path / "rules"
    rules.write_text(
        "".join(
            f"filter add dev eth0 ingress protocol ip prio 1 flower skip_sw "
            f"dst_mac 02:00:00:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x} action drop\n"
            for n in range(limit + more)
        )
    )
    idle.ok("hv1", "tc qdisc add dev eth0 ingress")
    try:
        filled = idle.run("hv1", f"tc -force -batch {rules}", 400)
        refusals = filled.stderr.count("RTNETLINK answers: No space left on device")
        present = int(idle.ok("hv1", "tc filter show dev eth0 ingress | grep -c in_hw_count", 120))
        assert refusals >= more
        assert present + refusals == limit + more
        idle.ok("hv1", "tc filter add dev eth0 ingress protocol ip prio 2 flower dst_mac 02:00:00:99:00:00 action drop")
        assert "not_in_hw" in idle.ok("hv1", "tc filter show dev eth0 ingress | tail -6", 120)
        idle.ping("vm1", "10.57.0.2", 10)
        assert "dp:tc" in out(idle)
        assert "offloaded" not in out(idle)
    finally:
        idle.ok("hv1", "tc qdisc del dev eth0 ingress", 120)
    idle.ok("hv1", "ovs-appctl revalidator/purge")
    idle.ping("vm1", "10.57.0.2", 10)
    assert "offloaded:yes" in out(idle)


# ---- last, for it takes the uplinks out of the bridges


@pytest.fixture(scope="module")
def tunnel(lab: Bench) -> Bench:
    """VXLAN between the two bridges in place of the VLAN."""
    for node, own, other in (("hv1", "192.168.9.1", "192.168.9.2"), ("hv2", "192.168.9.2", "192.168.9.1")):
        lab.ok(
            node,
            f"ovs-vsctl del-port br-int {PF} -- clear Port eth3 tag -- add-port br-int vx0 -- "
            f"set Interface vx0 type=vxlan options:remote_ip={other} options:key=57",
        )
        lab.ok(node, f"ip addr add {own}/24 dev {PF}")
    until(lambda: lab.run("hv1", "ping -n -q -c 1 -W 0.4 192.168.9.2").returncode == 0)
    return lab


def test_vxlan_is_left_to_software_and_traffic_flows(tunnel: Bench) -> None:
    tunnel.ping("vm1", "10.57.0.2", 10)
    tunnel.ping("vm2", "10.57.0.1", 10)
    tunnel.ok("hv1", "ovs-appctl revalidator/purge")  # what was learned on the way
    tunnel.ping("vm1", "10.57.0.2", 10)
    flow = out(tunnel)
    assert "set(tunnel(tun_id=0x39,dst=192.168.9.2" in flow
    assert "offloaded" not in flow
    assert not tunnel.flows("hv1", "vxlan_sys_4789")


def test_tcp_flows_through_a_tunnel_that_only_one_end_offloads(tunnel: Bench) -> None:
    carries_tcp(tunnel)
    tunnel.ping("vm2", "10.57.0.1", 10)
    until(lambda: tunnel.flows("hv2", "set(tunnel(") != [], why="the ConnectX-5 offloads no tunnel")
    assert not tunnel.flows("hv1", "tunnel")
