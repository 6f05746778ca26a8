# SPDX-License-Identifier: Apache-2.0
"""The kernel's end of a node's FUSE file system, kept when its server is dead.

While a process has the server's descriptor of /dev/fuse open, whoever uses the file system waits, as for a slow device.
When another server's file system is mounted in the place of the old one, requests that wait are answered with ESTALE:
the kernel then walks the path again (path_lookup(7) and fs/namei.c: "retry_estale"), which leads to the new one. A
program is told so only when it uses a file that it opened before.

The protocol is that of include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct

from asap2.lab.watched import Watched
from asap2.syscalls import descriptor_of

_IN = struct.Struct("=IIQ")
"""struct fuse_in_header, its beginning: length, opcode, number of the request."""
_OUT = struct.Struct("=IiQ")
"""struct fuse_out_header: length, error, number of the request. A notice has number 0, and its code as the error."""
_NOTIFY_RESEND = 7
"""Hand out again what was read and not answered (Linux 6.9; EINVAL before)."""
_UNANSWERED = {2, 36, 42}
"""FUSE_FORGET, FUSE_INTERRUPT, FUSE_BATCH_FORGET."""
_ROOM = 2 << 20
"""More than the largest request, which is a write of 1 MiB."""


class Connection:
    """The connection that process *server* serves (0: it is dead), by a descriptor of ours."""

    def __init__(self, server: int, descriptor: int) -> None:
        self.server = server
        self.descriptor = descriptor

    @classmethod
    def of(cls, server: Watched) -> Connection | None:
        """The connection of a running server; None when it has none."""
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{server.pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    if os.readlink(f"/proc/{server.pid}/fd/{name}") == "/dev/fuse":
                        return cls(server.pid, descriptor_of(server.descriptor, int(name)))
        return None

    def replaced(self) -> bool:
        """Restart the waiting requests with another server in place of the dead one; as :meth:`retry`."""
        os.set_blocking(self.descriptor, False)
        try:
            os.write(self.descriptor, _OUT.pack(_OUT.size, _NOTIFY_RESEND, 0))
        except OSError as error:
            self.retry()
            return error.errno not in (errno.EINVAL, errno.ENODEV)
        return self.retry()

    def retry(self) -> bool:
        """Restart the waiting requests; False if there will be no more."""
        while True:
            try:
                _, opcode, number = _IN.unpack_from(os.read(self.descriptor, _ROOM))
            except BlockingIOError:
                return True
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno == errno.ENOENT:  # that one was given up
                    continue
                return False
            if opcode not in _UNANSWERED:
                with contextlib.suppress(FileNotFoundError):  # so was this
                    os.write(self.descriptor, _OUT.pack(_OUT.size, -errno.ESTALE, number))

    def close(self) -> None:
        """Leave it. What waits is told ENOTCONN or ECONNABORTED, if nobody else has the descriptor."""
        os.close(self.descriptor)
