# SPDX-License-Identifier: Apache-2.0
"""The topology of a lab, from what a test gives: a name, a number of nodes, a file, text, or the topology itself."""

from __future__ import annotations

from pathlib import Path

from asap2.lab.gallery import named, rack
from asap2.lab.topology import Topology, load, parse

Source = Topology | Path | str | int
"""A topology; the path of a file; the name of a built-in topology, or the text of a file; or how many nodes, each with
a guest and a bridge that offloads, stand in a rack."""


def read(source: Source) -> Topology:
    """The topology that *source* stands for; UsageError when it is none."""
    if isinstance(source, Topology):
        return source
    if isinstance(source, int):
        return rack(source)
    if isinstance(source, Path):
        return load(source)
    return parse(source) if "[[" in source else named(source)
