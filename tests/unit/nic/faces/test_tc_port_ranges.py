# SPDX-License-Identifier: Apache-2.0
"""Ranges of ports and label stack entries in flower's keys."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.tables.tc import RTM_NEWTFILTER, TC, Tcmsg, info
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.flower import NEVER, FlowerKey, parse
from asap2.nic.faces.tc.port_ranges import PortRange, matches
from asap2.nic.rules import Masked, Match
from tests.unit.nic.faces.tc_node import NEW, REPRESENTOR, Node
from tests.unit.nic.faces.tc_requests import gact

TCP = {"key_eth_type": 0x0800, "key_ip_proto": 6}
MPLS = {"key_eth_type": 0x8847}
SKIP_HW, SKIP_SW = 1, 2


def key(protocol: int = 0x0800, **options: Any) -> FlowerKey:
    return parse(FLOWER.decode(FLOWER.encode(options)), protocol)


def test_a_range_is_as_few_blocks_as_hold_its_ports_and_no_others() -> None:
    for least, most, count in ((1000, 2000, 8), (0, 65535, 1), (1, 65534, 30), (7, 8, 2)):
        blocks = list(PortRange("l4_dst", least, most).blocks())
        assert len(blocks) == count
        assert [port for port in range(65536) if any(block.covers(port) for block in blocks)] == [
            *range(least, most + 1)
        ]


def test_two_ranges_match_together() -> None:
    random = Random(5)
    both = key(**TCP, key_port_src_min=10, key_port_src_max=20, key_port_dst_min=100, key_port_dst_max=333)
    found = list(matches(both.match, both.ranges))
    for _ in range(2000):
        source, destination = random.randrange(40), random.randrange(500)
        hits = [one for one in found if one.l4_src.covers(source) and one.l4_dst.covers(destination)]
        assert len(hits) == (10 <= source <= 20 and 100 <= destination <= 333)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"key_port_dst_min": 5}, "Both min and max destination ports must be specified"),
        ({"key_port_src_max": 5}, "Both min and max source ports must be specified"),
        (
            {"key_port_dst_min": 5, "key_port_dst_max": 5},
            "Invalid destination port range (min must be strictly smaller than max)",
        ),
        (
            {"key_port_src_min": 6, "key_port_src_max": 5},
            "Invalid source port range (min must be strictly smaller than max)",
        ),
    ],
)
def test_a_range_needs_two_ends_in_order(given: dict[str, int], text: str) -> None:
    with pytest.raises(NetlinkError) as error:
        key(**TCP, **given)
    assert (error.value.errno, error.value.text) == (errno.EINVAL, text)


def test_of_another_protocol_there_is_no_range() -> None:
    assert not key(key_eth_type=0x0800, key_ip_proto=1, key_port_dst_min=5, key_port_dst_max=9).ranges


def add(node: Node, flags: int = SKIP_HW, **options: Any) -> list[bytes]:
    header = Tcmsg(0, REPRESENTOR, 0, 0xFFFF_FFF2, info(1, 0x0800))
    filter_ = {"kind": "flower", "options": {**options, "act": [gact(0)], "flags": flags}}
    return node.ask(RTM_NEWTFILTER, NEW & ~0x200, TC.encode(header, filter_))


def test_a_filter_with_a_range_is_a_rule_for_each_block_in_software(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.filters.check_device = lambda _ifindex: None
    node.begin(REPRESENTOR)
    add(node, **TCP, key_port_dst_min=6, key_port_dst_max=9)
    assert [rule.match.l4_dst for rule in node.pipeline.rules.values()] == [Masked(6, 0xFFFE), Masked(8, 0xFFFE)]
    (first,) = {rule.priority for rule in node.pipeline.rules.values()}
    add(node, **TCP, key_port_dst_min=6, key_port_dst_max=7)
    assert max(rule.priority for rule in node.pipeline.rules.values()) > first, "the filter that came first decides"
    (told,) = add(node, SKIP_SW, **TCP, key_port_dst_min=20, key_port_dst_max=21)[-1:]
    assert b"mlx5_core: Unsupported key" in told
    assert not node.silicon.rules


# ---- MPLS

BOTTOM = 1 << 8


def test_parts_of_an_entry_are_matched_where_they_lie() -> None:
    assert key(0x8847, **MPLS, key_mpls_label=5, key_mpls_ttl=64).match == Match(
        eth_type=Masked(0x8847, 0xFFFF), vlan_tci=Masked(0, 0x1000), mpls_lse1=Masked(5 << 12 | 64, 0xFFFFF0FF)
    )
    opts = {"lse": [{"depth": 1, "label": 100}, {"depth": 3, "bos": 1, "tc": 7}]}
    match = key(0x8847, **MPLS, key_mpls_opts=opts).match
    assert match.mpls_lse1 == Masked(100 << 12, 0xFFFFF << 12 | BOTTOM)
    assert match.mpls_lse2 == Masked(0, BOTTOM)
    assert match.mpls_lse3 == Masked(0xF00, 0xF00)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_depth_alone_is_that_of_packets_that_have_so_many_entries(depth: int) -> None:
    used = key(0x8847, **MPLS, key_mpls_opts={"lse": [{"depth": depth}]}).match.used()
    labels = {name: masked for name, masked in used.items() if name.startswith("mpls")}
    assert labels == {f"mpls_lse{above}": Masked(0, BOTTOM) for above in range(1, depth)}


def test_no_packet_has_an_entry_below_the_bottom() -> None:
    opts = {"lse": [{"depth": 1, "bos": 1}, {"depth": 2, "label": 0}]}
    assert key(0x8847, **MPLS, key_mpls_opts=opts).match.ip_frag == NEVER["ip_frag"]


@pytest.mark.parametrize(
    ("given", "number", "text"),
    [
        ({"key_mpls_bos": 2}, errno.EINVAL, "Bottom Of Stack (BOS) must be 0 or 1"),
        ({"key_mpls_tc": 8}, errno.EINVAL, "Traffic Class (TC) must be between 0 and 7"),
        ({"key_mpls_label": 1 << 20}, errno.EINVAL, "Label must be between 0 and 1048575"),
        ({"key_mpls_opts": {"lse": [{"label": 1}]}}, errno.EINVAL, 'Missing MPLS option "depth"'),
        ({"key_mpls_opts": {"lse": [{"depth": 8}]}}, errno.EINVAL, "Invalid MPLS depth"),
        (
            {"key_mpls_opts": {"lse": [{"depth": 4, "label": 1}]}},
            errno.EOPNOTSUPP,
            "MPLS label stack entries below 3 are not supported",
        ),
    ],
)
def test_an_entry_that_cannot_be_is_refused(given: dict[str, Any], number: int, text: str) -> None:
    with pytest.raises(NetlinkError) as error:
        key(0x8847, **MPLS, **given)
    assert (error.value.errno, error.value.text) == (number, text)
