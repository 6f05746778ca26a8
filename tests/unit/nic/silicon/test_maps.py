# SPDX-License-Identifier: Apache-2.0
"""Rules to and from the program's memory; numbers that rest before they are used again."""

from __future__ import annotations

import errno
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.nic.fields import FIELD_BITS, REWRITABLE, TRACKED, Width
from asap2.nic.layer_actions import Congest, PopEthernet, PopMpls, PopNsh, PushMpls, PushNsh, SetEthertype, SwapEthernet
from asap2.nic.rules import (
    Action,
    AddTtl,
    Chance,
    CheckLength,
    Clone,
    Ct,
    CtClear,
    CtHardware,
    Decap,
    DecTtl,
    Drop,
    Encap,
    Goto,
    Hash,
    HashAlgorithm,
    LookOn,
    Masked,
    Match,
    Meter,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    Psample,
    PushVlan,
    Sample,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)
from asap2.nic.silicon import actioncodes, maps, packet
from asap2.nic.silicon.abi import Op
from asap2.nic.silicon.indices import MANY, Indices

SUPPORTED = list(FIELD_BITS)
FIELDS = [name for name in SUPPORTED if not name.startswith("tun_") and name not in maps.OVERLAID]
IN_TUNNEL = [name for name in SUPPORTED if name not in maps.HIDDEN_IN_TUNNEL and name not in maps.OVERLAID]

ACTIONS: list[Action] = [
    Output(7),
    PushVlan(57, 3, 0x88A8),
    PopVlan(),
    ModifyVlan(4095, 7),
    ModifyVlan(4095, None, 0x88A8),
    Drop(),
    Goto(0x80000005),
    Upcall(2**64 - 1),
    Psample(7, 100),
    Psample(2**32 - 1, 2**32 - 1, 10, 0, 5, 6, bytes(range(16)), True, None, True),
    Psample(1, 1, length=128, tunnel=SetTunnel(42, bytes(4), b"\x0a\0\0\1", 1, 2, 4789)),
    Psample(1, 1, tunnel=SetTunnel(42, bytes(16), bytes(range(16)))),
    Pass(),
]


@given(st.dictionaries(st.sampled_from(FIELDS), st.tuples(st.integers(0), st.integers(1))))
def test_a_match_comes_back(values: dict[str, tuple[int, int]]) -> None:
    used = {}
    for name, (value, mask) in values.items():
        mask = (mask & ((1 << FIELD_BITS[name]) - 1)) or 1
        used[name] = Masked(value & mask, mask)
    match = Match(**used)
    assert maps.decode_match(*maps.encode_match(match)) == match


def width(name: str) -> int:
    return 32 if name == "tun_id" else FIELD_BITS[name]


@given(st.dictionaries(st.sampled_from(IN_TUNNEL), st.tuples(st.integers(0), st.integers(1))))
def test_a_match_in_a_tunnel_comes_back(values: dict[str, tuple[int, int]]) -> None:
    used = {}
    for name, (value, mask) in values.items():
        mask = (mask & ((1 << width(name)) - 1)) or 1
        used[name] = Masked(value & mask, mask)
    match = Match(**used)
    assert maps.decode_match(*maps.encode_match(match), tunnel=True) == match


def test_fields_in_a_tunnel_do_not_overlap() -> None:
    everything = {name: (1 << width(name)) - 1 for name in IN_TUNNEL}
    encoded = maps.encode_fields(everything)
    assert sum(byte.bit_count() for byte in encoded) == sum(width(name) for name in IN_TUNNEL) + 1  # it is in one
    assert maps.decode_fields(encoded) == everything


@given(st.sampled_from(sorted(REWRITABLE)), st.integers(0), st.integers(1))
def test_rewrites_come_back_as_the_same_bits(name: str, value: int, mask: int) -> None:
    mask = (mask & ((1 << REWRITABLE[name].bits) - 1)) or 1
    action = SetField(name, Masked(value & mask, mask))
    found_value = found_mask = 0
    for entry in actioncodes.encode_actions([action]):
        for part in actioncodes.decode_action(*entry):
            assert isinstance(part, SetField)
            assert part.field == name
            found_value |= part.to.value
            found_mask |= part.to.mask
    assert Masked(found_value, found_mask) == action.to


@given(st.integers(1, 255))
def test_an_addition_to_the_time_to_live_comes_back_once(amount: int) -> None:
    entries = actioncodes.encode_actions([AddTtl(amount)])
    assert [part for entry in entries for part in actioncodes.decode_action(*entry)] == [AddTtl(amount)]


def test_fields_do_not_overlap() -> None:
    everything = maps.encode_fields({name: (1 << FIELD_BITS[name]) - 1 for name in FIELDS})
    assert sum(byte.bit_count() for byte in everything) == sum(FIELD_BITS[name] for name in FIELDS)
    assert maps.decode_fields(everything) == {name: (1 << FIELD_BITS[name]) - 1 for name in FIELDS}


def test_addresses_are_in_network_order() -> None:
    mask, value = maps.encode_match(Match(ip_src=Masked(0x0A000001, 0xFFFFFF00 | 1)))
    assert value[32:48] == bytes(12) + bytes([10, 0, 0, 1])
    assert mask[44:48] == bytes([255, 255, 255, 1])


LISTS: list[Action] = [
    Clone((PushMpls(0x100, 0x8847), Output(1))),
    Sample(1 << 31, (PopMpls(0x0800), Goto(5))),
    CheckLength(1500, (Output(1), Clone((Drop(),))), (Output(2),)),
    DecTtl((Upcall(1),)),
    Hash(HashAlgorithm.SYMMETRIC, 7),
    SetField("skb_mark", Masked(1, 3)),
    SetField("mpls_lse1", Masked(1, 0xFF)),
    PushMpls(1 << 31, 0x8848, outside=True),
    PushNsh(bytes(24)),
    PopNsh(),
    PopEthernet(),
    Ct(7, commit=True, mark=Masked(1, 3)),
    CtClear(),
    CtHardware(7, nat=True, resume=5),
    CtHardware(7, nat=False, resume=0, inside=True),
    Meter(3, (Drop(),)),
    Chance(1 << 30, (PopVlan(), LookOn(0x20000))),
    SwapEthernet(),
    SetEthertype(0x88B5),
    Congest(),
]


@pytest.mark.parametrize("action", [*ACTIONS, *LISTS])
def test_an_action_comes_back(action: Action) -> None:
    assert actioncodes.decode_actions(actioncodes.encode_actions([action])) == (action,)


def test_a_check_before_the_end_is_one_of_a_copy() -> None:
    check = CheckLength(1500, (Output(1),), ())
    assert actioncodes.decode_actions(actioncodes.encode_actions([check, Output(2)])) == (Clone((check,)), Output(2))


def test_fields_that_share_a_place_take_their_ethertype() -> None:
    reason = actioncodes.unsupported(Match(mpls_lse1=Masked(1, 1)), [])
    assert reason == "matching on mpls_lse1 takes a match on the ethertype that has it"
    for name, ethertypes in maps.OVERLAID.items():
        for ethertype in ethertypes:
            match = Match(eth_type=Masked(ethertype, 0xFFFF), **{name: Masked(1, 1)})
            assert actioncodes.unsupported(match, []) is None
            assert maps.decode_match(*maps.encode_match(match)) == match


def test_all_of_an_address_takes_an_ethertype_that_has_it() -> None:
    address = {"ip_src": Masked(1 << 127, 1 << 127)}
    reason = "matching on all of ip_src takes a match on an ethertype that has it"
    for ethertype in ({}, {"eth_type": Masked(0x0806, 0xFFFF)}, {"eth_type": Masked(0x86DD, 0xFFDD)}):
        assert actioncodes.unsupported(Match(**address, **ethertype), []) == reason
    assert actioncodes.unsupported(Match(**address, eth_type=Masked(0x86DD, 0xFFFF)), []) is None
    assert actioncodes.unsupported(Match(ip_src=Masked(1, 1)), []) is None


def test_hardware_addresses_of_arp_are_matched_inside_a_tunnel() -> None:
    arp = {"eth_type": Masked(0x0806, 0xFFFF), "arp_sha": Masked(7, (1 << 48) - 1), "ip_src": Masked(9, 0xFFFF_FFFF)}
    match = Match(**arp, tun_id=Masked(5, 0xFFFF_FFFF), tun_tos=Masked(3, 0xFF))
    assert actioncodes.unsupported(match, []) is None
    assert maps.decode_match(*maps.encode_match(match), tunnel=True) == match


def test_a_cut_comes_back_whatever_it_is_for() -> None:
    for following in (Upcall(1), Output(1)):
        encoded = actioncodes.encode_actions([Truncate(100), following])
        assert [a for entry in encoded for a in actioncodes.decode_action(*entry)] == [Truncate(100), following]


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ([SetField("eth_type", Masked(1, 255))], "rewriting eth_type is not supported"),
        ([AddTtl(0)], "adding 0 to the time to live is not supported"),
        ([Drop(), Decap()], "must be the last action"),
        ([Encap("vxlan", 1, bytes(4), bytes(4))], "outer Ethernet header needs two addresses"),
        ([Output(1)] * 513, "513 actions are more than the 512"),
        ([Drop(), Output(1)], "drop must be the last action"),
        ([PushVlan(4096)], "VLAN id 4096 with priority 0 is out of range"),
        ([PushVlan(1, tpid=0x9100)], "VLAN ethertype 0x9100 is not supported"),
        ([Clone((Goto(1), Output(1)))], "goto must be the last action"),
        ([Clone((Sample(1, (SetField("ip_proto", Masked(1, 255)),)),))], "rewriting ip_proto is not supported"),
        ([PushNsh(bytes(90))], "header of 90 bytes"),
        ([Truncate(13), Output(1)], "inside its Ethernet header"),
    ],
)
def test_what_the_program_cannot_take_is_refused_with_the_reason(actions: list[Action], reason: str) -> None:
    assert reason in (actioncodes.unsupported(Match(), actions) or "")


def test_tunnel_fields_are_refused_by_name() -> None:
    assert actioncodes.unsupported(Match(tun_id=Masked(1 << 33, 1 << 33)), []) == "a tunnel's id has 32 bits"
    assert actioncodes.unsupported(Match(), [*ACTIONS[:4], Truncate(64), Upcall(1), Output(1)]) is None


def test_every_action_is_written_and_every_operation_read() -> None:
    assert set(actioncodes.ENCODERS) == set(get_args(Action))
    lists_and_records = {Op.END, Op.CLONE, Op.SAMPLE, Op.CHECK_LENGTH, Op.DEC_TTL, Op.METER, Op.CHANCE}
    lists_and_records |= {Op.ENCAP, Op.SET_TUNNEL, Op.PUSH_NSH, Op.CT, Op.CT_HARDWARE, Op.PSAMPLE}
    operations = {number for name, number in vars(Op).items() if name.isupper()}
    assert set(actioncodes.DECODERS) == operations - lists_and_records


def test_a_mask_is_as_wide_as_the_words_that_it_needs() -> None:
    def width(**fields: Masked) -> Width:
        return maps.width(maps.encode_match(Match(**fields))[0])

    assert width() is Width.NARROW
    assert width(ip_src=Masked(1, 0xFFFFFFFF), l4_dst=Masked(1, 1)) is Width.NARROW
    assert width(ip_src=Masked(1 << 127, 1 << 127)) is Width.WIDE
    assert {width(**{name: Masked(1, 1)}) for name in TRACKED} == {Width.TRACKED}
    assert width(ct_state=Masked(1, 1), ip_src=Masked(1 << 127, 1 << 127)) is Width.STATEFUL


def test_an_operation_that_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no operation 99"):
        actioncodes.decode_action(99, 0)


def test_a_number_rests_for_a_grace_period_before_it_is_used_again() -> None:
    periods = []
    indices = Indices(4, "things", lambda: periods.append(1))
    assert [indices.take() for _ in range(2)] == [1, 2]
    indices.give(1)
    assert indices.take() == 3
    assert not periods
    assert indices.take() == 1
    assert len(periods) == 1


def test_when_many_rest_they_are_used_again_before_fresh_ones() -> None:
    periods = []
    indices = Indices(1 << 20, "things", lambda: periods.append(1))
    for _ in range(3 * MANY):
        indices.give(indices.take())
    assert len(periods) == 2
    assert indices.take() <= MANY


def test_without_a_number_left_there_is_no_space() -> None:
    indices = Indices(2, "things", lambda: None)
    indices.take()
    with pytest.raises(OSError, match="no room for more things: there are 1") as e:
        indices.take()
    assert e.value.errno == errno.ENOSPC


def test_numbers_are_taken_up_again_after_a_restart() -> None:
    indices = Indices(6, "things", lambda: None)
    indices.restore([2, 4])
    assert sorted(indices.take() for _ in range(3)) == [1, 3, 5]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"eth_type": 0x0806}, True),
        ({"eth_type": 0x86DD, "ip_proto": 58, "l4_src": 135}, True),
        ({"eth_type": 0x86DD, "ip_proto": 58, "l4_src": 128}, False),
        ({"eth_type": 0x0800, "ip_proto": 58, "l4_src": 135}, False),
        ({"eth_type": 0x86DD, "ip_proto": 17, "l4_src": 135}, False),
    ],
)
def test_what_is_about_neighbours_is_known_by_octets_as_by_fields(fields: dict[str, int], expected: bool) -> None:
    assert maps.about_neighbours(maps.encode_fields(fields)) is packet.about_neighbours(fields) is expected
