# SPDX-License-Identifier: Apache-2.0
"""What tests do in a lab, by the fixture that users have."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.testing import CommandError, Lab
from asap2.testing.node import SERVICES
from tests.system.offload.labs import until

pytestmark = pytest.mark.asap2_topology("one-node")
IPV4 = "eth_type(0x0800)"
SMALL = '[[node]]\nname = "hv1"\nopenvswitch = false\n[[node.nic]]\nrules = 256\n'


@pytest.fixture(scope="module")
def bridged(asap2_module_lab: Lab) -> Lab:
    """The lab with a bridge that offloads."""
    asap2_module_lab.node("hv1").add_bridge("br0")
    return asap2_module_lab


@pytest.fixture
def lab(bridged: Lab) -> Iterator[Lab]:
    """The same, with no rule and no flow of another test."""
    yield bridged
    node = bridged.node("hv1")
    node.run("ovs-ofctl del-flows br0; ovs-ofctl add-flow br0 priority=0,actions=normal; ovs-appctl fdb/flush br0")
    node.forget_flows()


class TestCommands:
    def test_have_their_output_and_status(self, lab: Lab) -> None:
        result = lab.guest("vm1").run("hostname; echo oops >&2; exit 3", check=False)
        assert (result.stdout, result.stderr, result.returncode) == ("vm1\n", "oops\n", 3)
        assert lab.node("hv1").run(["cat"], input="a b").stdout == "a b"
        assert lab["hv1"].run("echo $A", env={"A": "1"}).stdout == "1\n"

    def test_raise_what_they_said_when_they_fail(self, lab: Lab) -> None:
        with pytest.raises(CommandError) as raised:
            lab.guest("vm2").run(["ls", "/none such"])
        assert str(raised.value) == (
            "vm2# ls '/none such'\nls: cannot access '/none such': No such file or directory\n(exit status 2)"
        )

    def test_that_take_too_long_are_killed_with_all_they_started(self, lab: Lab) -> None:
        with pytest.raises(subprocess.TimeoutExpired):
            lab.guest("vm1").run("sleep 4321 & sleep 1234", timeout=0.1)
        assert lab.guest("vm1").run("pgrep -f 'sleep (4321|1234)'", check=False).stdout == ""

    def test_in_the_background_end_with_the_block(self, lab: Lab) -> None:
        with lab.guest("vm2").running("iperf3 -s", until="listening") as server:
            assert "receiver" in lab.guest("vm1").run("iperf3 -c 10.57.0.2 -n 1K").stdout
        assert server.process.returncode == -signal.SIGKILL

    def test_know_their_lab_and_get_what_is_added_to_the_environment(self, lab: Lab) -> None:
        node, line = lab.node("hv1"), 'echo "<$ASAP2_LAB $A>"'
        said = f"<{lab.root} 1>"
        assert node.run(line, env={"A": "1"}).stdout == f"{said}\n"
        with node.start(line, env={"A": "1"}) as process:
            assert process.communicate()[0] == f"{said}\n"
        with node.running(line, until=re.escape(said), env={"A": "1"}):
            pass

    def test_of_unknown_places_name_those_that_there_are(self, lab: Lab) -> None:
        with pytest.raises(LookupError, match="no node 'hv3'; it has hv1"):
            lab.node("hv3")
        with pytest.raises(LookupError, match="no node or guest 'vm9'; it has hv1, vm1, vm2"):
            lab["vm9"]


def test_only_the_first_packets_reach_the_host(lab: Lab) -> None:
    node, vm1, vm2 = lab.node("hv1"), lab.guest("vm1"), lab.guest("vm2")
    representor = node.representor("vm1")
    assert representor == node.representor(0)
    with node.capture(representor, "icmp[icmptype] == icmp-echo") as first:
        assert vm1.ping(vm2, 1).received == 1
        first.wait_for(1)
    assert [packet.outgoing for packet in first.packets] == [False]
    assert "ICMP echo request" in str(first)
    node.wait_for_flow(IPV4, in_port=representor)
    node.assert_offloaded(IPV4)
    assert [flow.in_port for flow in node.flows(IPV4, in_port=representor, offloaded=True)] == [representor]
    assert node.flows(IPV4, offloaded=False) == []
    before = node.counters(representor)
    with node.capture(representor, "icmp") as later, vm2.capture(vm2.device, "icmp") as arrived:
        vm1.ping(vm2, 20)
    assert (len(later.packets), len(arrived.packets)) == (0, 40)
    counted = node.counters(representor) - before
    assert (counted.rx_packets, counted.hardware_rx_packets, counted.hardware_tx_packets) == (20, 20, 20)


def test_a_capture_is_a_pcap_file_and_has_tags(lab: Lab, tmp_path: Path) -> None:
    node, vm1 = lab.node("hv1"), lab.guest("vm1")
    vm1.run("ip link add eth0.7 link eth0 type vlan id 7; ip link set eth0.7 up; ip addr add 10.7.0.1/24 dev eth0.7")
    try:
        with node.capture(node.representor("vm1")) as capture:
            vm1.run("ping -c 1 -W 1 10.7.0.2", check=False)
            capture.wait_for(1)
    finally:
        vm1.run("ip link del eth0.7")
    assert capture.packets[0].data[12:18].hex() == "810000070806"
    capture.save(tmp_path / "arp.pcap")
    shown = subprocess.run(["tcpdump", "-enr", tmp_path / "arp.pcap"], capture_output=True, text=True, check=True)
    assert "vlan 7" in shown.stdout
    with pytest.raises(AssertionError, match=r"0 packets passed eth0 in vm1 within 0 s, not 1:\n\(no packets\)"):  # noqa: SIM117
        with vm1.capture("eth0", "port 9") as none:
            none.wait_for(1, timeout=0)


def test_a_flow_that_is_not_offloaded_has_its_reason(lab: Lab) -> None:
    node = lab.node("hv1")
    node.run("ovs-ofctl add-flow br0 in_port=eth0,icmp,actions=controller,normal")
    lab.guest("vm1").ping(lab.guest("vm2"))
    port = node.representor("vm1")
    [reason] = node.assert_not_offloaded(IPV4, in_port=port, reason="action.controller")
    assert reason.code in str(reason)
    with pytest.raises(AssertionError) as raised:
        node.assert_offloaded(IPV4, timeout=0)
    said = str(raised.value)
    assert said.startswith("hv1 must have a flow with eth_type(0x0800), and every such flow offloaded, after 0 s.\n")
    assert "  in software  recirc_id(0),in_port(eth0)" in said
    assert "      action.controller: the packets go to the OpenFlow controller" in said
    assert "action.controller" in lab.report()
    with pytest.raises(AssertionError, match=r"hv1 has no flow from eth0 with eth_type.* that has counted 99 packets"):
        node.wait_for_flow(IPV4, in_port=port, offloaded=None, packets=99, timeout=0)
    with pytest.raises(AssertionError, match=r"the reason must be nic\.match; .*\naction\.controller"):
        node.assert_not_offloaded(IPV4, in_port=port, reason="nic.match")


def test_connections_are_read(lab: Lab) -> None:
    node = lab.node("hv1")
    node.run(
        "ovs-ofctl add-flow br0 'priority=2,icmp,ct_state=-trk,actions=ct(table=0,zone=5)'; "
        "ovs-ofctl add-flow br0 'priority=1,icmp,actions=ct(commit,zone=5),normal'"
    )
    lab.guest("vm1").ping(lab.guest("vm2"))
    [connection] = node.connections("zone=5")
    assert (connection.protocol, connection.original["src"], connection.reply["src"]) == (
        "icmp", "10.57.0.1", "10.57.0.2",
    )  # fmt: skip
    assert node.connections(offloaded=True) == []


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_killed_is_restarted(lab: Lab, service: str) -> None:
    node = lab.node("hv1")
    killed = node.kill(service)
    assert node.wait_for_restart(service, killed) != killed
    node.restart()
    lab.guest("vm1").ping(lab.guest("vm2"))


def test_nothing_is_left_of_the_lab_of_a_process_that_was_killed() -> None:
    script = (
        "import asap2.testing, sys, time\n"
        "with asap2.testing.lab(sys.argv[1]) as lab:\n"
        "    print(lab.root, flush=True)\n"
        "    time.sleep(999)"
    )
    with subprocess.Popen([sys.executable, "-c", script, SMALL], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        root = Path(owner.stdout.readline().strip())
        assert (root / "nodes" / "hv1").is_dir()
        owner.kill()
    until(lambda: not root.exists())
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
