# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while the command of Debian's package starts: never a traceback, whenever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
MOMENTS = [0.007 * number for number in range(20)]
"""Seconds after the start."""


def test_ctrl_c_ends_the_command_silently_while_python_starts(tmp_path: Path) -> None:
    command = tmp_path / "asap2"
    command.write_text((ROOT / "debian/asap2.py").read_text().replace("/usr/bin/python3", sys.executable))
    command.chmod(0o755)
    statuses = set()
    for moment in MOMENTS:
        with subprocess.Popen([command, "lab", "topologies"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
            time.sleep(moment)
            run.send_signal(signal.SIGINT)
            assert run.communicate()[1] == b"", moment
        statuses.add(run.returncode)
    assert statuses <= {0, 130, -signal.SIGINT}
    assert statuses & {130, -signal.SIGINT}
