# SPDX-License-Identifier: Apache-2.0
"""The verbs of the command ``asap2`` as typer sees them: a group that imports each when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from asap2.errors import InterruptError, UsageError


class Verbs(TyperGroup):
    """The verbs, each a module of :mod:`asap2.cli` whose name is the verb's after ``prefix``, imported one by one."""

    verbs: tuple[str, ...] = ()
    prefix = ""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names of all."""
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """The verb called *cmd_name*, or None."""
        if cmd_name not in self.verbs:
            return None
        command = importlib.import_module(f"asap2.cli.{self.prefix}{cmd_name}").command
        command.name = cmd_name
        return command

    def make_context(self, *words: Any, **more: Any) -> Any:
        """Read the command line."""
        with _silent():
            return super().make_context(*words, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        with _silent():
            return super().invoke(ctx)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Ctrl-C as an InterruptError without words: typer would make it exit status 1."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptError from None


def run(words: list[str], verbs: tuple[str, ...]) -> int:
    """Run the command line *words*; the exit status. UsageError for what makes no sense."""
    root = Verbs(
        name="asap2",
        help="Open vSwitch hardware offload, on real NICs (host) and on software ConnectX NICs (everything else).\n\n"
        "`--lab NAME` before a verb chooses among several labs; else the variable ASAP2_LAB does.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root.verbs = verbs
    try:
        status = root.main(words or ["--help"], prog_name="asap2", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        explain = getattr(error, "format_message", None)
        if explain is None:
            raise
        if not explain():  # the help was asked for by giving no argument, and has been shown
            return UsageError.status
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "asap2"
        raise UsageError(f"{explain().rstrip('.')}; `{command} --help` shows the usage") from None
    return status if isinstance(status, int) else 0


def exec_command(execute: Callable[[str, list[str]], object]) -> Any:
    """The verb ``exec`` around *execute*, whose own module does without typer."""
    app = typer.Typer(add_completion=False)

    @app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
    def exec_(
        name: Annotated[str, typer.Argument(metavar="NODE|GUEST", help="Name of the node or guest.")],
        words: Annotated[list[str], typer.Argument(metavar="CMD…", help="The command and its arguments.")],
    ) -> None:
        """Run an unmodified program inside a node or guest. Its exit status is this command's."""
        execute(name, words)

    return typer.main.get_command(app)
