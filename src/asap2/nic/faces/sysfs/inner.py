# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that programs make in a node, as /sys shows those of them that have devices of our own kinds.

A program sees there a sysfs that it has mounted itself (ip netns exec does). It opens what is below class/net, and gets
the file from here (netlink/procfs.h).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from asap2.namespaces import in_netns
from asap2.nic.kinds.links import KindLinks

T = TypeVar("T")

_MOST: Final = 64
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
"""Numbers of system calls, the same on every architecture."""
_CLOEXEC: Final = 1
_CMD_CREATE: Final = 6
_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8

_libc = ctypes.CDLL(None, use_errno=True)


def _called(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mounted_sysfs() -> int:
    """A descriptor of a sysfs of the calling thread's network namespace, which keeps that from nothing. OSError."""
    context = _called(_FSOPEN, ctypes.c_char_p(b"sysfs"), ctypes.c_uint(_CLOEXEC))
    try:
        _called(_FSCONFIG, context, ctypes.c_uint(_CMD_CREATE), None, None, 0)
        return _called(_FSMOUNT, context, ctypes.c_uint(_CLOEXEC), ctypes.c_uint(_NOSUID_NODEV_NOEXEC))
    finally:
        os.close(context)


class InnerViews(Generic[T]):
    """Their views, by the cookie of the namespace, which no other ever has. *make* makes one of a sysfs and the id that
    the namespace has."""

    def __init__(self, kinds: KindLinks, make: Callable[[Path, int], T]) -> None:
        self._kinds = kinds
        self._make = make
        self._known: OrderedDict[int, tuple[T, int]] = OrderedDict()

    def of(self, cookie: str) -> T:
        """The view; ENOENT where there is no such namespace, or nothing of ours in it."""
        if not cookie.isdecimal():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        number = int(cookie)
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = self._made(number)
            if len(self._known) > _MOST:
                _, (_view, old) = self._known.popitem(last=False)
                os.close(old)
        return known[0]

    def _made(self, cookie: int) -> tuple[T, int]:
        nsid = self._kinds.namespace_with(cookie)
        if nsid is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        with self._kinds.opened(nsid) as fd:
            sysfs = in_netns(fd, mounted_sysfs)
        return self._make(Path(f"/proc/self/fd/{sysfs}"), nsid), sysfs
