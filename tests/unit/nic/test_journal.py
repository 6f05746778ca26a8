# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.nic import journal as module
from asap2.nic.journal import Journal

KEYS = st.binary(min_size=1, max_size=4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=40)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.sampled_from(["clear", "reopen"])),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_what_was_put_is_there_again(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    path = tmp_path_factory.mktemp("journal") / "kept"
    kept = Journal(path)
    expected: dict[bytes, bytes] = {}
    for name, *arguments in [*steps, ("reopen",)]:
        if name == "reopen":  # without closing: as after a kill
            kept = Journal(path)
        else:
            getattr(kept, name)(*arguments)
        if name == "put":
            expected[arguments[0]] = arguments[1]
        elif name == "delete":
            expected.pop(arguments[0], None)
        elif name == "clear":
            expected.clear()
        assert dict(kept.items()) == expected
    kept.close()


def test_a_record_that_was_cut_short_is_not_there_nor_anything_of_it_later(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    kept = Journal(path)
    kept.put(b"a", b"1")
    kept.close()
    with path.open("r+b") as file:  # killed between the record's content and its lengths
        file.seek(8 + 2 + 8)
        file.write(b"\1\0\0\0" * 20)
    again = Journal(path)
    again.put(b"b", b"")
    assert dict(Journal(path).items()) == {b"a": b"1", b"b": b""}


def test_it_grows_and_is_rewritten_when_most_of_it_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    kept = Journal(path)
    big = bytes(module._CHUNK // 4)
    for number in range(9):
        kept.put(b"%d" % number, big)
    grown = path.stat().st_size
    assert grown > 2 * module._CHUNK
    for number in range(1, 9):
        kept.delete(b"%d" % number)
    for number in range(module._SLACK):
        kept.put(b"again", b"%d" % number)
    kept.put(b"again", b"")
    assert path.stat().st_size < grown
    assert dict(Journal(path).items()) == {b"0": big, b"again": b""}


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"\1\0\0\0\2\0\0\0kvw" + b"\1\0\0\0\2\0\0\0k")
    assert dict(Journal(path).items()) == {b"k": b"vw"}


class Full:
    """A file system without room for another block."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __enter__(self) -> None:
        def refuse(*_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self._monkeypatch.setattr(os, "posix_fallocate", refuse)

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    return Full(monkeypatch)


def test_in_a_full_file_system_all_can_be_deleted_and_a_reservation_fails_first(tmp_path: Path, full: Full) -> None:
    kept = Journal(tmp_path / "kept")
    with full:
        number = 0
        with contextlib.suppress(OSError):
            while number < 100_000:
                kept.reserve(100)
                kept.put(b"%05d" % number, bytes(80))
                number += 1
        assert 5000 < number < 100_000
        with pytest.raises(OSError, match="No space left"):
            kept.reserve(100)
        kept.put(b"00000", b"a change that nobody can refuse")
        for one in range(1, number):
            kept.delete(b"%05d" % one)
        assert dict(Journal(tmp_path / "kept").items()) == {b"00000": b"a change that nobody can refuse"}
    kept.reserve(100)
    kept.put(b"again", b"there is room")
    assert Journal(tmp_path / "kept").get(b"again") == b"there is room"


def test_in_a_full_file_system_it_opens_clears_and_goes_on(tmp_path: Path, full: Full) -> None:
    path = tmp_path / "kept"
    kept = Journal(path)
    kept.put(b"a", bytes(3 * module._CHUNK))
    with full:
        again = Journal(path)
        assert again.get(b"a") == bytes(3 * module._CHUNK)
        again.clear()
        again.put(b"b", b"1")
        assert dict(Journal(path).items()) == {b"b": b"1"}
    assert path.stat().st_size == module._CHUNK


def test_a_put_that_has_no_room_changes_nothing(tmp_path: Path, full: Full) -> None:
    kept = Journal(tmp_path / "kept")
    kept.put(b"a", b"1")
    with full, pytest.raises(OSError, match="No space left"):
        kept.put(b"a", bytes(2 * module._CHUNK))
    assert kept.get(b"a") == b"1"
    kept.put(b"b", b"2")
    assert dict(Journal(tmp_path / "kept").items()) == {b"a": b"1", b"b": b"2"}
