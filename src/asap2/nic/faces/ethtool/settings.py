# SPDX-License-Identifier: Apache-2.0
"""What ``ethtool -g -l -c -a --show-priv-flags --show-fec`` tells of a NIC's netdev, and may set.

A software NIC has no rings, interrupts or pause frames: these are settings that are kept, checked as mlx5e checks them.
Plain functions of the device and of what was set; the messages are in :mod:`asap2.nic.faces.ethtool.face`.

Sources: drivers/net/ethernet/mellanox/mlx5/core/{en_ethtool,en_rep,en_main}.c, net/ethtool/{rings,channels,coalesce,
pause}.c of Linux 6.12.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Mapping
from typing import Any

from asap2.netlink.wire import NetlinkError
from asap2.nic.function import Role
from asap2.nic.netdevs import NetDev

PRIV_FLAGS = {
    "rx_cqe_moder": True,
    "tx_cqe_moder": False,
    "rx_cqe_compress": False,
    "rx_striding_rq": True,
    "rx_no_csum_complete": False,
    "xdp_tx_mpwqe": True,
    "skb_tx_mpwqe": True,
    "tx_port_ts": False,
}
"""mlx5e_priv_flags, and what a ConnectX-5 starts with."""

MAX_RING, MIN_RX_RING, MIN_TX_RING = 8192, 2, 64
MAX_COAL_TIME, MAX_COAL_FRAMES = 0xFFF, 0xFFFF
_TCP_DATA_SPLIT_DISABLED = 1
_FEC_RS = 50
"""ETHTOOL_LINK_MODE_FEC_RS_BIT."""

RSS_TOEPLITZ, RSS_XOR = 1, 2
"""ETH_RSS_HASH_TOP, ETH_RSS_HASH_XOR."""

Values = dict[str, int]


def defaults(device: NetDev) -> Values:
    """What the driver sets. Key and table of receive hashing are numbers, an entry two octets; -1: the first ones."""
    representor = device.role is Role.REPRESENTOR
    return {
        "rx": 256 if representor else 1024,
        "tx": 128 if representor else 1024,
        "combined_count": 1 if representor else max_channels(),
        "rx_usecs": 8,
        "rx_max_frames": 128,
        "tx_usecs": 8,
        "tx_max_frames": 128,
        "use_adaptive_rx": 1,
        "use_adaptive_tx": 1,
        "use_cqe_mode_rx": 1,
        "use_cqe_mode_tx": 0,
        "pause_rx": int(device.role is Role.PF),
        "pause_tx": int(device.role is Role.PF),
        "rss_function": RSS_TOEPLITZ,
        "rss_key": -1,
        "rss_table": -1,
        **{f"flag_{name}": int(on) for name, on in PRIV_FLAGS.items()},
    }


def of(device: NetDev) -> Values:
    """The settings of *device* as they are."""
    assert device.pf is not None
    return defaults(device) | device.pf.settings.get(device.offload_key, {})


def keep(device: NetDev, values: Values) -> bool:
    """Keep *values*, some or all settings; whether any is another than before."""
    assert device.pf is not None
    before = of(device)
    now = before | values
    if now == before:
        return False
    standard = defaults(device)
    device.pf.settings[device.offload_key] = {k: v for k, v in now.items() if standard[k] != v}
    return True


@functools.cache
def max_channels() -> int:
    """One channel for each CPU (mlx5e_get_max_num_channels). It is asked for with each link message."""
    return os.cpu_count() or 1


# ---- what is shown


def rings(device: NetDev) -> Values:
    """Rings, as they are told."""
    values = of(device)
    sizes = {"rx_max": MAX_RING, "tx_max": MAX_RING, "rx": values["rx"], "tx": values["tx"]}
    return {**sizes, "tcp_data_split": _TCP_DATA_SPLIT_DISABLED, "tx_push": 0, "rx_push": 0}


def channels(device: NetDev) -> Values:
    """Channels, as they are told."""
    return {"combined_max": max_channels(), "combined_count": of(device)["combined_count"]}


def spread(device: NetDev, entries: int) -> tuple[int, ...]:
    """The receive ring of each of so many *entries* of the table by which packets are spread."""
    values = of(device)
    table = values["rss_table"]
    if table < 0 or table.bit_length() > 16 * entries:
        return tuple(i % values["combined_count"] for i in range(entries))
    return tuple(table >> 16 * i & 0xFFFF for i in range(entries))


COALESCE = (
    "rx_usecs",
    "rx_max_frames",
    "tx_usecs",
    "tx_max_frames",
    "use_adaptive_rx",
    "use_adaptive_tx",
    "use_cqe_mode_tx",
    "use_cqe_mode_rx",
)


def coalesce(device: NetDev) -> Values:
    """Interrupt moderation, as it is told; a representor has no choice of when it begins."""
    values = of(device)
    return {name: values[name] for name in COALESCE if device.role is not Role.REPRESENTOR or "cqe" not in name}


def pause(device: NetDev) -> Values:
    """Pause frames, as they are told."""
    _only(device, Role.PF, Role.VF)
    values = of(device)
    return {"autoneg": 0, "rx": values["pause_rx"], "tx": values["pause_tx"]}


def private_flags(device: NetDev) -> dict[str, bool]:
    """The driver's own flags."""
    _only(device, Role.PF, Role.VF)
    values = of(device)
    return {name: bool(values[f"flag_{name}"]) for name in PRIV_FLAGS}


def fec(device: NetDev) -> Values:
    """Forward error correction: the NIC chooses, Reed-Solomon it is."""
    _only(device, Role.PF)
    return {"auto": 1, "active": _FEC_RS}


def _only(device: NetDev, *roles: Role) -> None:
    if device.role not in roles:
        raise NetlinkError(errno.EOPNOTSUPP)


# ---- what is asked for


def wanted_rings(device: NetDev, asked: Mapping[Any, Any]) -> Values:
    """EINVAL for sizes out of range; else rounded up to a power of two."""
    for name in ("rx_mini", "rx_jumbo"):
        if asked.get(name):
            raise NetlinkError(errno.EINVAL, "requested ring size exceeds maximum")
    for name in ("rx_buf_len", "cqe_size"):
        if name in asked:
            raise NetlinkError(errno.EOPNOTSUPP, f"setting {name.replace('_', ' ')} not supported")
    if asked.get("tx_push") or asked.get("rx_push"):
        raise NetlinkError(errno.EOPNOTSUPP, "setting tx push not supported")
    values = of(device)
    sizes = {name: asked.get(name, values[name]) for name in ("rx", "tx")}
    if max(sizes.values()) > MAX_RING:
        raise NetlinkError(errno.EINVAL, "requested ring size exceeds maximum")
    for name, least in (("rx", MIN_RX_RING), ("tx", MIN_TX_RING)):
        if sizes[name] < least:
            raise NetlinkError(errno.EINVAL, f"mlx5_core: {name} ({sizes[name]}) < min ({least})")
    return {name: 1 << (size - 1).bit_length() for name, size in sizes.items()}


def wanted_channels(device: NetDev, asked: Mapping[Any, Any]) -> Values:
    """EINVAL for a number that there cannot be."""
    count = asked.get("combined_count", of(device)["combined_count"])
    if count > max_channels() or any(asked.get(name) for name in ("rx_count", "tx_count", "other_count")):
        raise NetlinkError(errno.EINVAL, "requested channel count exceeds maximum")
    if not count:
        raise NetlinkError(
            errno.EINVAL, "requested channel counts would result in no RX or TX channel being configured"
        )
    table = of(device)["rss_table"]
    if table >= 0 and count <= max(table >> at & 0xFFFF for at in range(0, table.bit_length() + 1, 16)):
        raise NetlinkError(errno.EINVAL, "requested channel counts are too low for existing indirection table settings")
    return {"combined_count": count}


def wanted_receive_hash(device: NetDev, function: int, key: bytes, table: tuple[int, ...] | None) -> Values:
    """EINVAL for a hash function that mlx5e has not, and for a ring that there is not. 0, no key and None: no change;
    an empty table: the first one."""
    wanted = {}
    if function:
        if function not in (RSS_TOEPLITZ, RSS_XOR):
            raise NetlinkError(errno.EINVAL)
        wanted["rss_function"] = function
    if key:
        wanted["rss_key"] = int.from_bytes(key, "big")
    if table is not None:
        if any(ring >= of(device)["combined_count"] for ring in table):
            raise NetlinkError(errno.EINVAL)
        wanted["rss_table"] = sum(ring << 16 * i for i, ring in enumerate(table)) if table else -1
    return wanted


def wanted_coalesce(device: NetDev, asked: Mapping[Any, Any]) -> Values:
    """EOPNOTSUPP for what mlx5e has not, ERANGE for too much; figures do not count where the driver adapts them."""
    known = coalesce(device)
    given = {name: int(value) for name, value in asked.items() if name != "header" and isinstance(name, str)}
    if any(name not in known for name in given):
        raise NetlinkError(errno.EOPNOTSUPP, "cannot modify an unsupported parameter")
    now = known | {name: int(bool(v)) if name.startswith("use_") else v for name, v in given.items()}
    for unit, most, what in (("usecs", MAX_COAL_TIME, "time"), ("max_frames", MAX_COAL_FRAMES, "frames")):
        tx, rx = now[f"tx_{unit}"], now[f"rx_{unit}"]
        if max(tx, rx) > most:
            named = "usecs" if unit == "usecs" else "frames"
            amount = f"{most} usecs" if unit == "usecs" else str(most)
            text = f"mlx5_core: Max coalesce {what} {amount}, tx-{named} ({tx}) rx-{named} ({rx})"
            raise NetlinkError(errno.ERANGE, text)
    for way in ("rx", "tx"):
        if now[f"use_adaptive_{way}"]:
            standard = defaults(device)
            now |= {name: standard[name] for name in (f"{way}_usecs", f"{way}_max_frames")}
    return now


def wanted_pause(device: NetDev, asked: Mapping[Any, Any]) -> Values:
    """EINVAL for autonegotiation, and on a VF, which the port is not for."""
    pause(device)
    if asked.get("autoneg") or device.role is not Role.PF:
        raise NetlinkError(errno.EINVAL)
    return {f"pause_{way}": int(bool(asked[way])) for way in ("rx", "tx") if way in asked}
