# SPDX-License-Identifier: Apache-2.0
"""What is at the root of a NIC's netdevs."""

from __future__ import annotations

import pytest

from asap2.netlink.request import Message
from asap2.netlink.tables import tc
from asap2.netlink.wire import NLM_F_DUMP, NlMsg
from asap2.nic.faces.ethtool import settings as ethtool_settings
from asap2.nic.faces.tc.root_qdiscs import RootQdiscs
from asap2.nic.function import Role
from asap2.nic.netdevs import Counters, NetDev, Where
from tests.unit.nic.backend import ListedNetDevs, booted
from tests.unit.nic.faces.faces import request


@pytest.fixture
def netdevs() -> ListedNetDevs:
    driver, _ = booted()
    driver.set_numvfs("0000:03:00.0", 1)
    made = ListedNetDevs(driver)
    made.passed = {Where.NETDEV: Counters(tx_packets=3, tx_bytes=300)}
    return made


def shown(netdevs: ListedNetDevs, ifindex: int, kind: str, handle: int = 0, flags: int = NLM_F_DUMP) -> list[Message]:
    message = NlMsg(
        tc.RTM_NEWQDISC, 0, 0, 0, tc.TC.encode(tc.Tcmsg(0, ifindex, handle, tc.TC_H_ROOT, 2), {"kind": kind})
    )
    return RootQdiscs(netdevs).shown(message, request(tc.RTM_GETQDISC, b"", flags=1 | flags))


@pytest.fixture
def pf(netdevs: ListedNetDevs, monkeypatch: pytest.MonkeyPatch) -> NetDev:
    monkeypatch.setattr(ethtool_settings, "max_channels", lambda: 4)
    return next(device for device in netdevs.all() if device.role is Role.PF)


def test_each_channel_has_a_queue_with_a_qdisc(netdevs: ListedNetDevs, pf: NetDev) -> None:
    ethtool_settings.keep(pf, {"combined_count": 3})
    found = [tc.TC.decode(message.payload) for message in shown(netdevs, pf.ifindex, "noqueue")]
    assert [(attrs["kind"], header.parent) for header, attrs in found] == [
        ("mq", tc.TC_H_ROOT), ("pfifo_fast", 1), ("pfifo_fast", 2), ("pfifo_fast", 3),
    ]  # fmt: skip
    assert [attrs["stats"].bytes for _, attrs in found] == [300, 300, 0, 0]


def test_who_asks_for_the_root_gets_the_root(netdevs: ListedNetDevs, pf: NetDev) -> None:
    (only,) = shown(netdevs, pf.ifindex, "noqueue", flags=0)
    assert tc.TC.decode(only.payload)[1]["kind"] == "mq"


@pytest.mark.parametrize(("kind", "handle"), [("htb", 0x10000), ("noqueue", 0x80010000)])
def test_what_a_program_put_there_stays(netdevs: ListedNetDevs, pf: NetDev, kind: str, handle: int) -> None:
    (only,) = shown(netdevs, pf.ifindex, kind, handle)
    assert tc.TC.decode(only.payload)[1]["kind"] == kind


def test_other_devices_keep_theirs(netdevs: ListedNetDevs) -> None:
    (only,) = shown(netdevs, 999, "noqueue")
    assert tc.TC.decode(only.payload)[1]["kind"] == "noqueue"
