# SPDX-License-Identifier: Apache-2.0
"""Which modules a wheel leaves out: the reference eSwitch and the specification of connection tracking, which only
tests run, and what writes headers. Needs the standard library alone, as setup.py does.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PACKAGES = ("asap2.nic.conntrack", "asap2.nic.silicon")
"""Modules of these are left out unless a module that is shipped imports them. All others are shipped: some are run by
their names."""


def modules(source: Path) -> dict[str, Path]:
    """The files below *source*, by the names of their modules; a package by its own name."""
    found = {}
    for path in sorted(source.glob("asap2/**/*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def left_out(files: Mapping[str, Path]) -> set[str]:
    """Those of the modules *files* that a wheel is without."""
    candidates = {name for name in files if _parent(name) in PACKAGES}
    pending = set(files) - candidates
    shipped: set[str] = set()
    while pending:
        name = pending.pop()
        shipped.add(name)
        pending |= {one for one in imports(files[name].read_text()) if one in files} - shipped
    return set(files) - shipped


def imports(text: str) -> Iterator[str]:
    """What the source *text* imports, anywhere in it: modules, and names that may be modules of a package."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def shipped(found: Iterable[tuple[str, str, str]], source: Path) -> list[tuple[str, str, str]]:
    """Those of *found*, setuptools' (package, module, file), that are shipped."""
    without = _left_out_of(source)
    return [one for one in found if f"{one[0]}.{one[1]}" not in without]


@functools.cache
def _left_out_of(source: Path) -> set[str]:
    return left_out(modules(source))


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
