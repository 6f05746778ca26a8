# SPDX-License-Identifier: Apache-2.0
"""Link settings of a ConnectX's port, which PFs and VFs have and representors have not (en_ethtool.c, en_rep.c)."""

from __future__ import annotations

import errno

from asap2.netlink.wire import NetlinkError
from asap2.nic.netdevs import NetDev

DUPLEX_FULL, DUPLEX_UNKNOWN, SPEED_UNKNOWN = 1, 0xFF, 0xFFFF_FFFF
PORT_DA = 5
_AUTONEG, _BACKPLANE, _PAUSE = 6, 16, 13
_UP_TO_25G = (17, 19, 31, 32, 33)
"""1000baseKX, 10000baseKR, 25000base{CR,KR,SR}: ETHTOOL_LINK_MODE_*_BIT (include/uapi/linux/ethtool.h)."""
_UP_TO_100G = (23, 24, 25, 26, 34, 35, 36, 37, 38, 39)
"""40000base{KR,CR,SR,LR}4, 50000base{CR,KR}2, 100000base{KR4,SR4,CR4,LR4_ER4}."""


def has_settings(device: NetDev) -> None:
    """EOPNOTSUPP for a device without link settings."""
    if device.port_speed is None:
        raise NetlinkError(errno.EOPNOTSUPP, "failed to retrieve link settings")


def information() -> dict[str, int]:
    """The plug and what is behind it: a copper cable."""
    return {"port": PORT_DA, "phyaddr": 0, "tp_mdix": 0, "tp_mdix_ctrl": 0, "transceiver": 0}


def modes(device: NetDev) -> set[int]:
    """The link modes that the port supports, all of which it advertises."""
    fast = _UP_TO_100G if (device.port_speed or 0) >= 100_000 else ()
    return {_AUTONEG, _BACKPLANE, _PAUSE, *_UP_TO_25G, *fast}


def speed(device: NetDev, link: bool) -> tuple[int, int]:
    """Speed (Mbit/s) and duplex; both unknown without a link."""
    return (device.port_speed or 0, DUPLEX_FULL) if link else (SPEED_UNKNOWN, DUPLEX_UNKNOWN)
