# SPDX-License-Identifier: Apache-2.0
"""Each difference that the comparison makes allowance for, on purpose: there is one, and the allowance is right.

One filter redirects what it finds to another port. What a real kernel's filter finds, the eSwitch's does not, or the
other way round; with the allowance of :mod:`tests.system.realkernel.views`, they agree.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc
from tests.system.nic.silicon.packets import ipv4, ipv6, ipv6_fragment, ipv6_option, udp
from tests.system.realkernel import flows, guest, machine, ours
from tests.system.realkernel.actions import gact, mirred, vlan
from tests.system.realkernel.machine import Ask, Case, Result, ask, send

_MACS = bytes.fromhex("020000000001020000000002")
_IPV6 = bytes.fromhex("fd00" + "0" * 28)
_TAG = b"\x81\x00\0\7"
_V4, _V6 = b"\x08\x00", b"\x86\xdd"
_DATAGRAM = udp(1000, 2000, b"12345678")


class Difference(NamedTuple):
    """Frame and key, whether the kernel finds the frame, and the frame's actions before it is looked for."""

    frame: bytes
    keys: dict[str, Any]
    kernel_finds: bool
    before: list[dict[str, Any]] | None = None


def _udp_over(ethertype: int, **more: Any) -> dict[str, Any]:
    return {"key_eth_type": ethertype, "key_ip_proto": 17, "key_udp_dst": 2000, **more}


_ARP_3 = bytes.fromhex("0001080006040003") + bytes(16) + b"\x0a\0\0\1"
_PLAIN = _V4 + ipv4("10.0.0.1", "10.0.0.2", 17, _DATAGRAM)

DIFFERENCES = {
    "ARP operations but request and reply": Difference(
        _MACS + b"\x08\x06" + _ARP_3, {"key_eth_type": 0x0806, "key_arp_tip": b"\x0a\0\0\1"}, False
    ),
    "ports of an IPv4 packet's first fragment": Difference(
        _MACS + _V4 + ipv4("10.0.0.1", "10.0.0.2", 17, _DATAGRAM, fragment=0x2000), _udp_over(0x0800), False
    ),
    "headers behind an IPv6 fragment header": Difference(
        _MACS + _V6 + ipv6(_IPV6, _IPV6, 44, ipv6_fragment(60, 1, ipv6_option(17, 0, _DATAGRAM))),
        {"key_eth_type": 0x86DD, "key_ip_proto": 60},
        True,
    ),
    "ports in a header that is cut short": Difference(
        _MACS + _V4 + ipv4("10.0.0.1", "10.0.0.2", 17, _DATAGRAM[:6]), _udp_over(0x0800), True
    ),
    "flags of a TCP header that says to be too short": Difference(
        _MACS + _V4 + ipv4("10.0.0.1", "10.0.0.2", 6, struct.pack(">HHIIHHHH", 1, 2, 3, 4, 0x4002, 5, 0, 0)),
        {"key_eth_type": 0x0800, "key_ip_proto": 6, "key_tcp_flags": 2, "key_tcp_flags_mask": 2},
        False,
    ),
    "an IPv6 extension header that is cut short": Difference(
        _MACS + _V6 + ipv6(_IPV6, _IPV6, 0, b"\x11\0\0\0"), {"key_eth_type": 0x86DD, "key_ip_proto": 17}, True
    ),
    "headers more than 192 octets behind the network header": Difference(
        _MACS + _V6 + ipv6(_IPV6, _IPV6, 0, ipv6_option(17, 20, _DATAGRAM)), _udp_over(0x86DD), True
    ),
    "a length behind two tags": Difference(
        _MACS + _TAG + _TAG + b"\0\x2e" + bytes(46),
        {"key_eth_type": 0x8100, "key_vlan_eth_type": 0x8100, "key_cvlan_eth_type": 0x002E},
        True,
    ),
    "raw 802.3": Difference(_MACS + b"\0\x2e\xff\xff" + bytes(44), {"key_eth_type": 0x0001}, True),
    "what is behind three tags": Difference(_MACS + 3 * _TAG + _PLAIN, {"key_eth_type": 0x0800}, True),
    "the inner tag after a push": Difference(
        _MACS + _TAG + _PLAIN,
        {"key_eth_type": 0x88A8, "key_vlan_eth_type": 0x8100, "key_cvlan_id": 7},
        False,
        [vlan(ta.TCA_VLAN_ACT_PUSH, ta.TC_ACT_PIPE, push_vlan_id=9, push_vlan_protocol=0x88A8)],
    ),
}


def _filter(chain: int, keys: dict[str, Any], actions: list[dict[str, Any]]) -> Ask:
    header = tc.Tcmsg(0, guest.NEAR, 0, tc.TC_H_MIN_INGRESS, tc.info(1, 0x0003))
    attrs = {"kind": "flower", "chain": chain, "options": {**keys, "act": actions, "flags": 0}}
    return ask(tc.RTM_NEWTFILTER, flows.NLM_F_CREATE | flows.NLM_F_EXCL, tc.TC.encode(header, attrs))


def _case(difference: Difference) -> Case:
    found = _filter(1, difference.keys, [mirred(1, ta.TCA_EGRESS_REDIR, ta.TC_ACT_STOLEN)])
    first = _filter(0, {}, [*(difference.before or []), gact(ta.TC_ACT_GOTO_CHAIN | 1)])
    return [flows.add_qdisc(0), found, first, send(0, difference.frame), flows.remove_qdisc(0)]


@pytest.fixture(scope="module")
def kernels() -> dict[str, Result]:
    """What the kernel does with each."""
    results = machine.run([_case(difference) for difference in DIFFERENCES.values()])
    return dict(zip(DIFFERENCES, results, strict=True))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_kernel_and_the_eswitch_differ_and_the_allowance_is_right(name: str, kernels: dict[str, Result]) -> None:
    difference = DIFFERENCES[name]
    (kernel,) = kernels[name].captures
    assert kernel.passed is not difference.kernel_finds
    (plain,) = ours.run(_case(difference), allowances=False).captures
    assert plain.passed is difference.kernel_finds
    assert ours.run(_case(difference)).captures == [kernel]
