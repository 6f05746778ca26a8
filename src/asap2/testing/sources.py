# SPDX-License-Identifier: Apache-2.0
"""The topology of a lab, from whatever a test gives: a name, a file, text, or the topology itself."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from asap2.errors import UsageError
from asap2.lab.topology import Topology, load, parse

Source = Topology | Path | str
"""A topology; the path of a file; the name of a built-in topology (:func:`names`), or the text of a file."""


def names() -> list[str]:
    """The built-in topologies."""
    files = (resources.files("asap2.lab") / "topologies").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read(source: Source) -> Topology:
    """The topology that *source* stands for; UsageError when it is none."""
    if isinstance(source, Topology):
        return source
    if isinstance(source, Path):
        return load(source)
    if "[[" in source:
        return parse(source)
    if source in names():
        return parse((resources.files("asap2.lab") / "topologies" / f"{source}.toml").read_text())
    if source.endswith(".toml"):
        return load(Path(source))
    raise UsageError(f"there is no topology {source!r}; there are {', '.join(names())}, or give the path of a file")
