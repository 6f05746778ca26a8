# SPDX-License-Identifier: Apache-2.0
"""A lab while a test needs it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from asap2.lab.lab import Lab as RunningLab
from asap2.lab.layout import ROOT_VARIABLE, Layout
from asap2.lab.topology import Topology
from asap2.testing import ownership
from asap2.testing.guest import Guest
from asap2.testing.node import Node
from asap2.testing.place import Place
from asap2.testing.result import CommandError, Result
from asap2.testing.sources import Source, read

PATIENCE = 60.0
"""Seconds that waits take at most, unless told otherwise: far longer than anything takes on a machine that is not
overloaded, so that it is a failure that ends them."""
_LAST_LINES = 20
"""Of a daemon's log in :meth:`Lab.report`."""


class Lab:
    """The lab of *topology* that is up at *root*, where :func:`lab` has brought it up."""

    def __init__(self, root: Path, topology: Topology, patience: float = PATIENCE) -> None:
        self.root = root
        self.topology = topology
        self.environment = os.environ | {ROOT_VARIABLE: str(root)}
        """For processes outside the lab that run ``asap2`` on it."""
        layout = Layout(root)
        self.nodes = tuple(Node(layout, each, topology.guests, patience) for each in topology.nodes)
        self.guests = tuple(Guest(layout, each, patience) for each in topology.guests)

    def node(self, name: str) -> Node:
        """The node called *name*; LookupError when there is none."""
        return _named(name, self.nodes, "node")

    def guest(self, name: str) -> Guest:
        """The guest called *name*; LookupError when there is none."""
        return _named(name, self.guests, "guest")

    def __getitem__(self, name: str) -> Place:
        """The node or guest called *name*; LookupError when there is none."""
        return _named(name, (*self.nodes, *self.guests), "node or guest")

    def asap2(self, *words: str, check: bool = True, timeout: float | None = None) -> Result:
        """Run ``asap2 WORDS`` outside the lab's nodes, as ``lab.asap2("lab", "ls")``; CommandError if it fails, unless
        *check* is False."""
        command = [sys.executable, "-m", "asap2.cli.main", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=timeout)
        result = Result("machine", command, done.returncode, done.stdout, done.stderr)
        return result.check() if check else result

    def report(self) -> str:
        """What may explain a failure: each node's flows, and the last lines of its daemon's log."""
        parts = []
        for node in self.nodes:
            try:
                parts.append(node.describe_flows())
            except CommandError as error:
                parts.append(str(error))
            with contextlib.suppress(OSError):
                log = (self.root / "nodes" / node.name / "daemon.log").read_text(errors="replace").splitlines()
                if log:
                    parts += [f"The end of the log of {node.name}'s daemon:", *log[-_LAST_LINES:]]
        return "\n".join(parts)


P = TypeVar("P", bound=Place)


def _named(name: str, places: Sequence[P], kind: str) -> P:
    """The one of *places* called *name*; LookupError."""
    for place in places:
        if place.name == name:
            return place
    known = ", ".join(place.name for place in places) or "none"
    raise LookupError(f"the lab has no {kind} {name!r}; it has {known}")


@contextlib.contextmanager
def lab(topology: Source = "one-node", *, patience: float = PATIENCE) -> Iterator[Lab]:
    """A lab while a ``with`` block runs.

    *topology* is the name of a built-in one, how many nodes are in a rack, the path of a file, the text of one, or a
    :class:`asap2.lab.topology.Topology`. *patience* is how many seconds methods wait for what must happen.

    The lab has a place of its own, so that any number can be up at once, also of other processes. If this process
    dies in whatever way, its labs are taken down.

    Raises :class:`asap2.errors.Asap2Error` with one sentence when this machine cannot run a lab, or the topology is
    wrong.
    """
    what = read(topology)
    with ownership.place() as root:
        running = RunningLab(Layout(root))
        running.up(what)
        try:
            yield Lab(root, what, patience)
        finally:
            running.down()
