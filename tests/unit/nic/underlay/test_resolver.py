# SPDX-License-Identifier: Apache-2.0
"""The outer headers that the driver makes, and what they follow."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from asap2.netlink.wire import NetlinkError
from asap2.nic import tunnels
from asap2.nic.function import Nic, Role, Vf
from asap2.nic.links import Link
from asap2.nic.model import MODELS
from asap2.nic.netdevs import NetDev
from asap2.nic.rules import Action, Encap, PushVlan, SetTunnel
from asap2.nic.tunnels import PROTOCOLS, Ip, LinkKind
from asap2.nic.underlay.resolver import Outer, Tunnels
from asap2.nic.underlay.routes import Hop
from asap2.nic.underlay.udp_ports import UdpPorts

UPLINK, VLAN, BRIDGE, REPRESENTOR, VXLAN, BOUND, VETH, INTERNAL, FUNCTION = range(2, 11)
NEAR, FAR = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"
NIC = Nic.configured(
    {
        "name": "n",
        "model": "ConnectX-5",
        "pci": "0000:03:00.0",
        "netns": "",
        "total_vfs": 2,
        "ports": 1,
        "mac": "02:" * 5 + "02",
    }
)
PF = NIC.pfs[0]
TUNNEL = SetTunnel(77, bytes(4), b"\xac\x10\0\2", ttl=64, tp_dst=4790)


def _link(ifindex: int, kind: str = "veth") -> Link:
    return Link(ifindex, f"d{ifindex}", True, NEAR[:5] + bytes((ifindex,)), 0, None, kind)


class _Routes:
    """A routing table of one route."""

    def __init__(self) -> None:
        self.hop: Hop | None = Hop(UPLINK, b"\xac\x10\0\1", TUNNEL.dst, FAR)
        self.asked: list[tuple[bytes, bytes | None, int]] = []
        self.used: list[tuple[Hop, bytes]] = []

    def resolve(self, destination: bytes, source: bytes | None = None, lower: int = 0) -> Hop:
        self.asked.append((destination, source, lower))
        if self.hop is None:
            raise NetlinkError(errno.ENETUNREACH)
        return self.hop

    def use(self, hop: Hop, own_mac: bytes) -> None:
        self.used.append((hop, own_mac))


class _World:
    def __init__(self) -> None:
        self.routes = _Routes()
        self.links = {index: _link(index) for index in (UPLINK, REPRESENTOR, VETH, INTERNAL, FUNCTION)}
        self.links[VLAN] = replace(_link(VLAN, "vlan"), vlan=(0x8100, 100), peer=UPLINK)
        self.links[BRIDGE] = _link(BRIDGE, "bridge")
        self.links[VXLAN] = replace(_link(VXLAN, "vxlan"), tunnel_port=4790)
        self.links[BOUND] = replace(_link(BOUND, "vxlan"), tunnel_port=4789, tunnel_lower=UPLINK)
        devices = {
            UPLINK: NetDev(UPLINK, "enp3s0f0", Role.PF, PF),
            REPRESENTOR: NetDev(REPRESENTOR, "eth0", Role.REPRESENTOR, Vf(PF, 0)),
            INTERNAL: NetDev(INTERNAL, "br-ex", Role.INTERNAL),
            FUNCTION: NetDev(FUNCTION, "enp3s0f0v0", Role.VF, Vf(PF, 0)),
        }
        self.programmed: list[tuple[int, ...]] = []
        ports = UdpPorts(self.links.values, self.programmed.append)
        self.tunnels = Tunnels(self.routes, self.links.get, devices.get, ports)  # type: ignore[arg-type]

    def encap(self, device: int = VXLAN) -> object:
        return self.tunnels.encap(PF, device, TUNNEL)

    def by(self, ifindex: int) -> None:
        assert self.routes.hop is not None
        self.routes.hop = replace(self.routes.hop, ifindex=ifindex)


@pytest.fixture
def world() -> _World:
    return _World()


def _expected(ifindex: int) -> Encap:
    near = NEAR[:5] + bytes((ifindex,))
    return Encap("vxlan", 77, b"\xac\x10\0\1", TUNNEL.dst, 0, 64, 4790, near, FAR)


def _outer(*actions: Action, internal: int = 0) -> Outer:
    return Outer(actions, internal)


def test_a_route_by_the_uplink_gives_its_address_and_the_neighbours(world: _World) -> None:
    assert world.encap() == _outer(_expected(UPLINK))


def test_a_route_by_a_vlan_device_adds_its_tag(world: _World) -> None:
    world.by(VLAN)
    assert world.encap() == _outer(_expected(VLAN), PushVlan(100, 0, 0x8100))


def test_a_route_by_a_device_that_is_none_of_the_nics_leaves_by_the_uplink(world: _World) -> None:
    world.by(BRIDGE)
    assert world.encap() == _outer(_expected(BRIDGE))


def test_by_an_internal_port_packets_come_in_by_that(world: _World) -> None:
    world.by(INTERNAL)
    assert world.encap() == _outer(_expected(INTERNAL), internal=INTERNAL)


def test_a_route_by_a_representor_is_refused(world: _World) -> None:
    world.by(REPRESENTOR)
    with pytest.raises(NetlinkError) as refused:
        world.encap()
    assert (refused.value.errno, refused.value.text) == (errno.EOPNOTSUPP, None)


@pytest.mark.parametrize(("model", "taken"), [("ConnectX-5", False), ("ConnectX-6 Dx", True)])
def test_by_a_vf_packets_are_as_if_it_had_sent_them(
    world: _World, monkeypatch: pytest.MonkeyPatch, model: str, taken: bool
) -> None:
    monkeypatch.setattr(NIC, "model", MODELS[model])
    world.by(FUNCTION)
    if taken:
        made = world.encap()
        assert isinstance(made, Outer)
        assert (made.actions, made.vf and made.vf.port) == ((_expected(FUNCTION),), Vf(PF, 0).port)
        world.tunnels.decap(PF, VXLAN, TUNNEL.src, TUNNEL.dst)
    else:
        with pytest.raises(NetlinkError) as refused:
            world.encap()
        assert refused.value.errno == errno.EOPNOTSUPP


def test_no_route_and_no_tunnel_device_are_refused(world: _World) -> None:
    with pytest.raises(NetlinkError, match="mlx5_core: Unsupported tunnel"):
        world.encap(VETH)
    world.routes.hop = None
    with pytest.raises(NetlinkError) as refused:
        world.encap()
    assert (refused.value.errno, refused.value.text) == (errno.ENETUNREACH, None)
    with pytest.raises(NetlinkError) as refused:
        world.tunnels.decap(PF, VXLAN, TUNNEL.src, TUNNEL.dst)
    assert refused.value.errno == errno.ENETUNREACH


def test_what_comes_out_of_a_tunnel_comes_in_by_the_way_back(world: _World) -> None:
    world.tunnels.decap(PF, VXLAN, TUNNEL.src, TUNNEL.dst)
    world = _World()
    world.by(REPRESENTOR)
    with pytest.raises(NetlinkError) as refused:
        world.tunnels.decap(PF, VXLAN, TUNNEL.src, TUNNEL.dst)
    assert refused.value.errno == errno.EOPNOTSUPP


def test_a_udp_port_that_no_vxlan_device_has_is_refused(world: _World) -> None:
    assert world.encap() == _outer(_expected(UPLINK))
    assert world.programmed == [(4790, 0, 0, 0, 0, 0, 0)]
    for port in (0, 8472):
        with pytest.raises(NetlinkError, match="mlx5_core: vxlan udp dport was not registered with the HW"):
            world.tunnels.encap(PF, VXLAN, replace(TUNNEL, tp_dst=port))


def test_a_tunnel_without_ports_is_put_on_whatever_ports_are_known(
    world: _World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gretap = LinkKind("gretap", lower=1, port=None)
    gre = replace(PROTOCOLS["vxlan"], name="gre", number=255, over=Ip(47), links=(gretap,))
    monkeypatch.setitem(tunnels._OF_LINKS, "gretap", (gre, gretap))
    world.links[VXLAN] = _link(VXLAN, "gretap")
    made = world.tunnels.encap(PF, VXLAN, replace(TUNNEL, tp_dst=0))
    assert made == _outer(replace(_expected(UPLINK), protocol="gre", tp_dst=0))
    assert world.tunnels.protocol_of(VXLAN) is gre
    assert world.tunnels.port_of(VXLAN) == 0
    assert world.tunnels.port_of(UPLINK) is None


def test_a_device_that_is_bound_to_another_asks_for_routes_by_that(world: _World) -> None:
    world.encap(BOUND)
    assert world.routes.asked == [(TUNNEL.dst, TUNNEL.src, UPLINK)]


def test_a_neighbour_that_is_not_known_is_asked_for_once(world: _World) -> None:
    assert world.routes.hop is not None
    world.routes.hop = replace(world.routes.hop, mac=None)
    assert world.encap() is None
    assert world.encap() is None
    assert world.routes.used == [(world.routes.hop, world.links[UPLINK].mac)]


def test_no_neighbour_is_asked_for_where_the_tunnel_is_refused(world: _World) -> None:
    assert world.routes.hop is not None
    world.routes.hop = replace(world.routes.hop, ifindex=REPRESENTOR, mac=None)
    with pytest.raises(NetlinkError):
        world.encap()
    assert not world.routes.used


def test_the_kernel_is_told_of_neighbours_that_hardware_uses_and_knows(world: _World) -> None:
    world.tunnels.used(VXLAN, TUNNEL)
    assert not world.routes.used
    world.encap()
    world.tunnels.used(VXLAN, TUNNEL)
    assert world.routes.used == [(world.routes.hop, world.links[UPLINK].mac)]
    world.tunnels.used(VXLAN, replace(TUNNEL, dst=b"\xac\x10\0\3"))
    assert len(world.routes.used) == 1


def test_a_way_is_asked_for_once_until_something_changes(world: _World) -> None:
    world.encap()
    world.encap()
    assert len(world.routes.asked) == 1
    assert not world.tunnels.changed()
    world.by(BRIDGE)
    assert world.encap() == _outer(_expected(UPLINK))
    assert world.tunnels.changed()
    assert world.encap() == _outer(_expected(BRIDGE))


def test_the_devices_own_address_is_followed(world: _World) -> None:
    world.encap()
    world.links[UPLINK] = replace(world.links[UPLINK], mac=b"\x02\0\0\0\xbb\1")
    assert world.tunnels.changed()
    assert world.encap() == _outer(replace(_expected(UPLINK), eth_src=b"\x02\0\0\0\xbb\1"))
