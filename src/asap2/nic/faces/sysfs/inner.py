# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that programs make in a node, as /sys shows those of them that have devices of our own kinds.

A program sees there a sysfs that it has mounted itself (ip netns exec does). It opens what is below class/net, and gets
the file from here (netlink/procfs.h).
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from asap2.namespaces import in_netns
from asap2.nic.kinds.links import KindLinks
from asap2.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mounted

T = TypeVar("T")

_MOST: Final = 64


def mounted_sysfs() -> int:
    """A descriptor of a sysfs of the calling thread's network namespace, which keeps that from nothing. OSError."""
    return mounted("sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)


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
