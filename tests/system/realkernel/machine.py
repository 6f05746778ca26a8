# SPDX-License-Identifier: Apache-2.0
"""Boots Debian's user-mode-linux as a process, gives it cases, and reads what a real kernel did with them."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

from tests.system.patience import PATIENCE
from tests.system.realkernel import guest

PROGRAM: Final = "linux.uml"
MEMORY_MB: Final = 192
_NEEDED_SHM: Final = 2 * MEMORY_MB << 20
_PATIENCE: Final = 5.0
"""Seconds that the kernel has to end when asked to."""
_CONSOLE_LINES: Final = 10

Message = tuple[int, int, bytes]
"""Type, flags and payload of a netlink message."""
Ask = tuple[Literal["ask"], int, int, bytes]
"""A netlink request: type, flags, payload."""
Send = tuple[Literal["send"], int, bytes, int]
"""A frame that comes in by a port: the port, the frame, and of a TCP super-packet the bytes in a segment, else 0."""
Run = tuple[Literal["run"], str]
"""A shell command; its answer is one message: exit status, 0, and what it wrote."""
Step = Ask | Send | Run
Case = Sequence[Step]


class Capture(NamedTuple):
    """A frame that came out: out of a port, or (``passed``) of the port's filters towards the network stack."""

    port: int
    passed: bool
    frame: bytes

    def __str__(self) -> str:
        return f"{'passed by' if self.passed else 'out of'} port {self.port}: {self.frame.hex()}"


class Result(NamedTuple):
    """What the kernel did with a case: its answer to each request, and the frames that came out, in order."""

    answers: list[list[Message]]
    captures: list[Capture]


class KernelError(RuntimeError):
    """The kernel did not boot, or did not do every case."""


class Kernel:
    """One boot of the kernel, which does *cases*; a context manager. It runs beside this process until asked."""

    def __init__(
        self, cases: Sequence[Sequence[Any]], *, time_limit: float = 5 * PATIENCE, program: str = guest.__file__
    ) -> None:
        """*program* is what does the cases in there."""
        self._count = len(cases)
        self._time_limit = time_limit
        kernel = shutil.which(PROGRAM)
        if kernel is None:
            raise KernelError(f"{PROGRAM} is not there: make setup-tests installs Debian's package user-mode-linux")
        self._directory = tempfile.TemporaryDirectory(prefix="asap2-realkernel-")
        path = Path(self._directory.name)
        with (path / "cases").open("wb") as out:
            for case in cases:
                pickle.dump(list(case), out)
        self._console = path / "console"
        command = ["setpriv", "--pdeathsig", "TERM", kernel, f"mem={MEMORY_MB}M", f"uml_dir={path}/", "quiet"]
        command += ["root=/dev/root", "rootfstype=hostfs", "ro", "con=null", "con0=null,fd:1"]
        command += ["init=/usr/bin/python3", "--", "-S", "-E", "-B", program, str(path)]
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        if not _has_room("/dev/shm"):
            environment["TMPDIR"] = str(path)
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the kernel and remove its files."""
        if not self._ended(0):
            self._process.terminate()
            self._ended(_PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its helpers, which outlive it when it is killed
        self._process.wait()  # only now may another process have its number
        os.close(self._pidfd)
        self._directory.cleanup()

    def _ended(self, seconds: float) -> bool:
        """Whether the process ends within so many seconds."""
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

    def results(self) -> list[Result]:
        """Wait for the end of the cases. :class:`KernelError` says in one sentence what went wrong."""
        return [_result(*one) for one in self.raw_results()]

    def raw_results(self) -> list[tuple[Any, ...]]:
        """The same as the program in there wrote it."""
        if not self._ended(self._time_limit):
            raise self._error(f"did not finish {self._count} cases in {self._time_limit:.0f} s")
        found: list[tuple[Any, ...]] = []
        results = Path(self._directory.name) / "results"
        if not results.exists():
            raise self._error("did not start the cases")
        with results.open("rb") as stream:
            while True:
                try:
                    kind, *rest = pickle.load(stream)
                except EOFError:
                    break
                if kind != "case":
                    raise KernelError(f"the kernel's program failed in case {len(found)}: {rest[0]}")
                found.append(tuple(rest))
        if len(found) != self._count:
            raise self._error(f"did {len(found)} of {self._count} cases")
        return found

    def _error(self, what: str) -> KernelError:
        lines = self._console.read_text(errors="replace").splitlines()
        words = [line for line in lines if line.strip() and not line.startswith(" ")]  # stack traces are indented
        return KernelError("\n".join([f"{PROGRAM} {what}; its last words:", *words[-_CONSOLE_LINES:]]))


def run(cases: Sequence[Case]) -> list[Result]:
    """What the kernel does with *cases*, in one boot."""
    with Kernel(cases) as kernel:
        return kernel.results()


def _has_room(directory: str) -> bool:
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= _NEEDED_SHM


def _result(answers: list[list[Message]], captures: list[tuple[int, tuple[int, int] | None, bytes]]) -> Result:
    return Result(answers, [_capture(*one) for one in captures])


def _capture(ifindex: int, tag: tuple[int, int] | None, frame: bytes) -> Capture:
    if tag is not None:
        frame = frame[:12] + tag[0].to_bytes(2, "big") + tag[1].to_bytes(2, "big") + frame[12:]
    passed = ifindex >= guest.BOND
    return Capture(ifindex - (guest.BOND if passed else guest.FAR), passed, frame)


def ask(kind: int, flags: int, payload: bytes) -> Ask:
    """A step that asks."""
    return ("ask", kind, flags, payload)


def send(port: int, frame: bytes, mss: int = 0) -> Send:
    """A step that sends."""
    return ("send", port, frame, mss)


def command(line: str) -> Run:
    """A step that runs a shell command."""
    return ("run", line)
