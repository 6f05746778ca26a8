# SPDX-License-Identifier: Apache-2.0
"""A command as a function with annotations: the part of typer's interface that our commands use, over click. Typer
itself brings pydantic and rich, which would be most of what an operator installs, and half of the time of a command.

``Annotated[T, Option(…)]`` or ``Annotated[T, Argument(…)]`` describes a parameter; T is bool, int, float, str, Path, an
Enum, one of these or None, or a list of these. The function's docstring is the command's help.
"""

from __future__ import annotations

import enum
import inspect
import shutil
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from asap2.errors import UsageError

_F = TypeVar("_F", bound=Callable[..., Any])
_WIDEST = 100
"""Characters of a line of help, at most: longer lines are hard to read."""


@dataclass(frozen=True)
class _Described:
    """What an annotation says of a parameter."""

    names: tuple[str, ...]
    help: str
    metavar: str | None
    min: float | None
    max: float | None
    is_option: bool
    complete: Callable[[], Iterable[str]] | None = None


def Option(  # noqa: N802 - typer's name
    *names: str, help: str = "", metavar: str | None = None, min: float | None = None, max: float | None = None
) -> Any:
    """An option, called after the parameter or by *names*; a bool without names has ``--no-…`` too."""
    return _Described(names, help, metavar, min, max, True)


def Argument(  # noqa: N802 - typer's name
    *, help: str = "", metavar: str | None = None, complete: Callable[[], Iterable[str]] | None = None
) -> Any:
    """An argument; a shell offers what *complete* gives."""
    return _Described((), help, metavar, None, None, False, complete)


class _Argument(click.Argument):
    """An argument that has help."""

    def __init__(self, *words: Any, about: str, **more: Any) -> None:
        super().__init__(*words, **more)
        self.about = about


class _Helped(click.Command):
    """A command whose help has its arguments, and a sentence for lists."""

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002
        """What a list of commands says of it: the first sentence of its help."""
        first = " ".join((self.help or "").split()).split(". ")[0]
        return first if first.endswith(".") else f"{first}."

    def argument_rows(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Each argument that has help, with it."""
        return [
            (one.make_metavar() if _OLD else one.make_metavar(ctx), one.about)  # type: ignore[call-arg]
            for one in self.get_params(ctx)
            if isinstance(one, _Argument) and one.about
        ]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections on arguments and options."""
        if rows := self.argument_rows(ctx):
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)


class Command(_Helped):
    """A command."""


class Group(_Helped, click.Group):
    """A command with commands; without a word, it shows its help and ends with the status of a wrong usage."""

    def __init__(self, *, no_args_is_help: bool = False, **more: Any) -> None:
        super().__init__(**more)
        self._shows_help = no_args_is_help

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names of its commands, in the order of their definition."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of the command line."""
        if not args and self._shows_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(UsageError.status)
        return super().parse_args(ctx, args)


_OLD = "ctx" not in inspect.signature(click.Argument.make_metavar).parameters
"""Whether click is older than 8.2."""


@dataclass
class Typer:
    """Commands that belong together; one alone is the command itself."""

    help: str = ""
    no_args_is_help: bool = False
    commands: list[click.Command] = field(default_factory=list)

    def command(self, *, context_settings: dict[str, Any] | None = None) -> Callable[[_F], _F]:
        """Have the decorated function as a command."""

        def decorate(function: _F) -> _F:
            self.commands.append(_command(function, context_settings or {}))
            return function

        return decorate


def get_command(app: Typer) -> click.Command:
    """The command that *app* is."""
    if len(app.commands) == 1 and not app.help:
        return app.commands[0]
    return Group(
        help=app.help, no_args_is_help=app.no_args_is_help, commands={one.name or "": one for one in app.commands}
    )


def settings() -> dict[str, Any]:
    """The settings of click's context that all commands share."""
    return {
        "help_option_names": ["-h", "--help"],
        "max_content_width": min(_WIDEST, shutil.get_terminal_size().columns),
        "show_default": True,
    }


def _command(function: Callable[..., Any], context_settings: dict[str, Any]) -> Command:
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    lists = {one.name for one in parameters if _item(hints[one.name])[1]}

    def callback(**values: Any) -> Any:
        for name in lists:
            values[name] = list(values[name]) or None
        return function(**values)

    return Command(
        name=function.__name__.strip("_").replace("_", "-"),
        callback=callback,
        params=[_parameter(one, hints[one.name]) for one in parameters],
        help=inspect.cleandoc(function.__doc__ or ""),
        context_settings=context_settings,
    )


def _item(hint: Any) -> tuple[Any, bool]:
    """The type of a value, and whether it is one of a list, of a parameter annotated with *hint*."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if isinstance(hint, types.UnionType):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    return (typing.get_args(hint)[0], True) if typing.get_origin(hint) is list else (hint, False)


def _parameter(parameter: inspect.Parameter, hint: Any) -> click.Parameter:
    described = next(one for one in hint.__metadata__ if isinstance(one, _Described))
    kind, several = _item(hint)
    required = parameter.default is inspect.Parameter.empty
    how: dict[str, Any] = {"required": required, "metavar": described.metavar}
    if not required and not several:
        default = parameter.default
        how["default"] = default.value if isinstance(default, enum.Enum) else default
    if not described.is_option:
        if several:
            how["nargs"] = -1
        if not required and not (described.metavar or "").startswith("["):
            how["metavar"] = f"[{described.metavar}]" + ("…" if several else "")
        if described.complete:
            how["shell_complete"] = _completing(described.complete)
        return _Argument([parameter.name], type=_type(kind, described), about=described.help, **how)
    name = parameter.name.replace("_", "-")
    names = described.names or (f"--{name}/--no-{name}" if kind is bool else f"--{name}",)
    if kind is bool:
        how.pop("metavar")
        return click.Option([*names, parameter.name], is_flag=True, help=described.help, **how)
    return click.Option(
        [*names, parameter.name], type=_type(kind, described), help=described.help, multiple=several, **how
    )


def _completing(known: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    def complete(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        return [one for one in known() if one.startswith(begun)]

    return complete


def _type(kind: Any, described: _Described) -> Any:
    if kind is Path:
        return click.Path(path_type=Path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _OneOf(kind)
    if kind in (int, float) and (described.min is not None or described.max is not None):
        span = click.IntRange if kind is int else click.FloatRange
        return span(min=described.min, max=described.max)  # type: ignore[arg-type]
    return click.types.convert_type(kind)


class _OneOf(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """A member of an Enum, by its value."""

    def __init__(self, kind: type[enum.Enum]) -> None:
        super().__init__([str(one.value) for one in kind])
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The member that *value* names."""
        return value if isinstance(value, self.kind) else self.kind(super().convert(value, param, ctx))
