# SPDX-License-Identifier: Apache-2.0
"""The page of ``asap2 host status``."""

from __future__ import annotations

import dataclasses
import io

import pytest

from asap2.cli.host_status import drawn
from asap2.host.attachment import Attachment
from asap2.host.connections import Connections
from asap2.host.inventory import Away, Bridge, Host, Interface, Port
from asap2.host.records import to_data
from asap2.host.status import status
from asap2.screen import Screen
from tests.unit.host.hosts import fresh, offloading, with_netdev, with_pf, with_switch


def busy() -> Host:
    """A host whose VF 0 has a guest of OpenStack, VLAN 57 and traffic, of which the host saw little."""
    host = offloading()
    one = dataclasses.replace(
        host.pfs[0].vfs[0], mac="fa:16:3e:b9:b8:ce", netdev=None, rx_packets=600, tx_packets=400, rx_bytes=60000
    )
    host = with_pf(host, vfs=(one, host.pfs[0].vfs[1]))
    host = with_netdev(host, "eth0", rx_packets=1, tx_packets=1)
    ids = (("iface-id", "port-7"), ("vm-uuid", "8e2c"))
    port = Port("eth0", 57, interfaces=(Interface("eth0", ofport=2, external_ids=ids),))
    return with_switch(host, bridges=(Bridge("br-int", "system", (port,)),))


def test_a_vf_is_shown_with_who_has_it_and_how_much_passed_the_host_by() -> None:
    page = status(busy(), busy().pfs)
    one, other = page.nics[0].vfs
    assert (one.mac, one.vlan, one.guest, one.representor, one.bridge) == (
        "fa:16:3e:b9:b8:ce",
        57,
        "server 8e2c, port port-7",
        "eth0",
        "br-int",
    )
    assert one.offloaded == pytest.approx(0.998)
    assert (other.guest, other.offloaded, other.vlan) == (None, None, None)


def test_flows_are_counted_where_they_are() -> None:
    host = busy()
    soft = dataclasses.replace(host.filters[0], in_hw=False, handle=2)
    page = status(dataclasses.replace(host, filters=(*host.filters, soft)), host.pfs)
    assert (page.flows.in_hardware, page.flows.in_tc_software, page.flows.in_datapath) == (1, 1, 0)
    assert (page.nics[0].rules_in_hardware, page.nics[0].rules_in_software) == (1, 1)


def test_a_vf_in_a_named_namespace_is_shown_with_its_name_and_mac() -> None:
    vf = dataclasses.replace(offloading().pfs[0].vfs[0], netdev=None, away=Away("vm1", "net0", "96:ab:fd:00:00:01"))
    host = with_pf(offloading(), vfs=(vf,))
    (shown,) = status(host, host.pfs).nics[0].vfs
    assert (shown.guest, shown.mac) == ("net0 in vm1", "96:ab:fd:00:00:01")


def with_ids(**ids: str) -> Host:
    """A host whose VF 0's representor has these external_ids, which are written with underscores."""
    host = busy()
    pairs = tuple((key.replace("_", "-"), value) for key, value in sorted(ids.items()))
    port = Port("eth0", 57, interfaces=(Interface("eth0", ofport=2, external_ids=pairs),))
    return with_switch(host, bridges=(Bridge("br-int", "system", (port,)),))


def test_neutrons_port_and_novas_server_are_named_with_mac_and_status() -> None:
    host = with_ids(iface_id="p-7", vm_uuid="s-1", attached_mac="fa:16:3e:b9:b8:ce", iface_status="active")
    one = status(host, host.pfs).nics[0].vfs[0]
    assert one.attachment == Attachment("eth0", "p-7", "s-1", "fa:16:3e:b9:b8:ce", "active")
    assert one.guest == "server s-1, port p-7 (fa:16:3e:b9:b8:ce, active)"
    assert to_data(one)["attachment"]["port"] == "p-7"


def test_a_port_that_is_not_active_or_has_another_mac_is_shown_so() -> None:
    host = with_ids(iface_id="p-7", vm_id="s-1", attached_mac="fa:16:3e:00:00:01", iface_status="inactive")
    screen = Screen(file=io.StringIO(), wrap=True)
    screen.print(drawn(status(host, host.pfs)))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    for line in ("server s-1", "port p-7", "attached-mac fa:16:3e:00:00:01", "iface-status inactive"):
        assert line in text


@pytest.mark.parametrize("ids", [{}, {"iface_status": "active"}])
def test_ids_that_name_nobody_are_no_guest(ids: dict[str, str]) -> None:
    host = with_ids(**ids)
    one = status(host, host.pfs).nics[0].vfs[0]
    assert one.attachment is None
    assert one.guest == "in another namespace"


@pytest.mark.parametrize("host", [fresh(), offloading(), busy()])
def test_the_page_is_drawn(host: Host) -> None:
    screen = Screen(file=io.StringIO(), wrap=True)
    screen.print(drawn(status(host, host.pfs)))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "enp3s0f0 (0000:03:00.0)  ConnectX-5, firmware 16.35.4030, mlx5_core" in text
    for vf in host.pfs[0].vfs:
        assert vf.address.removeprefix("0000:") in text
    if host == busy():
        assert "99.8 %" in text


@pytest.mark.parametrize(
    ("connections", "said"),
    [
        (Connections(10, 65536, 4), "Connections: 4 in hardware, 6 in software, of at most 65536"),
        (Connections(10, 65536, None), "Connections: 10 of at most 65536"),
        (None, ""),
    ],
)
def test_connections_are_counted_where_they_are(connections: Connections | None, said: str) -> None:
    host = dataclasses.replace(busy(), connections=connections)
    screen = Screen(file=io.StringIO(), wrap=True)
    screen.print(drawn(status(host, host.pfs)))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert said in text
    assert bool(said) == ("Connections" in text)


def test_where_a_representor_counts_in_hardware_the_host_saw_what_came_to_its_cpu() -> None:
    host = with_netdev(busy(), "eth0", rx_packets=400, tx_packets=600, cpu_packets=3)
    (one, _) = status(host, host.pfs).nics[0].vfs
    assert one.host_packets == 3
    assert one.offloaded == pytest.approx(0.997)
