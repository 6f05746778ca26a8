# SPDX-License-Identifier: Apache-2.0
"""What of ``devlink dev reload`` mlx5 refuses."""

from __future__ import annotations

import errno

from asap2.netlink.tables.devlink import DEVLINK_RELOAD_ACTION_FW_ACTIVATE, DEVLINK_RELOAD_LIMIT_NO_RESET
from asap2.netlink.wire import NetlinkError


def check_limits(action: int, limits: int) -> None:
    """What a reload may not do: only an update of the firmware goes without a reset, and there is none."""
    if not limits:
        raise NetlinkError(errno.EINVAL, "Invalid limit selected", at_start=True)
    if limits & limits - 1:
        raise NetlinkError(errno.EOPNOTSUPP, "Multiselection of limit is not supported", at_start=True)
    if limits != 1 << DEVLINK_RELOAD_LIMIT_NO_RESET:
        text = "Requested limit is not supported by the driver"
        raise NetlinkError(errno.EOPNOTSUPP, text, at_start=True)
    if action != DEVLINK_RELOAD_ACTION_FW_ACTIVATE:
        raise NetlinkError(errno.EINVAL, "Requested limit is invalid for this action", at_start=True)
    text = "FW upgrade to the stored FW can't be done by FW live patching"
    raise NetlinkError(errno.EINVAL, f"mlx5_core: {text}", at_start=True)
