# SPDX-License-Identifier: Apache-2.0
"""A node's daemon that serves nothing: the node's real sysfs in place of the FUSE tree, all netlink is the kernel's.
For tests of the lab itself."""

from __future__ import annotations

import json
import selectors
import sys
import threading
from pathlib import Path

from asap2.netlink.listener import lent, path_in
from asap2.netlink.server import Server
from asap2.syscalls import MS_BIND, MS_REC, mount

settings = json.loads(Path(sys.argv[1]).read_text())
run_dir = Path(settings["run_dir"])
mount("tmpfs", run_dir / "sys", "tmpfs")
for part in (run_dir / "realsys").iterdir():
    (run_dir / "sys" / part.name).mkdir()
    mount(part, run_dir / "sys" / part.name, flags=MS_BIND | MS_REC)
for guest in settings["guests"]:
    shown = run_dir / "sys" / "guests" / guest["name"]
    shown.mkdir(parents=True)
    mount(run_dir / "realsys", shown, flags=MS_BIND | MS_REC)
server = Server(path_in(run_dir), threading.RLock())
with selectors.DefaultSelector() as selector:
    server.attach(selector, lent())
    (run_dir / "ready").touch()
    while True:
        for key, mask in selector.select():
            key.data(mask)
