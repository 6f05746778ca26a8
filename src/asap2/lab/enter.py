# SPDX-License-Identifier: Apache-2.0
"""Entering the namespaces of a node or guest; `asap2 exec` is little more, so this module imports little."""

from __future__ import annotations

import os
import signal
import sys

from asap2.lab.redirect import SOCKET, redirect_own_calls
from asap2.lab.revive import revive
from asap2.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, on_thread, own_root, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import NoReturn, TypeVar

    T = TypeVar("T")

KINDS = {"net": CLONE_NEWNET, "uts": CLONE_NEWUTS, "mnt": CLONE_NEWNS}
"""Kinds of namespace in the order in which they are entered: the mount namespace last, paths change with it."""

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit statuses that shells give for a command that cannot be run (POSIX, Shell Command Language, 2.8.2)."""


def enter(bundle: Path, kinds: Iterable[str] = KINDS) -> None:
    """Move this thread, whose working directory must be its own, into those namespaces of *bundle* that it keeps.

    The working directory stays where the path leads to in the new tree; where it leads nowhere, it becomes the root.
    """
    directory = os.getcwd()
    found = []
    for kind in [kind for kind in KINDS if kind in kinds and (bundle / kind).exists()]:
        found.append((os.open(bundle / kind, os.O_RDONLY | os.O_CLOEXEC), KINDS[kind]))
    for descriptor, flag in found:
        setns(descriptor, flag)
        os.close(descriptor)
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


def move_in(bundle: Path) -> None:
    """Move this process, which is about to become a program, into *bundle*: :func:`enter`, and what the program asks of
    the NIC is answered by the node's daemon even if it makes its system calls itself. What is no node or guest
    has no NIC of ours: a network namespace alone, the controller of a cloud."""
    has_view = (bundle / "mnt").exists()
    enter(bundle)
    if has_view and os.path.isdir(os.path.dirname(SOCKET)):
        redirect_own_calls()


def moved_in(bundle: Path, call: Callable[[], T]) -> T:
    """The result of *call*, made on a thread that has moved into *bundle* (:func:`move_in`): programs that it starts
    are inside.

    With ``preexec_fn`` instead, subprocess would have to fork this process, which costs a large one many times more
    than vfork. OSError when the thread cannot move in.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def inside() -> T:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        own_root()
        move_in(bundle)
        return call()

    try:
        return on_thread(inside)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def environment() -> dict[str, str]:
    """This process's environment, with the directories of system programs and of the command ``asap2`` in PATH."""
    path = os.environ.get("PATH", "").split(":")
    more = (*SYSTEM_PATH, os.path.dirname(sys.executable))
    return os.environ | {"PATH": ":".join([*filter(None, path), *(d for d in more if d not in path)])}


def replace_process(bundle: Path, command: Sequence[str]) -> NoReturn:
    """Become *command* inside *bundle*'s namespaces, so that signals and the exit status are its own."""
    revive(bundle.parents[2])
    try:
        move_in(bundle)
    except OSError as error:
        print(f"asap2: {bundle.parent.name}: {error.strerror}", file=sys.stderr)
        raise SystemExit(NOT_EXECUTABLE) from None
    try:
        os.execvpe(command[0], list(command), environment())
    except OSError as error:
        print(f"asap2: {command[0]}: {error.strerror}", file=sys.stderr)
        raise SystemExit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE) from None
