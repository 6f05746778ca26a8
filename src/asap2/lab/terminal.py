# SPDX-License-Identifier: Apache-2.0
"""A person at the prompts of several machines: types a command, shows its output, and gives a verdict.

Every command is one that can be typed as it is shown, in `asap2 shell NAME`; what is typed is recorded as a
:class:`Step`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from asap2.errors import Asap2Error
from asap2.lab.background import Program
from asap2.lab.execute import start
from asap2.lab.layout import Layout
from asap2.screen import Part, Screen, Text, table

SHOWN_LINES = 24
"""Lines of an output that are shown; of a longer one the middle is left out."""
STEP_SECONDS = 300.0
"""Seconds that a command may take. One that takes longer hangs, even on a slow machine."""
MACHINE = "machine"
"""Where a command is typed that runs outside the lab's nodes and guests."""
TIMED_OUT = 124
"""The exit status that timeout(1) gives for a command that took too long."""


class OutputError(Exception):
    """A command's output is wrong; the text says how."""


class StepError(Asap2Error):
    """A step did not have its effect."""


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

    def __init__(self, layout: Layout, screen: Screen) -> None:
        self.layout = layout
        self.screen = screen
        self.steps: list[Step] = []

    def heading(self, text: str) -> None:
        """Announce what comes next."""
        self.screen.say()
        self.screen.say(f"── {text}", style="bold")

    def say(self, *parts: Part) -> None:
        """Print one line."""
        self.screen.say(*parts)

    def done(self, what: str, seconds: float) -> None:
        """Report that something was done, and how long it took."""
        self.screen.say("  ", ("✓", "green"), f" {what} ", (f"({seconds:.2f} s)", "dim"))

    def type(self, where: str, command: str, judge: Judge | None = None, *, shown: bool = True) -> str:
        """Run *command* by a shell in the node or guest *where*, or on the :data:`MACHINE`; its output, which may be
        left out of what is *shown*. StepError when it is not as wanted."""
        self._prompt(where, command)
        began = time.monotonic()
        bundle = None if where == MACHINE else self.layout.bundle(where)
        process = start(bundle, ["bash", "-c", command], session=True)
        try:
            output, _ = process.communicate(timeout=STEP_SECONDS)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = TIMED_OUT
        self.conclude(where, command, status, output, judge, time.monotonic() - began, shown=shown)
        return output

    def begin(self, where: str, command: str, begun: str) -> Program:
        """Start *command* in *where* and return when it has shown the text *begun*; :meth:`end` is to follow."""
        self._prompt(where, f"{command} &")
        program = Program(self.layout.bundle(where), command.split())
        try:
            program.read_until(begun)
        except Asap2Error as error:
            raise self.failed(where, command, str(error)) from None
        return program

    def interrupt(self, where: str, program: Program, judge: Judge | None = None) -> str:
        """Type Ctrl-C to what :meth:`begin` started in *where*; its output. StepError when it is not as wanted."""
        began = time.monotonic()
        self._prompt(where, "^C")
        status = program.interrupt()
        self.conclude(where, program.command, status, program.output, judge, time.monotonic() - began)
        return program.output

    def failed(self, where: str, command: str, complaint: str) -> StepError:
        """The error for a step, recorded as failed, that went wrong for another reason than its exit status."""
        self.screen.say(f"✗ {complaint}", style="red")
        return StepError(f"{where}: `{command}`: {complaint}")

    def _prompt(self, where: str, command: str) -> None:
        self.screen.say((f"{where}#", "bold cyan"), " ", (command, "bold"))

    def conclude(
        self,
        where: str,
        command: str,
        status: int,
        output: str,
        judge: Judge | None,
        seconds: float,
        *,
        shown: bool = True,
    ) -> None:
        """Show the *output* of *command*, which is not *shown* unless it failed, and the verdict on it, and record the
        step."""
        complaint, words = None, None
        try:
            if status == TIMED_OUT:
                complaint = f"it did not end within {STEP_SECONDS:g} s"
            elif status:
                complaint = f"exit status {status}"
            elif judge:
                words = judge(output)
        except OutputError as error:
            complaint = str(error)
        lines = output.replace("\r", "").splitlines() if shown or complaint else []
        if len(lines) > SHOWN_LINES:
            half = SHOWN_LINES // 2
            lines = [*lines[:half], f"… {len(lines) - 2 * half} lines …", *lines[-half:]]
        for line in lines:
            self.screen.say(f"    {line}")
        self.steps.append(Step(where, command, status, complaint is None, round(seconds, 3)))
        if complaint:
            raise self.failed(where, command, complaint)
        self.done(words or "done", seconds)

    def summary(
        self, rows: Iterable[tuple[str, str]], seconds: float, failure: str | None, headline: Sequence[Text] = ()
    ) -> None:
        """Print the summary table of (what, result), the *headline* of a demo that has one, and the verdict."""
        shown = table("What was shown", "what", "result")
        shown.columns[1].justify = "right"
        for what, result in rows:
            shown.add_row(what, result)
        self.screen.say()
        self.screen.print(shown)
        self.screen.say()
        if headline:
            self.screen.print(*headline)
            self.screen.say()
        verdict = ("failed", "red") if failure else ("all passed", "green")
        self.screen.say(f"{len(self.steps)} commands in {seconds:.0f} s, ", verdict)


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
