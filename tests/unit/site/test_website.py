# SPDX-License-Identifier: Apache-2.0
"""The documentation site: what its generator gets, and the check of links. ``make docs`` builds it."""

from __future__ import annotations

import re
import runpy
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from asap2.cli.main import VERBS
from asap2.lab import gallery
from asap2.lab.layout import MOST_NODES
from tests.docs.blocks import TOP


@pytest.fixture(scope="module")
def website() -> Any:
    """The script's names."""
    sys.path.insert(0, str(TOP / "scripts"))
    try:
        yield runpy.run_path(str(TOP / "scripts/website.py"))
    finally:
        sys.path.remove(str(TOP / "scripts"))


@pytest.fixture(scope="module")
def source(website: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the generator reads."""
    directory = tmp_path_factory.mktemp("site") / "source"
    website["prepare"](directory)
    return directory


def test_every_page_is_in_the_table_of_contents(source: Path) -> None:
    listed = set()
    for page in ("index.md", "commands.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", (source / page).read_text(), re.DOTALL):
            listed |= {line for line in tree.splitlines() if line and not line.startswith(":")}
    pages = {str(path.relative_to(source).with_suffix("")) for path in source.rglob("*.md")}
    assert listed == pages - {"index"}, "add the page to a toctree of docs/index.md"


def test_every_command_and_topology_has_its_place(source: Path) -> None:
    assert {path.stem for path in (source / "commands").glob("*.md")} == {"asap2", *(f"asap2-{verb}" for verb in VERBS)}
    text = (source / "gallery.md").read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(gallery.names())
    assert len(gallery.names()) >= 10


def test_a_picture_shows_every_node_and_switch(website: Any) -> None:
    topology = gallery.rack(MOST_NODES)
    tree = ET.fromstring(website["gallery"].__globals__["picture"](topology, "A <rack> & more"))
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {node.name for node in topology.nodes} | {guest.name for guest in topology.guests} | {"tor"} <= set(texts)


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        ('<a href="b.html">', []),
        ('<a href="b.html#there">', []),
        ('<a href="https://example.org/x">', []),
        ('<a href="#top"><p id="top">', []),
        ('<a href="b.html#nowhere">', ["a.html: a link leads nowhere: b.html#nowhere"]),
        ('<a href="c.html">', ["a.html: a link leads nowhere: c.html"]),
        ('<img src="no.svg">', ["a.html: a link leads nowhere: no.svg"]),
        ('<script src="https://example.org/x.js">', ["a.html: needs the network: https://example.org/x.js"]),
        ('<link rel="stylesheet" href="//example.org/x.css">', ["a.html: needs the network: //example.org/x.css"]),
    ],
)
def test_a_link_that_leads_nowhere_is_found(website: Any, tmp_path: Path, body: str, broken: list[str]) -> None:
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text('<h1 id="there">')
    assert website["broken_links"](tmp_path) == broken
