# SPDX-License-Identifier: Apache-2.0
"""Nodes for the tests of the kernel's faces."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.nic.faces.emulated_node import Node, NodeMaker


@pytest.fixture(scope="module")
def make_node() -> Iterator[NodeMaker]:
    """Makes nodes that end with the module's tests."""
    made: list[Node] = []

    with tempfile.TemporaryDirectory(prefix=f"t-faces-{os.getpid()}-") as top:

        def make(**what: object) -> Node:
            directory = Path(top) / str(len(made))
            directory.mkdir()
            made.append(Node(directory, **what))  # type: ignore[arg-type]
            return made[-1]

        yield make
        for node in made:
            node.close()


@pytest.fixture
def node(make_node: NodeMaker) -> Iterator[Node]:
    """A node with one ConnectX-5, as it is when the machine has booted."""
    made = make_node()
    yield made
    made.close()
