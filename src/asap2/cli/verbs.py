# SPDX-License-Identifier: Apache-2.0
"""The verbs of the command ``asap2`` as click sees them: a group that imports each when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import click
import click.exceptions
import click.shell_completion

from asap2.cli import complete, typer
from asap2.cli.typer import Group
from asap2.errors import InterruptError, UsageError
from asap2.output import say

COMPLETION = "_ASAP2_COMPLETE"
"""The variable by which a shell asks what may come next; its value is the shell's name and what it asks for."""


class Verbs(Group):
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
    """Ctrl-C as an InterruptError without words: click would add a line."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptError from None


def root(verbs: tuple[str, ...]) -> Verbs:
    """The command ``asap2`` with *verbs*."""
    made = Verbs(
        name="asap2",
        help="Open vSwitch hardware offload, on real NICs (host) and on software ConnectX NICs (everything else).\n\n"
        "`--lab NAME` before a verb chooses among several labs; else the variable ASAP2_LAB does.",
        context_settings=typer.settings(),
    )
    made.verbs = verbs
    made.params.append(
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and exit.",
        )
    )
    return made


def run(words: list[str], verbs: tuple[str, ...]) -> int:
    """Run the command line *words*; the exit status. UsageError for what makes no sense."""
    command = root(verbs)
    if asked := os.environ.get(COMPLETION):
        return click.shell_completion.shell_complete(command, {}, "asap2", COMPLETION, asked)
    try:
        with command.make_context("asap2", list(words) or ["--help"]) as context:
            status = command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        place = getattr(error, "ctx", None)
        path = place.command_path if place else "asap2"
        what = error.format_message().rstrip(".")
        raise UsageError(f"{what}{'' if what.endswith('?') else ';'} `{path} --help` shows the usage") from None
    return status if isinstance(status, int) else 0


def _version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked:
        from asap2.version import version

        say(f"asap2 {version()}")
        context.exit()


def exec_command(execute: Callable[[str, list[str]], object]) -> Any:
    """The verb ``exec`` around *execute*, whose own module does without typer."""
    app = typer.Typer()

    @app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
    def exec_(
        name: Annotated[
            str, typer.Argument(metavar="NODE|GUEST", help="Name of the node or guest.", complete=complete.places)
        ],
        words: Annotated[list[str], typer.Argument(metavar="CMD…", help="The command and its arguments.")],
    ) -> None:
        """Run an unmodified program inside a node or guest. Its exit status is this command's."""
        execute(name, words)

    return typer.get_command(app)
