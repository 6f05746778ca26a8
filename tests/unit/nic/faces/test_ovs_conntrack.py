# SPDX-License-Identifier: Apache-2.0
"""Connection tracking in Open vSwitch's datapath: keys and actions, checked and given back as Linux does."""

from __future__ import annotations

import errno
import struct

import pytest

from asap2.netlink.wire import NetlinkError, attribute
from asap2.nic.faces.ovs import actions as ovs_actions
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.actions import conntrack as ct
from asap2.nic.faces.ovs.actions import numbers as action
from asap2.nic.faces.ovs.execute import checked
from asap2.nic.faces.ovs.key import numbers
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Clone, Ct, CtClear, Drop, Masked

IPV4_KEY = {"eth_type": 0x0800, "ip_proto": 6, "mac_proto": 1}
IPV6_KEY = {"eth_type": 0x86DD, "ip_proto": 17, "mac_proto": 1}
ARP_KEY = {"eth_type": 0x0806, "mac_proto": 1}
INET, INET6 = 2, 10
COMMIT = (ct.COMMIT, b"")
Attrs = tuple[tuple[int, bytes], ...]


def packed(*attrs: tuple[int, bytes]) -> bytes:
    return b"".join(attribute(kind, value) for kind, value in attrs)


def tracked(*attrs: tuple[int, bytes]) -> bytes:
    return attribute(action.CT, packed(*attrs))


def nat(*attrs: tuple[int, bytes]) -> tuple[int, bytes]:
    return ct.NAT, packed(*attrs)


def u16(value: int) -> bytes:
    return struct.pack("=H", value)


def u32(*values: int) -> bytes:
    return struct.pack(f"={len(values)}I", *values)


@pytest.mark.parametrize(
    ("attrs", "want"),
    [
        ((), Ct(family=INET)),
        (((ct.ZONE, u16(7)),), Ct(7, family=INET)),
        ((COMMIT,), Ct(commit=True, family=INET)),
        (((ct.FORCE_COMMIT, b""),), Ct(commit=True, force=True, family=INET)),
        ((COMMIT, (ct.MARK, u32(1, 0xFF))), Ct(commit=True, mark=Masked(1, 0xFF), family=INET)),
        (
            ((ct.LABELS, bytes(15) + b"\1" + bytes(15) + b"\3"), COMMIT),
            Ct(commit=True, labels=Masked(1, 3), family=INET),
        ),
        ((COMMIT, (ct.HELPER, b"ftp\0")), Ct(commit=True, helper="ftp", family=INET)),
        ((COMMIT, (ct.EVENTMASK, u32(5))), Ct(commit=True, eventmask=5, family=INET)),
        ((COMMIT, (ct.TIMEOUT, b"short\0")), Ct(commit=True, timeout="short", family=INET)),
        ((nat(),), Ct(nat=Nat(None), family=INET)),
        (
            (COMMIT, nat((ct.NAT_SRC, b""), (ct.NAT_IP_MIN, b"\x0a\0\0\1"))),
            Ct(commit=True, nat=Nat(NatKind.SRC, b"\x0a\0\0\1", b"\x0a\0\0\1"), family=INET),
        ),
        (
            (
                COMMIT,
                nat(
                    *((ct.NAT_DST, b""), (ct.NAT_IP_MIN, b"\x0a\0\0\1"), (ct.NAT_IP_MAX, b"\x0a\0\0\3")),
                    *((ct.NAT_PROTO_MIN, u16(80)), (ct.NAT_PROTO_MAX, u16(90)), (ct.NAT_PERSISTENT, b"")),
                ),
            ),
            Ct(
                commit=True,
                nat=Nat(NatKind.DST, b"\x0a\0\0\1", b"\x0a\0\0\3", 80, 90, persistent=True),
                family=INET,
            ),
        ),
        (
            (COMMIT, nat((ct.NAT_SRC, b""), (ct.NAT_PROTO_MIN, u16(80)), (ct.NAT_PROTO_HASH, b""))),
            Ct(commit=True, nat=Nat(NatKind.SRC, port_min=80, port_max=80, hash=True), family=INET),
        ),
        (
            (COMMIT, nat((ct.NAT_SRC, b""), (ct.NAT_PROTO_RANDOM, b""))),
            Ct(commit=True, nat=Nat(NatKind.SRC, random=True), family=INET),
        ),
    ],
)
def test_an_action_says_what_is_to_become_of_the_connection(attrs: Attrs, want: Ct) -> None:
    assert ovs_actions.parse(tracked(*attrs), IPV4_KEY) == (want,)


def test_addresses_are_of_the_family_of_the_flow() -> None:
    address = bytes(15) + b"\1"
    translated = tracked(COMMIT, nat((ct.NAT_SRC, b""), (ct.NAT_IP_MIN, address)))
    (step,) = ovs_actions.parse(translated, IPV6_KEY)
    assert step == Ct(commit=True, nat=Nat(NatKind.SRC, address, address), family=INET6)
    with pytest.raises(NetlinkError) as error:
        ovs_actions.parse(translated, IPV4_KEY)
    assert error.value.errno == errno.EINVAL


def test_a_mark_sets_the_bits_of_its_value_that_its_mask_leaves_out() -> None:
    (step,) = ovs_actions.parse(tracked(COMMIT, (ct.MARK, u32(0x101, 0xFF))), IPV4_KEY)
    assert isinstance(step, Ct)
    assert step.mark == Masked(0x101, 0x1FF)


@pytest.mark.parametrize(
    "attrs",
    [
        ((0, b""),),
        ((10, b""),),
        ((ct.COMMIT, b"\1"),),
        ((ct.ZONE, u32(1)),),
        (COMMIT, (ct.MARK, u32(1))),
        (COMMIT, (ct.MARK, u32(1, 0))),
        ((ct.MARK, u32(1, 1)),),
        (COMMIT, (ct.LABELS, b"\xff" * 16 + bytes(16))),
        ((ct.LABELS, b"\xff" * 32),),
        (COMMIT, (ct.HELPER, b"")),
        (COMMIT, (ct.HELPER, b"ftp")),
        (COMMIT, (ct.HELPER, b"gopher\0")),
        (COMMIT, (ct.HELPER, b"tftp\0")),
        (COMMIT, (ct.HELPER, b"ftp".ljust(17, b"\0"))),
        (COMMIT, (ct.EVENTMASK, u16(1))),
        (COMMIT, (ct.TIMEOUT, b"name")),
        (COMMIT, (ct.TIMEOUT, bytes(33))),
        (nat((ct.NAT_SRC, b"")),),
        (COMMIT, nat((ct.NAT_IP_MIN, bytes(4)))),
        (COMMIT, nat((ct.NAT_PERSISTENT, b""))),
        (COMMIT, nat((0, b""))),
        (COMMIT, nat((10, b""))),
        (COMMIT, nat((ct.NAT_SRC, b"\1"))),
        (COMMIT, nat((ct.NAT_SRC, b""), (ct.NAT_IP_MIN, bytes(16)))),
        (COMMIT, nat((ct.NAT_SRC, b""), (ct.NAT_PROTO_MIN, u32(1)))),
        (nat((ct.NAT_SRC, b"")), COMMIT),
    ],
)
def test_an_action_that_the_kernel_does_not_take_is_refused(attrs: Attrs) -> None:
    with pytest.raises(NetlinkError) as error:
        ovs_actions.parse(tracked(*attrs), IPV4_KEY)
    assert error.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "attrs",
    [(COMMIT, nat((ct.NAT_SRC, b""), (ct.NAT_DST, b""))), (COMMIT, nat(), nat((ct.NAT_SRC, b"")))],
)
def test_of_two_translations_in_one_action_the_second_is_out_of_range(attrs: Attrs) -> None:
    with pytest.raises(NetlinkError) as error:
        ovs_actions.parse(tracked(*attrs), IPV4_KEY)
    assert error.value.errno == errno.ERANGE


def test_what_is_no_ip_packet_cannot_be_tracked() -> None:
    with pytest.raises(NetlinkError) as error:
        ovs_actions.parse(tracked(), ARP_KEY)
    assert error.value.errno == errno.EINVAL
    assert ovs_actions.parse(attribute(action.CT_CLEAR, b""), ARP_KEY) == (CtClear(),)


def test_actions_within_actions_track() -> None:
    steps = ovs_actions.parse(attribute(action.CLONE, tracked(COMMIT)), IPV4_KEY)
    assert ovs_actions.to_rule(steps, lambda port: port, lambda _step: 1, lambda meter: meter) == (
        Clone((Ct(commit=True, family=INET),)),
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), ((ct.ZONE, u16(0)),)),
        (
            (nat(), (ct.ZONE, u16(3)), (ct.MARK, u32(0x101, 0xFF)), (ct.FORCE_COMMIT, b""), COMMIT),
            ((ct.FORCE_COMMIT, b""), (ct.ZONE, u16(3)), (ct.MARK, u32(0x101, 0xFF)), nat()),
        ),
        (
            (COMMIT, (ct.TIMEOUT, b"a\0rest"), (ct.EVENTMASK, u32(1)), (ct.HELPER, b"ftp\0\0")),
            (COMMIT, (ct.ZONE, u16(0)), (ct.HELPER, b"ftp\0"), (ct.EVENTMASK, u32(1)), (ct.TIMEOUT, b"a\0")),
        ),
        (
            (COMMIT, nat((ct.NAT_IP_MIN, bytes(4)), (ct.NAT_IP_MAX, bytes(4)), (ct.NAT_SRC, b""))),
            (COMMIT, (ct.ZONE, u16(0)), nat((ct.NAT_SRC, b""), (ct.NAT_IP_MIN, bytes(4)))),
        ),
        (
            (COMMIT, nat((ct.NAT_PROTO_MAX, u16(9)), (ct.NAT_SRC, b""))),
            (COMMIT, (ct.ZONE, u16(0)), nat((ct.NAT_SRC, b""), (ct.NAT_PROTO_MIN, u16(0)), (ct.NAT_PROTO_MAX, u16(9)))),
        ),
        ((COMMIT, (ct.TIMEOUT, b"\0")), (COMMIT, (ct.ZONE, u16(0)))),
    ],
)
def test_an_action_comes_back_in_the_kernels_order(given: Attrs, told: Attrs) -> None:
    ovs_actions.parse(tracked(*given), IPV4_KEY)
    assert ovs_actions.echoed(tracked(*given)) == tracked(*told)
    assert ovs_actions.echoed(attribute(action.CLONE, tracked(*given))) == attribute(action.CLONE, tracked(*told))


ETHERNET = (numbers.ETHERNET, b"\x02\0\0\0\0\x0a" + b"\x02\0\0\0\0\x0b")
IPV4 = (numbers.IPV4, b"\x0a\0\0\1\x0a\0\0\2\x11\0\x40\0")
EXACT_TYPE = (numbers.ETHERTYPE, b"\xff\xff")
UDP_KEY = (ETHERNET, (numbers.ETHERTYPE, b"\x08\0"), IPV4, (numbers.UDP, bytes(4)))
ORIGINAL = b"\x0a\0\0\1" + b"\x0a\0\0\2" + struct.pack("!HHB3x", 1000, 80, 6)
ALL = b"\xff" * 13 + bytes(3)


def test_what_connection_tracking_knows_is_matched() -> None:
    key = (
        *((numbers.CT_STATE, u32(0x22)), (numbers.CT_ZONE, u16(5)), (numbers.CT_MARK, u32(0xAB))),
        *((numbers.CT_LABELS, bytes(15) + b"\7"), (numbers.CT_ORIG_TUPLE_IPV4, ORIGINAL), *UDP_KEY),
    )
    mask = (
        *((numbers.CT_STATE, u32(0x26)), (numbers.CT_ZONE, u16(0xFFFF)), (numbers.CT_MARK, u32(0xF))),
        *((numbers.CT_LABELS, bytes(15) + b"\3"), (numbers.CT_ORIG_TUPLE_IPV4, ALL), EXACT_TYPE),
    )
    flow = ovs_key.match_of(packed(*key), packed(*mask))
    match = ovs_key.to_match(flow)
    assert match is not None
    assert match.ct_state == Masked(0x22, 0x26)
    assert match.ct_zone == Masked(5, 0xFFFF)
    assert match.ct_mark == Masked(0xB, 0xF)
    assert match.ct_labels == Masked(3, 3)
    assert match.ct_src == Masked(0x0A000001, 0xFFFFFFFF)
    assert match.ct_dst == Masked(0x0A000002, 0xFFFFFFFF)
    assert (match.ct_tp_src.value, match.ct_tp_dst.value, match.ct_proto.value) == (1000, 80, 6)
    told = dict(ovs_key.walk(ovs_key.emit(flow.masked(), flow.masked())))
    assert told[numbers.CT_ORIG_TUPLE_IPV4] == ORIGINAL
    assert told[numbers.CT_STATE] == u32(0x22)


def test_the_states_of_every_key_are_told_and_the_original_tuple_where_there_is_one() -> None:
    key = ovs_key.match_of(packed(*UDP_KEY), None).key
    told = dict(ovs_key.walk(ovs_key.emit(key, key)))
    assert told[numbers.CT_STATE] == u32(0)
    assert {numbers.CT_ZONE, numbers.CT_MARK, numbers.CT_LABELS} <= told.keys()
    assert numbers.CT_ORIG_TUPLE_IPV4 not in told


@pytest.mark.parametrize("mask", [None, ((numbers.CT_STATE, u32(0x100)), EXACT_TYPE)])
def test_a_state_that_there_is_not_is_refused(mask: Attrs | None) -> None:
    key = packed((numbers.CT_STATE, u32(0x100 if mask is None else 0)), *UDP_KEY)
    with pytest.raises(NetlinkError) as error:
        ovs_key.match_of(key, None if mask is None else packed(*mask))
    assert error.value.errno == errno.EINVAL


@pytest.mark.parametrize(("kind", "exact", "taken"), [(26, True, True), (26, False, False), (27, True, False)])
def test_an_original_tuple_is_masked_where_the_ethertype_is_exact(kind: int, exact: bool, taken: bool) -> None:
    size = 16 if kind == numbers.CT_ORIG_TUPLE_IPV4 else 40
    key, mask = packed((kind, bytes(size)), *UDP_KEY), packed((kind, b"\xff" * size), *([EXACT_TYPE] if exact else []))
    if taken:
        ovs_key.match_of(key, mask)
    else:
        with pytest.raises(NetlinkError):
            ovs_key.match_of(key, mask)


FRAME = bytes(12) + b"\x08\0" + b"E\0\0\x1c\0\0\0\0\x40\x11\0\0" + bytes(16)
IN_PORT = (numbers.IN_PORT, u32(1))


def test_a_packet_that_is_handed_in_keeps_what_is_known_of_it() -> None:
    known = ((numbers.CT_STATE, u32(0x22)), (numbers.CT_ZONE, u16(5)), (numbers.CT_ORIG_TUPLE_IPV4, ORIGINAL))
    given = checked(FRAME, packed(IN_PORT, *known), b"")
    assert (given.key["ct_state"], given.key["ct_zone"], given.key["ct_tp_dst"]) == (0x22, 5, 80)
    assert ovs_actions.to_rule(given.steps, lambda port: port, lambda _step: 1, lambda meter: meter) == (Drop(),)


def test_a_packet_has_the_original_tuple_of_its_own_family() -> None:
    with pytest.raises(NetlinkError) as error:
        checked(FRAME, packed(IN_PORT, (numbers.CT_ORIG_TUPLE_IPV6, bytes(40))), b"")
    assert error.value.errno == errno.EINVAL
