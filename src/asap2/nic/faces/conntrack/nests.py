# SPDX-License-Identifier: Apache-2.0
"""Nested attributes of a request, which ctnetlink parses one by one; an error is a number without a message."""

from __future__ import annotations

import errno
from typing import Any

from asap2.netlink.codec import Attrs, Table
from asap2.netlink.wire import NetlinkError


def decoded(table: Table, raw: bytes) -> Attrs:
    """The attributes of the nest *raw*.

    Raises:
        NetlinkError: ERANGE if one is too short, another number if it is invalid; never with a text.
    """
    try:
        return table.decode(raw)
    except NetlinkError as error:
        raise NetlinkError(error.errno or errno.EINVAL) from None


def needed(attrs: Attrs, name: str) -> Any:
    """The value of the attribute *name*.

    Raises:
        NetlinkError: EINVAL if it is missing.
    """
    value = attrs.get(name)
    if value is None:
        raise NetlinkError(errno.EINVAL)
    return value


def all_needed(attrs: Attrs, *names: str) -> list[Any]:
    """The values of the attributes *names*; raises as :func:`needed`."""
    return [needed(attrs, name) for name in names]
