# SPDX-License-Identifier: Apache-2.0
"""A server of connections that are kept in memory, run by the tests: ``conntrack_server.py SOCKET EXPECTED``.

EXPECTED is how many connections a helper expects.

It says ``ready`` when it listens, and serves until it is killed.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

from asap2.netlink.server import Server
from asap2.nic.conntrack.view import Expectation, Tuple
from asap2.nic.faces.conntrack.face import ConntrackFace
from tests.connections import Table, Timeouts
from tests.system.netlink.toy_server import serve


def main() -> None:
    """Serve."""
    server = Server(Path(sys.argv[1]), threading.RLock())
    table = Table()
    control = Tuple(socket.AF_INET, socket.IPPROTO_TCP, bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), 1000, 21)
    data = control._replace(src=control.dst, dst=control.src, src_port=0)
    table.expected = [
        Expectation(number, data._replace(dst_port=4660 + number), 0, control, "ftp", 300, 1, 4660)
        for number in range(int(sys.argv[2]))
    ]
    ConntrackFace(server, table, Timeouts())
    serve(server)


if __name__ == "__main__":
    main()
