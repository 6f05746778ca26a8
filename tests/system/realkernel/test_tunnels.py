# SPDX-License-Identifier: Apache-2.0
"""Geneve and GRE as a real kernel puts frames into them and takes them out: the same octets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asap2.nic.rules import Encap
from asap2.nic.silicon.tunnel import decapsulate, encapsulate, look_into
from tests.system.nic.silicon.network import ethernet
from tests.system.nic.silicon.packets import ipv4, ipv6, udp
from tests.system.realkernel import machine
from tests.system.realkernel.machine import Case, Result

NEAR, FAR = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")
A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ENDS = bytes([172, 16, 0, 1]), bytes([172, 16, 0, 2])
OPTION = bytes.fromhex("0102800100040005")
VNI, TOS, TTL = 77, 0xB8, 63
TUNNELS = {
    "geneve": Encap("geneve", VNI, *ENDS, TOS, TTL, 6081, NEAR, FAR),
    "geneve with an option": Encap("geneve", VNI, *ENDS, TOS, TTL, 6081, NEAR, FAR, OPTION),
    "gre": Encap("gre", 0, *ENDS, TOS, TTL, 0, NEAR, FAR, keyed=False),
    "gre with a key": Encap("gre", 0xFFFF0001, *ENDS, TOS, TTL, 0, NEAR, FAR),
}
INNER = {
    "UDP": ethernet(B, A, ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 2000, b"some more than the least")), 0x0800),
    "IPv6": ethernet(B, A, ipv6(b"\xfd" + bytes(15), b"\xfd" + bytes(14) + b"\1", 17, udp(1, 2, b"data")), 0x86DD),
    "another type": ethernet(B, A, b"local experiments"),
}
UNDER, IN, OUT = 0, 1, 2
"""Ports: what tunnels travel on, where frames come in that go into one, and where they go that come out."""
MODULES = "modprobe -C /tmp/options.conf -d /tmp -a geneve ip_gre"
SET_UP = (
    "ip link set n0 nomaster",
    f"ip link set n0 address {NEAR.hex(':')} up",
    "ip address add 172.16.0.1/24 dev n0",
    f"ip neigh replace 172.16.0.2 lladdr {FAR.hex(':')} dev n0 nud permanent",
    *(f"ip link add {kind} type {kind} external" for kind in ("geneve", "gretap")),
    *(f"tc qdisc add dev {device} clsact" for device in ("n1", "geneve", "gretap")),
    "ip link set geneve up",
    "ip link set gretap up",
)


def _device(into: Encap) -> str:
    return "geneve" if into.protocol == "geneve" else "gretap"


def _case(into: Encap) -> Case:
    """Every frame into the tunnel, and out of one back."""
    key = f"id {into.tun_id}" if into.keyed else ""
    port = "dst_port 6081" if into.tp_dst else ""
    options = f"geneve_opts 0102:80:{into.options[4:].hex()}" if into.options else ""
    tunnel = f"src_ip 172.16.0.1 dst_ip 172.16.0.2 {key} {port} tos {TOS} ttl {TTL} nocsum {options}"
    rule = f"matchall action tunnel_key set {tunnel} pipe action mirred egress redirect dev {_device(into)}"
    match = f"flower enc_key_id {into.tun_id} {options}" if into.keyed else "matchall"
    back = replace(into, src=into.dst, dst=into.src, eth_src=FAR, eth_dst=NEAR)
    return [
        machine.command("tc filter del dev n1 ingress"),
        machine.command(f"tc filter del dev {_device(into)} ingress"),
        machine.command(f"tc filter add dev n1 ingress {rule}"),
        machine.command(f"tc filter add dev {_device(into)} ingress {match} action mirred egress redirect dev n2"),
        *(machine.send(IN, frame) for frame in INNER.values()),
        *(machine.send(UNDER, encapsulate(frame, back, 0)) for frame in INNER.values()),
    ]


@pytest.fixture(scope="module")
def kernels() -> dict[str, Result]:
    """What the kernel did, by tunnel: one boot for all."""
    set_up = [machine.command(line) for line in (MODULES, *SET_UP)]
    first, *found = machine.run([set_up, *map(_case, TUNNELS.values())])
    assert [(answer[0][0], answer[0][2]) for answer in first.answers] == [(0, b"")] * len(set_up)
    return dict(zip(TUNNELS, found, strict=True))


def _without(frame: bytes) -> bytes:
    """*frame* without what its sender chooses: IPv4's identification, flags and checksum, and UDP's source port."""
    port = 2 if frame[23] == 17 else 0
    return frame[:18] + frame[22:24] + frame[26:34] + frame[34 + port :]


@pytest.mark.parametrize("name", TUNNELS)
def test_into_a_tunnel_with_the_kernels_octets(kernels: dict[str, Result], name: str) -> None:
    came = [one.frame for one in kernels[name].captures if one.port == UNDER and look_into(one.frame)]
    made = [encapsulate(frame, TUNNELS[name], 0) for frame in INNER.values()]
    assert [_without(frame) for frame in came] == [_without(frame) for frame in made]


@pytest.mark.parametrize("name", TUNNELS)
def test_out_of_a_tunnel_as_the_kernel(kernels: dict[str, Result], name: str) -> None:
    came = [one.frame for one in kernels[name].captures if one.port == OUT and not one.passed]
    assert came == list(INNER.values())
    assert came == [decapsulate(encapsulate(frame, TUNNELS[name], 0)) for frame in INNER.values()]
