# SPDX-License-Identifier: Apache-2.0
"""Texts of flows as Open vSwitch prints them, and what is explained of one."""

from __future__ import annotations

from pathlib import Path

from asap2.host.explain.explain import Explanation, explain
from asap2.host.explain.flow import parse
from asap2.host.inventory import DatapathPort, Host
from tests.unit.host.hosts import PF, offloading, with_switch

REASONS_PAGE = Path(__file__).resolve().parents[3] / "docs/reasons.md"
META = "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),"
UFID = "aaaaaaaa-0000-0000-0000-000000000001"
IP = (
    "eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.0/255.255.255.0,proto=17,tos=0/0,ttl=0/0,frag=no),"
    "udp(src=0/0,dst=53)"
)
MPLS = "eth_type(0x8847),mpls(label=1/0xfffff,tc=0/0,ttl=0/0,bos=0/1,label=2/0xfffff,tc=0/0,ttl=0/0,bos=1/1)"
ETH = "eth(src=fa:16:3e:b9:b8:ce,dst=02:00:00:00:00:01)"


def line(
    actions: str = PF, key: str = IP, port: str = "eth0", before: str = META, figures: str = "packets:9, bytes:882"
) -> str:
    """A line of dpctl/dump-flows -m."""
    return (
        f"ufid:{UFID}, {before}recirc_id(0),dp_hash(0/0),in_port({port}),{ETH},{key}, {figures}, used:0.1s, "
        f"dp:ovs, actions:{actions}"
    )


def host(**changes: object) -> Host:
    """A host that offloads, with the datapath's ports known."""
    ports = (
        DatapathPort(1, "br-int", "internal"),
        *(DatapathPort(2 + n, x) for n, x in enumerate((PF, "eth0", "eth1"))),
    )
    return with_switch(offloading(), **({"datapath_ports": ports, "datapath_features": 15} | changes))


def reason(text: str, where: Host | None = None) -> Explanation:
    """Why the flow in *text* is not offloaded."""
    (found,) = explain(where or host(), [parse(text)])
    return found


SET_SOURCE = line("set(tunnel(tun_id=0x1,dst=10.0.0.2,tp_src=5,flags(key))),eth1")
REFUSED = [
    ("match.vlan-mask", line(key=f"eth_type(0x8100),vlan(vid=5/0xff,pcp=0/0),encap({IP})")),
    ("match.skb-mark", line(before=META.replace("skb_mark(0/0)", "skb_mark(0x5/0xff)"))),
    ("match.skb-priority", line(before=META.replace("skb_priority(0/0)", "skb_priority(0)"))),
    ("match.dp-hash", line().replace("dp_hash(0/0)", "dp_hash(0x3/0xf)")),
    ("match.packet-type", line().replace(ETH, "packet_type(ns=1,id=0x800)")),
    ("match.no-ethertype", line(key="eth_type(0/0xffff)")),
    ("match.mpls-stack", line(key=MPLS)),
    ("match.ipv6-fragment", line(key="eth_type(0x86dd),ipv6(src=::/::,dst=::/::,label=0/0,proto=44,frag=later)")),
    ("match.ct-state", line(before=META.replace("ct_state(0/0)", "ct_state(0x62/0x62)"))),
    ("match.ct-tuple", line(before=META + "ct_tuple4(src=10.0.0.1,proto=0/0,tp_src=0/0,tp_dst=0/0),")),
    ("match.nd", line(key="eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=2001:db8::1)")),
    ("match.nsh", line(key="eth_type(0x894f),nsh(flags=0/0,ttl=0/0,mdtype=1,np=3,spi=0x5,si=255)")),
    ("match.tunnel", line(before=META + "tunnel(tun_id=0x1,dst=10.0.0.2,vxlan(gbp(id=5,flags=0)),flags(+key)),")),
    ("match.other", line(key="eth_type(0x86dd),ipv6(label=0x5,proto=17,frag=no),udp(src=0/0,dst=0/0)")),
    ("action.controller", line("userspace(pid=1,controller(reason=1,dont_send=0,recirc_id=1,max_len=65535))")),
    ("action.controller", line("userspace(pid=1,slow_path(controller))")),
    ("action.slow-path", line("userspace(pid=1,slow_path(lacp))")),
    ("action.sampling", line("sample(sample=10.0%,actions(userspace(pid=1,sFlow(vid=0,pcp=0,output=1)))),eth1")),
    ("action.userspace", line("userspace(pid=1,userdata(00))")),
    ("action.truncate", line("trunc(64),eth1")),
    ("action.hash", line("hash(l4(0)),recirc(0x1)")),
    ("action.hash", line("lb_output(1)")),
    ("action.clone", line("clone(push_vlan(vid=5,pcp=0),eth1),enp3s0f0")),
    ("action.ct-helper", line("ct(zone=1,helper=ftp),recirc(0x1)")),
    ("action.set-field", line("set(arp(sip=10.0.0.9)),eth1")),
    ("action.set-field", line("set(ipv6(label=0x5/0xfffff)),eth1")),
    ("action.set-protocol", line("set(ipv4(ttl=63)),eth1", key=IP.replace("proto=17", "proto=50"))),
    ("action.tunnel-option", line("set(tunnel(tun_id=0x1,dst=10.0.0.2,erspan(ver=1,idx=0x1),flags(key))),eth1")),
    ("action.too-many", line(",".join(["eth1", PF] * 9))),
    ("action.tunnel-mirror", line("eth1,recirc(0x1)", before=META + "tunnel(tun_id=0x1,dst=10.0.0.2,flags(+key)),")),
    (
        "action.set-protocol",  # to take a tag off is not to send a copy
        line(
            "pop_vlan,recirc(0x1),set(ipv4(src=10.9.0.1)),eth1",
            key=IP.replace("proto=17", "proto=50"),
            before=META + "tunnel(tun_id=0x1,dst=10.0.0.2,flags(+key)),",
        ),
    ),
    ("action.ethernet", line("pop_eth,eth1")),
    ("action.nsh", line("pop_nsh(),eth1")),
    ("action.other", line("dec_mpls_ttl(1),eth1")),
    ("port.gone", line("eth9")),
    ("port.gone", line(port="eth9")),
]  # fmt: skip
