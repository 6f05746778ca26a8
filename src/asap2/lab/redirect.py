# SPDX-License-Identifier: Apache-2.0
"""Have the system calls redirected that a program makes itself, as static programs and Go's do: netlink/redirectd.c.

The process that is about to become the program gets the seccomp filter of the node's redirectd and hands back the
listener. ``asap2 exec`` does this, so this module imports little.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time

SOCKET = "/run/asap2/redirect.sock"
"""Where redirectd of the node takes listeners, in the node and in its guests."""
PATIENCE = 30.0
"""Seconds that redirectd may take to be started again."""
_OFFER = struct.Struct("=III")
"""struct offer: number of seccomp(2), flags, and how many instructions of the filter follow."""
_MOST = 1 << 16
_SET_MODE_FILTER = 1
_NEW_LISTENER = 1 << 3
"""SECCOMP_FILTER_FLAG_NEW_LISTENER."""
_INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter."""
_RETURN, _NOTIFY, _REFUSE = 0x06, 0x7FC0_0000, 0x0005_0000 | errno.ENOSYS
"""BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF, and SECCOMP_RET_ERRNO with an error."""
_TRY_AGAIN = 0.02

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def redirect_own_calls(path: str = SOCKET) -> None:
    """Have what this process, and all that it starts, asks of the NIC answered by the node's daemon, whoever makes the
    system calls. Where a listener watches this process already, as that of a container may, there can be no other: the
    calls are refused there (ENOSYS).

    Raises:
        OSError: there is no redirectd, or the kernel has no such filter.
    """
    listener = None
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                asking.connect(path)
                offer = asking.recv(_MOST)
                if listener is None and offer:
                    call, flags, instructions = _OFFER.unpack_from(offer)
                    listener = _install(call, flags, instructions, offer[_OFFER.size :])
                    if listener is None:
                        return
                if listener is not None:
                    socket.send_fds(asking, [bytes(4)], [listener])
                    if asking.recv(1):
                        os.close(listener)
                        return
        except (FileNotFoundError, ConnectionError) as error:
            if time.monotonic() > deadline:
                number = error.errno or errno.ECONNREFUSED
                raise OSError(number, "nothing redirects system calls here: redirectd does not answer") from None
        time.sleep(_TRY_AGAIN)


def _install(call: int, flags: int, instructions: int, code: bytes) -> int | None:
    """Give this process the filter; its listener, or None when another listener watches this process."""
    program = _Program(instructions, code)
    listener: int = _libc.syscall(call, _SET_MODE_FILTER, flags, ctypes.byref(program))
    if listener >= 0:
        return listener
    number = ctypes.get_errno()
    if number == errno.EBUSY and flags & _NEW_LISTENER:
        refusing = code.replace(_INSTRUCTION.pack(_RETURN, 0, 0, _NOTIFY), _INSTRUCTION.pack(_RETURN, 0, 0, _REFUSE))
        _install(call, 0, instructions, refusing)
        return None
    raise OSError(number, f"cannot have system calls redirected: {os.strerror(number)}")
