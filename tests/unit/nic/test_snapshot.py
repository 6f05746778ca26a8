# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asap2.nic.snapshot import Snapshot


def test_the_last_state_written_is_there_again(tmp_path: Path) -> None:
    kept = Snapshot(tmp_path / "driver", 100)
    assert kept.state is None
    for state in (b"one", b"two", b"three", b"a longer one " * 20, b"four"):
        kept.write(state)
        assert Snapshot(tmp_path / "driver", 100).state == state


def test_one_that_was_cut_short_by_a_kill_leaves_the_one_before(tmp_path: Path) -> None:
    kept = Snapshot(tmp_path / "driver", 100)
    kept.write(b"one")
    kept.write(b"two")
    newest = max(tmp_path.iterdir(), key=lambda file: file.read_bytes()[:8])
    newest.write_bytes(newest.read_bytes().replace(b"two", b"tw\0"))
    assert Snapshot(tmp_path / "driver", 100).state == b"one"


def test_in_a_full_file_system_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Snapshot(tmp_path / "driver", 100)

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for state in (b"one", b"two", b"three"):
        kept.write(state)
    with pytest.raises(OSError, match="No space left"):
        kept.write(bytes(1000))
    assert Snapshot(tmp_path / "driver", 100).state == b"three"
