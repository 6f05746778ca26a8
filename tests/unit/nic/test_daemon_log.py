# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path

import pytest

from asap2.logfile import shorten
from asap2.nic import daemon_log
from asap2.nic.daemon_log import BURST, Repetition


class Heard(logging.Handler):
    """Keeps the lines that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def log() -> tuple[logging.Logger, Heard]:
    """A logger whose lines pass through a filter of their own."""
    logger = logging.Logger("test")
    heard = Heard()
    heard.addFilter(Repetition())
    logger.addHandler(heard)
    return logger, heard


def test_what_is_repeated_is_left_out_and_counted(
    log: tuple[logging.Logger, Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, heard = log
    now = 100.0
    monkeypatch.setattr("asap2.nic.daemon_log.time.monotonic", lambda: now)

    def say(number: int) -> None:
        logger.warning("trouble %d", number)

    for number in range(BURST + 30):
        say(number)
    assert len(heard.lines) == BURST
    logger.warning("something else")
    assert heard.lines[-1] == "something else"
    now = 161.0
    say(99)
    assert heard.lines[-1] == "trouble 99 (30 lines like this were left out)"


def test_exceptions_of_different_places_are_different(log: tuple[logging.Logger, Heard]) -> None:
    logger, heard = log

    def fail(kind: type[Exception]) -> None:
        try:
            raise kind
        except Exception:
            logger.exception("unexpected")

    for _ in range(BURST + 5):
        fail(ValueError)
        fail(KeyError)
    assert len(heard.lines) == 2 * BURST


def test_the_memory_for_kinds_is_bounded(log: tuple[logging.Logger, Heard], monkeypatch: pytest.MonkeyPatch) -> None:
    logger, heard = log
    monkeypatch.setattr(daemon_log, "_MOST_KINDS", 10)
    for number in range(100):
        exec(compile("\n" * number + "logger.warning('line')", "made", "exec"), {"logger": logger})
    assert len(heard.lines) == 100
    (repetition,) = heard.filters
    assert isinstance(repetition, Repetition)
    assert len(repetition._kinds) <= 10


def test_a_long_file_loses_its_older_half(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab", buffering=0) as file:
        for number in range(100):
            file.write(b"line %03d\n" % number)
        shorten(file.fileno(), 900)
        assert len(path.read_bytes()) == 900
        file.write(b"line 100\n")
        shorten(file.fileno(), 900)
        file.write(b"the end\n")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("line 05")
    assert lines[-2:] == ["line 100", "the end"]
