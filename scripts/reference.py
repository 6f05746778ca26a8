# SPDX-License-Identifier: Apache-2.0
"""The reference of the commands in Markdown, made from what ``--help`` says. The site and the manual pages are made
from it. Needs what ``asap2 host`` needs, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from asap2.cli.main import VERBS
from asap2.cli.verbs import root

SECTIONS = {"host": 8}
"""The section of the manual that a verb's page is in, where that is not 1."""
COMMON = """
## Exit status

0 if all is well; 1 for a finding, a refusal or a failure, which one sentence on standard error describes; 2 for wrong
usage; 130 after Ctrl-C. `asap2 exec` has the status of the command that it ran.

## Environment

- `ASAP2_LAB`: the lab that is meant, by its name or the path of its directory.
- `NO_COLOR`: print no colours. `FORCE_COLOR`: print them in a pipe, too.
- `COLUMNS`: characters in a line.
- `OVS_RUNDIR`: the directory of Open vSwitch's sockets.

## Files

- `/etc/asap2/undo.json`: what was before the first `asap2 host setup`.
- `/etc/asap2/boot.toml`: what `asap2 host persist` has set up at each boot.
- `/run/asap2`: the lab.
"""


def pages() -> dict[str, tuple[str, str]]:
    """For asap2 and for each of its verbs, by the name of the page (``asap2-host``): what it is about, and its text."""
    whole = root(VERBS)
    found = {}
    with click.Context(whole, info_name="asap2", **whole.context_settings) as context:
        body = [*_heading("asap2", whole, context), *_options(whole, context), "## Commands", ""]
        for verb in VERBS:
            one = whole.get_command(context, verb)
            body += [f"[`asap2 {verb}`](asap2-{verb}.md)", f": {_line(one.get_short_help_str())}", ""]
            with click.Context(one, info_name=verb, parent=context) as inner:
                found[f"asap2-{verb}"] = (_about(one), "\n".join(_verb(verb, one, inner)))
        found["asap2"] = ("Open vSwitch hardware offload", "\n".join(body) + COMMON)
    return found


def section_of(page: str) -> int:
    """The section of the manual that the *page* of a command is in."""
    return SECTIONS.get(page.removeprefix("asap2-"), 1)


def _verb(name: str, command: Any, context: click.Context) -> Iterator[str]:
    """The lines of a verb's page."""
    yield from _heading(f"asap2 {name}", command, context)
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            one: Any = command.get_command(context, below)
            with click.Context(one, info_name=below, parent=context) as inner:
                yield from _heading(f"asap2 {name} {below}", one, inner, level=2)
                yield from _options(one, inner, level=3)


def _heading(title: str, command: Any, context: click.Context, level: int = 1) -> Iterator[str]:
    """A command's name, how it is called, and what it does."""
    pieces = " ".join(command.collect_usage_pieces(context))
    yield from (f"{'#' * level} {title}", "", "```text", f"{context.command_path} {pieces}", "```", "")
    for paragraph in (command.help or "").split("\n\n"):
        yield from (_line(paragraph), "")


def _options(command: Any, context: click.Context, level: int = 2) -> Iterator[str]:
    """Arguments and options, each with what it is for."""
    rows = [*command.argument_rows(context)]
    known = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    rows += [row for one in known if (row := one.get_help_record(context))]
    if level == 2 and rows:
        yield from ("## Options", "")
    for names, about in rows:
        yield from (f"`{names}`", f": {_line(about)}", "")


def _about(command: Any) -> str:
    """What a command is for, to follow its name and a dash."""
    text: str = command.get_short_help_str().rstrip(".")
    return text if text.split()[0] in ("OpenStack", "Open") else text[0].lower() + text[1:]


def _line(text: str) -> str:
    """A paragraph in one line. An asterisk or a bracket of a help text is no markup."""
    made = []
    for number, part in enumerate(" ".join(text.split()).split("`")):
        made.append(part if number % 2 else part.replace("*", "\\*").replace("[", "\\[").replace("<", "\\<"))
    return "`".join(made)
