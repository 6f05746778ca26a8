# SPDX-License-Identifier: Apache-2.0
"""Hostile guests and nonsensical rules: others lose nothing, each frame is accounted for, nonsense is refused."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.nic.silicon.abi import UPCALL_SLOTS
from tests.system.offload.conftest import PF
from tests.system.offload.floods import Flood, Receiver, frame
from tests.system.offload.labs import IPV4, Bench, packets_of, until
from tests.system.patience import PATIENCE

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]
vfs = 4
mode = "switchdev"
[[node.nic]]
vfs = 2
mode = "switchdev"

[[node]]
name = "hv2"
[[node.nic]]
vfs = 4
mode = "switchdev"

[[node]]
name = "hv3"
[[node.nic]]
model = "ConnectX-4 Lx"
rules = 1024
vfs = 2
mode = "switchdev"

[[cable]]
ends = ["hv1/nic0", "hv2/nic0"]
""" + "".join(
    f"""
[[guest]]
name = "vm{number}"
node = "{node}"
nic = "nic0"
vf = {vf}
mac = "02:00:00:00:01:0{number}"
address = "10.58.0.{number}/24"
"""
    for number, node, vf in ((1, "hv1", 1), (2, "hv2", 1), (3, "hv1", 2), (4, "hv1", 3))
)
ATTACKER = "02:00:00:00:01:03"
FRAMES, RATE = 60_000, 33_000
HOSTILE = Path(__file__).with_name("hostile.py")


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """vm1 and vm2 talk across the cable by offloaded flows; vm3 is hostile, vm4 its neighbour."""
    with Bench.running(TOPOLOGY) as bench:
        for node, ports in (("hv1", (PF, "eth1")), ("hv2", (PF, "eth1"))):
            bench.switch(node)
            bench.ok(node, "ovs-vsctl add-br br0")
            for port in ports:
                bench.ok(node, f"ovs-vsctl add-port br0 {port} && ip link set {port} up")
        bench.ok("hv1", "ip link set eth2 up && ip link set eth3 up && ip link set enp4s0f0 up")
        bench.ping("vm1", "10.58.0.2", 3, "-i 0.3")
        yield bench


def attack(bench: Bench, seed: int) -> dict[str, int]:
    """vm3 sends; meanwhile vm1 and vm2 lose nothing. What was sent."""
    bench.ping("vm1", "10.58.0.2", 3)
    bench.ok("hv1", "ovs-appctl revalidator/wait")
    before = packets_of(bench.flow("hv1", "in_port(eth1)", IPV4))
    with bench.start(
        "vm3", "/usr/bin/python3", str(HOSTILE), "eth0", ATTACKER, str(FRAMES), str(seed), str(RATE)
    ) as attacker:
        bench.ping("vm1", "10.58.0.2", 250)
        out, error = attacker.communicate(timeout=PATIENCE)
    assert not error
    after = bench.flow("hv1", "in_port(eth1)", IPV4)
    assert "offloaded:yes" in after
    assert packets_of(after) == before + 250
    sent: dict[str, int] = json.loads(out)
    assert sent["total"] > FRAMES * 0.9
    return sent


def counted(bench: Bench, node: str = "hv1", device: str = "eth2") -> list[int]:
    """Packets that each filter has counted."""
    shown = bench.ok(node, f"tc -s filter show dev {device} ingress")
    return [int(n) for n in re.findall(r"Sent hardware \d+ bytes (\d+) pkt", shown)]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_frame_of_a_hostile_guest_is_dropped_or_forwarded_as_the_rules_say(lab: Bench, seed: int) -> None:
    daemon = lab.daemon("hv1")
    lab.ok("hv1", "tc qdisc add dev eth2 ingress")
    try:
        add = "tc filter add dev eth2 ingress protocol all"
        lab.ok("hv1", f"{add} prio 1 flower skip_sw src_mac {ATTACKER} action mirred egress redirect dev eth3")
        lab.ok("hv1", f"{add} prio 2 flower skip_sw action drop")
        received = int(lab.ok("vm4", "cat /sys/class/net/eth0/statistics/rx_packets"))
        sent = attack(lab, seed)
        assert counted(lab) == [sent["own"], sent["spoofed"]]
        assert int(lab.ok("vm4", "cat /sys/class/net/eth0/statistics/rx_packets")) == received + sent["own"]
    finally:
        lab.ok("hv1", "tc qdisc del dev eth2 ingress")
    assert lab.daemon("hv1") == daemon


def test_frames_that_look_like_tunnels_do_not_disturb_the_wire(lab: Bench) -> None:
    """All that vm3 sends goes across the cable, where hv2 looks into tunnels."""
    lab.ok("hv1", "tc qdisc add dev eth2 ingress")
    lab.ok(
        "hv2", "ip link add vx9 type vxlan external dstport 4789 && ip link set vx9 up && tc qdisc add dev vx9 ingress"
    )
    try:
        lab.ok(
            "hv1", f"tc filter add dev eth2 ingress protocol all flower skip_sw action mirred egress redirect dev {PF}"
        )
        lab.ok(
            "hv2",
            "tc filter add dev vx9 ingress protocol ip flower enc_key_id 77 enc_dst_ip 10.58.0.2 enc_dst_port 4789 "
            "ip_proto udp dst_port 4789 action tunnel_key unset action mirred egress redirect dev eth2",
        )
        sent = attack(lab, 3)
        assert counted(lab) == [sent["total"]]
        assert 0 < counted(lab, "hv2", "vx9")[0] < sent["total"]
    finally:
        lab.ok("hv1", "tc qdisc del dev eth2 ingress")
        lab.ok("hv2", "ip link del vx9")


def test_open_vswitch_bears_it(lab: Bench) -> None:
    """The port's own address and no other may send: OpenFlow rules drop the rest and count it."""
    lab.ok("hv1", "ovs-vsctl add-port br0 eth2")
    daemon = lab.daemon("hv1")
    try:
        lab.ok("hv1", f"ovs-ofctl add-flow br0 cookie=7,priority=50,in_port=eth2,dl_src={ATTACKER},actions=drop")
        lab.ok("hv1", "ovs-ofctl add-flow br0 cookie=7,priority=40,in_port=eth2,actions=drop")
        attack(lab, 4)

        def dropped() -> int:
            shown = lab.ok("hv1", "ovs-ofctl dump-flows br0 in_port=eth2")
            return sum(map(int, re.findall(r"n_packets=(\d+)", shown)))

        until(lambda: dropped() > FRAMES // 2, why="Open vSwitch has not counted what it dropped")
    finally:
        # The port first: frames that still wait for Open vSwitch would teach it, without the rules, where vm1 is not.
        lab.ok("hv1", "ovs-vsctl del-port eth2 && ovs-ofctl del-flows br0 cookie=7/-1")
        lab.run("hv1", "tc qdisc del dev eth2 ingress")
    assert lab.daemon("hv1") == daemon
    lab.ping("vm1", "10.58.0.2", 20)


ONE_BY_ONE = "multipath(symmetric_l3l4+udp,0,modulo_n,1,0,NXM_NX_REG0[0..7])"
"""To choose a path by the hash of addresses and ports, Open vSwitch looks at them: so each datagram is a new flow."""
_UPCALLS = """
from asap2.netlink.client import Connection, genl_family
from asap2.netlink.tables.ovs import VPORT_ATTRS
connection = Connection(16)
datapath = open("/sys/class/net/ovs-system/ifindex").read()
header = bytes((3, 1, 0, 0)) + int(datapath).to_bytes(4, "little")
for message in connection.request(genl_family(connection, "ovs_vport").id, 0x300, header):
    port = VPORT_ATTRS.decode(message.payload, 8)
    print(port["name"], port["upcall_stats"]["success"], port["upcall_stats"]["fail"])
"""


def upcalls(bench: Bench) -> dict[str, tuple[int, int]]:
    """Of each port of hv1's datapath, upcalls that Open vSwitch got, and that it did not."""
    lines = bench.ok("hv1", f"{sys.executable} - <<'E'\n{_UPCALLS}\nE").splitlines()
    return {name: (int(success), int(fail)) for name, success, fail in map(str.split, lines)}


def lost(bench: Bench) -> int:
    """Upcalls that Open vSwitch did not get, by its own figure for the datapath."""
    found = re.search(r"lost:(\d+)", bench.ok("hv1", "ovs-appctl dpctl/show"))
    assert found
    return int(found[1])


@pytest.fixture
def flooded(lab: Bench) -> Iterator[Bench]:
    """vm3 and vm4 are joined too, and a datagram of vm3's to vm4, or of vm1's to vm2, is a flow of its own."""
    lab.ok("hv1", "ovs-vsctl add-port br0 eth2 -- add-port br0 eth3")
    add = "ovs-ofctl add-flow br0 cookie=9,priority=60"
    lab.ok("hv1", f"{add},in_port=eth2,udp,'actions={ONE_BY_ONE},output:eth3'")
    lab.ok("hv1", f"{add},in_port=eth1,udp,'actions={ONE_BY_ONE},output:{PF}'")
    lab.ping("vm1", "10.58.0.2", 2, "-i 0.01")
    yield lab
    lab.ok("hv1", "ovs-ofctl del-flows br0 cookie=9/-1 && ovs-vsctl del-port eth2 -- del-port eth3")
    lab.ok("hv1", "ovs-appctl revalidator/purge")
    for port in ("eth2", "eth3"):
        lab.run("hv1", f"tc qdisc del dev {port} ingress")


class Accounts:
    """What became of the datagrams that vm3 sends to vm4."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._receiver = Receiver(bench, 4)
        self._before, self._lost = upcalls(bench), lost(bench)
        self.arrived = self.counted = 0

    def complete(self, sent: int) -> None:
        """Wait until each of those *sent* has arrived or is counted as lost, at its port and in all, nowhere else."""

        def all_accounted_for() -> bool:
            self.arrived += self._receiver.waiting()
            self.counted = upcalls(self._bench)["eth2"][1] - self._before["eth2"][1]
            return self.arrived + self.counted == sent

        until(all_accounted_for, why="some have neither arrived nor been counted")
        self._receiver.close()
        after = upcalls(self._bench)
        assert after["eth2"][0] - self._before["eth2"][0] == self.arrived
        assert after["eth1"][1] == self._before["eth1"][1]
        assert lost(self._bench) - self._lost == self.counted


def test_a_flood_of_new_flows_costs_others_none_and_each_lost_one_is_counted(flooded: Bench) -> None:
    accounts, victim = Accounts(flooded), Receiver(flooded, 2)
    with (
        flooded.socket("vm1", socket.AF_PACKET, socket.SOCK_RAW, ("eth0", 0)) as sender,
        Flood(flooded, 3, 4) as flood,
    ):
        for number in range(30):
            sender.send(frame(1, 2, number))
            assert victim.one() == number
    victim.close()
    accounts.complete(flood.sent)


def test_while_the_switch_stands_still_each_port_has_its_share_of_what_waits(flooded: Bench) -> None:
    accounts, victim = Accounts(flooded), Receiver(flooded, 2)
    signal = "kill -{} $(cat /var/run/openvswitch/ovs-vswitchd.pid)"
    flooded.ok("hv1", signal.format("STOP"))
    try:
        with flooded.socket("vm3", socket.AF_PACKET, socket.SOCK_RAW, ("eth0", 0)) as sender:
            for number in range(10_000):
                sender.send(frame(3, 4, number))
        with flooded.socket("vm1", socket.AF_PACKET, socket.SOCK_RAW, ("eth0", 0)) as sender:
            for number in range(30, 60):
                sender.send(frame(1, 2, number))
    finally:
        flooded.ok("hv1", signal.format("CONT"))
    assert sorted(victim.one() for _ in range(30)) == list(range(30, 60))
    victim.close()
    accounts.complete(10_000)
    assert accounts.counted > 10_000 - UPCALL_SLOTS
    assert accounts.arrived > 500


def test_a_hostile_guest_costs_an_established_ping_nothing_where_the_bridge_learns(lab: Bench) -> None:
    """All that vm3 sends is for Open vSwitch, which learns its addresses: its own, broadcast, and a thousand more."""
    lab.ok("hv1", "ovs-vsctl add-port br0 eth2 -- add-port br0 eth3")
    daemon = lab.daemon("hv1")
    try:
        lab.ping("vm1", "10.58.0.2", 3, "-i 0.01")
        words = ("eth0", ATTACKER, str(FRAMES), "5", str(RATE), "learn")
        with lab.start("vm3", "/usr/bin/python3", str(HOSTILE), *words) as attacker:
            lab.ping("vm1", "10.58.0.2", 250)
            out, error = attacker.communicate(timeout=PATIENCE)
        assert not error
        assert json.loads(out)["total"] > FRAMES * 0.9
    finally:
        lab.ok("hv1", "ovs-vsctl del-port eth2 -- del-port eth3")
        for port in ("eth2", "eth3"):
            lab.run("hv1", f"tc qdisc del dev {port} ingress")
        lab.ok("hv1", "ovs-appctl revalidator/purge && ovs-appctl fdb/flush br0")
        lab.ok("hv2", "ovs-appctl revalidator/purge && ovs-appctl fdb/flush br0")
    assert lab.daemon("hv1") == daemon


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("protocol ip flower skip_sw action mirred egress redirect dev eth4", "devices are not on same switch HW"),
        ("protocol ip flower skip_sw action mirred egress redirect dev enp4s0f0", "devices are not on same switch HW"),
        ("protocol ip flower skip_sw action mirred egress redirect dev eth2", "can't forward from a VF to itself"),
        ("protocol ip flower skip_sw action goto chain 268435456", "chain"),
    ],
)
def test_a_rule_that_leads_nowhere_is_refused(lab: Bench, rule: str, error: str) -> None:
    lab.ok("hv1", "tc qdisc add dev eth2 ingress")
    try:
        done = lab.run("hv1", f"tc filter add dev eth2 ingress {rule}")
        assert done.returncode
        assert error in done.stderr
        assert not lab.ok("hv1", "tc filter show dev eth2 ingress").strip()
    finally:
        lab.ok("hv1", "tc qdisc del dev eth2 ingress")


def test_a_key_that_contradicts_itself_matches_nothing(lab: Bench) -> None:
    """A first fragment that is no fragment: the kernel takes it, the NIC's driver does not."""
    lab.ok("hv1", "tc qdisc add dev eth2 ingress")
    try:
        add = "tc filter add dev eth2 ingress prio 1 protocol ip flower"
        refused = lab.run("hv1", f"{add} skip_sw ip_flags nofrag/firstfrag action drop")
        assert "mlx5_core: Match on frag first/later is not supported" in refused.stderr
        lab.ok("hv1", f"{add} ip_flags nofrag/firstfrag action drop")
        lab.ok("hv1", "tc filter add dev eth2 ingress prio 2 protocol ip flower skip_hw action drop")
        lab.ok("vm3", "ip neigh replace 10.58.0.9 lladdr 02:00:00:00:00:09 dev eth0")
        lab.run("vm3", "ping -c 3 -i 0.01 -W 0.1 10.58.0.9")
        shown = lab.ok("hv1", "tc -s filter show dev eth2 ingress")
        assert re.findall(r"Sent \d+ bytes (\d+) pkt", shown) == ["0", "3"]
    finally:
        lab.ok("hv1", "tc qdisc del dev eth2 ingress")


def test_a_full_table_says_so_and_software_takes_the_rest(lab: Bench) -> None:
    lab.ok("hv3", "devlink dev eswitch set pci/0000:03:00.0 inline-mode transport")
    lab.ok("hv3", "tc qdisc add dev eth0 ingress && ethtool -K enp3s0f0 hw-tc-offload on")
    rule = 'printf "filter add dev eth0 ingress protocol ip prio 1 flower skip_sw dst_ip 10.1.%d.%d action drop\\n"'
    fill = f"for b in $(seq 0 3); do for c in $(seq 0 255); do {rule} $b $c; done; done"
    lab.ok("hv3", f"({fill}) > /run/fill && tc -b /run/fill")
    try:
        add = "tc filter add dev eth0 ingress protocol ip prio 1 flower"
        refused = lab.run("hv3", f"{add} skip_sw dst_ip 10.2.0.0 action drop")
        assert "No space left on device" in refused.stderr
        lab.ok("hv3", f"{add} dst_ip 10.2.0.0 action drop")
        shown = lab.ok("hv3", "tc filter get dev eth0 ingress protocol ip prio 1 handle 0x401 flower")
        assert "not_in_hw" in shown
    finally:
        lab.ok("hv3", "tc qdisc del dev eth0 ingress")
    lab.ok("hv3", "tc qdisc add dev eth0 ingress && tc qdisc del dev eth0 ingress")
