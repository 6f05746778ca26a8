# SPDX-License-Identifier: Apache-2.0
"""Every function, class, method and constant of the program is used somewhere, if only by a test."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [file for top in ("src", "tests", "ansible", "scripts") for file in (ROOT / top).rglob("*.py")]
OTHERS = [ROOT / "pyproject.toml", ROOT / "scripts/test", *(ROOT / "src").rglob("*.[ch]")]
WHOLE = ("asap2/netlink/tables/", "asap2/nic/conntrack/states.py")
"""Modules that say all of a protocol, whether or not the program needs it."""
PYTEST = "asap2/pytest_plugin.py"
"""Its functions are called by their names."""
LIBFUSE = "asap2/nic/faces/sysfs/face.py"
"""Its class of operations is called by their names."""


def _names(body: list[ast.stmt], file: str) -> Iterator[str]:
    """The names that a module or a class defines: no methods of classes with bases, which a base may call, and nothing
    private of a tuple, which takes all that something else consists of."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
                if not node.bases and file != LIBFUSE:
                    yield from _names([one for one in node.body if isinstance(one, ast.FunctionDef)], file)
            case ast.Assign(targets=[ast.Tuple(elts=parts)]):
                yield from (one.id for one in parts if isinstance(one, ast.Name) and not one.id.startswith("_"))
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def test_every_name_is_used() -> None:
    used: Counter[str] = Counter()
    for file in SOURCES + OTHERS:
        used.update(re.findall(r"[A-Za-z_]\w*", file.read_text()))
    unused = [
        f"{path}: {name}"
        for file in (ROOT / "src").rglob("*.py")
        if not (path := str(file.relative_to(ROOT / "src"))).startswith((*WHOLE, PYTEST))
        for name in _names(ast.parse(file.read_text()).body, path)
        if used[name] == 1 and not name.startswith("__")
    ]
    assert unused == []
