# SPDX-License-Identifier: Apache-2.0
"""Guests of two hypervisors joined by a tunnel of Open vSwitch."""

from __future__ import annotations

import re

from tests.system.offload.conftest import PCI, PF, VFS
from tests.system.offload.labs import Bench, until

ADDRESSES = {"vm1": "10.58.0.1", "vm2": "10.58.0.2"}
"""The guests' in the overlay."""
NODES = {"hv1": 1, "hv2": 2}


def join(bench: Bench, underlay: str, kind: str = "vxlan") -> None:
    """A guest on VF 3 of each hypervisor; the tunnel's ends are *underlay* with the hypervisor's number in it, and its
    type is *kind*."""
    for node, number in NODES.items():
        guest = f"vm{number}"
        bench.ok(node, f"echo {VFS} > /sys/class/net/{PF}/device/sriov_numvfs")
        bench.ok(node, f"devlink dev eswitch set pci/{PCI} mode switchdev && ethtool -K {PF} hw-tc-offload on")
        bench.ok(node, f"ip link set {PF} mtu 1600 up && ip link set eth3 up")
        bench.ok(node, "systemctl start openvswitch")
        bench.switch(node)
        bench.ok(
            node,
            "ovs-vsctl add-br br-int -- add-port br-int eth3 -- add-port br-int vx0 -- "
            f"set interface vx0 type={kind} options:remote_ip={underlay.format(3 - number)} options:key=77",
        )
        bench.ok(node, f"ip link set {PF}v3 netns {guest}")
        bench.ok(guest, f"ip link set {PF}v3 name eth0 && ip addr add {ADDRESSES[guest]}/24 dev eth0")
        bench.ok(guest, "ip link set eth0 mtu 1430 up")


EACH_OFFLOADS_OR_NOT = [(True, True), (True, False), (False, False), (False, True)]
"""In an order in which one of two is restarted for the next."""


def join_uplinks(bench: Bench, kind: str = "vxlan") -> None:
    """As :func:`join`; the tunnel's ends are the uplinks' addresses."""
    join(bench, "172.16.0.{}", kind)
    for node, number in NODES.items():
        bench.ok(node, f"ip addr add 172.16.0.{number}/24 dev {PF}")


def offloading(bench: Bench, first: bool = True, second: bool = True) -> Bench:
    """The lab, with hv1 and hv2 offloading as asked for."""
    bench.switched("hv1", offload=first)
    bench.switched("hv2", offload=second)
    return bench


def tcp_crosses(bench: Bench) -> None:
    """A ping without loss, then TCP both ways."""
    bench.ping("vm1", "10.58.0.2", 3, "-i 0.2")
    for client, server in (("vm1", "vm2"), ("vm2", "vm1")):
        send_tcp(bench, client, server)


def send_tcp(bench: Bench, client: str, server: str, amount: str = "30M", address: str = "") -> None:
    """Send *amount* of octets over one TCP connection, to the server's *address* (in the overlay where not given)."""
    with bench.start(server, "timeout", "120", "iperf3", "-s", "-1") as listening:
        until(lambda: ":5201" in bench.ok(server, "ss -ltn"))
        done = bench.run(client, f"timeout 60 iperf3 -c {address or ADDRESSES[server]} -n {amount}")
        if done.returncode:
            listening.terminate()
        listening.communicate()
    assert re.search(r"receiver", done.stdout), done.stdout + done.stderr
