# SPDX-License-Identifier: Apache-2.0
"""How the kernel's description of a link is changed, and what becomes of requests that are not well formed."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.request import PASS, Message, Netns, Proxy
from asap2.netlink.server import Server
from asap2.netlink.tables.link import (
    LINK,
    RTEXT_FILTER_SKIP_STATS,
    RTEXT_FILTER_VF,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    Ifinfomsg,
)
from asap2.netlink.wire import NLM_F_DUMP, NetlinkError, NlMsg, attribute, attributes
from asap2.nic.faces.rtnetlink.face import LinkFace
from asap2.nic.function import EswitchMode, Role
from asap2.nic.model import UPCALL_MTU
from asap2.nic.netdevs import NetDev
from tests.unit.nic.backend import ListedNetDevs, booted, refused
from tests.unit.nic.faces.faces import HOME, StillServer, request

PF = "0000:03:00.0"
# What Linux 6.18 says of a veth, in its order, for what matters here.
VETH: dict[str, Any] = {
    "ifname": "enp3s0f0",
    "num_tx_queues": 2,
    "num_rx_queues": 2,
    "link": 7,
    "carrier": 1,
    "qdisc": "noqueue",
    "address": bytes.fromhex("ec0d9a469e84"),
    "broadcast": b"\xff" * 6,
    "stats64": (0,) * 25,
    "stats": (0,) * 24,
    "xdp": b"\x05\x00\x02\x00\x00\x00\x00\x00",
    "linkinfo": {"kind": "veth"},
    "link_netnsid": 0,
    "af_spec": b"",
}


class Linkless(StillServer):
    """A kernel without links: they went meanwhile."""

    def kernel(self, _netns: Netns, _protocol: int) -> Any:
        return self

    def request(self, *_asked: object) -> Any:
        raise NetlinkError(errno.ENODEV)


def made(vfs: int = 2, mode: EswitchMode = EswitchMode.SWITCHDEV) -> LinkFace:
    driver, _ = booted()
    driver.set_numvfs(PF, vfs)
    driver.set_mode(PF, mode)
    server = cast(Server, Linkless())
    no_port, elsewhere = (lambda _ifindex: None), (lambda _ifindex: False)
    return LinkFace(server, driver, ListedNetDevs(driver), master=no_port, immovable=elsewhere)


def netdev(face: LinkFace, name: str) -> NetDev:
    device = face.netdevs.by_name(name)
    assert device
    return device


def shown(face: LinkFace, name: str, mask: int = RTEXT_FILTER_VF, **change: Any) -> dict[Any, Any]:
    device = netdev(face, name)
    payload = LINK.encode(Ifinfomsg(index=device.ifindex), {**VETH, **change})
    return LINK.decode(face.rewrite(payload, device, mask))[1]


def test_attributes_are_where_the_kernel_puts_them() -> None:
    assert list(shown(made(), "enp3s0f0")) == [
        "ifname", "num_tx_queues", "num_rx_queues", "carrier", "qdisc", "address", "broadcast", "perm_address",
        "phys_port_name", "phys_switch_id", "stats64", "stats", "num_vf", "vfinfo_list", "xdp", "af_spec",
        "parent_dev_name", "parent_dev_bus_name",
    ]  # fmt: skip


def test_a_vf_is_described_in_the_kernels_order() -> None:
    face = made()
    (first, second) = shown(face, "enp3s0f0")["vfinfo_list"]["vf_info"]
    order = ["mac", "broadcast", "vlan", "rate", "tx_rate", "spoofchk", "link_state", "rss_query_en", "trust"]
    assert list(first) == [*order, "vlan_list", "stats"]
    assert second["mac"].vf == 1
    assert len(second["mac"].mac) == 32
    assert isinstance(face.netdevs, ListedNetDevs)
    face.netdevs.of_vf[1] = {"rx_packets": 6}
    (_, second) = shown(face, "enp3s0f0")["vfinfo_list"]["vf_info"]
    assert (second["stats"]["rx_packets"], second["stats"]["tx_bytes"]) == (6, 0)
    quiet = shown(face, "enp3s0f0", RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS)
    assert "stats" not in quiet["vfinfo_list"]["vf_info"][0]


def test_vfs_are_shown_only_when_asked_for_and_only_on_the_pf() -> None:
    face = made()
    assert not {"num_vf", "vfinfo_list"} & set(shown(face, "enp3s0f0", 0))
    counts = {name: shown(face, name).get("num_vf") for name in ("enp3s0f0", "enp3s0f0v1", "eth1")}
    assert counts == {"enp3s0f0": 2, "enp3s0f0v1": 0, "eth1": 2}
    assert "vfinfo_list" not in shown(face, "eth1")
    assert shown(made(0, EswitchMode.LEGACY), "enp3s0f0")["vfinfo_list"] == {}


def test_the_switch_id_is_the_nics() -> None:
    face = made()
    card = face.driver.nics[0]
    assert shown(face, "eth1")["phys_switch_id"].hex() == card.switch_id
    assert "phys_switch_id" not in shown(face, "enp3s0f0v1")
    face.driver.set_mode(PF, EswitchMode.LEGACY)
    assert "phys_switch_id" not in shown(face, "enp3s0f0")


def told(
    face: LinkFace, name: str, room: int = 1 << 16, type_: int = RTM_NEWLINK, **change: Any
) -> dict[Any, Any] | None:
    """What a notification of the kernel's says of the device when it is shown; None: it stays as it is."""
    payload = LINK.encode(Ifinfomsg(index=netdev(face, name).ifindex), {**VETH, **change})
    found = face.notified(HOME, NlMsg(type_, 0, 0, 0, payload), room)
    return None if found is None else LINK.decode(found)[1]


@pytest.mark.parametrize("type_", [RTM_NEWLINK, RTM_DELLINK])
def test_notifications_say_the_same_without_vfs(type_: int) -> None:
    face = made()
    known = shown(face, "enp3s0f0", mask=0)
    assert told(face, "enp3s0f0", type_=type_) == known
    assert "linkinfo" not in known
    assert "link" not in known


def test_a_notification_without_room_to_grow_loses_the_veth_only() -> None:
    lean = told(made(), "enp3s0f0", room=0)
    assert lean is not None
    assert list(lean) == [name for name in VETH if name not in ("link", "link_netnsid", "linkinfo")]


def test_a_notification_that_was_shown_or_is_of_another_kind_stays_as_it_is() -> None:
    face = made()
    assert told(face, "eth0", linkinfo={"kind": "vxlan"}) is None
    payload = face.rewrite(LINK.encode(Ifinfomsg(index=netdev(face, "eth0").ifindex), VETH), netdev(face, "eth0"), 0)
    assert face.notified(HOME, NlMsg(RTM_NEWLINK, 0, 0, 0, payload), 1 << 16) is None


def test_a_masters_kind_stays_when_the_veths_goes() -> None:
    info = shown(made(), "eth1", linkinfo={"kind": "veth", "slave_kind": "bridge", "slave_data": b"\x01\0\0\0"})
    assert info["linkinfo"] == {"slave_kind": "bridge", "slave_data": b"\x01\0\0\0"}


def test_a_port_of_a_datapath_has_it_as_master() -> None:
    face = made()
    other = LINK.encode(Ifinfomsg(index=50), {"ifname": "tap0", "num_rx_queues": 1, "carrier": 1})
    attrs = LINK.decode(face.rewrite(other, None, 0, master=7))[1]
    assert attrs == {
        "ifname": "tap0",
        "num_rx_queues": 1,
        "master": 7,
        "carrier": 1,
        "linkinfo": {"slave_kind": "openvswitch"},
    }
    assert list(attrs)[2] == "master"


def test_an_internal_port() -> None:
    face = made()
    payload = LINK.encode(Ifinfomsg(index=9), {**VETH, "ifname": "br0"})
    attrs = LINK.decode(face.rewrite(payload, NetDev(9, "br0", Role.INTERNAL), RTEXT_FILTER_VF))[1]
    assert attrs["linkinfo"] == {"kind": "openvswitch"}
    assert not {"link", "link_netnsid", "num_vf", "parent_dev_name"} & set(attrs)


@pytest.mark.parametrize(("mtu", "shown"), [(9000, 9000), (UPCALL_MTU, 1500)])
def test_the_mtu_of_an_internal_port_is_what_open_vswitchs_would_be(mtu: int, shown: int) -> None:
    payload = LINK.encode(Ifinfomsg(index=9), {**VETH, "ifname": "ovs-system", "mtu": mtu})
    attrs = LINK.decode(made().rewrite(payload, NetDev(9, "ovs-system", Role.INTERNAL), RTEXT_FILTER_VF))[1]
    assert attrs["mtu"] == shown


# ---- requests


def change(face: LinkFace, name: str, attrs: dict[str, Any], header: dict[str, int] | None = None) -> Any:
    payload = LINK.encode(Ifinfomsg(index=netdev(face, name).ifindex, **(header or {})), attrs)
    return face.change(request(RTM_SETLINK, payload))


def test_a_change_without_vf_attributes_is_the_kernels() -> None:
    face = made()
    assert change(face, "enp3s0f0", {"mtu": 1400}) is PASS
    assert face.change(request(RTM_NEWLINK, LINK.encode(Ifinfomsg(index=1), {"ifname": "x"}))) is PASS


def test_vf_attributes_alone_are_no_business_of_the_kernel() -> None:
    face = made(mode=EswitchMode.LEGACY)
    info = {"vfinfo_list": {"vf_info": [{"mac": (1, bytes.fromhex("020000000001"))}, {"trust": (0, 1)}]}}
    assert change(face, "enp3s0f0", info) is None
    vfs = face.driver.nics[0].pfs[0].vfs
    assert (vfs[1].mac.hex(), vfs[0].trust) == ("020000000001", True)


def test_what_else_is_asked_for_goes_on_without_them() -> None:
    face = made(mode=EswitchMode.LEGACY)
    info = {"mtu": 1400, "vfinfo_list": {"vf_info": [{"trust": (0, 1)}]}, "ifalias": "x"}
    answer = change(face, "enp3s0f0", info, {"flags": 1, "change": 1})
    header, attrs = LINK.decode(answer.payload)
    assert (header.flags, dict(attrs)) == (1, {"mtu": 1400, "ifalias": "x"})


@pytest.mark.parametrize(
    ("name", "info", "number"),
    [
        ("enp3s0f0", {"mac": (2, bytes(6))}, errno.EINVAL),
        ("enp3s0f0", {"mac": (0xFFFF_FFFF, bytes(6))}, errno.EINVAL),
        ("enp3s0f0", {"vlan_list": {}}, errno.EINVAL),
        ("enp3s0f0", {"vlan_list": {"info": [(0, 1, 0, 129), (0, 2, 0, 129)]}}, errno.EOPNOTSUPP),
        ("enp3s0f0", {"vlan": (0, 5, 0)}, errno.EOPNOTSUPP),
        ("enp3s0f0", {"rate": (0, 7, 5)}, errno.EINVAL),
        ("enp3s0f0", {"tx_rate": (9, 5)}, errno.EINVAL),
        ("enp3s0f0", {"spoofchk": (0, 1)}, errno.EOPNOTSUPP),
        ("enp3s0f0", {"trust": (0, 1)}, errno.EOPNOTSUPP),
        ("enp3s0f0", {"trust": (9, 1)}, errno.EINVAL),
        ("enp3s0f0", {"link_state": (0, 1)}, errno.EOPNOTSUPP),
        ("enp3s0f0", {"rss_query_en": (0, 1)}, errno.EOPNOTSUPP),
        ("enp3s0f0", {"ib_node_guid": (0, 1)}, errno.EOPNOTSUPP),
        ("enp3s0f0", {"ib_node_guid": (5, 1)}, errno.EINVAL),
        ("eth1", {"trust": (0, 1)}, errno.EOPNOTSUPP),
        ("enp3s0f0v1", {"trust": (0, 1)}, errno.EPERM),
    ],
)
def test_vf_attributes_that_are_refused(name: str, info: dict[str, Any], number: int) -> None:
    face = made()
    with refused(number):
        change(face, name, {"vfinfo_list": {"vf_info": [info]}})


def test_something_else_in_the_list_of_vfs_is_refused() -> None:
    face = made()
    with refused(errno.EINVAL):
        change(face, "enp3s0f0", {"vfinfo_list": attribute(2, b"")})


def test_representors_and_the_uplink_stay_where_they_are() -> None:
    face = made()
    for name in ("eth1", "enp3s0f0"):
        with pytest.raises(NetlinkError, match="immutable"):
            change(face, name, {"net_ns_pid": 1})
    assert change(face, "enp3s0f0v1", {"net_ns_pid": 1}) is PASS
    face.driver.set_mode(PF, EswitchMode.LEGACY)
    assert change(face, "enp3s0f0", {"net_ns_pid": 1}) is PASS


@pytest.mark.parametrize("family", [socket.AF_INET6, 7])
def test_links_of_other_families_have_no_peer_either(family: int) -> None:
    face = made()
    proxy = face.get(request(RTM_GETLINK, LINK.encode(Ifinfomsg(family=family), {}), NLM_F_DUMP))
    assert isinstance(proxy, Proxy)
    index = netdev(face, "eth0").ifindex
    told = LINK.encode(
        Ifinfomsg(family, 1, index, 3, 0), {"ifname": "eth0", "mtu": 1500, "link": 5, "protinfo": b"1234"}
    )
    (shown,) = proxy.rewrite(NlMsg(RTM_NEWLINK, 2, 1, 0, told))
    assert LINK.decode(shown.payload)[1] == {"ifname": "eth0", "mtu": 1500, "protinfo": b"1234"}


def test_other_namespaces_are_the_kernels() -> None:
    face = made()
    proxy = face.get(request(RTM_GETLINK, LINK.encode(Ifinfomsg(), {"target_netnsid": 1})))
    assert isinstance(proxy, Proxy)
    told = LINK.encode(Ifinfomsg(index=netdev(face, "eth0").ifindex), VETH)
    assert list(proxy.rewrite(NlMsg(RTM_NEWLINK, 2, 1, 0, told))) == [Message(RTM_NEWLINK, told)]
    assert face.get(request(RTM_GETLINK, b"\x11", NLM_F_DUMP)) is not PASS


def test_deleting_is_refused_for_ours_only() -> None:
    face = made()
    for name in ("enp3s0f0", "enp3s0f0v1", "eth0"):
        with refused(errno.EOPNOTSUPP):
            face.delete(request(RTM_DELLINK, LINK.encode(Ifinfomsg(index=netdev(face, name).ifindex), {})))
    assert face.delete(request(RTM_DELLINK, LINK.encode(Ifinfomsg(index=1), {}))) is PASS


@given(st.binary(min_size=1, max_size=120), st.integers(0, 0xFFFF))
def test_malformed_requests_are_refused_or_the_kernels(data: bytes, flags: int) -> None:
    face = made()
    ours = LINK.encode(Ifinfomsg(index=netdev(face, "enp3s0f0").ifindex), {})
    for handler in (face.get, face.change, face.delete):
        for payload in (data, ours + data, ours + attribute(22, data), ours + attribute(22, attribute(1, data))):
            with contextlib.suppress(NetlinkError):
                handler(request(RTM_SETLINK, payload, flags))


@given(st.binary(max_size=200))
def test_any_message_of_the_kernel_can_be_rewritten(data: bytes) -> None:
    face = made()
    payload = bytes(16) + data
    try:
        rewritten = face.rewrite(payload, netdev(face, "enp3s0f0"), RTEXT_FILTER_VF, master=3)
    except NetlinkError:
        return
    assert len(list(attributes(rewritten, 16))) >= len(["parent_dev_name", "parent_dev_bus_name"])
