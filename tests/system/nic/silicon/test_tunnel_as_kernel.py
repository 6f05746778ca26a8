# SPDX-License-Identifier: Apache-2.0
"""Tunnels as the kernel's own vxlan device makes and opens them: the same octets, down to the source port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asap2.nic.rules import Encap, Output, Rule
from asap2.nic.silicon.tunnel import decapsulate, encapsulate, look_into
from tests.system.nic.silicon.conftest import VF1, VF2, Nic
from tests.system.nic.silicon.network import Namespace, Tap, ethernet, veth
from tests.system.nic.silicon.packets import ipv4, ipv6, udp

VNI, TOS, TTL = 77, 0xB8, 63
NEAR, FAR = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")
A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
_V6 = bytes.fromhex("fd00" + "0" * 28)
INNER = {
    "UDP": ethernet(B, A, ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 2000, b"some more than the least")), 0x0800),
    "UDP of another flow": ethernet(B, A, ipv4("10.0.0.1", "10.0.0.2", 17, udp(1001, 2000, b"as many octets")), 0x0800),
    "IPv6": ethernet(B, A, ipv6(_V6[:15] + b"\1", _V6[:15] + b"\2", 17, udp(1, 2, b"data")), 0x86DD),
    "ARP": ethernet(b"\xff" * 6, A, bytes.fromhex("0001080006040001") + A + bytes(10), 0x0806),
    "another type": ethernet(B, A, b"local experiments"),
}


@dataclass
class Kernel:
    """A vxlan device: *device* is its own tap, *wire* one on the far end of what it sends by, *into* its tunnel."""

    device: Tap
    wire: Tap
    into: Encap


@pytest.fixture(params=["172.16.0.1 172.16.0.2", "fd00::1 fd00::2"], ids=["over IPv4", "over IPv6"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    near, far = Namespace(), Namespace()
    source, destination = request.param.split()
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    veth(near, "under", far, "wire", NEAR)
    if family == socket.AF_INET6:
        near.run(lambda: Path("/proc/sys/net/ipv6/conf/under/disable_ipv6").write_text("0"))

    def make(ipr: Any) -> None:
        index = ipr.link_lookup(ifname="under")[0]
        version6 = family == socket.AF_INET6
        ipr.addr("add", index=index, address=source, prefixlen=64 if version6 else 24, flags=2)  # IFA_F_NODAD
        ipr.neigh("add", dst=destination, lladdr=FAR.hex(":"), ifindex=index, family=family, state=128)  # NUD_PERMANENT
        ends = {"vxlan_group6": destination, "vxlan_local6": source, "vxlan_udp_zero_csum6_tx": 1}
        ends |= {"vxlan_udp_zero_csum6_rx": 1}
        ends = ends if version6 else {"vxlan_group": destination, "vxlan_local": source, "vxlan_udp_csum": 0}
        more = {"vxlan_id": VNI, "vxlan_port": 4789, "vxlan_ttl": TTL, "vxlan_tos": TOS, "vxlan_learning": 0}
        ipr.link("add", ifname="vx", kind="vxlan", address=B.hex(":"), vxlan_link=index, **more, **ends)
        ipr.link("set", ifname="vx", state="up")

    near.links(make)
    addresses = (socket.inet_pton(family, source), socket.inet_pton(family, destination))
    into = Encap("vxlan", VNI, *addresses, TOS, TTL, 4789, NEAR, FAR)
    made = Kernel(Tap(near, "vx"), Tap(far, "wire"), into)
    yield made
    made.device.close()
    made.wire.close()
    near.close()
    far.close()


def _tunnelled(tap: Tap) -> bytes:
    """The next packet in a tunnel; a kernel that has just got IPv6 sends others too."""
    while look_into(frame := tap.receive()) is None:
        pass
    return frame


def _without(frame: bytes, into: Encap) -> bytes:
    """*frame* without what sender chooses: the source port, and IPv4's identification and so its checksum."""
    if len(into.dst) == 16:
        return frame[:54] + b"\0\0" + frame[56:]
    return frame[:18] + b"\0\0" + frame[20:24] + b"\0\0" + frame[26:34] + b"\0\0" + frame[36:]


@pytest.mark.parametrize("name", INNER)
def test_into_a_tunnel_with_the_kernels_octets_and_source_port(kernel: Kernel, nic: Nic, name: str) -> None:
    frame = INNER[name]
    kernel.device.send(frame)
    kernels = _tunnelled(kernel.wire)
    assert _without(kernels, kernel.into) == _without(encapsulate(frame, kernel.into, 0), kernel.into)
    nic.pipeline.add(Rule(0, VF1, 1, actions=(kernel.into, Output(VF2))))
    received = nic.tap(VF2)
    nic.tap(VF1).send(frame)
    ours = received.receive()
    port = slice(34, 36) if len(kernel.into.dst) == 4 else slice(54, 56)
    assert ours[port] == kernels[port]
    assert _without(ours, kernel.into) == _without(kernels, kernel.into)


@pytest.mark.parametrize("name", INNER)
def test_out_of_a_tunnel_as_the_kernel(kernel: Kernel, name: str) -> None:
    back = Encap("vxlan", VNI, kernel.into.dst, kernel.into.src, TOS, TTL, 4789, FAR, NEAR)
    frame = encapsulate(INNER[name], back, 0)
    kernel.wire.send(frame)
    assert kernel.device.receive() == INNER[name] == decapsulate(frame)
