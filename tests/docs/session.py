# SPDX-License-Identifier: Apache-2.0
"""A page's blocks, run in their order as a reader would: one directory, one lab at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from asap2.errors import Asap2Error
from asap2.host.setup import wanted
from asap2.lab import topology
from tests.docs.blocks import Block, commands
from tests.schemas import answer

_BIN: Final = Path(sys.executable).parent
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE: Final = 300.0
"""Seconds that a block may take."""


class PageError(AssertionError):
    """A block does not do what its page says."""


class Session:
    """Runs blocks in *directory*; the lab is at *lab*. To be closed, which takes down the lab."""

    def __init__(self, directory: Path, lab: Path) -> None:
        self._directory = directory
        self._environment = {
            "ASAP2_LAB": str(lab),
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "PATH": f"{_BIN}:{_PATH}",
            "NO_COLOR": "1",
            "COLUMNS": "150",
        }

    def run(self, block: Block) -> None:
        """Run *block*. PageError if it does not do what the page says."""
        if (lab := block.notes.get("lab")) is not None:
            self._shell("asap2 lab down", block)
            if lab != "none":
                self._shell(f"asap2 lab up {lab}", block)
        if before := block.notes.get("before"):
            self._shell(before, block)
        if name := block.notes.get("file"):
            (self._directory / name).write_text(block.text)
        match block.language:
            case "sh":
                self._shell(block.text, block, at=block.notes.get("at"), status=int(block.notes.get("status", "0")))
            case "console":
                self._console(block)
            case "python":
                self._python(block)
            case "toml":
                self._read_toml(block)
            case "json":
                if "schema" in json.loads(block.text):
                    answer(block.text)

    def close(self) -> None:
        """Take down the lab, whatever state it is in. PageError if it stays."""
        words = [str(_BIN / "asap2"), "lab", "down"]
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PageError(f"the lab {self._environment['ASAP2_LAB']} is left behind: {done.stderr}")

    def _console(self, block: Block) -> None:
        """Run each command of a console, and compare its output."""
        asked = commands(block.text)
        for number, (command, stated) in enumerate(asked):
            last = number == len(asked) - 1
            status = int(block.notes.get("status", "0")) if last else 0
            got = self._shell(command, block, at=block.notes.get("at"), status=status)
            compare(block, command, stated, got)

    def _python(self, block: Block) -> None:
        """Run a program, or tests."""
        name = block.text.partition("\n")[0].removeprefix("# ").strip()
        if not name.endswith(".py"):
            raise PageError(f"{block}: the first line of a program names its file, as `# test_offload.py`")
        (self._directory / name).write_text(block.text)
        how = "-m pytest -q -p no:cacheprovider " if name.startswith("test_") else ""
        self._shell(f"{sys.executable} {how}{name}", block)

    def _read_toml(self, block: Block) -> None:
        """Read TOML as the command that it is for reads it."""
        try:
            if "[[node]]" in block.text or "[[switch]]" in block.text:
                topology.parse(block.text)
            else:
                path = self._directory / "settings.toml"
                path.write_text(block.text)
                wanted.load(path)
        except Asap2Error as error:
            raise PageError(f"{block}: {error}") from None

    def _shell(self, text: str, block: Block, at: str | None = None, status: int = 0) -> str:
        """Have bash run *text* on the machine or *at* a node or guest; what it printed. PageError for another exit
        status, and when it takes too long."""
        words = ["bash", "-euo", "pipefail", "-c", text]
        if at:
            words = [str(_BIN / "asap2"), "exec", at, "--", *words]
        with subprocess.Popen(
            words,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        ) as process:
            try:
                output, _ = process.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise PageError(f"{block}: does not end within {_PATIENCE:.0f} s:\n{text}") from None
        if process.returncode != status:
            raise PageError(f"{block}: exit status {process.returncode} and not {status}:\n{text}\n{output}")
        return output


def compare(block: Block, command: str, stated: str, got: str) -> None:
    """Compare the output of a command with what the page states. PageError if they differ. A page that states nothing
    leaves the output out."""
    if stated.strip() and not is_like(stated, got):
        raise PageError(f"{block}: {command}\n--- the page states\n{stated}\n--- it prints\n{got}")


def is_like(stated: str, got: str) -> bool:
    """Whether *got* is what a page states: ``...`` and ``…`` stand for anything, also for nothing; how words are spaced
    does not count."""
    parts = (re.escape(" ".join(part.split())) for part in re.split(r"\.\.\.|…", stated))
    return re.fullmatch(r" ?.*? ?".join(parts), " ".join(got.split()), re.DOTALL) is not None
