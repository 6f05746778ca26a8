# SPDX-License-Identifier: Apache-2.0
"""Flows and reasons without a switch: the text of flows, each of the TC layer's refusals, the order of reasons."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.errors import Asap2Error, UsageError
from asap2.host import switch_log
from asap2.host.explain import deep, nic
from asap2.host.explain.explain import Explanation, explain, select
from asap2.host.explain.flow import masked, matched, named, parse
from asap2.host.explain.probe import cookie_of
from asap2.host.explain.reasons import NEIGHBOURS, REASONS
from asap2.host.explain.rule import rule
from asap2.host.explain.rule_actions import Device, UnbuildableError
from asap2.host.explain.tclayer import Layer, refusals
from asap2.host.inventory import DatapathPort, FlowTrial, Host, Netdev
from asap2.netlink.tables.actions import TC_ACT_JUMP, TC_ACT_STOLEN
from tests.unit.host.hosts import PF, offloading, with_netdev, with_switch

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


# ---- the text of flows


def test_a_flow_is_read_with_its_figures_levels_and_actions() -> None:
    text = line("push_vlan(vid=5,pcp=0),set(tunnel(tun_id=0x4d,dst=10.0.0.2,ttl=64,flags(df|key))),eth1,recirc(0x9)")
    flow = parse(text)
    assert (flow.ufid, flow.in_port, flow.packets, flow.bytes, flow.dp) == (UFID, "eth0", 9, 882, "ovs")
    assert flow.part("ipv4", "dst", 32) == (0x0A000000, 0xFFFFFF00)
    assert flow.part("udp", "dst", 16) == (53, 0xFFFF)
    assert [one.name for one in flow.actions] == ["push_vlan", "set", "eth1", "recirc"]
    assert flow.outputs == ("eth1",)


def test_what_is_behind_tags_is_read() -> None:
    flow = parse(line(key=f"eth_type(0x88a8),vlan(vid=7,pcp=0),encap(eth_type(0x8100),vlan(vid=9,pcp=0),encap({IP}))"))
    assert len(flow.levels) == 3
    assert flow.eth_type == 0x0800
    assert flow.part("udp", "dst", 16) == (53, 0xFFFF)


def test_figures_are_read_behind_a_key_that_is_printed_badly() -> None:
    """Open vSwitch prints MPLS behind a tag without a mask so, and leaves the brackets open."""
    broken = line(key="eth_type(0x8100),vlan(vid=7,pcp=3),encap(eth_type(0x8847),mpls((bad key length 0)")
    flow = parse(broken.replace("dp:ovs", "offloaded:yes, dp:tc"))
    assert (flow.ufid, flow.offloaded, flow.dp, flow.packets, flow.in_port) == (UFID, "yes", "tc", 9, "eth0")


def test_ports_are_named_in_nested_actions_too() -> None:
    flow = named(parse(line("clone(3,trunc(100)),check_pkt_len(size=9,gt(4),le(drop)),3")), {"3": "eth0", "4": "eth1"})
    assert [str(one) for one in flow.actions] == [
        "clone(eth0,trunc(100))",
        "check_pkt_len(size=9,gt(eth1),le(drop))",
        "eth0",
    ]
    assert parse(line("ct,eth1")).outputs == ("eth1",)


@pytest.mark.parametrize("text", ["", "nonsense", "packets:1, actions:drop", line(figures="packets:many")])
def test_what_is_no_flow_is_said_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no flow|no number"):
        parse(text)


@given(st.text(alphabet="abcxyz0123456789(),:=/+- .|", max_size=200).map("in_port(1),{}actions:1,".format) | st.text())
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    try:
        flow = parse(text)
    except UsageError:
        return
    assert explain(host(), [flow])[0].code in REASONS
    with contextlib.suppress(UnbuildableError):
        rule(flow, device)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("0x5/0xf", 32, (5, 15)),
        ("5", 16, (5, 0xFFFF)),
        ("02:00:00:00:00:01/ff:00:00:00:00:00", 48, (0x020000000001, 0xFF0000000000)),
        ("2001:db8::1", 128, (0x20010DB8 << 96 | 1, (1 << 128) - 1)),
        ("+trk+est-new", 32, (34, 35)),
        (None, 8, (0, 0)),
    ],
)
def test_values_and_masks(text: str | None, width: int, expected: tuple[int, int]) -> None:
    assert masked(text, width) == expected


def test_a_flow_id_is_a_filters_cookie() -> None:
    """As the switch's four words lie in memory of a little-endian machine."""
    assert cookie_of("04030201-08070605-0c0b0a09-100f0e0d".replace("-", "")) == bytes(range(1, 17)).hex()


# ---- the TC layer's refusals


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


@pytest.mark.parametrize(("code", "text"), REFUSED)
def test_what_the_tc_layer_refuses(code: str, text: str) -> None:
    found = reason(text)
    assert found.code == code
    assert found.evidence
    assert found.why == REASONS[code].why


@pytest.mark.parametrize(
    "text",
    [
        line(),
        line("drop"),
        line("set(ipv4(src=10.0.0.9,ttl=63)),set(udp(src=5)),push_vlan(vid=5,pcp=0),eth1,pop_vlan,enp3s0f0"),
        line("ct(commit,zone=5,nat(src=10.0.0.9)),recirc(0x5)"),
        line("check_pkt_len(size=1400,gt(eth1),le(enp3s0f0))"),
        line(before=META.replace("skb_mark(0/0)", "skb_mark(0)")),
        line(before=META.replace("ct_state(0/0)", "ct_state(0x22/0x3f)")),
        line(key=f"eth_type(0x8100),vlan(vid=5,pcp=0/0),encap({IP})"),
        line(before=META + "tunnel(tun_id=0x1,src=10.0.0.1,dst=10.0.0.2,ttl=0/0,flags(-df-csum+key)),"),
        line("set(tunnel(tun_id=0x1,dst=10.0.0.2,ttl=64,tp_dst=4789,flags(df|key))),eth1"),
        line("meter(1),eth1"),
    ],
)
def test_what_it_takes(text: str) -> None:
    assert list(refusals(parse(text), Layer({}, recirculates=True))) == []


def test_versions_and_kernels_that_have_less() -> None:
    old = Layer({}, "2.13.1", recirculates=False, tracks=False)
    text = line("ct(zone=1),meter(1),check_pkt_len(size=1400,gt(eth1),le(enp3s0f0)),recirc(0x5)")
    codes = [one.code for one in refusals(parse(text), old)]
    assert codes == ["action.ct", "action.meter", "action.check-length", "action.recirculate"]


FIRST = IP.replace("frag=no", "frag=first")
FRAGMENT = line("set(ipv4(src=10.0.0.9)),eth1", key=FIRST)
GBP = line(before=META + "tunnel(tun_id=0x1,dst=10.0.0.2,vxlan(gbp(id=5,flags=0)),flags(+key)),")
OAM = line(before=META + "tunnel(tun_id=0x1,dst=10.0.0.2,flags(+key+oam)),")
SET_GBP = line("set(tunnel(tun_id=0x1,dst=10.0.0.2,vxlan(gbp(id=5,flags=0)),flags(key))),eth1")
SET_SOURCE = line("set(tunnel(tun_id=0x1,dst=10.0.0.2,tp_src=5,flags(key))),eth1")
SCTP = line("set(ipv4(ttl=63)),eth1", key=IP.replace("proto=17", "proto=132"))
BEHIND = line().replace("recirc_id(0)", "recirc_id(0x5)")
FAR = line().replace("recirc_id(0)", "recirc_id(0x10000001)")
UNFRAGMENTED = line(key=IP.replace(",frag=no", ""))


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (FRAGMENT, {"3.1.0": None, "3.3.3": None, "3.3.4": "action.set-fragment"}),
        (FRAGMENT, {"3.4.1": None, "3.4.2": "action.set-fragment", "3.5.0": "action.set-fragment"}),
        (FRAGMENT.replace("proto=17", "proto=1"), {"3.5.0": None}),
        (GBP, {"3.1.0": "match.tunnel", "3.3.0": None, "3.7.1": None}),
        (OAM, {"3.1.0": "match.tunnel", "3.4.5": "match.tunnel", "3.5.0": None}),
        (SET_GBP, {"3.1.7": "action.tunnel-option", "3.2.0": None}),
        (SET_SOURCE, {"3.1.3": None, "3.1.4": "action.tunnel-option", "3.2.1": None, "3.3.0": "action.tunnel-option"}),
        (SCTP, {"3.1.0": "action.set-protocol", "3.2.5": "action.set-protocol", "3.3.0": None}),
        (BEHIND, {"3.5.4": None, "3.6.0": "match.recirculation"}),
        (FAR, {"3.5.2": None, "3.5.3": "match.recirculation"}),
        (UNFRAGMENTED, {"3.4.1": None, "3.4.2": "match.incomplete", "4.0.0": "match.incomplete"}),
    ],
)  # fmt: skip
def test_releases_differ_in_what_they_refuse(text: str, codes: dict[str, str | None]) -> None:
    for version, code in codes.items():
        layer = Layer({}, version, recirculates=True, encap_flags=True, chains=frozenset({7}))
        assert [one.code for one in refusals(parse(text), layer)] == [code] * (code is not None), version


def test_a_kernel_may_have_less_than_the_release() -> None:
    layer = Layer({}, "3.5.0", recirculates=True, gbp=False, encap_flags=False)
    assert [one.code for one in refusals(parse(SET_GBP), layer)] == ["action.tunnel-option"]
    assert [one.code for one in refusals(parse(OAM), layer)] == ["match.tunnel"]
    assert list(refusals(parse(GBP), layer)) == []  # it asks the kernel, whatever it found


PROBES = (
    "2024-01-01T00:00:00.000Z|00011|netdev_offload_tc|INFO|probe tc: supported ovs ct_state bits: 0x3f",
    "2024-01-01T00:00:00.000Z|00012|netdev_offload_tc|INFO|probe tc: vxlan gbp is supported.",
    "2024-01-01T00:00:00.000Z|00013|netdev_offload_tc|INFO|probe tc: enc flags are supported.",
)


def test_what_the_kernel_has_is_read_from_the_last_start_in_the_log() -> None:
    oam = reason(OAM, host(version="3.5.0", log=PROBES))
    assert oam.code == "tc.unexplained"
    again = (*PROBES, PROBES[0], PROBES[1])
    assert reason(OAM, host(version="3.5.0", log=again)).code == "match.tunnel"
    assert reason(SET_GBP, host(version="3.5.0", log=again)).code == "tc.unexplained"
    assert reason(SET_GBP, host(version="3.5.0", log=PROBES[:1])).code == "action.tunnel-option"
    assert reason(SET_GBP, host(version="3.5.0")).code == "tc.unexplained"


def test_a_flow_behind_a_step_that_is_in_tc_is_not_refused() -> None:
    leads = line("ct(zone=1),recirc(0x5)").replace("dp:ovs", "dp:tc")
    assert reason(BEHIND, host(version="3.6.0")).code == "match.recirculation"
    assert reason(BEHIND, host(version="3.6.0", datapath_flows=(leads,))).code == "tc.unexplained"


def test_the_policy_of_vxlan_is_matched_and_set() -> None:
    made = rule(parse(GBP.replace("id=5,flags=0", "id=5/0xff,flags=0x8")), device).options
    assert (made["key_enc_opts"], made["key_enc_opts_mask"]) == (
        {"vxlan": {"gbp": 0x80005}},
        {"vxlan": {"gbp": 0xFF00FF}},
    )
    tunnel, _ = rule(parse(SET_GBP), device).options["act"]
    assert tunnel["options"]["enc_opts"] == {"vxlan": {"gbp": 5}}


# ---- the order of reasons, and their evidence


def trial(skip_sw: bool, number: int = 0, refusal: str = "", **more: object) -> Host:
    """The host, with a rule that was tried."""
    tried = FlowTrial(UFID, skip_sw, number, refusal, **more)  # type: ignore[arg-type]
    return dataclasses.replace(host(), flow_trials=(tried,))


IN_TC = line().replace("dp:ovs", "dp:tc")
FROM_ETH1 = line(port="eth1").replace("dp:ovs", "dp:tc")


@pytest.mark.parametrize(
    ("text", "where", "code"),
    [
        (line().replace("dp:ovs", "offloaded:yes, dp:tc"), host(), "offloaded"),
        (line("trunc(64),eth1"), host(other_config=(), offloaded_flows=None), "switch.off"),
        (line("trunc(64),eth1"), host(offloaded_flows=None), "switch.not-in-force"),
        (IN_TC, host(other_config=(("hw-offload", "true"), ("tc-policy", "skip_hw"))), "switch.skip-hw"),
        (IN_TC.replace("in_port(eth0)", "in_port(br-int)"), host(), "port.internal"),
        (FROM_ETH1.replace(PF, "drop"), with_netdev(host(), "eth1", kind="vxlan", switch_id=None), "nic.unexplained"),
        (
            FROM_ETH1.replace(PF, "br-int"),
            with_netdev(host(), "eth1", kind="vxlan", switch_id=None),
            "port.tunnel-elsewhere",
        ),
        (IN_TC, with_netdev(host(), "eth0", hw_tc_offload=False), "port.feature-off"),
        (IN_TC, with_netdev(host(), "eth0", switch_id=None, kind="veth"), "port.not-nic"),
        (IN_TC.replace("in_port(eth0)", f"in_port({PF})"), with_netdev(host(), PF, switch_id=None), "port.legacy"),
        (IN_TC.replace(f"actions:{PF}", "actions:br-int"), with_netdev(host(), "br-int"), "nic.unexplained"),
        (IN_TC, with_netdev(host(), PF, switch_id="ff"), "nic.other-switch"),
        (IN_TC, with_netdev(host(), PF, port_name="p1"), "nic.other-switch"),
        (
            IN_TC,
            trial(True, errno.EOPNOTSUPP, "mlx5_core: Matching on TTL is not supported", in_words=True),
            "nic.match",
        ),
        (IN_TC, trial(True, errno.EOPNOTSUPP, "Operation not supported"), "nic.refused"),
        (IN_TC, trial(True, errno.ENOSPC, "No space left on device"), "nic.full"),
        (IN_TC, trial(True), "taken-now"),
        (line(), trial(False, errno.ENOENT, "TC classifier not found", in_words=True), "tc.refused"),
        (line(), trial(False), "taken-now"),
        (line("meter(1),eth1"), trial(False, -1, "no rule can be made of it: meter(1)"), "action.meter"),
        (line(), dataclasses.replace(host(), qdiscs=()), "port.no-qdisc"),
        (line(), host(), "tc.unexplained"),
    ],
)
def test_who_comes_first(text: str, where: Host, code: str) -> None:
    found = reason(text, where)
    assert found.code == code
    assert found.evidence


LOG = (
    "2024-01-01T00:00:00.000Z|00012|netdev_offload_tc|INFO|probe tc: supported ovs ct_state bits: 0x3f",
    "2024-01-01T00:00:00.000Z|00013|netdev_offload|INFO|eth1: No suitable flow API found.",
    "2024-01-01T00:00:01.000Z|00014|netdev_offload_tc(handler3)|DBG|something new isn't supported",
    "2024-01-01T00:00:01.000Z|00015|dpif_netlink(handler3)|DBG|failed to offload flow: Operation not supported: eth0",
    f"2024-01-01T00:00:01.000Z|00016|dpif_netlink(handler3)|DBG|system@ovs-system: put[create] ufid:{UFID} ",
)


def test_the_log_is_evidence_and_the_last_resort() -> None:
    found = reason(line(), host(log=LOG))
    assert found.code == "tc.refused"
    assert "something new isn't supported" in found.found
    assert switch_log.ct_states(LOG) == 0x3F


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("couldn't get tc prio: No space left on device", "tc.no-priority"),
        ("Flow API provider mismatch between ingress (eth0) and egress (eth1) ports", "action.flow-api"),
        ("offloading attribute nw_tos isn't supported", "match.other"),
        ("unsupported put action type: 24", "action.other"),
        ("Tunnel options are in the wrong format.", "match.tunnel"),
        ("set action type 7 not supported on fragments due to checksum limitation", "action.set-fragment"),
        ("match for chain 5 failed due to non-existing goto chain action", "match.recirculation"),
        ("Can't find offloaded netdev for output port 3", "port.gone"),
    ],
)
def test_what_only_the_log_tells_has_its_code(said: str, code: str) -> None:
    log = (LOG[2].replace("something new isn't supported", said), *LOG[3:])
    assert reason(line(), host(log=log)).code == code


def told(said: str) -> tuple[str, ...]:
    """A log in which the switch says that of the flow."""
    return (LOG[2].replace("something new isn't supported", said), *LOG[3:])


def test_the_log_decides_over_what_the_text_and_a_trial_tell() -> None:
    tried = dataclasses.replace(
        host(log=told("unsupported tunnel key attribute TP_SRC")), flow_trials=(FlowTrial(UFID, False),)
    )
    assert reason(SET_SOURCE, tried).code == "action.tunnel-option"
    several = line("trunc(64),eth1", before=META.replace("skb_mark(0/0)", "skb_mark(0x5/0xff)"))
    found = reason(several, host(log=told("unsupported put action type: 13")))
    assert (found.code, found.found, found.others) == ("action.truncate", "trunc(64)", ("match.skb-mark",))
    nd = line(key="eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=2001:db8::1)")
    assert reason(nd, host(log=told("offloading isn't supported, unknown attribute"))).code == "match.nd"


def test_the_log_of_ports_does_not_decide_as_they_may_have_changed() -> None:
    said = told("Flow API provider mismatch between ingress (eth0) and egress (eth1) ports")
    now = dataclasses.replace(host(log=said), flow_trials=(FlowTrial(UFID, False),))
    assert reason(line(), now).code == "taken-now"


def test_what_is_logged_once_is_kept_however_long_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVS_LOGDIR", str(tmp_path))
    more = [LOG[2].replace("00014", f"{number:05}") for number in range(switch_log.MOST + 5)]
    (tmp_path / "ovs-vswitchd.log").write_text("\n".join((*LOG[:2], *more)))
    kept = switch_log.relevant(None)
    assert kept[:2] == LOG[:2]
    assert len(kept) == switch_log.MOST + 2


def test_the_levels_of_the_log_file_are_read() -> None:
    text = "                 console    syslog    file\n                 -------    ------    ------\n"
    text += "dpif_netlink       OFF        ERR       INFO\nrconn              OFF        ERR       DBG\n"
    text += "tc                 OFF        ERR       DBG    (rate limiting disabled)\n"
    assert deep.log_levels(text) == {"dpif_netlink": "INFO", "tc": "DBG"}


def test_a_port_without_a_flow_api_is_known_from_the_log() -> None:
    found = reason(line("eth1"), host(log=LOG[:2]))
    assert found.code == "action.flow-api"
    later = LOG[1].replace("No suitable flow API found", "Assigned flow API 'linux_tc'")
    assert reason(line("eth1"), host(log=(*LOG[:2], later))).code == "tc.unexplained"
    none = dataclasses.replace(host(log=LOG[:2]), qdiscs=())
    assert reason(line(port="eth1"), none).code == "port.no-flow-api"


def test_a_port_of_the_datapath_that_is_no_device_here_is_elsewhere() -> None:
    ports = (DatapathPort(2, PF), DatapathPort(3, "eth0"), DatapathPort(9, "tap1", "internal"))
    said = "2026-11-29T09:00:00.000Z|00009|netdev_offload_tc(handler1)|ERR|flow_put: failed to get ifindex for tap1: No"
    where = host(datapath_ports=ports, log=(said,))
    coming = reason(line(port="tap1"), where)
    assert (coming.code, coming.found) == ("port.other-namespace", "tap1")
    assert [one.source for one in coming.evidence] == ["host", "log"]
    assert reason(line("tap1"), where).code == "port.other-namespace"
    assert reason(line("trunc(64),tap1"), where).code == "action.truncate"


def test_what_would_be_in_the_way_next_is_told_too() -> None:
    found = reason(
        line("trunc(64),userspace(pid=1,slow_path(lacp))", before=META.replace("skb_priority(0/0)", "skb_priority(0)"))
    )
    assert (found.code, found.others) == ("match.skb-priority", ("action.truncate", "action.slow-path"))


ARP = "eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1,sha=00:00:00:00:00:00/00:00:00:00:00:00)"
SOLICIT = "eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=2001:db8::1)"


def test_arp_and_neighbour_discovery_have_no_match_to_leave_out() -> None:
    where = trial(True, errno.EOPNOTSUPP, "mlx5_core: Unsupported key", in_words=True)
    arp = reason(line(key=ARP).replace("dp:ovs", "dp:tc"), where)
    assert (arp.code, arp.fix) == ("nic.match", NEIGHBOURS)
    assert (reason(line(key=SOLICIT)).code, reason(line(key=SOLICIT)).fix) == ("match.nd", NEIGHBOURS)
    assert reason(IN_TC, where).fix == REASONS["nic.match"].fix


def test_what_to_do_names_what_it_is_about() -> None:
    off = with_netdev(host(), "br-int")
    assert reason(IN_TC.replace("in_port(eth0)", "in_port(br-int)"), off).code == "port.internal"
    to_host = dataclasses.replace(off, netdevs=(*off.netdevs, Netdev(99, "br-int")))
    found = reason(IN_TC.replace(f"actions:{PF}", "actions:br-int"), to_host)
    assert found.code == "nic.to-host"
    assert found.fix.endswith("ovs-ofctl mod-port br-int br-int no-flood")
    legacy = with_netdev(host(), PF, switch_id=None)
    assert reason(IN_TC.replace("in_port(eth0)", f"in_port({PF})"), legacy).fix == f"asap2 host setup {PF}"
    assert reason(line(), host(offloaded_flows=None)).fix == "systemctl restart openvswitch-switch"
    assert not any("{" in reason(text).fix for _, text in REFUSED)


def test_without_a_switch_there_are_no_flows() -> None:
    with pytest.raises(Asap2Error, match="Open vSwitch is not running"):
        explain(host(running=False), [])


def test_flows_are_found_by_id_and_port() -> None:
    flows = [parse(line()), parse(line("eth1").replace(UFID, "bbbb" + UFID[4:]))]
    assert select(flows, "ufid:bbbb") == flows[1:]
    assert select(flows, "eth1") == flows[1:]
    assert select(flows, "eth0") == flows
    assert select(flows, "eth7") == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("mlx5_core: Requested chain is out of supported range", "nic.chain"),
        ("mlx5_core: Flow is not offloaded due to min inline setting", "nic.inline"),
        ("mlx5_core: vlan pop action is not supported", "nic.vlan"),
        ("mlx5_core: Unsupported key", "nic.match"),
        ("mlx5_core: too many pedit actions, can't offload", "nic.rewrite"),
        ("mlx5_core: can't offload re-write of non TCP/UDP", "nic.rewrite"),
        ("mlx5_core: can't support more output ports, can't offload forwarding", "nic.outputs"),
        ("mlx5_core: devices are both uplink, can't offload forwarding", "nic.hairpin"),
        ("mlx5_core: devices are not on same switch HW, can't offload forwarding", "nic.other-switch"),
        ("mlx5_core: current firmware doesn't support split rule for port mirroring", "nic.mirror"),
        ("mlx5_core: Decap with goto isn't supported", "nic.tunnel"),
        ("TC offload is disabled on net device", "port.feature-off"),
        ("nfp: something else entirely", "nic.refused"),
    ],
)
def test_a_drivers_words_have_a_code(words: str, code: str) -> None:
    assert nic.code(FlowTrial(UFID, True, errno.EOPNOTSUPP, words, True)) == code


def test_what_is_refused_without_a_word_is_told_by_what_is_taken_without_it() -> None:
    silent = FlowTrial(UFID, True, errno.EOPNOTSUPP, "Operation not supported", False, ("match flags",))
    assert nic.code(silent) == "nic.match"
    assert nic.code(dataclasses.replace(silent, culprits=("action vlan",))) == "nic.vlan"
    assert "without match flags it is taken" in nic.words(silent)
    assert nic.code(dataclasses.replace(silent, culprits=("action pedit and action mirred",))) == "nic.rewrite"


# ---- rules made of flows


def device(name: str) -> Device | None:
    return {PF: Device(2), "eth1": Device(11), "br-int": Device(7, True)}.get(name)


def test_a_rule_is_made_as_the_switch_makes_it_but_for_nobodys_mac() -> None:
    made = rule(parse(line("set(ipv4(src=10.0.0.9)),push_vlan(vid=5,pcp=2),br-int,enp3s0f0")), device)
    options = made.options
    assert (made.protocol, made.chain) == (0x0800, 0)
    assert options["key_eth_dst"].hex() == "06a5a2000000"
    assert (options["key_ipv4_dst"], options["key_ipv4_dst_mask"]) == (bytes((10, 0, 0, 0)), bytes((255, 255, 255, 0)))
    assert (options["key_udp_dst"], options["key_ip_proto"]) == (53, 17)
    assert "key_udp_src" not in options
    assert [one["kind"] for one in options["act"]] == ["pedit", "csum", "vlan", "skbedit", "mirred", "mirred"]
    (key,) = options["act"][0]["options"]["parms_ex"].keys
    assert (key.off, key.mask, key.val.to_bytes(4, "little")) == (12, 0, bytes((10, 0, 0, 9)))


def test_addresses_are_translated_as_the_switch_asks_for_it() -> None:
    four, six = "ct(commit,nat(src=10.0.0.5-10.0.0.9:1000-2000,random)),eth1", "ct(nat(dst=[2001:db8::5]:80)),eth1"
    options = rule(parse(line(four)), device).options["act"][0]["options"]
    assert (options["action"], options["nat_ipv4_min"], options["nat_ipv4_max"]) == (
        1 | 8 | 16,
        bytes((10, 0, 0, 5)),
        bytes((10, 0, 0, 9)),
    )
    assert (options["nat_port_min"], options["nat_port_max"]) == (1000, 2000)
    options = rule(parse(line(six)), device).options["act"][0]["options"]
    assert (options["action"], options["nat_ipv6_min"][-1], options["nat_port_min"]) == (8 | 32, 5, 80)
    assert "nat_ipv6_max" not in options
    options = rule(parse(line("ct(nat(src=2001:db8::5-2001:db8::9)),eth1")), device).options["act"][0]["options"]
    assert (options["nat_ipv6_min"][-1], options["nat_ipv6_max"][-1]) == (5, 9)
    options = rule(parse(line("ct(nat,label=0x2/0xf),eth1")), device).options["act"][0]["options"]
    assert (options["action"], options["labels"][0], options["labels_mask"][0]) == (8, 2, 15)


def test_geneves_options_are_matched_and_set() -> None:
    match = "tunnel(tun_id=0x1,src=10.0.0.1,dst=10.0.0.2,geneve({class=0x102,type=0x80,len=4,0xa/0xf}),flags(+key)),"
    option = "{class=0x102,type=0x80,len=8,0x1}{class=0x103,type=0,len=0}"
    actions = f"set(tunnel(tun_id=0x2,dst=10.0.0.3,ttl=64,geneve({option}),flags(key))),eth1"
    options = rule(parse(line(actions, before=META + match)), device).options
    assert options["key_enc_opts"] == {"geneve": [{"class": 0x102, "type": 0x80, "data": bytes((0, 0, 0, 10))}]}
    assert options["key_enc_opts_mask"]["geneve"][0] == {"class": 0xFFFF, "type": 0xFF, "data": bytes((0, 0, 0, 15))}
    kinds = [one["kind"] for one in options["act"]]
    assert kinds == ["tunnel_key", "tunnel_key", "mirred"]
    first, second = options["act"][1]["options"]["enc_opts"]["geneve"]
    assert (first["data"].hex(), second["class"], second["data"]) == ("0000000000000001", 0x103, b"")


def test_mpls_is_matched_and_set() -> None:
    key = "eth_type(0x8847),mpls(label=7/0xfffff,tc=0/0,ttl=64/0xff,bos=1/1)"
    options = rule(
        parse(line("set(mpls(label=9,tc=0,ttl=3,bos=1)),pop_mpls(eth_type=0x800),eth1", key=key)), device
    ).options
    assert (options["key_mpls_label"], options["key_mpls_ttl"], options["key_mpls_bos"]) == (7, 64, 1)
    assert "key_mpls_tc" not in options
    change, pop, _ = (one["options"] for one in options["act"])
    assert (change["parms"].m_action, change["label"], pop["parms"].m_action, pop["proto"]) == (3, 9, 1, 0x800)


def test_packets_are_measured_by_a_policer_that_jumps() -> None:
    actions = "check_pkt_len(size=1400,gt(eth1),le(push_vlan(vid=5,pcp=0),enp3s0f0))"
    police, long, tag, short = rule(parse(line(actions)), device).options["act"]
    assert (police["kind"], police["options"]["tbf"].mtu) == ("police", 1400)
    assert police["options"]["result"] == TC_ACT_JUMP | 2
    assert [one["kind"] for one in (long, tag, short)] == ["mirred", "vlan", "mirred"]
    assert {one["options"]["parms"].action for one in (long, short)} == {TC_ACT_STOLEN}


def test_a_rule_says_as_much_as_its_flow_or_is_not_made() -> None:
    for before in ("skb_priority(5),", "ct_tuple4(src=10.0.0.1),", "tunnel(dst=10.0.0.2,erspan(ver=1),flags()),"):
        with pytest.raises(UnbuildableError):
            rule(parse(line(before=before)), device)
    assert rule(parse(line(before="skb_mark(0),dp_hash(0/0),")), device)


def test_what_has_no_rule_is_said() -> None:
    for actions in ("meter(1),eth1", "eth9", "ct(nat(source=10.0.0.1)),eth1", "ct(helper=ftp),eth1", "dec_ttl,eth1"):
        with pytest.raises(UnbuildableError):
            rule(parse(line(actions)), device)


def test_the_page_of_reasons_has_each_code_and_no_other() -> None:
    listed = re.findall(r"^\| `([a-z0-9.\-]+)` \|", REASONS_PAGE.read_text(), re.MULTILINE)
    assert sorted(code for code in listed if not code.startswith("connection.")) == sorted(REASONS)


def test_octets_of_an_attribute_that_open_vswitch_does_not_know_are_a_number() -> None:
    assert masked("00 00/00 00", 128) == (0, 0)
    assert masked("0a ff/ff ff", 128) == (0x0AFF, 0xFFFF)
    assert not matched("key32", "00 00/00 00")
