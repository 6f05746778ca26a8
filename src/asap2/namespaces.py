# SPDX-License-Identifier: Apache-2.0
"""Entering namespaces: setns(2), which Python has since 3.12 only."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

_CLONE_FS: Final = 0x0000_0200
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWNET: Final = 0x4000_0000
"""Kinds of namespaces (include/uapi/linux/sched.h)."""

_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int) -> None:
    """Put the calling thread into the namespace open at *fd*, of *kind* CLONE_NEW*, or 0 for any kind; OSError."""
    if _libc.setns(fd, kind):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a namespace: {os.strerror(number)}")


def own_root() -> None:
    """Let the calling thread share its root and working directory with no other: it could not enter a mount namespace
    else. OSError."""
    if _libc.unshare(_CLONE_FS):
        raise OSError(ctypes.get_errno(), "cannot have a root of its own")


def in_netns(fd: int | None, call: Callable[[], T]) -> T:
    """The result of *call*, made in the network namespace open at *fd* (``None``: here), on a thread of its own so that
    the calling thread stays; OSError when the namespace cannot be entered."""

    def entered() -> T:
        assert fd is not None
        setns(fd, CLONE_NEWNET)
        return call()

    return call() if fd is None else on_thread(entered)


def in_mntns(fd: int, call: Callable[[], T]) -> T:
    """As :func:`in_netns`, in a mount namespace, at its root."""

    def entered() -> T:
        own_root()
        setns(fd, CLONE_NEWNS)
        return call()

    return on_thread(entered)


def on_thread(call: Callable[[], T]) -> T:
    """The result of *call*, made on a thread of its own, which may move elsewhere before it ends."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
