# SPDX-License-Identifier: Apache-2.0
"""Send many messages by one system call, sendmmsg(2).

The call runs without the interpreter's lock from the first message to the last. A thread that sends one message at a
time asks for that lock after each, and waits up to ``sys.getswitchinterval()`` for it while another thread computes: a
dump of some thousand messages then takes seconds.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

MMSGHDR = struct.Struct("@PIPNPNi0PI0P")
"""``struct mmsghdr`` (sendmmsg(2)): name and its length, vectors and their number, control and its length, flags, bytes
sent."""
IOVEC = struct.Struct("@PN")
"""``struct iovec``: where the octets are, and how many."""
_SOCKADDR_NL = struct.Struct("=HHII")
_AF_NETLINK = 16
MOST = 1024
"""Messages of one call: UIO_MAXIOV, of more the kernel sends no more than these."""
_libc = ctypes.CDLL(None, use_errno=True)


def send_prepared(fd: int, headers: ctypes.Array[ctypes.c_char], first: int, count: int, flags: int = 0) -> int:
    """Send *count* messages by the socket *fd*, from number *first* of those that *headers* describe (:data:`MMSGHDR`).

    *flags* are those of send(2). Gives how many were sent.

    Raises:
        OSError: not one could be sent.
    """
    sent: int = _libc.sendmmsg(fd, ctypes.byref(headers, first * MMSGHDR.size), count, flags)
    if sent < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return sent


def send_many(fd: int, portid: int, messages: Sequence[bytes], flags: int = 0) -> int:
    """Send *messages*, in order, to the netlink socket with port id *portid*, each as a datagram of its own.

    *flags* are those of send(2). Gives how many were sent: fewer than there are when an error stopped the call, or more
    than :data:`MOST` were given.

    Raises:
        OSError: not one could be sent.
    """
    messages = messages[:MOST]
    count = len(messages)
    data = b"".join(messages)
    address = ctypes.create_string_buffer(_SOCKADDR_NL.pack(_AF_NETLINK, 0, portid, 0), _SOCKADDR_NL.size)
    vectors = ctypes.create_string_buffer(IOVEC.size * count)
    headers = ctypes.create_string_buffer(MMSGHDR.size * count)
    start = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
    name, vector = ctypes.addressof(address), ctypes.addressof(vectors)
    for number, message in enumerate(messages):
        IOVEC.pack_into(vectors, number * IOVEC.size, start, len(message))
        MMSGHDR.pack_into(headers, number * MMSGHDR.size, name, _SOCKADDR_NL.size, vector, 1, 0, 0, 0, 0)
        start += len(message)
        vector += IOVEC.size
    return send_prepared(fd, headers, 0, count, flags)
