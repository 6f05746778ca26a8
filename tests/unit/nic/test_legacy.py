# SPDX-License-Identifier: Apache-2.0
"""Legacy mode: who gets which frame, in which VLAN, and which counter tells of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.nic import legacy
from asap2.nic.port_ids import pf_of, pf_port, vf_port, wire_port
from asap2.nic.rules import Goto, Match, Rule
from asap2.nic.silicon import actioncodes, packet
from asap2.nic.silicon.events import Sent
from asap2.nic.silicon.ports import Port, PortKind
from asap2.nic.silicon.reference import ReferenceSwitch
from tests.unit.nic.legacy_lab import BROADCAST, MULTICAST, PF_MAC, STRANGER, Lab, LinkState, frame, mac, plan

EVERYONE = {"vf0", "vf1", "vf2", "pf", "wire"}


@pytest.fixture
def lab() -> Lab:
    return Lab()


# ---- addresses


@pytest.mark.parametrize(
    ("source", "to", "who"),
    [
        ("vf0", mac(1), "vf1"),
        ("vf0", PF_MAC, "pf"),
        ("vf0", STRANGER, "wire"),
        ("pf", mac(2), "vf2"),
        ("pf", STRANGER, "wire"),
        ("wire", mac(0), "vf0"),
        ("wire", PF_MAC, "pf"),
        ("wire", STRANGER, "pf"),
    ],
)
def test_a_unicast_frame_goes_where_its_address_is(lab: Lab, source: str, to: bytes, who: str) -> None:
    sent = frame(to, mac(7))
    assert lab.send(source, sent) == {who: sent}


@pytest.mark.parametrize("source", sorted(EVERYONE))
@pytest.mark.parametrize("to", [BROADCAST, MULTICAST])
def test_broadcast_and_multicast_reach_everyone_else(lab: Lab, source: str, to: bytes) -> None:
    sent = frame(to, mac(7))
    assert lab.send(source, sent) == dict.fromkeys(EVERYONE - {source}, sent)


def test_each_vf_counts_broadcasts_and_multicasts(lab: Lab) -> None:
    lab.send("wire", frame(BROADCAST, STRANGER))
    lab.send("vf0", frame(MULTICAST, mac(0)))
    assert lab.tallies == {
        **{(n, "broadcast"): 1 for n in range(3)},
        **{(n, "multicast"): 1 for n in (1, 2)},
    }


def test_a_frame_to_oneself_goes_nowhere(lab: Lab) -> None:
    assert lab.send("vf0", frame(mac(0), mac(0))) == {}


def test_two_functions_with_one_address_both_get_its_frames(lab: Lab) -> None:
    lab.macs[2] = mac(1)
    assert set(lab.send("wire", frame(mac(1), STRANGER))) == {"vf1", "vf2"}
    assert set(lab.send("vf1", frame(mac(1), STRANGER))) == {"vf2"}


def test_the_database_follows_the_address_that_the_vf_has_now(lab: Lab) -> None:
    lab.vf(0).mac = mac(6)  # the administrator's: the VF takes it when it is next bound
    assert set(lab.send("wire", frame(mac(0), STRANGER))) == {"vf0"}
    lab.macs[0] = mac(6)
    assert set(lab.send("wire", frame(mac(6), STRANGER))) == {"vf0"}
    assert set(lab.send("wire", frame(mac(0), STRANGER))) == {"pf"}


def test_an_unbound_vf_gets_nothing(lab: Lab) -> None:
    del lab.macs[1]
    assert set(lab.send("vf0", frame(mac(1), mac(0)))) == {"wire"}
    assert set(lab.send("wire", frame(BROADCAST, STRANGER))) == EVERYONE - {"vf1", "wire"}


def test_without_vfs_the_pf_is_the_whole_nic() -> None:
    lab = Lab(vfs=0)
    assert lab.switch() is None
    for to in (PF_MAC, STRANGER, BROADCAST):
        assert set(lab.send("wire", frame(to, STRANGER))) == {"pf"}
        assert set(lab.send("pf", frame(to, PF_MAC, 57))) == {"wire"}


# ---- trust


def test_only_a_trusted_vf_that_is_promiscuous_gets_what_nobody_has(lab: Lab) -> None:
    stray = frame(STRANGER, mac(7))
    lab.promiscuous = {0}
    lab.vf(1).trust = True
    assert set(lab.send("wire", stray)) == {"pf"}
    lab.vf(0).trust = True
    assert set(lab.send("wire", stray)) == {"pf", "vf0"}
    assert set(lab.send("vf1", stray)) == {"wire"}
    assert set(lab.send("wire", frame(mac(1), STRANGER))) == {"vf1"}


# ---- VLAN (VST)


def test_a_vfs_vlan_is_put_on_outside_and_taken_off_inside(lab: Lab) -> None:
    lab.vf(0).vlan, lab.vf(0).qos = 57, 3
    assert lab.send("vf0", frame(STRANGER, mac(0))) == {"wire": frame(STRANGER, mac(0), 3 << 13 | 57)}
    for tci in (57, 57 | 5 << 13):
        assert lab.send("wire", frame(mac(0), STRANGER, tci)) == {"vf0": frame(mac(0), STRANGER)}


@pytest.mark.parametrize("tags", [(), (58,), (0,)])
def test_what_is_not_in_its_vlan_is_dropped_and_counted(lab: Lab, tags: tuple[int, ...]) -> None:
    lab.vf(0).vlan = 57
    assert lab.send("wire", frame(mac(0), STRANGER, *tags)) == {}
    assert lab.tallies == {(0, "rx_dropped"): 1}


def test_a_service_tag_is_not_a_vlan_of_a_vf(lab: Lab) -> None:
    lab.vf(0).vlan = 57
    assert lab.send("wire", frame(mac(0), STRANGER, 57, tpid=0x88A8)) == {}


def test_vfs_of_one_vlan_talk_untagged(lab: Lab) -> None:
    lab.vf(0).vlan = lab.vf(1).vlan = 57
    assert lab.send("vf0", frame(mac(1), mac(0))) == {"vf1": frame(mac(1), mac(0))}
    assert lab.send("vf0", frame(mac(2), mac(0))) == {"vf2": frame(mac(2), mac(0), 57)}
    assert lab.send("vf2", frame(mac(0), mac(2), 57)) == {"vf0": frame(mac(0), mac(2))}
    assert lab.send("vf2", frame(mac(0), mac(2))) == {}


def test_vfs_of_different_vlans_do_not_hear_each_other(lab: Lab) -> None:
    lab.vf(0).vlan, lab.vf(1).vlan = 57, 58
    assert lab.send("vf0", frame(mac(1), mac(0))) == {}
    tagged = frame(BROADCAST, mac(0), 57)
    assert lab.send("vf0", frame(BROADCAST, mac(0))) == {"vf2": tagged, "pf": tagged, "wire": tagged}
    assert lab.tallies == {(1, "rx_dropped"): 2, (2, "broadcast"): 1}


def test_a_broadcast_from_the_wire_reaches_the_vlans_vfs_untagged_and_the_others_as_it_is(lab: Lab) -> None:
    lab.vf(0).vlan, lab.vf(1).vlan = 57, 58
    tagged = frame(BROADCAST, STRANGER, 57)
    assert lab.send("wire", tagged) == {"vf0": frame(BROADCAST, STRANGER), "vf2": tagged, "pf": tagged}
    bare = frame(BROADCAST, STRANGER)
    assert lab.send("wire", bare) == {"vf2": bare, "pf": bare}
    assert lab.tallies == {(0, "broadcast"): 1, (2, "broadcast"): 2, (0, "rx_dropped"): 1, (1, "rx_dropped"): 2}


def test_a_priority_alone_is_vlan_0(lab: Lab) -> None:
    lab.vf(0).qos = 3
    assert lab.send("vf0", frame(STRANGER, mac(0))) == {"wire": frame(STRANGER, mac(0), 3 << 13)}
    assert lab.send("wire", frame(mac(0), STRANGER, 1 << 13)) == {"vf0": frame(mac(0), STRANGER)}
    assert lab.send("wire", frame(mac(0), STRANGER)) == {}


def test_a_newer_nic_stacks_its_tag_on_the_guests_and_an_older_one_drops_such_frames() -> None:
    newer, older = Lab(), Lab(model="ConnectX-4 Lx")
    for lab in (newer, older):
        lab.vf(0).vlan = 57
    tagged = frame(STRANGER, mac(0), 12)
    assert newer.send("vf0", tagged) == {"wire": frame(STRANGER, mac(0), 57, 12)}
    assert newer.send("wire", frame(mac(0), STRANGER, 57, 12)) == {"vf0": frame(mac(0), STRANGER, 12)}
    assert newer.tallies == {}
    assert older.send("vf0", tagged) == {}
    assert older.tallies == {(0, "tx_dropped"): 1}
    assert older.send("vf0", frame(STRANGER, mac(0))) == {"wire": frame(STRANGER, mac(0), 57)}


# ---- spoof check


def test_with_spoof_check_only_the_administrators_address_may_send(lab: Lab) -> None:
    vf = lab.vf(0)
    vf.mac, vf.spoofchk = mac(0), True
    assert set(lab.send("vf0", frame(mac(1), mac(0)))) == {"vf1"}
    for to in (mac(1), STRANGER, BROADCAST):
        assert lab.send("vf0", frame(to, mac(5))) == {}
    assert lab.tallies == {(0, "tx_dropped"): 3}
    assert set(lab.send("vf1", frame(mac(0), mac(5)))) == {"vf0"}


def test_spoof_check_without_an_administrators_address_lets_nothing_through(lab: Lab) -> None:
    lab.vf(0).spoofchk = True  # the kernel warns: "Spoofchk in set while MAC is invalid"
    assert lab.send("vf0", frame(mac(1), mac(0))) == {}


def test_spoof_check_and_vlan_together() -> None:
    for model, tagged_passes in (("ConnectX-5", True), ("ConnectX-4 Lx", False)):
        lab = Lab(model=model)
        vf = lab.vf(0)
        vf.mac, vf.spoofchk, vf.vlan = mac(0), True, 57
        assert lab.send("vf0", frame(STRANGER, mac(0))) == {"wire": frame(STRANGER, mac(0), 57)}
        assert lab.send("vf0", frame(STRANGER, mac(5))) == {}
        assert bool(lab.send("vf0", frame(STRANGER, mac(0), 9))) is tagged_passes


# ---- link state


def test_a_disabled_vf_has_no_traffic(lab: Lab) -> None:
    lab.vf(0).link_state = LinkState.DISABLE
    assert lab.send("vf0", frame(mac(1), mac(0))) == {}
    assert lab.send("vf1", frame(mac(0), mac(1))) == {}
    assert set(lab.send("vf1", frame(BROADCAST, mac(1)))) == {"vf2", "pf", "wire"}
    assert lab.tallies == {(0, "rx_dropped"): 2, (2, "broadcast"): 1}


def test_without_a_cable_only_enabled_vfs_reach_each_other() -> None:
    lab = Lab(cable=False)
    lab.vf(1).link_state = lab.vf(2).link_state = LinkState.ENABLE
    assert set(lab.send("vf1", frame(mac(2), mac(1)))) == {"vf2"}
    assert lab.send("vf1", frame(mac(0), mac(1))) == {}
    assert lab.send("vf0", frame(mac(1), mac(0))) == {}


# ---- the plan


def vports(draw: st.DrawFn, index: int | None) -> legacy.Vport:
    port = pf_port(0) if index is None else vf_port(0, index)
    address = mac(draw(st.integers(0, 4)))
    if index is None:
        return legacy.Vport(port, address)
    return legacy.Vport(
        port,
        draw(st.sampled_from((address, b"", bytes(6), MULTICAST))),
        index,
        draw(st.sampled_from((0, 0, 57, 58))),
        draw(st.sampled_from((0, 0, 3))),
        draw(st.sampled_from((None, mac(1), bytes(6)))),
        draw(st.booleans()),
        draw(st.sampled_from((True, True, False))),
    )


@st.composite
def switches(draw: st.DrawFn) -> legacy.Switch:
    members: list[int | None] = [None, *range(draw(st.integers(1, 4)))]
    return legacy.Switch(wire_port(0), tuple(vports(draw, index) for index in members), draw(st.booleans()))


@given(switches())
def test_every_rule_is_the_pipelines_and_can_be_recognised_again(switch: legacy.Switch) -> None:
    for key, planned in plan(switch).items():
        rule = legacy.rule(key, planned)
        assert actioncodes.unsupported(rule.match, rule.actions) is None
        assert legacy.Key.of(rule) == key
        assert pf_of(rule.in_port) == 0


def test_a_rule_of_a_tc_chain_is_none_of_legacy_modes() -> None:
    assert legacy.Key.of(Rule(0, 1, 1, Match(), (Goto(3),))) is None


def delivered(switch: legacy.Switch, source: legacy.Vport | None, sent: bytes) -> dict[int, bytes]:
    """Who gets *sent*, by the description in :mod:`asap2.nic.legacy`: access list, tag, database, egress."""
    if source is not None:
        tagged = packet.tagged(sent)
        if source.source is not None and sent[6:12] != source.source:
            return {}
        if source.vst and tagged and not switch.stacks_tags:
            return {}
        if source.vst:
            sent = packet.push_vlan(sent, 0x8100, source.qos << 13 | source.vlan)
    to, others = sent[:6], [vport for vport in switch.vports if vport is not source]
    owners = [vport for vport in switch.vports if any(vport.mac) and not vport.mac[0] & 1 and vport.mac == to]
    if to[0] & 1:
        targets, wire = others, True
    elif owners:
        targets, wire = [vport for vport in owners if vport is not source], False
    elif source is None:
        targets, wire = [vport for vport in others if vport.promiscuous or vport.index is None], False
    else:
        targets, wire = [], True
    got = {switch.wire: sent} if wire and source is not None else {}
    fields = packet.parse(sent)
    for vport in targets:
        inside = fields.get("vlan_tpid") == 0x8100 and fields["vlan_tci"] & 0xFFF == vport.vlan
        if vport.link and (not vport.vst or inside):
            got[vport.port] = packet.pop_vlan(sent) if vport.vst else sent
    return got


@given(
    switches(),
    st.integers(-1, 4),
    st.sampled_from((BROADCAST, MULTICAST, STRANGER, *map(mac, range(5)))),
    st.sampled_from((mac(1), mac(2), bytes(6))),
    st.lists(st.sampled_from((57, 58, 0, 57 | 3 << 13)), max_size=2),
    st.sampled_from((0x8100, 0x88A8)),
)
def test_the_rules_do_what_the_description_says(
    switch: legacy.Switch, who: int, to: bytes, source_mac: bytes, tags: list[int], tpid: int
) -> None:
    source = None if who < 0 else switch.vports[min(who, len(switch.vports) - 1)]
    silicon = ReferenceSwitch(upcall=False)
    silicon.set_port(Port(switch.wire, 1, PortKind.UPLINK, tables=(legacy.FDB,)))
    for number, vport in enumerate(switch.vports):
        silicon.set_port(Port(vport.port, 2 + number, PortKind.VF, tables=(legacy.entry(switch, vport),)))
    for key, planned in plan(switch).items():
        silicon.add(legacy.rule(key, planned))
    sent = frame(to, source_mac, *tags, tpid=tpid)
    events = silicon.process(sent, switch.wire if source is None else source.port)
    assert {event.port: event.frame for event in events if isinstance(event, Sent)} == delivered(switch, source, sent)
