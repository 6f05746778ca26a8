# SPDX-License-Identifier: Apache-2.0
"""What a command did that ran in a node or guest."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from asap2.errors import Asap2Error

__tracebackhide__ = True  # pytest shows the line of the test, not ours

Command = str | Sequence[str]
"""A command line for bash, or the words of a program's command line, which no shell reads."""


class CommandError(Asap2Error):
    """A command failed; ``result`` tells what it said."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(str(result))


@dataclass(frozen=True, slots=True)
class Result:
    """A command that has ended: ``where`` it ran, its exit status (negative: the signal that ended it) and output."""

    where: str
    command: Command
    returncode: int
    stdout: str
    stderr: str

    def check(self) -> Result:
        """Return this result if the exit status is 0, else raise :class:`CommandError`."""
        if self.returncode:
            raise CommandError(self)
        return self

    def __str__(self) -> str:
        line = self.command if isinstance(self.command, str) else shlex.join(self.command)
        said = f"{self.stdout}{self.stderr}".rstrip()
        return f"{self.where}# {line}\n{said}{chr(10) if said else ''}(exit status {self.returncode})"
