# SPDX-License-Identifier: Apache-2.0
"""Nodes for tests of ``asap2 host explain``: flows put into their datapaths, and what is said of them."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.schemas import answer
from tests.system.host.conftest import PF, Hosts
from tests.system.offload.labs import until

TOPOLOGY = """
[[node]]
name = "hv1"
[[node.nic]]

[[node]]
name = "hv2"
[[node.nic]]
model = "ConnectX-4 Lx"
rules = 1024
"""
LOG = "/var/log/openvswitch/ovs-vswitchd.log"
REP, UPLINK, BRIDGE, OTHER, VETH, VXLAN = "3", "2", "1", "4", "5", "6"
"""Numbers of the datapath's ports, in the order in which they are added."""
ETH = "eth(src=fa:16:3e:b9:b8:ce,dst=02:00:00:00:00:{:02x})"
SLOW_REVALIDATOR = "ovs-vsctl set Open_vSwitch . other_config:max-revalidator=1000000 other_config:max-idle=1000000"
"""So that flows that no rule asks for stay."""


def ipv4(proto: int, frag: str = "no", ttl: str = "0/0") -> str:
    return f"eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto={proto},tos=0/0,ttl={ttl},frag={frag})"


def ipv6(proto: int, frag: str = "no", label: str = "0/0") -> str:
    rest = f"proto={proto},tclass=0/0,hlimit=0/0,frag={frag}"
    return f"eth_type(0x86dd),ipv6(src=2001:db8::1,dst=2001:db8::2,label={label},{rest})"


UDP = f"{ipv4(17)},udp(src=1000,dst=2000)"
TCP = f"{ipv4(6)},tcp(src=0/0,dst=0/0),tcp_flags(0/0)"
ENCAP = "tunnel(tun_id=0x1,src=192.0.2.1,dst=192.0.2.9,ttl=64,tp_dst=4789,flags(key))"
TAGGED = f"eth_type(0x8100),vlan(vid=0/0,pcp=0/0),encap({UDP})"


class Explained(Hosts):
    """The lab, with flows put into its datapaths."""

    numbers = itertools.count(1)
    told: set[str]
    """The codes that were given since a test began."""

    def made(self, key: str, actions: str, port: str = REP, before: str = "") -> tuple[str, str, str]:
        """A flow's id, text and actions. *before* are attributes before the Ethernet header."""
        number = next(self.numbers)
        ufid = f"aaaaaaaa-0000-0000-0000-{number:012x}"
        ethernet = "" if "packet_type" in key else f",{ETH.format(number)}"
        text = f"ufid:{ufid},recirc_id(0),{before}in_port({port}){ethernet}{key and f',{key}'}"
        return ufid, text, actions

    def put(self, node: str, key: str, actions: str, port: str = REP, before: str = "") -> str:
        """Put a flow in, as :meth:`made` makes it; its id."""
        ufid, text, actions = self.made(key, actions, port, before)
        self.run(node, f"ovs-appctl dpctl/add-flow '{text}' '{actions}'")
        return ufid

    def log_with(self, node: str, pattern: re.Pattern[str]) -> re.Match[str]:
        """The first match in the switch's log, whose lines a thread of their own writes: they may take a moment."""
        found: list[re.Match[str]] = []

        def come() -> bool:
            found.extend(pattern.finditer(self.ok(node, f"cat {LOG}")))
            return bool(found)

        until(come, why=f"no {pattern.pattern} in the log")
        return found[0]

    def logged(self, node: str, ufids: Sequence[str]) -> dict[str, str]:
        """What the switch, asked to put in flows with these ids one after the other, logged before each was in the
        datapath or refused by it, and the line that says so."""
        text = self.log_with(node, re.compile(rf"[\s\S]*put\[\w+\] ufid:{ufids[-1]}.*\n"))[0]
        found = {}
        for ufid in ufids:
            before, line, after = re.split(rf"(.*put\[\w+\] ufid:{ufid}.*\n)", text, maxsplit=1)
            found[ufid], text = before + line, after
        return found

    def reason(self, node: str, what: str) -> dict[str, Any]:
        """What `asap2 host explain` says of one flow."""
        done = self.host(node, "explain", what, "--json")
        assert done.returncode == 0, done.stderr
        (found,) = answer(done.stdout)["flows"]
        self.told.add(found["code"])
        return dict(found)

    def reasons(self, node: str, *words: str) -> dict[str, dict[str, Any]]:
        """What `asap2 host explain WORDS` says of flows, by their ids."""
        found = {one["ufid"]: dict(one) for one in self.data(node, "explain", *words)["flows"]}
        self.told |= {one["code"] for one in found.values()}
        return found

    def provoked(self, node: str, key: str, actions: str, port: str = REP, before: str = "") -> dict[str, Any]:
        """Put a flow in, and explain it: again, if the switch took it out before, which it may when a route changes."""
        for _ in range(5):
            ufid = self.put(node, key, actions, port, before)
            if self.host(node, "explain", ufid, "--no-trial").returncode == 0:
                break
        return self.reason(node, ufid)


@contextlib.contextmanager
def explaining() -> Iterator[Explained]:
    """Two hypervisors that offload, with a ConnectX-5 and a ConnectX-4 Lx; a veth in each bridge, and a tunnel."""
    with Explained.running(TOPOLOGY) as lab:
        lab.told = set()
        for node in ("hv1", "hv2"):
            lab.ok(node, "systemctl reset-failed openvswitch; systemctl start openvswitch")
            lab.done(node, "setup", "--vfs", "2", "--bridge", "br-int")
            lab.ok(node, "ovs-vsctl add-port br-int eth0 && ovs-vsctl add-port br-int eth1; ip link set eth0 up")
            lab.ok(node, f"{SLOW_REVALIDATOR} && ip link add v0 type veth peer name v1 && ip link set v0 up")
            lab.ok(node, "ovs-vsctl add-port br-int v0")
            lab.ok(node, "ovs-vsctl add-port br-int vx -- set interface vx type=vxlan options:remote_ip=192.0.2.9")
            lab.ok(
                node,
                r"for m in $(ovs-appctl vlog/list | grep -oE '^((netdev|dpif)_offload\w*|dpif_netlink|tc) ');"
                " do ovs-appctl vlog/set $m:file:dbg; done",
            )
            lab.ok(node, "ovs-appctl vlog/disable-rate-limit")
            shown = lab.ok(node, "ovs-appctl dpctl/show")
            for number, name in ((BRIDGE, "br-int"), (UPLINK, PF), (REP, "eth0"), (OTHER, "eth1"), (VETH, "v0")):
                assert f"port {number}: {name}" in shown
            assert f"port {VXLAN}: vxlan_sys_4789" in shown
        yield lab
