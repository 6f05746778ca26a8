# SPDX-License-Identifier: Apache-2.0
"""devlink parameters of a ConnectX, with the values that a software one has; none can be changed.

Source: drivers/net/ethernet/mellanox/mlx5/core/devlink.c of Linux 6.x.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.devlink import (
    DEVLINK_PARAM_CMODE_DRIVERINIT,
    DEVLINK_PARAM_CMODE_RUNTIME,
    DEVLINK_PARAM_TYPE_BOOL,
    DEVLINK_PARAM_TYPE_STRING,
    DEVLINK_PARAM_TYPE_U32,
)
from asap2.nic.device import DriverError
from asap2.nic.function import EswitchMode, Function, Pf


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter and its value; ``generic`` ones are devlink's, others the driver's."""

    name: str
    value: bool | int | str
    cmode: int
    generic: bool = False

    @property
    def type(self) -> int:
        """DEVLINK_PARAM_TYPE_*."""
        if isinstance(self.value, bool):
            return DEVLINK_PARAM_TYPE_BOOL
        return DEVLINK_PARAM_TYPE_U32 if isinstance(self.value, int) else DEVLINK_PARAM_TYPE_STRING

    @property
    def data(self) -> bytes | None:
        """The value as DEVLINK_ATTR_PARAM_VALUE_DATA; None: absent, which is how a flag says no."""
        if isinstance(self.value, bool):
            return b"" if self.value else None
        return struct.pack("=I", self.value) if isinstance(self.value, int) else self.value.encode() + b"\0"

    @property
    def attributes(self) -> dict[str, Any]:
        """The content of DEVLINK_ATTR_PARAM."""
        return {
            "name": self.name,
            **({"generic": True} if self.generic else {}),
            "type": self.type,
            "values_list": {"value": [{"data": self.data, "cmode": self.cmode}]},
        }


def parameters(function: Function) -> list[Parameter]:
    """The parameters of *function*. There is no RDMA, and no vDPA."""
    initial, runtime = DEVLINK_PARAM_CMODE_DRIVERINIT, DEVLINK_PARAM_CMODE_RUNTIME
    steering = "smfs" if function.nic.model.link_generation > 3 else "dmfs"
    found = [
        Parameter("flow_steering_mode", steering, runtime),
        Parameter("enable_roce", False, initial, generic=True),
        Parameter("enable_eth", True, initial, generic=True),
        Parameter("enable_rdma", False, initial, generic=True),
        Parameter("enable_vnet", False, initial, generic=True),
    ]
    if isinstance(function, Pf):
        found.insert(2, Parameter("fdb_large_groups", 15, initial))
        found.append(Parameter("esw_port_metadata", True, runtime))
    return found


def refuse_change(parameter: Parameter, asked: Attrs, mode: EswitchMode) -> None:
    """What mlx5 or devlink would object to, and then that a software NIC has one value only.

    Raises:
        DriverError: EINVAL for a request that is wrong in itself, EBUSY or EOPNOTSUPP for another value.
    """
    if asked.get("param_type") != parameter.type or "param_value_cmode" not in asked:
        raise DriverError(errno.EINVAL, "Param type or configuration mode is missing or wrong")
    if asked["param_value_cmode"] != parameter.cmode:
        raise DriverError(errno.EOPNOTSUPP, "Param does not support this configuration mode")
    if asked.get("param_value_data") == parameter.data:
        return
    if mode is EswitchMode.SWITCHDEV and parameter.name == "flow_steering_mode":
        text = "mlx5_core: Software managed steering is not supported when eswitch offloads enabled."
        raise DriverError(errno.EOPNOTSUPP, text)
    if mode is EswitchMode.SWITCHDEV and parameter.name == "esw_port_metadata":
        raise DriverError(errno.EBUSY, "mlx5_core: E-Switch must either disabled or non switchdev mode")
    raise DriverError(errno.EOPNOTSUPP, f"mlx5_core: a software NIC cannot change {parameter.name}")
