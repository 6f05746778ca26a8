# SPDX-License-Identifier: Apache-2.0
"""A node's daemon that serves nothing: the node's real sysfs in place of the FUSE tree. For tests of the lab itself."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from asap2.lab.syscalls import MS_BIND, mount
from asap2.netlink.listener import path_in

run_dir = Path(json.loads(Path(sys.argv[1]).read_text())["run_dir"])
mount(run_dir / "realsys", run_dir / "sys", flags=MS_BIND)
path_in(run_dir).unlink(missing_ok=True)  # who asks is to ask the kernel, not to wait
(run_dir / "ready").touch()
signal.pause()
