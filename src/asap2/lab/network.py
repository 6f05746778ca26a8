# SPDX-License-Identifier: Apache-2.0
"""IPv6 settings of a new network namespace, for the process that is in it."""

from __future__ import annotations

import contextlib
from pathlib import Path

_IPV6 = Path("/proc/sys/net/ipv6/conf")
_ADDR_GEN_NONE = "1"
"""IN6_ADDR_GEN_MODE_NONE (include/uapi/linux/if_link.h): no link-local address comes by itself."""


def quiet_network() -> None:
    """Let network devices made from now on send nothing unasked: IPv6 works on those that are given an address."""
    _set("default/addr_gen_mode", _ADDR_GEN_NONE)


def no_ipv6() -> None:
    """Turn IPv6 off: hardware has no IP stack."""
    _set("all/disable_ipv6", "1")
    _set("default/disable_ipv6", "1")


def _set(name: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        (_IPV6 / name).write_text(value)
