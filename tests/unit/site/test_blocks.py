# SPDX-License-Identifier: Apache-2.0
"""Every block of code in the documentation is run by ``make test-docs``, or says why it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.lab import gallery
from tests.docs.blocks import PAGES, TOP, blocks, commands
from tests.docs.session import is_like

PAGE = Path("page.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    assert [fault for block in blocks(page) if (fault := block.fault())] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_labs_that_pages_ask_for_exist(page: Path) -> None:
    asked = {block.notes["lab"] for block in blocks(page) if "lab" in block.notes}
    saved = {block.notes["file"] for block in blocks(page) if "file" in block.notes}
    assert asked <= {*gallery.names(), *saved, "none"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```\nasap2 lab up\n```", "a block of no language cannot be run"),
        ("```yaml\na: 1\n```", "a block of yaml cannot be run"),
        ("    indented\n", "a block of no language cannot be run"),
        ("1. one\n\n   ```text\n   x\n   ```\n", "a block of text cannot be run"),
        ("<!-- not run: -->\n```text\nx\n```", "the note 'not run' says nothing"),
        ("<!-- runs: no -->\n```sh\nx\n```", "there is no note 'runs'"),
        ("<!-- not run: above another block -->\n```text\nx\n```\n```text\ny\n```", "cannot be run"),
        ("<!-- not run: above a paragraph -->\n\nHere:\n\n```text\nx\n```", "cannot be run"),
        ("```console\noutput\n```", "begins with a command"),
        ("```sh\n```", "the block is empty"),
    ],
)
def test_a_block_that_nobody_runs_is_found(text: str, fault: str) -> None:
    assert fault in str([block.fault() for block in blocks(PAGE, text)])


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nip link\n```",
        "<!-- not run: a picture -->\n```text\nx\n```",
        "<!-- lab: vlan -->\n<!-- at: hv1 -->\n\n```console\n$ ip link\n```",
        "<!-- file: hosts.yml -->\n```yaml\na: 1\n```",
        "```{toctree}\nlab\n```",
    ],
)
def test_a_block_that_is_run_or_says_why_not_is_right(text: str) -> None:
    assert [block.fault() for block in blocks(PAGE, text) if block.fault()] == []


def test_a_console_has_commands_and_their_output() -> None:
    assert commands("$ echo a\na\n$ true\n$ echo b \\\n    c\nb c\n") == [
        ("echo a", "a"),
        ("true", ""),
        ("echo b \\\n    c", "b c"),
    ]


@pytest.mark.parametrize(
    ("stated", "got", "like"),
    [
        ("one two", "one  two\n", True),
        ("one two", "one two three", False),
        ("one ... three", "one two three", True),
        ("one … three", "one three", True),
        ("in ... s", "in 4.2 s", True),
        ("pid=...,", "pid=4294967295,", True),
        ("... 0.0 ms", "0.0 ms", True),
        ("...\ntwo\n...", "one\ntwo\nthree", True),
        ("...\ntwo", "one\ntwo\nthree", False),
        ("a.c", "abc", False),
    ],
)
def test_output_is_compared_loosely_where_the_page_says_so(stated: str, got: str, like: bool) -> None:
    assert is_like(stated, got) is like
