# SPDX-License-Identifier: Apache-2.0
"""A server of connections that are kept in memory, run by the tests: ``conntrack_server.py SOCKET``.

It says ``ready`` when it listens, and serves until it is killed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from asap2.netlink.server import Server
from asap2.nic.faces.conntrack.face import ConntrackFace
from tests.connections import Table, Timeouts
from tests.system.netlink.toy_server import serve


def main() -> None:
    """Serve."""
    server = Server(Path(sys.argv[1]), threading.RLock())
    ConntrackFace(server, Table(), Timeouts())
    serve(server)


if __name__ == "__main__":
    main()
