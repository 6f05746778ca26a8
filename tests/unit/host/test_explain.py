# SPDX-License-Identifier: Apache-2.0
"""Flows and reasons without a switch: the text of flows, each of the TC layer's refusals, the order of reasons."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.errors import UsageError
from asap2.host.explain.explain import explain
from asap2.host.explain.flow import masked, matched, named, parse
from asap2.host.explain.probe import cookie_of
from asap2.host.explain.reasons import REASONS
from asap2.host.explain.rule import rule
from asap2.host.explain.rule_actions import Device, UnbuildableError
from asap2.host.explain.tclayer import Layer, refusals
from asap2.netlink.tables.actions import TC_ACT_JUMP, TC_ACT_STOLEN
from tests.unit.host.flow_texts import IP, META, REASONS_PAGE, REFUSED, SET_SOURCE, UFID, host, line, reason
from tests.unit.host.hosts import PF

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
    with pytest.raises(UsageError, match=r"is not a flow|is not a number"):
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


def test_the_page_of_reasons_has_each_code_and_no_other_in_the_words_of_explain() -> None:
    rows = re.findall(r"^\| `([a-z0-9.\-]+)` \| (.*?) \| (.*) \|$", REASONS_PAGE.read_text(), re.MULTILINE)
    listed = sorted((code, why, fix.lower()) for code, why, fix in rows if not code.startswith("connection."))
    known = sorted((code, one.why, _placeless(code, one.fix).lower()) for code, one in REASONS.items())
    assert listed == known


def _placeless(code: str, fix: str) -> str:
    """A fix as the page has it: with the names of its places instead of values."""
    port = "bridge" if code in ("bridge.empty", "controller.unreachable") else "port"
    return fix.format(port=port, bridge="bridge", service="service", pf="pf", address="address")


def test_octets_of_an_attribute_that_open_vswitch_does_not_know_are_a_number() -> None:
    assert masked("00 00/00 00", 128) == (0, 0)
    assert masked("0a ff/ff ff", 128) == (0x0AFF, 0xFFFF)
    assert not matched("key32", "00 00/00 00")
