# SPDX-License-Identifier: Apache-2.0
"""A server of connections that are kept in memory, run by the tests: ``conntrack_server.py SOCKET``.

It says ``ready`` when it listens, and serves until it is killed.
"""

from __future__ import annotations

import selectors
import sys
import threading
from pathlib import Path

from asap2.netlink.server import Server
from asap2.nic.faces.conntrack.face import ConntrackFace
from tests.connections import Table, Timeouts


def main() -> None:
    """Serve."""
    server = Server(Path(sys.argv[1]), threading.RLock())
    ConntrackFace(server, Table(), Timeouts())
    with selectors.EpollSelector() as selector:
        server.attach(selector)
        print("ready", flush=True)
        while True:
            for key, mask in selector.select():
                key.data(mask)


if __name__ == "__main__":
    main()
