# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from asap2.lab import lock as module
from asap2.lab.lock import Lock


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab's place, and a directory for its lock beside it."""
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(module, "DIRECTORY", tmp_path / "run")
    return tmp_path / "lab"


def test_one_has_it_and_nothing_is_left(place: Path) -> None:
    with Lock(place) as one, Lock(place) as other:
        assert one.take()
        assert not other.take()
        (file,) = module.DIRECTORY.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600  # so nobody else can open it, and lock it
    assert not list(module.DIRECTORY.iterdir())


def test_places_have_locks_of_their_own(place: Path) -> None:
    with Lock(place) as one, Lock(place.with_name("another")) as other:
        assert one.take()
        assert other.take()


def test_what_a_killed_command_left_is_no_lock(place: Path) -> None:
    pid = os.fork()
    if not pid:
        Lock(place).take()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert list(module.DIRECTORY.iterdir())
    with Lock(place) as lock:
        assert lock.take()
    assert not list(module.DIRECTORY.iterdir())


def test_a_child_of_a_killed_command_has_it_still(place: Path) -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        Lock(place).take()
        child = os.fork()
        if not child:
            os.read(read_end, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
    with Lock(place) as lock:
        assert not lock.take()
        os.write(write_end, b".")
        while not lock.take():  # until the child has ended
            pass
    os.close(read_end)
    os.close(write_end)
