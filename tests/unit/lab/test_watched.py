# SPDX-License-Identifier: Apache-2.0
"""What is known of a process that somebody else started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from asap2.lab.watched import Watched

STRANGER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import os; os.read(0, 1); %s"], stdin=0)
print(child.pid, flush=True)
%s
"""


@pytest.mark.parametrize(
    ("ends", "status"),
    [("os._exit(0)", 0), ("os._exit(3)", 3 << 8), ("os.kill(os.getpid(), 9)", signal.SIGKILL)],
)
@pytest.mark.parametrize("parent", ["child.wait()", "import time; time.sleep(600)"], ids=["waited for", "a zombie"])
def test_how_it_ended_is_known_though_it_is_no_child(ends: str, status: int, parent: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", STRANGER % (ends, parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        process = Watched(int(stranger.stdout.readline()))
        try:
            assert not process.ended()
            stranger.stdin.write(b"x")
            stranger.stdin.close()
            select.select([process.descriptor], [], [])
            if "wait" in parent:
                stranger.wait()
            assert process.ended()
            told = process.wait_status()
            if told is None and "wait" in parent:
                pytest.skip(f"Linux {os.uname().release} does not tell of processes that are no more")
            assert told == status
        finally:
            stranger.kill()
            process.close()
