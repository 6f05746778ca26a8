# SPDX-License-Identifier: Apache-2.0
"""Devices of GRE without a frame inside, and of bare UDP: what the programs are told, and what is seen of them."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds.kind import KindLink, Wanted
from asap2.nic.kinds.plain import KINDS, BareUdp, Gre
from asap2.nic.kinds.tunnel_programs import GRETAP, Device
from asap2.nic.links import Link

IP, IPV6, MPLS = 0x0800, 0x86DD, 0x8847
REMOTE = "0a000002"


@pytest.mark.parametrize(
    ("ethertype", "multiproto", "protocol"), [(IP, False, 4), (IP, True, 0), (IPV6, False, 41), (MPLS, True, 137)]
)
def test_bare_udp_carries_what_its_device_says(ethertype: int, multiproto: bool, protocol: int) -> None:
    device = BareUdp().device({"port": 6635, "ethertype": ethertype, "multiproto": multiproto})
    assert (device.collects, device.port, device.protocol) == (True, 6635, protocol)


def test_gre_with_and_without_a_frame_inside_are_for_different_packets() -> None:
    kept: dict[str, Any] = {"collect_metadata": False, "pmtudisc": 1, "remote": REMOTE}
    with_frame = Device(GRETAP, False, None, 0, bytes(4), bytes.fromhex(REMOTE))
    assert Gre().device(kept).place() != with_frame.place()
    assert Gre().device(kept).place()[3:] == with_frame.place()[3:]


def test_their_packets_have_no_ethernet_header_that_counts() -> None:
    for kind in KINDS:
        link = KindLink(1, kind.name, 0, 5, None, 6, data={"port": 6635, "multiproto": False})
        seen = kind.as_seen(link, Link(5, "x", True, bytes(6), 0, None, "veth", 0, True, False))
        assert (seen.bare, seen.veiled, seen.ethernet) == (True, True, False)


def test_a_device_of_bare_udp_needs_attributes() -> None:
    with pytest.raises(NetlinkError) as refused:
        BareUdp().check(Wanted({}, None, None))
    assert refused.value.errno == errno.EINVAL
