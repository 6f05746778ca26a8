# SPDX-License-Identifier: Apache-2.0
"""The socket that the redirect library asks, apart from the server behind it.

Who keeps a node's daemon running makes the socket and lends it to one daemon after the other. So who asks while there
is none waits for the next.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

VARIABLE = "ASAP2_LISTENER"
"""Environment: the descriptor of the socket that is lent."""
_BACKLOG = 4096


def path_in(run_dir: Path) -> Path:
    """Where the socket of the daemon of *run_dir* is."""
    return run_dir / "sock" / "netlink.sock"


def listen(path: Path) -> socket.socket:
    """A socket that listens at *path* for programs of all users; one that was there is replaced. OSError."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    listener.bind(str(new))
    new.chmod(0o666)
    listener.listen(_BACKLOG)
    new.rename(path)
    return listener


def lent() -> socket.socket | None:
    """The socket that this process was lent."""
    descriptor = os.environ.get(VARIABLE)
    return socket.socket(fileno=int(descriptor)) if descriptor else None
