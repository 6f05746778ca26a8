# SPDX-License-Identifier: Apache-2.0
"""Running a function inside another network namespace (setns(2)), on a thread of its own so that this one stays."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def in_netns(fd: int, call: Callable[[], T]) -> T:
    """The result of *call*, made in the network namespace open at *fd*; OSError when it cannot be entered."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.setns(fd, CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            result.append(call())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
