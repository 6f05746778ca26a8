# SPDX-License-Identifier: Apache-2.0
"""Split the wheel that pip has made of this checkout into two: asap2, the operator's half, which is the same on every
machine, and asap2-lab, which has the rest and is for one platform. The extra `lab` of the first requires the second.

::

    python scripts/split_wheel.py WHEEL DIRECTORY
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import native

TOP = Path(__file__).resolve().parents[1]
OPERATOR = re.compile(r"asap2\.(cli\.(main|host.*|openstack|openstack_config)|(host|live|top|view)(\..*)?)")
"""The modules that the operator's half begins with. All that they import belongs to it, but for modules of LAB that are
imported only when they are used."""
LAB = re.compile(r"asap2\.(lab|nic|openstack|ovn|testing|trace)(\..*)?")
DATA = re.compile(r"asap2/(py\.typed|(cli|host|live|top|view|openstack/config)/.*)")
"""The files of the operator's half that are no modules."""


def split(wheel: Path, directory: Path) -> list[Path]:
    """Write the two wheels that *wheel* is split into to *directory*; their paths."""
    with tempfile.TemporaryDirectory() as place:
        _wheel("unpack", "--dest", place, wheel)
        (operator,) = Path(place).iterdir()
        name, version = operator.name.split("-")
        lab = Path(place, f"{name}_lab-{version}")
        for path in sorted(operator.glob("asap2/**/*")):
            if path.is_file() and not is_operators(path.relative_to(operator)):
                target = lab / path.relative_to(operator)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        of_operator, of_lab = (one / f"{one.name}.dist-info" for one in (operator, lab))
        shutil.copytree(of_operator, of_lab)
        _share_out(of_operator, of_lab, version)
        for one in (operator, lab):
            _wheel("pack", "--dest-dir", directory, one)
        return sorted(path for one in (operator, lab) for path in directory.glob(f"{one.name}-*.whl"))


def is_operators(file: Path) -> bool:
    """Whether a *file* of the wheel belongs to the operator's half."""
    if file.suffix != ".py":
        return DATA.fullmatch(str(file)) is not None and not _is_compiled(file)
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) in _operators()


def _is_compiled(file: Path) -> bool:
    return str(file).removeprefix("asap2/").removesuffix(".gz") in {one.output for one in native.FILES}


@functools.cache
def _operators() -> set[str]:
    return operators(modules(TOP / "src"))


def _share_out(operator: Path, lab: Path, version: str) -> None:
    """Make of two copies of a wheel's dist-info those of its two parts."""
    head, _, description = (operator / "METADATA").read_text().partition("\n\n")
    lines = head.splitlines()
    after = lines.index("Provides-Extra: lab") + 1
    wanted = [*lines[:after], f'Requires-Dist: asap2-lab=={version}; extra == "lab"', *lines[after:]]
    (operator / "METADATA").write_text("\n".join([*wanted, "", description]))
    own = [line for line in lines if not re.match("Name|Summary|Description|Requires-Dist|Provides-Extra", line)]
    own[1:1] = ["Name: asap2-lab", "Summary: The software ConnectX of asap2, and labs that have it"]
    (lab / "METADATA").write_text("\n".join([*own, f"Requires-Dist: asap2[lab]=={version}", ""]))
    points = dict(re.findall(r"\[(\w+)\]\n((?:.+\n)+)", (operator / "entry_points.txt").read_text()))
    for place, mine in ((operator, {"console_scripts"}), (lab, set(points) - {"console_scripts"})):
        (place / "entry_points.txt").write_text("".join(f"[{one}]\n{points[one]}" for one in sorted(mine)))
    kind = (operator / "WHEEL").read_text()
    (operator / "WHEEL").write_text(re.sub("Tag: .*", "Tag: py3-none-any", kind))


def _wheel(*words: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "wheel", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def modules(source: Path) -> dict[str, Path]:
    """The files below *source*, by the names of their modules; a package by its own name."""
    found = {}
    for path in sorted(source.glob("asap2/**/*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def operators(files: Mapping[str, Path]) -> set[str]:
    """Those of the modules *files* that are the operator's half."""
    pending = {name for name in files if OPERATOR.fullmatch(name)}
    found: set[str] = set()
    while pending:
        name = pending.pop()
        found.add(name)
        text = files[name].read_text()
        wanted = {one for one in imports(text) if not LAB.fullmatch(one)} | set(imports(text, at_once=True))
        wanted = {one for one in wanted if one in files}
        pending |= {package for one in wanted | {name} for package in _with_parents(one)} - found
    return found


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = _parent(name)


def imports(text: str, *, at_once: bool = False) -> Iterator[str]:
    """What the source *text* imports: modules, and names that may be modules of a package. Anywhere in it, or *at_once*
    when it is itself imported: neither in a function nor for type checkers."""
    pending: list[ast.AST] = [ast.parse(text)]
    while pending:
        node = pending.pop()
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        if not (at_once and later):
            pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


if __name__ == "__main__":
    print(*split(Path(sys.argv[1]), Path(sys.argv[2])), sep="\n")
