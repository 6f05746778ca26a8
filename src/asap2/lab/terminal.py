# SPDX-License-Identifier: Apache-2.0
"""A person at the prompts of several machines: types a command, shows its output, and gives a verdict.

Every command is one that can be typed as it is shown, in `asap2 shell NAME`; what is typed is recorded as a
:class:`Step`.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape

from asap2.errors import Asap2Error
from asap2.lab.enter import enter, environment
from asap2.lab.layout import Layout

SHOWN_LINES = 24
"""Lines of an output that are shown; of a longer one the middle is left out."""
PATIENCE = 20.0
"""Seconds that a program may take to say that it has begun."""


class OutputError(Exception):
    """A command's output is not what it must be; the text says how."""


class StepError(Asap2Error):
    """A step did not do what it must."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command that was typed: where, what, its exit status, whether all was as it must be, and how long it took."""

    node: str
    command: str
    rc: int
    ok: bool
    seconds: float


Judge = Callable[[str], str | None]
"""Looks at an output: a few words on it (or None), or :class:`OutputError`."""


class Terminal:
    """Where commands are typed."""

    def __init__(self, layout: Layout, console: Console) -> None:
        self.layout = layout
        self.console = console
        self.steps: list[Step] = []

    def heading(self, text: str) -> None:
        """Say what comes next."""
        self.console.print(f"\n[bold]── {text}[/bold]", highlight=False)

    def say(self, text: str) -> None:
        """Say something."""
        self.console.print(text, highlight=False)

    def type(self, where: str, command: str, judge: Judge | None = None) -> str:
        """Run *command* by a shell in the node or guest *where*; its output. StepError when it is not as wanted."""
        self._prompt(where, command)
        began = time.monotonic()
        bundle = self.layout.bundle(where)
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment(),
            preexec_fn=lambda: enter(bundle),
        )
        self._conclude(where, command, done.returncode, done.stdout, judge, time.monotonic() - began)
        return done.stdout

    def begin(self, where: str, command: str, begun: str) -> Running:
        """Start *command* in *where*, on a terminal of its own, and return when it has shown the text *begun*."""
        self._prompt(where, f"{command} &")
        running = Running(self, where, command)
        try:
            running.read_until(begun)
        except BaseException:
            running.kill()
            raise
        return running

    def failed(self, where: str, command: str, complaint: str) -> StepError:
        """The error for a step, recorded as failed, that went wrong for another reason than its exit status."""
        self.console.print(f"[red]✗ {escape(complaint)}[/red]", highlight=False)
        return StepError(f"{where}: `{command}`: {complaint}")

    def _prompt(self, where: str, command: str) -> None:
        self.console.print(f"[bold cyan]{where}#[/bold cyan] [bold]{escape(command)}[/bold]", highlight=False)

    def _conclude(
        self, where: str, command: str, status: int, output: str, judge: Judge | None, seconds: float
    ) -> None:
        lines = output.replace("\r", "").splitlines()
        if len(lines) > SHOWN_LINES:
            half = SHOWN_LINES // 2
            lines = [*lines[:half], f"… {len(lines) - 2 * half} lines …", *lines[-half:]]
        for line in lines:
            self.console.print(f"    {escape(line)}", highlight=False, soft_wrap=True)
        complaint, words = None, None
        try:
            if status:
                complaint = f"exit status {status}"
            elif judge:
                words = judge(output)
        except OutputError as error:
            complaint = str(error)
        self.steps.append(Step(where, command, status, complaint is None, round(seconds, 3)))
        if complaint:
            raise self.failed(where, command, complaint)
        self.say(f"  [green]✓[/green] {escape(words or 'done')} [dim]({seconds:.2f} s)[/dim]")


class Running:
    """A program that runs meanwhile, on a terminal of its own, as tcpdump needs it to show packets at once."""

    def __init__(self, terminal: Terminal, where: str, command: str) -> None:
        self.terminal = terminal
        self.where = where
        self.command = command
        self.output = ""
        self.began = time.monotonic()
        bundle = terminal.layout.bundle(where)
        self._pty, theirs = pty.openpty()
        try:
            self.process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                env=environment(),
                start_new_session=True,
                preexec_fn=lambda: enter(bundle),
            )
        finally:
            os.close(theirs)

    def read_until(self, pattern: str, seconds: float = PATIENCE) -> None:
        """Return when the output matches *pattern*; StepError when it does not in time."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.output):
            if not self._read(max(0.0, deadline - time.monotonic())):
                self.kill()
                raise self.terminal.failed(self.where, self.command, f"did not begin: {self.output.strip()!r}")

    def read_until_quiet(self, seconds: float = 0.25) -> None:
        """Return when nothing more has come for *seconds*."""
        while self._read(seconds):
            pass

    def interrupt(self, judge: Judge | None = None) -> str:
        """Type Ctrl-C; the output, judged."""
        self.process.send_signal(signal.SIGINT)
        return self.wait(judge)

    def wait(self, judge: Judge | None = None) -> str:
        """Wait for the program's end; the output, judged."""
        while self._read(PATIENCE):
            pass
        status = self.process.wait()
        self._close()
        self.terminal.say(f"[dim]{self.where}: {escape(self.command)} ended:[/dim]")
        seconds = time.monotonic() - self.began
        self.terminal._conclude(self.where, self.command, status, self.output, judge, seconds)
        return self.output

    def kill(self) -> None:
        """End the program, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._close()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()

    def _close(self) -> None:
        if self._pty >= 0:
            os.close(self._pty)
            self._pty = -1

    def _read(self, seconds: float) -> bool:
        """Take in what comes within *seconds*; False when nothing does or the program has ended."""
        if self._pty < 0 or not select.select([self._pty], [], [], seconds)[0]:
            return False
        data = b""
        with contextlib.suppress(OSError):  # EIO: the program has closed its terminal
            data = os.read(self._pty, 65536)
        self.output += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


def expect(pattern: str, words: str = "") -> Judge:
    """A judge that wants the output to match *pattern* and says *words*, in which {1} stands for its first group."""

    def judge(output: str) -> str:
        found = re.search(pattern, output, re.MULTILINE)
        if not found:
            raise OutputError(f"the output does not have {pattern!r}")
        return words.format(found[0], *found.groups()) or found[0].strip()

    return judge


def as_data(steps: list[Step]) -> list[dict[str, Any]]:
    """The steps as plain data."""
    return [asdict(step) for step in steps]
