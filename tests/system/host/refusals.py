# SPDX-License-Identifier: Apache-2.0
"""What Open vSwitch and mlx5 refuse: flows, and the codes that they are to be explained by."""

from __future__ import annotations

from tests.system.host.explained import (
    BRIDGE,
    ENCAP,
    OTHER,
    REP,
    TAGGED,
    TCP,
    UDP,
    UPLINK,
    VETH,
    VXLAN,
    ipv4,
    ipv6,
)

MANY = ",".join([UPLINK, OTHER] * 9)
TUNNEL = "tunnel(tun_id=0x1,src=192.0.2.9,dst=192.0.2.1,ttl=0/0,flags({}+key)),"

WITHOUT_ETHERNET = f"packet_type(ns=1,id=0x800),{UDP}"
CONTROLLER = "controller(reason=1,dont_send=0,continuation=0,recirc_id=1,rule_cookie=0,controller_id=0,max_len=65535)"

OPEN_VSWITCH = [
    ("match.vlan-mask", TAGGED, UPLINK, "", "failed to offload flow: Operation not supported"),
    ("match.skb-mark", UDP, UPLINK, "skb_mark(0x5),", "attribute pkt_mark isn't supported"),
    ("match.skb-priority", UDP, UPLINK, "skb_priority(0x7),", "attribute skb_priority isn't supported"),
    ("match.dp-hash", UDP, UPLINK, "dp_hash(0/0xf),", "attribute dp_hash isn't supported"),
    (
        "match.mpls-stack",
        "eth_type(0x8847),mpls(label=1,tc=0,ttl=64,bos=0,label=2,tc=0,ttl=64,bos=1)",
        UPLINK,
        "",
        "offloading multiple mpls_lses isn't supported",
    ),
    ("match.ipv6-fragment", ipv6(44, "later"), UPLINK, "", "offloading of IPv6 fragments isn't supported"),
    (
        "match.nd",
        f"{ipv6(58)},icmpv6(type=135,code=0),nd(target=2001:db8::2,sll=00:00:00:00:00:00/00:00:00:00:00:00,"
        "tll=00:00:00:00:00:00/00:00:00:00:00:00)",
        UPLINK,
        "",
        "offloading isn't supported, unknown attribute",
    ),
    ("match.other", f"{ipv6(17, label='0x5')},udp(src=1,dst=2)", UPLINK, "", "unknown attribute"),
    ("match.ct-state", UDP, UPLINK, "ct_state(0/0x80),", "unknown attribute"),
    ("match.tunnel", UDP, REP, TUNNEL.format("+oam"), "unknown attribute"),
    ("action.truncate", UDP, f"trunc(100),{UPLINK}", "", "unsupported put action type: 13"),
    ("action.userspace", UDP, "userspace(pid=77,userdata(0102))", "", "unsupported put action type: 2"),
    ("action.slow-path", UDP, "userspace(pid=77,slow_path(cfm))", "", "unsupported put action type: 2"),
    ("action.sampling", UDP, f"userspace(pid=77,sFlow(vid=9,pcp=7,output=10)),{UPLINK}", "", "put action type: 2"),
    ("action.clone", UDP, f"clone({OTHER}),{UPLINK}", "", "unsupported put action type"),
    ("action.sampling", UDP, f"sample(sample=50.0%,actions({OTHER})),{UPLINK}", "", "put action type: 6"),
    ("action.meter", UDP, f"meter(1),{UPLINK}", "", "failed to offload flow: Operation not supported"),
    ("action.set-field", UDP, f"set(skb_mark(0x5)),{UPLINK}", "", "unsupported set action type"),
    (
        "action.set-protocol",
        ipv4(50),
        f"set(ipv4(ttl=9)),{UPLINK}",
        "",
        "can't offload rewrite of IP/IPV6 with",
    ),
    (
        "action.tunnel-option",
        UDP,
        f"set(tunnel(tun_id=0x1,src=192.0.2.1,dst=192.0.2.9,ttl=64,tp_dst=4789,erspan(ver=1,idx=0x1),flags(key))),{VXLAN}",
        "",
        "unsupported tunnel key attribute",
    ),
    ("action.too-many", UDP, MANY, "", "Can only support 16 actions"),
    ("action.nsh", UDP, f"pop_nsh(),{UPLINK}", "", "unsupported put action type"),
    ("action.tunnel-mirror", UDP, f"{REP},recirc(5)", TUNNEL.format(""), "failed to offload flow"),
    ("match.packet-type", WITHOUT_ETHERNET, UPLINK, "", "attribute packet_type isn't supported"),
    ("match.ct-tuple", UDP, UPLINK, "ct_tuple4(src=10.0.0.1,dst=10.0.0.2,proto=17,tp_src=1,tp_dst=2),", "unknown"),
    ("action.other", UDP, f"add_mpls(label=1,tc=0,ttl=64,bos=1,eth_type=0x8847),{UPLINK}", "", "action type: 22"),
    ("action.controller", UDP, f"userspace(pid=77,{CONTROLLER})", "", "unsupported put action type: 2"),
    ("tc.refused", UDP, UPLINK, TUNNEL.format("").replace("ttl=0/0", "ttl=0/0,tp_src=5"), "failed to offload flow"),
]

DRIVER = [
    ("hv1", "nic.match", REP, f"{ipv4(132)},sctp(src=1,dst=2)", UPLINK, "Only UDP and TCP transports are supported"),
    ("hv1", "nic.match", REP, f"{ipv4(17, 'first')},udp(src=1,dst=2)", UPLINK, "without match flags it is taken"),
    (
        "hv1",
        "nic.match",
        REP,
        "eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1,sha=02:00:00:00:00:05,tha=00:00:00:00:00:00)",
        UPLINK,
        "Unsupported key",
    ),
    ("hv1", "nic.ct-state", REP, f"ct_state(+trk+inv),{UDP}", UPLINK, "matching on ct_state +inv isn't supported"),
    ("hv1", "nic.ct-state", REP, f"ct_state(+trk+rel),{UDP}", UPLINK, "matching on ct_state +rel isn't supported"),
    ("hv2", "nic.ct", REP, f"ct_state(+trk+est),{UDP}", UPLINK, "offload of ct matching isn't available"),
    ("hv1", "nic.outputs", REP, UDP, f"{UPLINK},{UPLINK}", "can't duplicate output to same device"),
    ("hv1", "nic.hairpin", REP, UDP, REP, "can't forward from a VF to itself"),
    ("hv1", "nic.vlan", REP, UDP, "push_vlan(vid=1,pcp=0)," * 3 + UPLINK, "Total vlans used is greater"),
    ("hv2", "nic.to-host", REP, "eth_type(0x88cc)", BRIDGE, "output to br-int"),
    ("hv1", "nic.to-host", REP, UDP, f"{UPLINK},{BRIDGE}", "output to br-int"),
    ("hv2", "nic.chain", REP, "eth_type(0x88cc)", "recirc(5)", "chain is out of supported range"),
    ("hv1", "nic.other-switch", REP, UDP, VETH, "output to v0"),
    ("hv2", "port.internal", BRIDGE, "eth_type(0x88cc)", UPLINK, "br-int"),
    ("hv1", "port.not-nic", VETH, UDP, UPLINK, "v0, a veth"),
    ("hv1", "port.tunnel-elsewhere", VXLAN, UDP, VETH, "vxlan_sys_4789 to v0"),
    ("hv2", "nic.rewrite", REP, TCP, f"set(eth(dst=02:00:00:00:00:09)),{UPLINK}", "pedit offload action"),
    ("hv2", "nic.vlan", REP, "eth_type(0x88cc)", f"push_vlan(vid=1,pcp=3),{UPLINK}", "vlan push"),
    ("hv2", "nic.tunnel", REP, "eth_type(0x88cc)", f"set({ENCAP}),{VXLAN}", "has no tunnel offload"),
    ("hv2", "nic.match", REP, ipv4(17, ttl="64") + ",udp(src=0/0,dst=0/0)", UPLINK, "Matching on TTL"),
    ("hv1", "nic.tunnel", VXLAN, UDP, f"recirc(5),{REP}", "Failed to parse tunnel attributes"),
    ("hv1", "nic.meter", REP, UDP, f"check_pkt_len(size=900,gt({UPLINK}),le({OTHER}))", "without action police"),
    ("hv1", "nic.tunnel-route", REP, UDP, f"set({ENCAP}),{VXLAN}", "Network is unreachable"),
    ("hv2", "nic.mirror", REP, "eth_type(0x88cc)", f"{OTHER},push_vlan(vid=1,pcp=0),{UPLINK}", "split rule"),
]
