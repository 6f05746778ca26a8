# SPDX-License-Identifier: Apache-2.0
"""Nests within a request, which ctnetlink looks at one after the other: of an error it says the number and no more."""

from __future__ import annotations

import errno
from typing import Any

from asap2.netlink.codec import Attrs, Table
from asap2.netlink.wire import NetlinkError


def decoded(table: Table, raw: bytes) -> Attrs:
    """The attributes of the nest *raw*.

    Raises:
        NetlinkError: one is too short (ERANGE), or else is not what it must be.
    """
    try:
        return table.decode(raw)
    except NetlinkError as error:
        raise NetlinkError(error.errno or errno.EINVAL) from None


def needed(attrs: Attrs, name: str) -> Any:
    """The attribute's value.

    Raises:
        NetlinkError: EINVAL, it is missing.
    """
    value = attrs.get(name)
    if value is None:
        raise NetlinkError(errno.EINVAL)
    return value
