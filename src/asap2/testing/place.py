# SPDX-License-Identifier: Apache-2.0
"""Where a test runs commands: what nodes and guests have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from asap2.lab.background import Program
from asap2.lab.enter import environment, moved_in
from asap2.lab.layout import ROOT_VARIABLE, Layout
from asap2.namespaces import in_netns
from asap2.testing.capture import Capture
from asap2.testing.counters import Counters, read_counters
from asap2.testing.result import Command, Result

__tracebackhide__ = True  # pytest shows the line of the test, not ours


class Place:
    """A node or guest of the lab at *layout*, by its *name*."""

    def __init__(self, layout: Layout, name: str, patience: float) -> None:
        self.name = name
        self.patience = patience
        """Seconds that this place's methods wait for what must happen, unless they are told otherwise."""
        self._layout = layout
        self._bundle = layout.bundle(name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Run *command* here and return what it did.

        A string is a command line for bash; a list is a program with its arguments. *env* is added to the environment.
        CommandError if it fails, unless *check* is False; subprocess.TimeoutExpired after *timeout* seconds, when it
        and what it has started are killed.
        """
        process = self.start(command, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, env=env)
        try:
            output, errors = process.communicate(input, timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        result = Result(self.name, command, process.returncode, output, errors)
        return result.check() if check else result

    def start(
        self, command: Command, *, stdin: int | None = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start *command* here, in a session of its own, with pipes for its output and errors."""
        words, variables = _words(command), self._environment(env)
        return moved_in(
            self._bundle,
            lambda: subprocess.Popen(
                words,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment() | variables,
                start_new_session=True,
            ),
        )

    @contextlib.contextmanager
    def running(
        self, command: Command, until: str | None = None, *, env: Mapping[str, str] | None = None
    ) -> Iterator[Program]:
        """Run *command* here while the block runs, on a terminal of its own; it is killed at the end.

        *until* is a regular expression that the output must match before the block begins. *env* is added to the
        environment.
        """
        with Program(self._bundle, _words(command), self._environment(env)) as program:
            if until is not None:
                program.read_until(until, self.patience)
            yield program

    def asap2(self, *words: str, check: bool = True, timeout: float | None = None) -> Result:
        """Run ``asap2 WORDS`` here, by this process's Python: ``node.asap2("host", "check")``."""
        return self.run([sys.executable, "-m", "asap2.cli.main", *words], check=check, timeout=timeout)

    def capture(self, device: str, filter: str | Sequence[str] = ()) -> Capture:
        """Capture what passes *device* while a ``with`` block runs; *filter* is in tcpdump's language."""
        words = filter.split() if isinstance(filter, str) else filter
        program = self.run(["tcpdump", "-i", device, "-ddd", *words]).stdout if words else ""
        return Capture(self.name, lambda: self.socket(socket.AF_PACKET, socket.SOCK_RAW, 0), device, program)

    def counters(self, device: str) -> Counters:
        """The counters of a network device."""
        return read_counters(self, device)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this process in the network of this place."""
        netns = os.open(self._bundle / "net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return in_netns(netns, lambda: socket.socket(family, kind, protocol))
        finally:
            os.close(netns)

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        """The variables that a program here gets besides the usual ones: ``asap2`` in it means this lab."""
        return {ROOT_VARIABLE: str(self._layout.root), **(env or {})}


def _words(command: Command) -> list[str]:
    """The words of a program's command line; a line for bash becomes bash's."""
    return ["bash", "-c", command] if isinstance(command, str) else list(command)
