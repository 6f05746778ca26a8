# SPDX-License-Identifier: Apache-2.0
"""devlink's rate objects: in switchdev mode, the port of each VF has one, a leaf.

There are no nodes, which would limit several VFs together: the NIC is like one whose firmware has no such schedulers
(MLX5_CAP_QOS(log_esw_max_sched_depth)). Sources: net/devlink/rate.c of Linux 6.12; mlx5/core/esw/qos.c.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.devlink import DEVLINK_RATE_TYPE_LEAF
from asap2.netlink.wire import NetlinkError
from asap2.nic.device import Driver
from asap2.nic.function import EswitchMode, Pf, Vf
from asap2.nic.rates import OCTETS_OF_MBIT

_NOT_SETTABLE: Final = ("priority", "weight")


def leaf(vf: Vf) -> dict[str, Any]:
    """The attributes of a VF's leaf behind those that name it."""
    return {
        "rate_tx_share": vf.tx_share,
        "rate_tx_max": vf.tx_max,
        "rate_tx_priority": 0,
        "rate_tx_weight": 0,
    }


def named(index: int) -> dict[str, Any]:
    """The attributes that name the leaf of the port with this *index*."""
    return {"rate_type": DEVLINK_RATE_TYPE_LEAF, "port_index": index}


def check_settable(attrs: Attrs, what: str) -> None:
    """NetlinkError for what mlx5 has no operation for (devlink_rate_set_ops_supported)."""
    for name in _NOT_SETTABLE:
        if f"rate_tx_{name}" in attrs:
            raise NetlinkError(errno.EOPNOTSUPP, f"TX {name} set isn't supported for the {what}")


def set_leaf(driver: Driver, vf: Vf, attrs: Attrs) -> None:
    """Change a leaf as *attrs* say; what was changed before an error stays."""
    check_settable(attrs, "leafs")
    if "rate_tx_share" in attrs:
        share = attrs["rate_tx_share"]
        driver.set_port_rate(vf, _mbit(vf, share), None)
        vf.tx_share = share
    if "rate_tx_max" in attrs:
        most = attrs["rate_tx_max"]
        driver.set_port_rate(vf, None, _mbit(vf, most))
        vf.tx_max = most
    if attrs.get("rate_parent_node_name"):
        raise NetlinkError(errno.ENODEV, at_start=True)


def _mbit(vf: Vf, octets: int) -> int:
    """A rate in whole Mbit/s (esw_qos_devlink_rate_to_mbps); EINVAL."""
    mbit, rest = divmod(octets, OCTETS_OF_MBIT)
    if rest:
        raise NetlinkError(errno.EINVAL, "mlx5_core: TX rate value not in link speed units of 1Mbps")
    if mbit > vf.nic.model.port_speed:
        raise NetlinkError(errno.EINVAL, "mlx5_core: TX rate value exceed link maximum speed")
    return mbit


def check_node(attrs: Attrs) -> str:
    """The name of a node; EINVAL for one that cannot be: no node's is empty or a number."""
    name: str = attrs.get("rate_node_name", "")
    if not name or name.isdecimal():
        raise NetlinkError(errno.EINVAL, at_start=True)
    return name


def new_node(pf: Pf, attrs: Attrs) -> None:
    """EOPNOTSUPP: there are no nodes."""
    check_settable(attrs, "nodes")
    check_node(attrs)
    if pf.mode is not EswitchMode.SWITCHDEV:
        raise NetlinkError(errno.EOPNOTSUPP, "mlx5_core: Rate node creation supported only in switchdev mode")
    raise NetlinkError(errno.EOPNOTSUPP, at_start=True)
