# SPDX-License-Identifier: Apache-2.0
"""Attributes of requests to the datapath's families, which look at most of them by number, in the kernel's order."""

from __future__ import annotations

import errno
import functools
import struct

from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attributes

_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")


def named(payload: bytes) -> dict[int, bytes]:
    """The attributes in *payload* by number."""
    return {kind & NLA_TYPE_MASK: bytes(value) for kind, value in attributes(payload)}


def string(value: bytes | None) -> str | None:
    """The text of an attribute, as far as it is terminated."""
    return None if value is None else value.split(b"\0", 1)[0].decode(errors="surrogateescape")


def too_short() -> NetlinkError:
    """The kernel's answer to an attribute that is shorter than its policy says."""
    return NetlinkError(errno.ERANGE, "Attribute failed policy validation")


def _unsigned(form: struct.Struct, value: bytes | None) -> int | None:
    if value is None:
        return None
    if len(value) < form.size:
        raise too_short()
    return form.unpack_from(value)[0]  # type: ignore[no-any-return]


u16 = functools.partial(_unsigned, struct.Struct("=H"))
u32 = functools.partial(_unsigned, _U32)
u64 = functools.partial(_unsigned, _U64)
