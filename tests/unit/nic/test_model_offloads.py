# SPDX-License-Identifier: Apache-2.0
"""What each model's driver takes of a TC filter, and how it refuses the rest."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.capability import Place, depth, pushed, tracked
from asap2.nic.faces.tc.judge import check
from asap2.nic.faces.tc.steps import NO_MARK, Beyond, Csum, GoOn, Mirred, PacketType, PushLabel, Step, Trap
from asap2.nic.layer_actions import PopMpls, PushMpls
from asap2.nic.model import MODELS
from asap2.nic.nat import Nat
from asap2.nic.rules import (
    ANY,
    VLAN_PRESENT,
    AddTtl,
    Ct,
    CtClear,
    CtState,
    Decap,
    Drop,
    Frag,
    Goto,
    Masked,
    Match,
    ModifyVlan,
    Pass,
    PopVlan,
    Psample,
    PushVlan,
    SetField,
    SetTunnel,
)
from tests.unit.nic.backend import nic

CX4, CX5, CX6 = "ConnectX-4 Lx", "ConnectX-5", "ConnectX-6 Dx"
REP, OTHER, WIRE, VXLAN = 11, 12, 10, 99
VF, UPLINK = Place(False, REP, wire=WIRE), Place(True, WIRE, wire=WIRE)
RECEIVED = Place(True, WIRE, peers=frozenset({OTHER}))
NOT_IMPLEMENTED = "Not implemented offload action"
MPLS_UC = "mpls push is supported only for mpls_uc protocol"
BAREUDP = "mpls is supported only through a bareudp device"
NO_PEDIT = "The pedit offload action is not supported"
NO_SECOND = "vlan push action is not supported for vlan depth > 1"
ONE_INTERNAL = "redirect to int port ingress is supported only as single destination"
TUNNEL = SetTunnel(5, bytes(4), bytes(4))


def exactly(value: int, bits: int = 16) -> Masked:
    return Masked(value, (1 << bits) - 1)


IP = exactly(0x0800)
TCP = exactly(6, 8)
TTL = SetField("ip_ttl", exactly(1, 8))
PLAIN = Match(eth_type=IP, eth_dst=exactly(1, 48))
TAGGED = Match(eth_type=IP, vlan_tci=Masked(VLAN_PRESENT | 57, 0xFFFF), vlan_tpid=exactly(0x8100))


def out(ifindex: int = OTHER, *, final: bool = True) -> Mirred:
    return Mirred(ifindex, False, final)


def answer(
    model: str, place: Place, match: Match, *steps: Step, inline: int | None = None, encap: bool = True
) -> str | None:
    """None when a NIC takes the filter, else its text ("" for none), with the error's name unless EOPNOTSUPP."""
    pf = nic(model).pfs[0]
    pf.encap = encap
    pf.inline_mode = MODELS[model].minimum_inline if inline is None else inline
    try:
        check(pf, place, match, steps)
    except NetlinkError as error:
        name = "" if error.errno == errno.EOPNOTSUPP else f"{errno.errorcode[error.errno or 0]}: "
        return name + (error.text or "").removeprefix("mlx5_core: ")
    return None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("place", "match", "steps"),
    [
        (VF, PLAIN, (out(),)),
        (VF, PLAIN, (Drop(),)),
        (VF, PLAIN, (Trap(),)),
        (VF, PLAIN, (out(final=False), out(WIRE))),
        (VF, PLAIN, (PushVlan(57), out(WIRE))),
        (UPLINK, TAGGED, (PopVlan(), out(REP))),
        (UPLINK, Match(eth_type=IP, ip_proto=TCP, l4_dst=exactly(80)), (out(REP),)),
    ],
)
def test_every_model_takes(model: str, place: Place, match: Match, steps: tuple[Step, ...]) -> None:
    assert answer(model, place, match, *steps) is None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("match", "steps", "text"),
    [
        ({"eth_type": exactly(0x0806), "ip_src": exactly(1, 32)}, (out(),), "Unsupported key"),
        ({"eth_type": exactly(0x0806), "arp_sha": exactly(1, 48)}, (out(),), "Unsupported key"),
        (
            {"eth_type": IP, "ip_frag": Masked(Frag.FIRST, Frag.FIRST)},
            (out(),),
            "Match on frag first/later is not supported",
        ),
        (
            {"eth_type": IP, "ip_proto": exactly(132, 8), "l4_dst": exactly(80)},
            (out(),),
            "EINVAL: Only UDP and TCP transports are supported for L4 matching",
        ),
        ({}, (out(), out()), "can't duplicate output to same device"),
        ({}, tuple(out(100 + n) for n in range(33)), "can't support more output ports, can't offload forwarding"),
        ({}, (out(REP),), "can't forward from a VF to itself"),
        ({}, (Trap(), out()), "action trap is supported as a sole action only"),
        ({}, (), "EINVAL: Flow action doesn't have any entries"),
        ({}, (PopVlan(), GoOn()), "Rule must have at least one forward/drop action"),
        ({}, (out(), Drop()), "Rule cannot support forward+drop action"),
        ({}, (Csum(1), out()), "TC csum action is only offloaded with pedit"),
        ({}, (PacketType(3), out()), "skbedit ptype is only supported with type host"),
        ({}, (Mirred(OTHER, True, False),), "Not implemented offload action"),
        ({}, (PopMpls(0x0800), out()), "mpls pop supported only on bareudp devices"),
        ({}, (PopVlan(), PopMpls(0x0800)), "mpls pop supported only as first action or with decap"),
        ({}, (PushMpls(1, 0x8848), out()), "mpls push is supported only for mpls_uc protocol"),
        ({}, (Mirred(OTHER, True, True),), "redirect to ingress is supported only for OVS internal ports"),
    ],
)
def test_no_model_takes(model: str, match: dict[str, Any], steps: tuple[Step, ...], text: str) -> None:
    assert answer(model, VF, Match(**match), *steps, inline=0) == text


@pytest.mark.parametrize(
    ("place", "match", "steps", "cx4", "cx5", "cx6"),
    [
        (VF, PLAIN, (TUNNEL, out(VXLAN)), "", None, None),
        (VF, PLAIN, (PushLabel(1, 0x8847), out()), MPLS_UC, BAREUDP, BAREUDP),
        (UPLINK, Match(tun_id=exactly(5, 64)), (Decap(), out(REP)), "", None, None),
        (VF, PLAIN, (SetField("eth_dst", exactly(1, 48)), out()), NO_PEDIT, None, None),
        (
            UPLINK,
            TAGGED,
            (ModifyVlan(58), out(REP)),
            NO_PEDIT,
            None,
            None,
        ),
        (
            UPLINK,
            TAGGED,
            (PopVlan(), PushVlan(58), out(REP)),
            NO_PEDIT,
            None,
            None,
        ),
        (VF, PLAIN, (PushVlan(5), PushVlan(6), out(WIRE)), NO_SECOND, None, None),
        (UPLINK, TAGGED, (PopVlan(), PopVlan(), out(REP)), "vlan pop action is not supported", None, None),
        (VF, PLAIN, (PushVlan(5, pcp=3), out(WIRE)), "vlan push action is not supported", None, None),
        (VF, PLAIN, (PushVlan(5, tpid=0x88A8), out(WIRE)), "vlan push action is not supported", None, None),
        (VF, PLAIN, (PushVlan(5), Drop()), "", None, None),
        (UPLINK, PLAIN, (PushVlan(5), out(REP)), "", None, None),
        (VF, TAGGED, (PopVlan(), out(WIRE)), "", None, None),
        (
            VF,
            PLAIN,
            (out(final=False), PushVlan(5), out(WIRE)),
            "current firmware doesn't support split rule for port mirroring",
            None,
            None,
        ),
        (VF, PLAIN, (Goto(1),), "Requested destination chain is out of supported range", None, None),
        (Place(False, REP, 1), PLAIN, (out(),), "Requested chain is out of supported range", None, None),
        (UPLINK, Match(eth_type=IP, ip_ttl=exactly(1, 8)), (out(REP),), "Matching on TTL is not supported", None, None),
        (
            UPLINK,
            Match(eth_type=IP, cvlan_tci=Masked(VLAN_PRESENT, VLAN_PRESENT)),
            (out(REP),),
            "Matching on CVLAN is not supported",
            None,
            None,
        ),
        (
            UPLINK,
            Match(eth_type=IP, ip_proto=exactly(1, 8), l4_src=exactly(8)),
            (out(REP),),
            "Match on Flex protocols for ICMP is not supported",
            None,
            None,
        ),
        (
            UPLINK,
            PLAIN,
            (out(WIRE),),
            "devices are both uplink, can't offload forwarding",
            "devices are both uplink, can't offload forwarding",
            None,
        ),
    ],
)
def test_what_the_models_differ_in(
    place: Place, match: Match, steps: tuple[Step, ...], cx4: str | None, cx5: str | None, cx6: str | None
) -> None:
    assert [answer(model, place, match, *steps, inline=0) for model in (CX4, CX5, CX6)] == [cx4, cx5, cx6]


@pytest.mark.parametrize(
    ("match", "inline"),
    [
        (Match(), 0),
        (PLAIN, 1),
        (TAGGED, 1),
        (Match(eth_type=IP, ip_frag=Masked(0, Frag.IS_FRAGMENT)), 1),
        (Match(eth_type=IP, ip_frag=Masked(1, Frag.IS_FRAGMENT)), 2),
        (Match(eth_type=IP, ip_proto=TCP), 2),
        (Match(eth_type=IP, ip_dst=Masked(0x0A000000, 0xFF000000)), 2),
        (Match(eth_type=IP, ip_proto=TCP, l4_dst=exactly(80)), 3),
        (Match(eth_type=IP, ip_proto=TCP, tcp_flags=Masked(2, 2)), 3),
    ],
)
def test_a_filter_must_not_look_deeper_than_the_descriptor(match: Match, inline: int) -> None:
    assert depth(match) == inline
    deep = "Flow is not offloaded due to min inline setting"
    for mode in (1, 2, 3):
        assert answer(CX4, VF, match, out(), inline=mode) == (deep if mode < inline else None)
        assert answer(CX4, UPLINK, match, out(), inline=mode) is None
    assert answer(CX5, VF, match, out()) is None


def test_one_vf_pushes_one_vlan_where_its_port_does_it() -> None:
    push, bare = (PushVlan(57), out(WIRE)), (out(WIRE),)
    assert pushed(WIRE, ()) is None
    assert pushed(WIRE, ((out(),), (PushVlan(9), out()))) is None
    assert pushed(WIRE, ((out(),), bare)) == 0
    assert pushed(WIRE, ((Drop(),), push)) == 57

    def after(other: tuple[Step, ...], *steps: Step) -> str | None:
        return answer(CX4, Place(False, REP, 0, 1, WIRE, lambda: pushed(WIRE, [other])), PLAIN, *steps)

    assert after(push, *push) is None
    assert after(bare, *bare) is None
    assert after(push, PushVlan(58), out(WIRE)) == ""
    assert after(push, *bare) == ""
    assert after(bare, *push) == ""
    assert after(push, out()) is None
    assert after((out(),), *push) is None


def test_three_vlans_are_more_than_any_model_has() -> None:
    assert answer(CX5, VF, PLAIN, *[PushVlan(n) for n in (1, 2, 3)], out(WIRE)) == (
        "Total vlans used is greater than supported"
    )


@pytest.mark.parametrize("model", [CX5, CX6])
def test_a_vlan_is_rewritten_where_it_is_matched_and_its_priority_kept(model: str) -> None:
    assert answer(model, UPLINK, TAGGED, PopVlan(), PushVlan(58), out(REP)) is None
    text = "VLAN rewrite action must have VLAN protocol match"
    assert answer(model, UPLINK, PLAIN, ModifyVlan(58), out(REP)) == text
    assert answer(model, UPLINK, TAGGED, ModifyVlan(58, pcp=3), out(REP)) == "Changing VLAN prio is not supported"


def test_rewrites_are_counted_as_the_hardwares_fields() -> None:
    match = Match(eth_type=exactly(0x86DD), ip_proto=TCP)
    whole = [
        SetField("eth_dst", exactly(1, 48)),  # 2
        SetField("eth_src", exactly(1, 48)),  # 2
        SetField("ip_src", exactly(1, 128)),  # 4
        SetField("ip_dst", exactly(1, 128)),  # 4
        SetField("ip_ttl", exactly(1, 8)),
        SetField("ip_tos", Masked(4, 0xFC)),
        SetField("l4_src", exactly(1)),
        SetField("l4_dst", exactly(1)),
    ]
    assert answer(CX5, VF, match, *whole, out()) is None
    again = [*whole, SetField("eth_dst", Masked(0, 0xFFFF))]
    assert answer(CX5, VF, match, *again, out()) == "ENOSPC: too many pedit actions, can't offload"
    assert answer(CX6, VF, match, *again, out()) is None


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ((TTL, Drop()), "Drop with modify header action is not supported"),
        ((SetField("ip_ttl", exactly(64, 8)), Drop()), None),  # the packets have that value already
        ((AddTtl(255), out()), None),
        ((AddTtl(255), Drop()), "Drop with modify header action is not supported"),
        ((SetField("ip_tos", exactly(4, 8)), out()), "attempt to offload an unsupported field"),
        ((SetField("l4_dst", Masked(0x101, 0x101)), out()), "rewrite of few sub-fields isn't supported"),
        ((TTL, Csum(1 | 8 | 16), out()), None),
        ((TTL, Csum(2), out()), "can't offload TC csum action for some header/s"),
        ((Goto(0),), None),
        ((Pass(),), None),
        ((Mirred(OTHER, True, True),), "redirect to int port ingress requires ptype=host action"),
        ((PacketType(0), Mirred(OTHER, True, True)), None),
        ((PacketType(0), out(REP + 50, final=False), Mirred(OTHER, True, True)), ONE_INTERNAL),
        ((out(OTHER, final=False), out(REP + 50)), "Rules with internal port can have only one destination"),
    ],
)
def test_a_connectx_5_takes(steps: tuple[Step, ...], text: str | None) -> None:
    match = Match(eth_type=IP, ip_proto=TCP, ip_ttl=exactly(64, 8))
    place = replace(VF, chain=3, internal_ports=frozenset({OTHER}))
    assert answer(CX5, place, match, *steps) == text


def test_without_chains_a_rule_goes_to_none_before() -> None:
    assert answer(CX4, VF, Match(eth_type=IP), Goto(0)) == "Goto lower numbered chain isn't supported"


@pytest.mark.parametrize(
    ("outer", "inner", "text"),
    [
        (ANY, ANY, None),
        (exactly(0, 8), ANY, None),
        (exactly(0, 8), exactly(2, 8), None),
        (Masked(0, 0xFC), Masked(0, 0xFC), None),
        (Masked(0, 1), ANY, "Partial match on enc_tos ecn bits isn't supported"),
        (ANY, Masked(2, 3), "Matching on tos ecn bits without also matching enc_tos ecn bits isn't supported"),
        (Masked(0, 3), Masked(0, 1), "Partial match on tos ecn bits with match on enc_tos ecn bits isn't supported"),
        (Masked(1, 3), Masked(0, 3), "Match on enc_tos ecn = ECT(1) isn't supported"),
        (Masked(3, 3), Masked(3, 3), None),
        (Masked(3, 3), Masked(0, 3), "Match on tos enc_tos ecn = CE while match on tos ecn != CE isn't supported"),
    ],
)
def test_congestion_bits_are_matched_inside_a_tunnel_where_leaving_it_keeps_them(
    outer: Masked, inner: Masked, text: str | None
) -> None:
    match = Match(eth_type=IP, tun_tos=outer, ip_tos=inner)
    assert answer(CX5, replace(UPLINK, tunnel=True), match, Decap(), out(REP)) == text


@pytest.mark.parametrize(("protocol", "taken"), [(6, True), (17, True), (1, True), (132, False), (0, False)])
def test_addresses_are_rewritten_only_where_the_checksum_is_known(protocol: int, taken: bool) -> None:
    match = Match(eth_type=IP, ip_proto=exactly(protocol, 8) if protocol else Masked(0, 0))
    text = None if taken else "can't offload re-write of non TCP/UDP"
    assert answer(CX5, VF, match, SetField("ip_dst", exactly(1, 32)), out()) == text
    assert answer(CX5, VF, match, SetField("ip_ttl", exactly(1, 8)), out()) is None


def test_without_encapsulation_mode_there_are_no_tunnels() -> None:
    assert answer(CX5, VF, PLAIN, TUNNEL, out(VXLAN), encap=False) == ""
    assert answer(CX5, UPLINK, Match(tun_id=exactly(5, 64)), Decap(), Goto(1)) == "Decap with goto isn't supported"


def test_the_same_vxlan_device_twice_is_two_tunnels() -> None:
    other = replace(TUNNEL, tun_id=6)
    assert answer(CX5, VF, PLAIN, TUNNEL, out(VXLAN, final=False), other, out(VXLAN)) is None
    twice = answer(CX5, VF, PLAIN, TUNNEL, out(VXLAN, final=False), TUNNEL, out(VXLAN))
    assert twice == "can't duplicate encap action"


@pytest.mark.parametrize(
    ("match", "steps", "text"),
    [
        ({}, (Drop(),), None),
        ({}, (Pass(),), None),
        ({}, (out(),), None),
        ({}, (NO_MARK, SetField("skb_mark", exactly(0xFFFF, 32)), GoOn()), None),
        ({}, (NO_MARK, SetField("skb_mark", exactly(0x10000, 32)), GoOn()), "Bad flow mark, only 16 bit supported"),
        ({}, (Beyond(NO_MARK.hardware), SetField("skb_priority", exactly(1, 32)), Pass()), NOT_IMPLEMENTED),
        ({}, (out(REP),), "devices are not on same switch HW, can't offload forwarding"),
        ({}, (out(final=False), Pass()), NOT_IMPLEMENTED),
        ({}, (PushVlan(5), out()), NOT_IMPLEMENTED),
        ({}, (TUNNEL, out()), NOT_IMPLEMENTED),
        ({}, (Trap(),), NOT_IMPLEMENTED),
        ({}, (GoOn(),), "Rule must have at least one forward/drop action"),
        (
            {"eth_type": IP, "vlan_tci": exactly(VLAN_PRESENT | 5), "cvlan_tci": exactly(VLAN_PRESENT | 6)},
            (Drop(),),
            "Matching on CVLAN is not supported",
        ),
    ],
)
def test_what_a_function_receives_is_dropped_marked_or_sent_to_another_function(
    match: dict[str, Any], steps: tuple[Step, ...], text: str | None
) -> None:
    assert answer(CX5, RECEIVED, Match(**match), *steps) == text


@pytest.mark.parametrize(
    ("place", "cx4", "cx5"),
    [
        (Place(True, WIRE, prio=2, peers=frozenset()), "", None),
        (Place(True, WIRE, prio=1, peers=frozenset(), vf=True), None, None),
        (Place(True, WIRE, prio=2, peers=frozenset(), vf=True), "", ""),
    ],
)
def test_the_receive_side_has_one_priority_without_chains(place: Place, cx4: str | None, cx5: str | None) -> None:
    assert [answer(model, place, Match(), Drop(), inline=0) for model in (CX4, CX5)] == [cx4, cx5]


EST = Masked(CtState.TRK | CtState.EST, CtState.TRK | CtState.EST)
CT_MATCHING, CT_ACTION = "offload of ct matching isn't available", "offload of ct action isn't available"


@pytest.mark.parametrize(
    ("match", "steps", "cx4", "cx5"),
    [
        ({"ct_state": EST}, (out(),), CT_MATCHING, None),
        ({"ct_zone": exactly(5)}, (out(),), CT_MATCHING, None),
        ({"ct_labels": Masked(0, 1)}, (out(),), CT_MATCHING, None),
        ({}, (Ct(5), Goto(1)), CT_ACTION, None),
        ({}, (CtClear(), out()), CT_ACTION, None),
        ({}, (CtClear(), Drop()), CT_ACTION, "Drop with modify header action is not supported"),
        ({}, (Ct(5), Drop()), CT_ACTION, None),
        ({}, (Ct(5), GoOn()), CT_ACTION, None),
        ({}, (CtClear(), GoOn()), CT_ACTION, "Rule must have at least one forward/drop action"),
        ({}, (Ct(5), out(), Drop()), CT_ACTION, "Rule cannot support forward+drop action"),
        ({}, (Ct(5, commit=True), Ct(6, nat=Nat(None)), out()), CT_ACTION, None),
        ({}, (Ct(5), TTL, Ct(6), out()), CT_ACTION, None),
        ({}, (out(final=False), Ct(5), out()), CT_ACTION, None),
        ({"ct_state": Masked(CtState.TRK | CtState.NEW, 0xFF)}, (out(),), CT_MATCHING, None),
        ({"ct_state": Masked(CtState.TRK, CtState.TRK | CtState.INV | CtState.REL)}, (out(),), CT_MATCHING, None),
        (
            {"ct_state": Masked(CtState.TRK | CtState.INV, CtState.TRK | CtState.INV)},
            (Drop(),),
            CT_MATCHING,
            "matching on ct_state +inv isn't supported",
        ),
        (
            {"ct_state": Masked(CtState.TRK | CtState.REL, CtState.TRK | CtState.REL)},
            (out(),),
            CT_MATCHING,
            "matching on ct_state +rel isn't supported",
        ),
    ],
)
def test_connections_are_looked_up_from_connectx_5_on(
    match: dict[str, Any], steps: tuple[Step, ...], cx4: str | None, cx5: str | None
) -> None:
    place = replace(VF, chain=0)
    assert answer(CX4, place, Match(eth_type=IP, **match), *steps) == cx4
    assert answer(CX5, place, Match(eth_type=IP, **match), *steps) == cx5
    assert answer(CX6, place, Match(eth_type=IP, **match), *steps) == cx5


SAMPLED = Psample(1, 10, 10)


def test_packets_are_sampled_from_connectx_5_on() -> None:
    for model, text in ((CX4, ""), (CX5, None), (CX6, None)):
        assert answer(model, VF, PLAIN, SAMPLED, out()) == text
    for steps in ((SAMPLED, Drop()), (Ct(), SAMPLED, out()), (SAMPLED, Ct(), SAMPLED, out())):
        assert answer(CX5, VF, PLAIN, *steps) is None
    assert answer(CX5, VF, PLAIN, SAMPLED, GoOn()) == "Rule must have at least one forward/drop action"
    assert answer(CX5, RECEIVED, PLAIN, SAMPLED, Drop()) == NOT_IMPLEMENTED


def test_a_function_that_receives_looks_no_connection_up() -> None:
    assert answer(CX5, RECEIVED, Match(eth_type=IP, ct_state=EST), Drop()) == CT_MATCHING
    assert answer(CX5, RECEIVED, PLAIN, Ct(5), Drop()) == CT_ACTION


def test_each_part_of_a_list_between_two_lookups_has_rewrites_of_its_own() -> None:
    many = tuple(SetField("eth_src", exactly(n, 48)) for n in range(6))
    assert answer(CX5, VF, PLAIN, *many, Ct(5), *many, out()) is None
    assert answer(CX5, VF, PLAIN, Ct(5), *many, *many, out()) == "ENOSPC: too many pedit actions, can't offload"
    assert answer(CX5, VF, PLAIN, *many, *many, Ct(5), out()) == "ENOSPC: too many pedit actions, can't offload"


def test_a_packet_that_has_left_its_tunnel_goes_to_no_other_chain() -> None:
    place = replace(UPLINK, tunnel=True)
    assert answer(CX5, place, PLAIN, Decap(), Ct(5), out()) is None
    for steps in ((Decap(), Ct(5), Goto(1)), (Decap(), Goto(1))):
        assert answer(CX5, place, PLAIN, *steps) == "Decap with goto isn't supported"


def test_a_zone_and_labels_are_matched_on_as_a_whole() -> None:
    match = Match(ct_zone=Masked(5, 7), ct_labels=Masked(0, 2), ct_mark=Masked(1, 1))
    assert tracked(match) == Match(ct_zone=exactly(5), ct_labels=exactly(0, 128), ct_mark=Masked(1, 1))
    assert tracked(PLAIN) is PLAIN
