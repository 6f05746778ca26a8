# SPDX-License-Identifier: Apache-2.0
"""``asap2 exec NODE|GUEST [--] CMD…``."""

from __future__ import annotations

from asap2.cli.root import need_root
from asap2.errors import UsageError
from asap2.lab.enter import replace_process
from asap2.lab.layout import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def execute(name: str, words: list[str]) -> NoReturn:
    """Become the command *words*, which may follow ``--``, inside the node or guest called *name*."""
    need_root("asap2 exec")
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise UsageError(f"which command is to run in {name}? `asap2 exec {name} CMD…`")
    replace_process(layout().bundle(name), words)


def __getattr__(name: str) -> Any:
    """``command``, for typer: made only when the fast way was not taken."""
    if name != "command":
        raise AttributeError(name)
    from asap2.cli.verbs import exec_command

    return exec_command(execute)
