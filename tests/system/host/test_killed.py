# SPDX-License-Identifier: Apache-2.0
"""A set-up or its undoing that is killed at any step can be run again, and undone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.host.conftest import Hosts
from tests.system.host.test_setup import assert_same
from tests.system.offload.labs import until
from tests.system.patience import PATIENCE

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
FINISHED = 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_after_each_step_and_run_again_it_gets_there(lab: Hosts, when: str) -> None:
    """Each run does one step more, and is killed: with "before", when it would begin its second."""
    before = lab.state("hv1")
    number = 1 if when == "after" else 2
    for what in ("setup", "undo"):
        runs = 0
        while (done := lab.killed("hv1", number, what, when)).returncode in KILLED:
            runs += 1
            assert runs < 30
        assert done.returncode == FINISHED, done.stdout + done.stderr
        assert runs >= 6
        if what == "setup":
            assert lab.host("hv1", "check").returncode == 0
    assert_same(before, lab.state("hv1"))


def test_killed_at_any_step_it_can_be_undone(lab: Hosts) -> None:
    before = lab.state("hv1")
    for number in range(1, 30):
        done = lab.killed("hv1", number, "setup", "after")
        assert done.returncode in (*KILLED, FINISHED), done.stdout + done.stderr
        lab.done("hv1", "undo")
        assert_same(before, lab.state("hv1"))
        if done.returncode == FINISHED:
            assert number > 6
            return
    pytest.fail("it never finished")


def kill_alone(process: subprocess.Popen[str]) -> None:
    """Kill a program, and wait for the ends of those that it runs: they go on, as a restart of a service does."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ends = [os.pidfd_open(int(child)) for child in children]
    process.kill()
    process.communicate(timeout=PATIENCE)
    for end in ends:
        select.select([end], [], [], PATIENCE)
        os.close(end)


@pytest.mark.parametrize("line", ["eSwitch mode switchdev", "hw-offload true"])
def test_killed_in_the_middle_of_a_step(lab: Hosts, line: str) -> None:
    """Killed from outside, at once after a step was told of, when the next is under way."""
    before = lab.state("hv1")
    words = ["setup", "--vfs", "2", "--bridge", "br-int", "--representors"]
    running = lab.start("hv1", sys.executable, "-m", "asap2.cli.main", "host", *words)
    assert running.stdout is not None
    while line not in (told := running.stdout.readline()) or not told.startswith("done"):
        assert told, "it ended"
    kill_alone(running)
    until(lambda: lab.run("hv1", "ovs-vsctl --timeout=1 show").returncode == 0, why="Open vSwitch did not come back")
    lab.done("hv1", *words)
    assert lab.host("hv1", "check").returncode == 0
    lab.done("hv1", "undo")
    assert_same(before, lab.state("hv1"))


def test_two_at_once_do_not_mix(lab: Hosts) -> None:
    words = ["setup", "--vfs", "2"]
    first = lab.start("hv1", sys.executable, "-m", "asap2.cli.main", "host", *words)
    assert first.stdout is not None
    while not first.stdout.readline().startswith("done"):
        pass
    first.send_signal(signal.SIGSTOP)  # else it may be done before the second has begun
    try:
        second = lab.host("hv1", *words)
    finally:
        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert second.stderr.strip() == "asap2: another `asap2 host setup` or `undo` is under way"
    assert first.returncode == 0
