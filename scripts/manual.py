# SPDX-License-Identifier: Apache-2.0
"""Write the manual pages and the shells' completion: ``python scripts/manual.py DIRECTORY``.

What a page says of commands and options is what ``--help`` says; its prose is that of the documents in docs. Needs what
``asap2 host`` needs, and no other. The pages are in man(7).
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from asap2.cli.main import VERBS
from asap2.cli.verbs import COMPLETION, root

TOP = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["version"]
SECTIONS = {"host": 8}
"""The section of the manual that a verb's page is in, where that is not 1."""
DOCUMENTS = {
    "operator": ("asap2-operator", 7, "set up, verify and explain Open vSwitch hardware offload"),
    "reasons": ("asap2-reasons", 7, "why a flow or a connection is not in hardware"),
    "lab": ("asap2-topology", 5, "describe nodes, software NICs, cables and guests"),
    "openstack-config": ("asap2-openstack-config", 7, "settings of OpenStack for switchdev NICs"),
}
"""The documents of docs that are pages: name, section, and what the page is about."""
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
SHELLS = {
    "bash": "bash-completion/completions/asap2",
    "zsh": "zsh/vendor-completions/_asap2",
    "fish": "fish/vendor_completions.d/asap2.fish",
}
"""Where shells look for completion, below share."""
SCRIPTS = {
    "bash": 'eval "$({ask})"\n',
    "zsh": '#compdef asap2\neval "$({ask})"\n_asap2_completion "$@"\n',
    "fish": "env {ask} | source\n",
}


def main() -> None:
    """Write all below the directory that the command line names."""
    target = Path(sys.argv[1])
    for name, page in pages().items():
        section = name.rpartition(".")[2]
        path = target / f"man/man{section}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page)
    for shell, place in SHELLS.items():
        path = target / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(completion(shell))


def pages() -> dict[str, str]:
    """All pages, by their file names."""
    found = dict(command_pages())
    for document, (name, section, about) in DOCUMENTS.items():
        _title, _, body = (TOP / f"docs/{document}.md").read_text().partition("\n")
        found[f"{name}.{section}"] = page(name, section, about, [".SH DESCRIPTION", *from_markdown(body)])
    return found


def completion(shell: str) -> str:
    """The file that has *shell* complete asap2's command line: it asks asap2 for the script, as that is of one version
    with what answers it."""
    return SCRIPTS[shell].format(ask=f"{COMPLETION}={shell}_source asap2")


# ---- commands


def command_pages() -> Iterator[tuple[str, str]]:
    """A page for asap2 and for each of its verbs."""
    whole = root(VERBS)
    with click.Context(whole, info_name="asap2", **whole.context_settings) as context:
        body = [*synopsis(whole, context), ".SH DESCRIPTION", *prose(whole.help)]
        body += [*options(whole, context), ".SH COMMANDS"]
        for verb in VERBS:
            one = whole.get_command(context, verb)
            section = SECTIONS.get(verb, 1)
            body += [".TP", bold(f"asap2-{verb}") + f"({section})", escaped(one.get_short_help_str())]
        yield "asap2.1", page("asap2", 1, "Open vSwitch hardware offload", [*body, *from_markdown(COMMON), *see_also()])
        for verb in VERBS:
            one = whole.get_command(context, verb)
            with click.Context(one, info_name=verb, parent=context) as inner:
                section = SECTIONS.get(verb, 1)
                about = lower(one.get_short_help_str().rstrip("."))
                yield f"asap2-{verb}.{section}", page(f"asap2-{verb}", section, about, verb_page(one, inner))


def verb_page(command: Any, context: click.Context) -> list[str]:
    """What a verb's page has below its name."""
    body = [*synopsis(command, context), ".SH DESCRIPTION", *prose(command.help), *options(command, context)]
    if isinstance(command, click.Group):
        body.append(".SH COMMANDS")
        for name in command.list_commands(context):
            one: Any = command.get_command(context, name)
            with click.Context(one, info_name=name, parent=context) as inner:
                body += [f".SS {quoted(usage(one, inner))}", *prose(one.help), *options(one, inner, heading=False)]
    return [*body, *see_also(but=context.info_name or "")]


def synopsis(command: Any, context: click.Context) -> list[str]:
    """How the command is called."""
    return [".SH SYNOPSIS", bold(context.command_path) + " " + escaped(pieces(command, context))]


def usage(command: Any, context: click.Context) -> str:
    """How the command is called, in one line."""
    return f"{context.command_path} {pieces(command, context)}"


def pieces(command: Any, context: click.Context) -> str:
    """What follows a command's name."""
    return " ".join(command.collect_usage_pieces(context))


def options(command: Any, context: click.Context, *, heading: bool = True) -> Iterator[str]:
    """Arguments and options, each with what it is for."""
    rows = [*command.argument_rows(context)]
    known = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    rows += [row for one in known if (row := one.get_help_record(context))]
    if rows and heading:
        yield ".SH OPTIONS"
    for names, about in rows:
        yield from (".TP", bold(names), inline(about))


def see_also(but: str = "") -> list[str]:
    """References to the other pages."""
    names = [("asap2", 1), *((f"asap2-{verb}", SECTIONS.get(verb, 1)) for verb in VERBS if verb != but)]
    names += [(name, section) for name, section, _ in DOCUMENTS.values()]
    wanted = [f"\\fB{escaped(name)}\\fP({section})" for name, section in names if but or name != "asap2"]
    others = [f"\\fB{escaped(name)}\\fP(8)" for name in ("ovs-vswitchd", "devlink", "tc")]
    return [".SH SEE ALSO", ", ".join([*wanted, *others])]


# ---- man(7)


def page(name: str, section: int, about: str, body: list[str]) -> str:
    """A whole page."""
    head = [
        "'\\\" -*- coding: UTF-8 -*-",
        '.\\" Written by scripts/manual.py.',
        f'.TH {escaped(name.upper())} {section} "" "asap2 {VERSION}" "asap2"',
        ".SH NAME",
        f"{escaped(name)} \\- {inline(about)}",
    ]
    lines = [*head, *body]
    before = ["", *lines]
    kept = [one for last, one in zip(before, lines, strict=False) if one != ".PP" or last[:3] not in (".SH", ".SS")]
    return "\n".join(kept) + "\n"


def lower(text: str) -> str:
    """*text* with a small letter at its beginning, unless that is of a name."""
    word = text.split()[0]
    return text if word in ("OpenStack", "Open") else text[0].lower() + text[1:]


def escaped(text: str) -> str:
    """*text* as it is, in man(7)."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text)


def quoted(text: str) -> str:
    """*text* as one argument of a macro."""
    return '"' + escaped(text).replace('"', "\\(dq") + '"'


def bold(text: str) -> str:
    """*text* in bold."""
    return f"\\fB{escaped(text)}\\fP"


_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(([^)]*)\)")


def inline(text: str) -> str:
    """A text of Markdown: code and what is strong in bold, of links the words."""
    made, end = "", 0
    for found in _INLINE.finditer(text):
        code, strong, words, _ = found.groups()
        made += escaped_inside(text[end : found.start()])
        made += inline(words) if words else bold_inside(code or strong)
        end = found.end()
    made += escaped_inside(text[end:])
    return re.sub(r"^([.'])", r"\\&\1", made)


def escaped_inside(text: str) -> str:
    """*text* that does not begin a line."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def bold_inside(text: str) -> str:
    """*text* in bold that does not begin a line."""
    return f"\\fB{escaped_inside(text)}\\fP"


def prose(text: str | None) -> Iterator[str]:
    """A docstring's paragraphs."""
    for number, paragraph in enumerate((text or "").split("\n\n")):
        if number:
            yield ".PP"
        yield inline(" ".join(paragraph.split()))


def from_markdown(text: str) -> Iterator[str]:
    """A document's body: headings, paragraphs, lists, tables and code."""
    for block in filter(None, map(str.strip, re.split(r"\n{2,}", _with_code_apart(text)))):
        lines = block.split("\n")
        if block.startswith("```"):
            code = [escaped(line) for line in block.removesuffix("```").split("\n")[1:]]
            yield from (".PP", ".RS 4", ".nf", *(line.replace("\x00", "") for line in code), ".fi", ".RE")
        elif heading := re.fullmatch(r"(#+) (.*)", block):
            big = len(heading[1]) <= 2
            yield f".SH {quoted(heading[2].upper())}" if big else f".SS {quoted(heading[2])}"
        elif block.startswith("|"):
            yield from _table(lines)
        elif re.match(r"(- |\d+\. )", block):
            yield from _list(block)
        else:
            yield from (".PP", inline(" ".join(lines)))


def _with_code_apart(text: str) -> str:
    """*text* with code and headings in blocks of their own, and no empty line within code."""
    made, within = [], False
    for line in text.split("\n"):
        fence = line.startswith("```")
        heading = not within and re.match(r"#+ ", line)
        if (fence and not within) or heading:
            made.append("")
        made.append(line if line or not within else "\x00")
        if (fence and within) or heading:
            made.append("")
        within ^= fence
    return "\n".join(made)


def _table(lines: list[str]) -> Iterator[str]:
    rows = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = rows[0]
    for first, *others in rows[2:]:
        words = [
            f"{head}: {cell}" if head and number else cell
            for number, (head, cell) in enumerate(zip(heads[1:], others, strict=False))
            if cell
        ]
        yield from (".TP", inline(first) or "\\&", inline("; ".join(words)) or "\\&")


def _list(block: str) -> Iterator[str]:
    items = re.split(r"\n(?=- |\d+\. )", block)
    for item in items:
        mark, _, text = item.partition(" ")
        yield from (".IP " + ("\\(bu 2" if mark == "-" else f"{mark} 4"), inline(" ".join(text.split())))


if __name__ == "__main__":
    main()
