# SPDX-License-Identifier: Apache-2.0
"""Which counters a netdev of a NIC shows, and RTM_GETSTATS, which tells them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from asap2.netlink.request import Proxy
from asap2.netlink.wire import NlMsg, attribute, attributes
from asap2.nic import statistics
from asap2.nic.faces.rtnetlink.stats import RTM_GETSTATS, RTM_NEWSTATS, StatsFace, stats64
from asap2.nic.function import EswitchMode, Role
from asap2.nic.netdevs import Counters, NetDev, Where
from tests.unit.nic.backend import ListedNetDevs, booted
from tests.unit.nic.faces.faces import request

PF = "0000:03:00.0"
OWN, FUNCTION, WIRE = Counters(1, 2, 100, 200), Counters(30, 40, 3000, 4000), Counters(5, 6, 500, 600)
LINK_64, OFFLOAD_XSTATS = 1, 4
FILTER = {name: 1 << number - 1 for name, number in (("link", LINK_64), ("offload", OFFLOAD_XSTATS))}


def made(mode: EswitchMode) -> ListedNetDevs:
    driver, _ = booted()
    driver.set_numvfs(PF, 1)
    driver.set_mode(PF, mode)
    netdevs = ListedNetDevs(driver)
    netdevs.passed = {Where.NETDEV: OWN, Where.FUNCTION: FUNCTION, Where.WIRE: WIRE}
    return netdevs


def of(netdevs: ListedNetDevs, role: Role) -> NetDev:
    return next(device for device in netdevs.all() if device.role is role)


def test_a_representor_shows_its_function_from_the_switch() -> None:
    netdevs = made(EswitchMode.SWITCHDEV)
    assert statistics.shown(netdevs, of(netdevs, Role.REPRESENTOR)) == Counters(40, 30, 4000, 3000)


def test_an_uplink_shows_the_cable_with_frame_check_sequences() -> None:
    netdevs = made(EswitchMode.SWITCHDEV)
    assert statistics.shown(netdevs, of(netdevs, Role.PF)) == Counters(5, 6, 520, 624)


@pytest.mark.parametrize(("mode", "role"), [(EswitchMode.LEGACY, Role.PF), *((mode, Role.VF) for mode in EswitchMode)])
def test_others_show_what_they_have_seen(mode: EswitchMode, role: Role) -> None:
    netdevs = made(mode)
    assert statistics.shown(netdevs, of(netdevs, role)) is None


def told(role: Role, asked: int, more: bytes = b"", kernel: dict[int, bytes] | None = None) -> dict[int, Any]:
    """The attributes of the answer to RTM_GETSTATS; the kernel answers with those in *kernel*."""
    netdevs = made(EswitchMode.SWITCHDEV)
    device = of(netdevs, role)
    header = struct.pack("=B3xII", 0, device.ifindex, asked)
    face = StatsFace(netdevs, lambda ifindex, _request: netdevs.by_ifindex(ifindex))
    answer = face.get(request(RTM_GETSTATS, header + more))
    assert isinstance(answer, Proxy)
    payload = header + b"".join(attribute(type_, value) for type_, value in (kernel or {}).items())
    (message,) = answer.rewrite(NlMsg(RTM_NEWSTATS, 0, 0, 0, payload))
    return dict(attributes(message.payload, len(header)))


def test_what_the_cpu_has_touched_is_told_apart() -> None:
    found = told(Role.REPRESENTOR, FILTER["link"] | FILTER["offload"], kernel={LINK_64: stats64(OWN), 5: b""})
    assert list(found) == [LINK_64, OFFLOAD_XSTATS, 5]
    assert found[LINK_64] == stats64(Counters(40, 30, 4000, 3000))
    assert dict(attributes(found[OFFLOAD_XSTATS])) == {1: stats64(OWN)}


def test_what_the_kernel_says_of_offloads_comes_after_it() -> None:
    found = told(Role.PF, FILTER["offload"], kernel={OFFLOAD_XSTATS: attribute(2, b"info")})
    assert list(dict(attributes(found[OFFLOAD_XSTATS]))) == [1, 2]


def test_only_what_is_asked_for_is_told() -> None:
    assert not told(Role.REPRESENTOR, FILTER["link"] << 1)
    others = attribute(1, attribute(OFFLOAD_XSTATS, struct.pack("=I", 0b10)))
    assert not told(Role.REPRESENTOR, FILTER["offload"], others)
    assert not told(Role.VF, FILTER["offload"])
