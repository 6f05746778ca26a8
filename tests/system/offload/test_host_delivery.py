# SPDX-License-Identifier: Apache-2.0
"""Packets from hardware for an internal port of Open vSwitch arrive, whatever the uplink is used for and in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.system.offload.conftest import PF
from tests.system.offload.labs import IPV4, Bench, packets_of, until
from tests.system.patience import PATIENCE

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]
vfs = 2
mode = "switchdev"

[[node]]
name = "hv2"
[[node.nic]]
vfs = 1
mode = "switchdev"

[[cable]]
ends = ["hv1/nic0", "hv2/nic0"]

[[guest]]
name = "vm1"
node = "hv1"
vf = 0
address = "10.57.0.1/24"

[[guest]]
name = "vm2"
node = "hv1"
vf = 1
address = "10.57.0.2/24"

[[guest]]
name = "vm3"
node = "hv2"
vf = 0
address = "10.57.0.3/24"
"""
HOSTS = {"hv1": "10.57.0.101", "hv2": "10.57.0.102"}
"""Addresses on the internal port br0 of each hypervisor."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """A bridge of guests, the host and a tunnel on each hypervisor; the uplinks are the tunnel's ends, in no bridge."""
    with Bench.running(TOPOLOGY) as bench:
        for number, (node, address) in enumerate(HOSTS.items(), 1):
            bench.switch(node)
            bench.ok(
                node,
                "ovs-vsctl add-br br0 -- add-port br0 eth0 -- add-port br0 vx0 -- "
                f"set interface vx0 type=vxlan options:remote_ip=172.16.0.{3 - number} options:key=77",
            )
            bench.ok(node, f"ip link set eth0 up && ip addr add {address}/24 dev br0 && ip link set br0 up mtu 1400")
            bench.ok(node, f"ip addr add 172.16.0.{number}/24 dev {PF} && ip link set {PF} up")
        bench.ok("hv1", "ovs-vsctl add-port br0 eth1 && ip link set eth1 up")
        yield bench


def _pull(lab: Bench) -> None:
    _cable(lab, "down")


def _plug(lab: Bench) -> None:
    _cable(lab, "up")


def _cable(lab: Bench, state: str) -> None:
    """The silicon's end of the cable; the uplink has carrier, or not."""
    subprocess.run(["nsenter", f"--net={lab.root}/nodes/hv1/nics/0/net", "ip", "link", "set", "p0", state], check=True)
    until(lambda: ("LOWER_UP" in lab.ok("hv1", f"ip link show {PF}")) == (state == "up"))


def _kill(lab: Bench) -> None:
    process = lab.kill_daemon("hv1")
    until(lambda: lab.daemon("hv1") not in (0, process))


def _does(command: str) -> Callable[[Bench], object]:
    return lambda lab: lab.ok("hv1", command)


_BRIDGE, _NO_BRIDGE = f"ovs-vsctl add-br br-ex -- add-port br-ex {PF}", "ovs-vsctl del-br br-ex"
_NO_QDISC = f"tc qdisc del dev {PF} ingress"
_QDISC = f"{_NO_QDISC}; tc qdisc add dev {PF} ingress"
_NOTHING = _does("true")

STATES: dict[str, tuple[Callable[[Bench], object], Callable[[Bench], object]]] = {
    "as it is": (_NOTHING, _NOTHING),
    "down": (_does(f"ip link set {PF} down"), _does(f"ip link set {PF} up")),
    "without carrier": (_pull, _plug),
    "in a bridge": (_does(_BRIDGE), _does(_NO_BRIDGE)),
    "once in a bridge": (_does(f"{_BRIDGE}; {_NO_BRIDGE}"), _NOTHING),
    "with a qdisc": (_does(_QDISC), _does(_NO_QDISC)),
    "once with a qdisc": (_does(f"{_QDISC}; {_NO_QDISC}"), _NOTHING),
    "after the daemon's death": (_kill, _NOTHING),
}


@pytest.mark.parametrize("uplink", STATES)
def test_a_guests_packets_reach_the_host_whatever_the_uplink_is_in(lab: Bench, uplink: str) -> None:
    begin, end = STATES[uplink]
    begin(lab)
    try:
        lab.ping("vm1", HOSTS["hv1"], 3, "-i 0.1")
        lab.counted("vm1", HOSTS["hv1"], 20, ("hv1", "in_port(eth0)", IPV4, "actions:br0"))
    finally:
        end(lab)


def test_what_comes_out_of_a_tunnel_reaches_the_host_by_hardware(lab: Bench) -> None:
    for where in ("vm3", "hv2"):
        lab.ping(where, HOSTS["hv1"], 3, "-i 0.1")
        before = lab.flows("hv1", "in_port(vxlan_sys_4789)", IPV4)
        lab.ping(where, HOSTS["hv1"], 20)
        after = lab.flows("hv1", "in_port(vxlan_sys_4789)", IPV4)
        assert sum(map(packets_of, after)) == sum(map(packets_of, before)) + 20


def test_the_host_reaches_guests_here_and_beyond_the_tunnel(lab: Bench) -> None:
    for address in ("10.57.0.1", "10.57.0.2", "10.57.0.3", HOSTS["hv2"]):
        lab.ping("hv1", address, 3, "-i 0.1")
        lab.ping("hv1", address, 20)


def test_the_uplink_takes_a_packet_for_another_for_what_it_is(lab: Bench) -> None:
    """Hardware hands it over as if it were for the uplink; the stack does not answer it."""
    lab.ok("hv1", f"ip neigh replace 172.16.0.2 lladdr 02:00:00:00:00:99 dev {PF} nud permanent")
    seen = lab.start("hv2", "timeout", "60", "tcpdump", "-c1", "-lnei", PF, "ether dst 02:00:00:00:00:99")
    try:
        assert seen.stderr
        until(lambda: "listening" in (seen.stderr.readline() if seen.stderr else ""))
        assert "0 received" in lab.run("hv1", "ping -c 1 -W 1 172.16.0.2").stdout
        assert "172.16.0.1 > 172.16.0.2" in seen.communicate(timeout=PATIENCE)[0]
    finally:
        lab.ok("hv1", f"ip neigh del 172.16.0.2 dev {PF}")
