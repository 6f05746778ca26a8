# SPDX-License-Identifier: Apache-2.0
"""``asap2 host explain`` in nodes: each class of refusal provoked in real Open vSwitch, whose debug log is asked too.

A flow is put in with ``dpctl/add-flow``, which goes the way of an upcall's: TC first, then the datapath. Flows that the
node's datapath has not (connection tracking, MPLS…) are explained from their text.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.schemas import answer
from tests.system.host.conftest import PF
from tests.system.host.explained import (
    BRIDGE,
    ETH,
    LOG,
    OTHER,
    REP,
    UDP,
    UPLINK,
    VXLAN,
    Explained,
    explaining,
    ipv4,
)
from tests.system.host.refusals import DRIVER, OPEN_VSWITCH, TUNNEL
from tests.system.offload.labs import until
from tests.system.patience import PATIENCE


@pytest.fixture(scope="module")
def nodes() -> Iterator[Explained]:
    """Two hypervisors that offload."""
    with explaining() as lab:
        yield lab


@pytest.fixture(autouse=True)
def _provoked(request: pytest.FixtureRequest, nodes: Explained) -> Iterator[None]:
    """A test that is marked as provoking codes has seen them."""
    nodes.told.clear()
    yield
    marked = {code for mark in request.node.iter_markers("provokes") for code in mark.args}
    assert marked <= nodes.told


@dataclass(frozen=True)
class Provoked:
    """What came of a flow: its text, what the switch logged of it, and the explanation if it is in the datapath."""

    text: str
    logged: str
    explained: dict[str, Any] | None


@pytest.fixture(scope="module")
def provoked(nodes: Explained) -> dict[tuple[str, ...], Provoked]:
    """Every flow of the two lists put in, one after the other, and all explained at once."""
    cases = [
        ("hv1", *case) for case in ((code, REP, key, actions, before) for code, key, actions, before, _ in OPEN_VSWITCH)
    ]
    cases += [(*case[:5], TUNNEL.format("") if case[2] == VXLAN else "") for case in DRIVER]
    found: dict[tuple[str, ...], Provoked] = {}
    for node in ("hv1", "hv2"):
        mine = [case for case in cases if case[0] == node]
        made = [nodes.made(key, actions, port, before) for _, _, port, key, actions, before in mine]
        nodes.run(node, "\n".join(f"ovs-appctl dpctl/add-flow '{text}' '{act}' 2> /dev/null" for _, text, act in made))
        logged = nodes.logged(node, [ufid for ufid, _, _ in made])
        explained = nodes.reasons(node)
        for case, (ufid, text, actions) in zip(mine, made, strict=True):
            found[case] = Provoked(f"{text}, actions:{actions}", logged[ufid], explained.get(ufid))
    return found


@pytest.mark.parametrize(("code", "key", "actions", "before", "logged"), OPEN_VSWITCH)
def test_what_the_switch_refuses_is_told_as_its_log_tells_it(
    nodes: Explained,
    provoked: dict[tuple[str, ...], Provoked],
    code: str,
    key: str,
    actions: str,
    before: str,
    logged: str,
) -> None:
    one = provoked["hv1", code, REP, key, actions, before]
    assert logged in one.logged
    if one.explained:
        found = one.explained
        assert found["dp"] == "ovs"
        assert "log" in [seen["source"] for seen in found["evidence"]]
    else:
        found = nodes.reason("hv1", one.text)
    assert found["code"] == code, found
    assert found["evidence"]


@pytest.mark.parametrize(("node", "code", "port", "key", "actions", "found"), DRIVER)
def test_what_the_nic_refuses_is_told_in_its_words(
    nodes: Explained,
    provoked: dict[tuple[str, ...], Provoked],
    node: str,
    code: str,
    port: str,
    key: str,
    actions: str,
    found: str,
) -> None:
    before = TUNNEL.format("") if port == VXLAN else ""
    explained = provoked[node, code, port, key, actions, before].explained
    explained = explained or nodes.provoked(node, key, actions, port, before)
    assert explained["code"] == code, explained
    assert explained["dp"] == "tc"
    assert found in explained["found"]


@pytest.mark.provokes("nic.inline")
def test_a_nic_that_needs_more_inline(nodes: Explained) -> None:
    inline = "ovs-appctl revalidator/purge; devlink dev eswitch set pci/0000:03:00.0 inline-mode"
    nodes.ok("hv2", f"{inline} link")
    ufid = nodes.put("hv2", UDP, UPLINK)
    found = nodes.reason("hv2", ufid)
    nodes.ok("hv2", f"{inline} transport")
    assert found["code"] == "nic.inline"
    assert "min inline" in found["found"]


def test_trying_changes_nothing(nodes: Explained) -> None:
    nodes.put("hv1", f"{ipv4(132)},sctp(src=1,dst=2)", UPLINK)
    before = nodes.ok("hv1", f"for d in eth0 {PF} vxlan_sys_4789; do tc filter show dev $d ingress; done")
    nodes.done("hv1", "explain")
    after = nodes.ok("hv1", f"for d in eth0 {PF} vxlan_sys_4789; do tc filter show dev $d ingress; done")
    assert after == before


@pytest.mark.provokes("port.error", "controller.unreachable", "bridge.empty", "openflow.refused", "datapath.refused")
def test_what_was_refused_is_told_though_there_is_no_flow_of_it(nodes: Explained) -> None:
    made = "add-br br-x -- set-fail-mode br-x secure -- set-controller br-x tcp:127.0.0.1:9 -- add-port br-x nosuch"
    nodes.ok("hv1", f"ovs-vsctl --no-wait {made}")
    try:
        until(lambda: "BACKOFF" in nodes.ok("hv1", "ovs-vsctl get controller br-x status"))
        nodes.run("hv1", "ovs-ofctl -O OpenFlow14 --bundle add-flow br-x actions=group:77")
        nodes.put("hv1", UDP, "ct(commit,helper=nosuch)")
        found = {one["code"]: one for one in nodes.data("hv1", "explain")["refused"]}
        checked = nodes.data("hv1", "check", "--no-trial")["findings"]
    finally:
        nodes.ok("hv1", "ovs-vsctl del-br br-x")
    nodes.told |= found.keys()
    assert found["port.error"]["about"] == "nosuch"
    assert "tcp:127.0.0.1:9 is not connected" in found["controller.unreachable"]["found"]
    assert found["bridge.empty"]["about"] == "br-x"
    assert found["openflow.refused"]["found"].startswith("OFPT_BUNDLE_")
    assert "ct(commit,helper=nosuch)" in found["datapath.refused"]["found"]
    bad = {one["id"] for one in checked if one["verdict"] in ("warn", "fail")}
    assert bad >= {"ovs.ports", "ovs.controllers", "ovs.fail-mode", "openflow.refused", "datapath.refused"}


@pytest.mark.provokes("offloaded")
def test_what_is_in_hardware_is_said_to_be(nodes: Explained) -> None:
    ufid = nodes.put("hv1", UDP.replace("2000", "2001"), UPLINK)
    assert nodes.reason("hv1", ufid)["code"] == "offloaded"
    assert ufid not in nodes.done("hv1", "explain", "--all")


@pytest.mark.provokes("port.feature-off", "taken-now")
def test_a_feature_that_is_off_is_found_and_when_it_is_on_again_the_flow_could_be_taken(nodes: Explained) -> None:
    nodes.ok("hv1", "ethtool -K eth0 hw-tc-offload off")
    ufid = nodes.put("hv1", UDP.replace("2000", "2002"), UPLINK)
    try:
        found = nodes.reason("hv1", ufid)
        assert found["code"] == "port.feature-off"
        assert "ethtool -K eth0 hw-tc-offload on" in found["fix"]
    finally:
        nodes.ok("hv1", "ethtool -K eth0 hw-tc-offload on")
    assert nodes.reason("hv1", ufid)["code"] == "taken-now"


@pytest.mark.provokes("port.no-qdisc")
def test_a_qdisc_that_somebody_removed_is_found(nodes: Explained) -> None:
    nodes.ok("hv1", "tc qdisc del dev eth1 ingress")
    try:
        ufid = nodes.put("hv1", UDP, UPLINK, OTHER)
        found = nodes.reason("hv1", ufid)
        assert (found["code"], found["dp"]) == ("port.no-qdisc", "ovs")
        assert "tc qdisc add dev eth1 ingress" in found["fix"]
    finally:
        nodes.ok("hv1", "tc qdisc add dev eth1 ingress")


@pytest.mark.provokes("port.gone")
def test_a_port_that_is_gone_is_found(nodes: Explained) -> None:
    for port, output, found in (("99", UPLINK, "in_port(99)"), (REP, "98", "output to 98")):
        one = nodes.reason("hv1", nodes.put("hv1", UDP, output, port))
        assert (one["code"], one["found"]) == ("port.gone", found)


@pytest.mark.provokes("port.other-namespace")
def test_a_port_in_another_namespace_is_found(nodes: Explained) -> None:
    nodes.ok("hv1", "ip netns add q1 && ovs-vsctl add-port br-int tap1 -- set interface tap1 type=internal")
    try:
        number = re.search(r"port (\d+): tap1", nodes.ok("hv1", "ovs-appctl dpctl/show"))
        assert number
        nodes.ok("hv1", "ip link set tap1 netns q1")
        for port, output in ((number[1], UPLINK), (REP, number[1])):
            found = nodes.reason("hv1", nodes.put("hv1", UDP, output, port))
            assert (found["code"], found["found"]) == ("port.other-namespace", "tap1")
    finally:
        nodes.ok("hv1", "ovs-vsctl del-port tap1; ip netns del q1")


def test_a_port_names_the_flows_that_come_in_or_go_out_there(nodes: Explained) -> None:
    one = nodes.put("hv1", UDP, BRIDGE, OTHER)
    two = nodes.put("hv1", UDP.replace("2000", "2003"), f"trunc(100),{OTHER}")
    found = {flow["ufid"] for flow in nodes.data("hv1", "explain", "eth1")["flows"]}
    assert {one, two} <= found


def test_no_flow_is_left_unexplained_here_or_from_a_capture(nodes: Explained, tmp_path: Path) -> None:
    made = [nodes.made(key, actions, REP, before) for _, key, actions, before, _ in OPEN_VSWITCH]
    for _, _, port, key, actions, _ in DRIVER:
        made.append(nodes.made(key, actions, port, TUNNEL.format("") if port == VXLAN else ""))
    nodes.run("hv1", "\n".join(f"ovs-appctl dpctl/add-flow '{text}' '{actions}'" for _, text, actions in made))
    dumped = nodes.flows("hv1", kind="non-offloaded")
    live = {one["ufid"]: one["code"] for one in nodes.data("hv1", "explain")["flows"]}
    assert len(live) == len(dumped) > 20
    assert not {"tc.unexplained", "nic.unexplained"} & set(live.values())
    path = tmp_path / "capture.json"
    nodes.done("hv1", "capture", str(path))
    done = nodes.asap2("host", "explain", "--from", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert {one["ufid"]: one["code"] for one in answer(done.stdout)["flows"]} == live


def test_reasons_are_served_to_prometheus(nodes: Explained) -> None:
    nodes.put("hv1", UDP, f"trunc(100),{UPLINK}")
    text = nodes.done("hv1", "metrics", "--once")
    assert re.search(r'asap2_flows_not_offloaded\{reason="action.truncate"\} [1-9]', text)
    served = nodes.start("hv1", sys.executable, "-m", "asap2.cli.main", "host", "metrics", "--port", "9499")
    assert served.stdout is not None
    assert served.stdout.readline() == "serving http://127.0.0.1:9499/metrics\n"
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9499/metrics').read().decode())"
    nodes.ok("hv1", "ip link set lo up")
    scraped = nodes.ok("hv1", f'{sys.executable} -c "{ask}"')
    busy = nodes.host("hv1", "metrics", "--port", "9499")
    served.terminate()
    served.communicate(timeout=PATIENCE)
    names = re.compile(r"^(\w+)", re.MULTILINE)
    assert set(names.findall(scraped)) == set(names.findall(text))
    assert (busy.returncode, busy.stderr) == (1, "asap2: 127.0.0.1 port 9499: Address already in use\n")


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["nosuch"], 2, "asap2: 'nosuch' is neither a flow of the datapath nor a port of it"),
        (["in_port(3)"], 2, "is not a flow as `ovs-appctl dpctl/dump-flows -m` prints it"),
        (["--deep", "--from", "/nowhere"], 2, "asap2: --deep asks this host's switch, not a capture's"),
        (["--from", "/nowhere"], 1, "asap2: /nowhere: No such file or directory"),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_sentence(
    nodes: Explained, words: list[str], status: int, sentence: str
) -> None:
    done = nodes.host("hv1", "explain", *words)
    assert done.returncode == status
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.provokes("tc.unexplained", "tc.refused")
def test_what_nothing_tells_the_switch_is_asked_for(nodes: Explained) -> None:
    """With ``--deep`` it puts the flow in again with its debug log on, which is then as it was. The line that told the
    reason is gone with an older log."""
    quiet = "; ".join(f"ovs-appctl vlog/set {one}:file:info" for one in ("dpif_netlink", "netdev_offload_tc", "tc"))
    nodes.ok("hv2", quiet)
    ufid, text, actions = nodes.made(UDP, UPLINK)
    beyond = text.replace("recirc_id(0)", "recirc_id(0x10000001)")  # a chain's number has 28 bits
    nodes.ok("hv2", f"ovs-appctl dpctl/add-flow '{beyond}' '{actions}'; rm {LOG}; ovs-appctl vlog/reopen")
    before = nodes.ok("hv2", "ovs-appctl vlog/list; ovs-appctl dpctl/dump-flows -m")
    (found,) = nodes.reasons("hv2", ufid, "--no-trial").values()
    assert found["code"] == "tc.unexplained"
    (found,) = nodes.reasons("hv2", ufid, "--no-trial", "--deep").values()
    assert found["code"] == "tc.refused", (found, nodes.ok("hv2", f"tail -n 9 {LOG}"))
    assert "failed to offload flow: Invalid argument" in found["found"]
    assert nodes.ok("hv2", "ovs-appctl vlog/list; ovs-appctl dpctl/dump-flows -m") == before


@pytest.mark.provokes("nic.unexplained", "nic.hairpin")
def test_without_the_trial_of_its_rule_the_layer_is_named(nodes: Explained) -> None:
    ufid = nodes.put("hv1", UDP, REP)
    (found,) = nodes.reasons("hv1", ufid, "--no-trial").values()
    assert found["code"] == "nic.unexplained"
    assert nodes.reason("hv1", ufid)["code"] == "nic.hairpin"


FRAME = """
import socket
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
    sender.bind(("enp3s0f0v0", 0))
    sender.send(bytes.fromhex("020000000088020000000001") + (46).to_bytes(2, "big") + bytes(46))
"""
"""Sends a frame with a length in place of an Ethernet type (IEEE 802.2)."""


@pytest.mark.provokes("match.no-ethertype")
def test_rules_and_packets_of_a_guest(nodes: Explained) -> None:
    """Real rules and real packets: what goes to a controller, and a frame without an Ethernet type."""
    nodes.ok("hv1", "ip netns add g1; ip link set enp3s0f0v0 netns g1")
    nodes.ok("hv1", "ip -n g1 addr add 10.9.0.1/24 dev enp3s0f0v0; ip -n g1 link set enp3s0f0v0 up")
    nodes.ok("hv1", "ip -n g1 neigh add 10.9.0.2 lladdr 02:00:00:00:00:77 dev enp3s0f0v0")
    nodes.ok("hv1", "ovs-ofctl add-flow br-int priority=9,ip,nw_dst=10.9.0.2,actions=controller")
    nodes.run("hv1", "ip netns exec g1 ping -c 2 -i 0.1 -W 0.1 10.9.0.2")
    flows = nodes.reasons("hv1", "eth0").values()
    assert [one["code"] for one in flows if "dst=10.9.0.2" in one["flow"]] == ["action.controller"]
    nodes.ok("hv1", f"ip netns exec g1 {sys.executable} -c '{FRAME}'")
    nodes.flow("hv1", "dst=02:00:00:00:00:88", kind="non-offloaded")
    flows = nodes.reasons("hv1", "eth0").values()
    assert [one["code"] for one in flows if "dst=02:00:00:00:00:88" in one["flow"]] == ["match.no-ethertype"]


@pytest.mark.parametrize(
    ("code", "kind", "actions", "address"),
    [
        ("action.hash", 8, "group:1", "10.9.0.3"),
        ("action.ethernet", 15, f"decap(),encap(ethernet),output:{PF}", "10.9.0.4"),
    ],
)
def test_actions_that_the_nodes_datapath_has_not_either(
    nodes: Explained, code: str, kind: int, actions: str, address: str
) -> None:
    """So their flows are explained as the switch logged them."""
    nodes.ok("hv1", f"ip netns exec g1 ip neigh replace {address} lladdr 02:00:00:00:00:99 dev enp3s0f0v0")
    buckets = "".join(f",bucket=weight:{weight},output:{port}" for weight, port in ((1, PF), (2, "eth1")))
    group = f"'group_id=1,type=select,selection_method=dp_hash{buckets}'"
    nodes.run("hv1", f"ovs-ofctl -O OpenFlow15 add-group br-int {group}")
    nodes.ok("hv1", f"ovs-ofctl -O OpenFlow15 add-flow br-int 'priority=9,ip,nw_dst={address},actions={actions}'")
    nodes.run("hv1", f"ip netns exec g1 ping -c 2 -i 0.1 -W 0.1 {address}")
    put = re.compile(rf"unsupported put action type: {kind}\n(?:.*\n){{1,3}}?.*put\[\w+\] ufid:\S+ (.*actions:.*)\n")
    assert nodes.reason("hv1", nodes.log_with("hv1", put)[1])["code"] == code


# ---- the switch's settings; each starts the switch anew, so these come last


@pytest.mark.provokes("switch.skip-hw")
def test_a_policy_that_skips_hardware(nodes: Explained) -> None:
    nodes.ok(
        "hv2",
        "ovs-vsctl set Open_vSwitch . other_config:tc-policy=skip_hw && systemctl reset-failed openvswitch && "
        "systemctl restart openvswitch",
    )
    ufid = nodes.put("hv2", "eth_type(0x88cc)", UPLINK)
    assert nodes.reason("hv2", ufid)["code"] == "switch.skip-hw"


@pytest.mark.provokes("switch.skip-hw")
def test_a_policy_counts_from_the_switchs_start(nodes: Explained) -> None:
    """Until then it is in force however the database reads, and the flow's filter shows it."""
    nodes.ok("hv2", "ovs-vsctl remove Open_vSwitch . other_config tc-policy")
    found = nodes.reason("hv2", nodes.put("hv2", "eth_type(0x88cc)", UPLINK))
    assert found["code"] == "switch.skip-hw"
    assert "until the switch's next start" in found["found"]


@pytest.mark.provokes("switch.off")
def test_offload_that_is_off(nodes: Explained) -> None:
    """Open vSwitch 3.1 goes on offloading until its next start when it is unset, and begins at once when it is set."""
    nodes.ok(
        "hv2",
        "systemctl reset-failed openvswitch && "
        "systemctl restart openvswitch; ovs-vsctl remove Open_vSwitch . other_config hw-offload",
    )
    one = nodes.put("hv2", "eth_type(0x88cc)", UPLINK)
    assert nodes.reason("hv2", one)["code"] == "offloaded"
    nodes.ok("hv2", "systemctl reset-failed openvswitch && systemctl restart openvswitch")
    one = nodes.put("hv2", "eth_type(0x88cc)", UPLINK)
    assert nodes.reason("hv2", one)["code"] == "switch.off"
    nodes.ok("hv2", "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true")
    assert nodes.reason("hv2", one)["code"] == "taken-now"


@pytest.mark.provokes("nic.full")
def test_a_nic_that_is_full(nodes: Explained) -> None:
    rule = 'printf "filter add dev eth1 ingress protocol ip prio 9 flower skip_sw dst_ip 10.1.%d.%d action drop\\n"'
    nodes.ok("hv2", "devlink dev eswitch set pci/0000:03:00.0 inline-mode transport; ethtool -K eth1 hw-tc-offload on")
    fill = f"for b in $(seq 0 3); do for c in $(seq 0 255); do {rule} $b $c; done; done"
    nodes.ok("hv2", f"({fill}) > /run/fill && tc -b /run/fill")
    try:
        assert nodes.reason("hv2", nodes.put("hv2", "eth_type(0x88cc)", UPLINK))["code"] == "nic.full"
    finally:
        nodes.ok("hv2", "tc filter del dev eth1 ingress prio 9")


@pytest.mark.provokes("switch.userspace")
def test_a_userspace_bridge(nodes: Explained) -> None:
    nodes.ok("hv2", "ovs-vsctl add-br br-u -- set bridge br-u datapath_type=netdev")
    key = f"recirc_id(0),in_port(1),packet_type(ns=0,id=0),{ETH.format(1)},eth_type(0x88cc)"
    nodes.ok("hv2", f"ovs-appctl dpctl/add-flow netdev@ovs-netdev '{key}' 1")
    codes = [one["code"] for one in nodes.reasons("hv2").values()]
    nodes.ok("hv2", "ovs-vsctl del-br br-u")
    assert "switch.userspace" in codes


@pytest.mark.provokes("port.legacy")
def test_a_nic_in_legacy_mode(nodes: Explained) -> None:
    nodes.ok("hv2", "ovs-vsctl del-port eth0 -- del-port eth1")
    nodes.ok("hv2", "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true other_config:tc-policy=none")
    nodes.ok("hv2", f"echo 0 > /sys/class/net/{PF}/device/sriov_numvfs; ovs-appctl revalidator/purge")
    nodes.ok(
        "hv2",
        "devlink dev eswitch set pci/0000:03:00.0 mode legacy && systemctl reset-failed openvswitch && "
        "systemctl restart openvswitch",
    )
    shown = nodes.ok("hv2", "ovs-appctl dpctl/show system@ovs-system")
    numbers = {name: number for number, name in re.findall(r"port (\d+): (\S+)", shown)}
    found = nodes.provoked("hv2", "eth_type(0x88cc)", numbers["v0"], numbers[PF])
    assert (found["code"], found["found"]) == ("port.legacy", f"{PF}: legacy")


def test_without_a_switch_there_is_nothing_to_explain(nodes: Explained) -> None:
    nodes.ok("hv2", "systemctl stop openvswitch")
    done = nodes.host("hv2", "explain")
    assert done.returncode == 1
    assert done.stderr.startswith("asap2: Open vSwitch is not running")
