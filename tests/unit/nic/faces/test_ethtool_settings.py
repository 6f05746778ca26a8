# SPDX-License-Identifier: Apache-2.0
"""What a NIC's netdevs count, and what of their settings may be changed to what."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from asap2.netlink.wire import NetlinkError
from asap2.nic.device import Driver
from asap2.nic.faces.ethtool import settings as ethtool_settings
from asap2.nic.faces.ethtool import stats as ethtool_stats
from asap2.nic.function import EswitchMode, Role
from asap2.nic.netdevs import Counters, NetDev, Where
from tests.unit.nic.backend import ListedNetDevs, booted

PF = "0000:03:00.0"
PASSED = {
    Where.NETDEV: Counters(1, 2, 100, 200),
    Where.FUNCTION: Counters(30, 40, 3000, 4000),
    Where.WIRE: Counters(5, 6, 500, 600),
}


class Nic:
    """A NIC with a VF and, in switchdev mode, its representor."""

    def __init__(self, mode: EswitchMode) -> None:
        self.driver: Driver
        self.driver, _ = booted()
        self.driver.set_numvfs(PF, 1)
        self.driver.set_mode(PF, mode)
        self.netdevs = ListedNetDevs(self.driver)
        self.netdevs.passed = PASSED

    def __getitem__(self, role: Role) -> NetDev:
        return next(device for device in self.netdevs.all() if device.role is role)

    def counted(self, role: Role, kinds: dict[str, int] | None = None) -> dict[str, int]:
        names = ethtool_stats.names(self[role], 2)
        self.netdevs.of_vf[0] = kinds or {}
        return dict(zip(names, ethtool_stats.figures(self[role], 2, self.netdevs), strict=True))


@pytest.fixture(params=EswitchMode, ids=lambda mode: mode.name.lower())
def nic(request: pytest.FixtureRequest) -> Nic:
    return Nic(request.param)


def test_every_counter_has_a_name_of_its_own_that_fits(nic: Nic) -> None:
    for device in nic.netdevs.all():
        names = ethtool_stats.names(device, 2)
        assert len(set(names)) == len(names)
        assert max(map(len, names)) < ethtool_stats.ETH_GSTRING_LEN


def test_a_representor_sees_its_function_from_the_switch() -> None:
    counted = Nic(EswitchMode.SWITCHDEV).counted(Role.REPRESENTOR)
    assert list(counted.items())[:8] == [
        ("rx_packets", 1), ("rx_bytes", 100), ("tx_packets", 2), ("tx_bytes", 200),
        ("vport_rx_packets", 40), ("vport_rx_bytes", 4000), ("vport_tx_packets", 30), ("vport_tx_bytes", 3000),
    ]  # fmt: skip
    assert not any(list(counted.values())[8:])


@pytest.mark.parametrize("role", [Role.PF, Role.VF])
def test_a_port_counts_the_cable_with_frame_check_sequences(nic: Nic, role: Role) -> None:
    counted = nic.counted(role)
    assert (counted["rx_packets"], counted["tx_bytes"]) == (1, 200)
    assert (counted["rx_packets_phy"], counted["rx_bytes_phy"]) == (5, 520)
    assert (counted["tx_packets_phy"], counted["tx_bytes_phy"]) == (6, 624)
    assert (counted["tx_vport_unicast_packets"], counted["rx_vport_unicast_bytes"]) == (40, 3000)


def test_a_vfs_multicast_and_broadcast_are_told_apart_where_they_are_known(nic: Nic) -> None:
    counted = nic.counted(Role.VF, {"multicast": 7, "broadcast": 3})
    kinds = ("unicast", "multicast", "broadcast")
    assert [counted[f"rx_vport_{kind}_packets"] for kind in kinds] == [20, 7, 3]


def test_channels_are_counted_whatever_the_mode() -> None:
    assert Nic(EswitchMode.LEGACY).counted(Role.PF)["rx0_packets"] == 1
    assert Nic(EswitchMode.SWITCHDEV).counted(Role.PF)["rx0_packets"] == 1
    assert Nic(EswitchMode.SWITCHDEV).counted(Role.VF)["tx1_bytes"] == 0


Want = Callable[[NetDev, dict[Any, Any]], dict[str, int]]


@pytest.mark.parametrize(
    ("want", "asked", "role", "number", "text"),
    [
        (ethtool_settings.wanted_rings, {"rx": 8193}, Role.PF, errno.EINVAL, "exceeds maximum"),
        (ethtool_settings.wanted_rings, {"rx": 1}, Role.PF, errno.EINVAL, "mlx5_core: rx (1) < min (2)"),
        (ethtool_settings.wanted_rings, {"tx": 32}, Role.REPRESENTOR, errno.EINVAL, "mlx5_core: tx (32) < min (64)"),
        (ethtool_settings.wanted_rings, {"rx_mini": 1}, Role.PF, errno.EINVAL, "exceeds maximum"),
        (ethtool_settings.wanted_rings, {"cqe_size": 64}, Role.PF, errno.EOPNOTSUPP, "not supported"),
        (ethtool_settings.wanted_channels, {"combined_count": 9999}, Role.PF, errno.EINVAL, "exceeds maximum"),
        (ethtool_settings.wanted_channels, {"rx_count": 1}, Role.PF, errno.EINVAL, "exceeds maximum"),
        (ethtool_settings.wanted_channels, {"combined_count": 0}, Role.VF, errno.EINVAL, "no RX or TX channel"),
        (ethtool_settings.wanted_coalesce, {"rx_usecs_irq": 1}, Role.PF, errno.EOPNOTSUPP, "unsupported parameter"),
        (ethtool_settings.wanted_coalesce, {"use_cqe_mode_rx": 1}, Role.REPRESENTOR, errno.EOPNOTSUPP, "unsupported"),
        (ethtool_settings.wanted_coalesce, {"tx_usecs": 4096}, Role.PF, errno.ERANGE, "4095 usecs, tx-usecs (4096)"),
        (ethtool_settings.wanted_coalesce, {"rx_max_frames": 1 << 16}, Role.PF, errno.ERANGE, "65535, tx-frames (128)"),
        (ethtool_settings.wanted_pause, {"autoneg": 1}, Role.PF, errno.EINVAL, ""),
        (ethtool_settings.wanted_pause, {"rx": 1}, Role.VF, errno.EINVAL, ""),
        (ethtool_settings.wanted_pause, {"rx": 1}, Role.REPRESENTOR, errno.EOPNOTSUPP, ""),
    ],
)  # fmt: skip
def test_settings_that_are_refused(want: Want, asked: dict[Any, Any], role: Role, number: int, text: str) -> None:
    device = Nic(EswitchMode.SWITCHDEV)[role]
    with pytest.raises(NetlinkError) as refused:
        want(device, asked)
    assert refused.value.errno == number
    assert text in str(refused.value)


def test_ring_sizes_are_rounded_up_to_powers_of_two() -> None:
    device = Nic(EswitchMode.SWITCHDEV)[Role.PF]
    assert ethtool_settings.wanted_rings(device, {"rx": 1500, "tx": 64}) == {"rx": 2048, "tx": 64}


def test_figures_of_moderation_count_only_where_the_driver_does_not_adapt_them() -> None:
    device = Nic(EswitchMode.SWITCHDEV)[Role.PF]
    assert ethtool_settings.wanted_coalesce(device, {"rx_usecs": 99})["rx_usecs"] == 8
    assert ethtool_settings.wanted_coalesce(device, {"rx_usecs": 99, "use_adaptive_rx": 0})["rx_usecs"] == 99


def test_what_was_set_is_kept_as_long_as_the_netdev_is_there() -> None:
    nic = Nic(EswitchMode.SWITCHDEV)
    for role in (Role.PF, Role.VF, Role.REPRESENTOR):
        assert ethtool_settings.keep(nic[role], {"rx": 512})
        assert not ethtool_settings.keep(nic[role], {"rx": 512})
    state = nic.driver.snapshot()
    fresh, _ = booted()
    fresh.restore(state)
    assert fresh.nics[0].pfs[0].settings == {role: {"rx": 512} for role in ("uplink", "vf0", "rep0")}
    nic.driver.unbind("0000:03:00.2")
    assert set(nic.driver.nics[0].pfs[0].settings) == {"uplink", "rep0"}
    nic.driver.set_numvfs(PF, 0)
    assert set(nic.driver.nics[0].pfs[0].settings) == {"uplink"}
    assert not ethtool_settings.keep(nic[Role.PF], {"rx": 512})
    ethtool_settings.keep(nic[Role.PF], {"rx": 1024})
    assert nic.driver.nics[0].pfs[0].settings["uplink"] == {}


def test_receive_hashing_keeps_what_was_set_and_holds_its_rings() -> None:
    device = Nic(EswitchMode.SWITCHDEV)[Role.PF]
    ethtool_settings.keep(device, {"combined_count": 4})
    assert ethtool_settings.spread(device, 8) == (0, 1, 2, 3, 0, 1, 2, 3)
    wanted = ethtool_settings.wanted_receive_hash(device, ethtool_settings.RSS_XOR, bytes(39) + b"\xff", (2, 0) * 4)
    assert wanted == {"rss_function": 2, "rss_key": 255, "rss_table": sum(2 << 32 * i for i in range(4))}
    assert ethtool_settings.keep(device, wanted)
    assert ethtool_settings.spread(device, 8) == (2, 0) * 4
    with pytest.raises(NetlinkError, match="too low for existing indirection table"):
        ethtool_settings.wanted_channels(device, {"combined_count": 2})
    for function, table in ((4, None), (0, (4,) * 8)):
        with pytest.raises(NetlinkError) as refused:
            ethtool_settings.wanted_receive_hash(device, function, b"", table)
        assert refused.value.errno == errno.EINVAL
    assert ethtool_settings.wanted_receive_hash(device, 0, b"", None) == {}
    ethtool_settings.keep(device, ethtool_settings.wanted_receive_hash(device, 0, b"", ()))
    assert ethtool_settings.spread(device, 8) == (0, 1, 2, 3, 0, 1, 2, 3)
