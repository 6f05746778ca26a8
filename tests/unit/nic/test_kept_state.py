# SPDX-License-Identifier: Apache-2.0
"""State is taken up by programs that write it alike, and by no others."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from pathlib import Path

import pytest

from asap2.nic import journal, kept_state, snapshot
from asap2.nic.device import Driver
from asap2.nic.faces.ovs import ct_limit
from asap2.nic.faces.ovs import kept as ovs_kept
from asap2.nic.faces.tc import kept as tc_kept
from asap2.nic.function import Function

WRITERS = (journal, snapshot, tc_kept, Driver.snapshot, Function.state, ovs_kept, ct_limit._kept)
"""What writes state."""
SHAPE = "88594a4e0aac3e64"
"""That of the writers in :data:`asap2.nic.kept_state.FORMAT`."""


def shape() -> str:
    """A digest of the writers' text, but for comments and docstrings."""
    whole = hashlib.sha256()
    for writer in WRITERS:
        text = textwrap.dedent(inspect.getsource(writer))
        lines = [line.strip() for line in text.splitlines()]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                lines[node.lineno - 1 : node.end_lineno] = [""] * len(lines[node.lineno - 1 : node.end_lineno])
        whole.update("\n".join(line for line in lines if line and not line.startswith("#")).encode())
    return whole.hexdigest()[:16]


def test_what_writes_state_is_as_it_was_in_this_format() -> None:
    """If what is written has changed, so that an older program's state is read wrongly: raise FORMAT. In any case put
    the new shape into SHAPE."""
    assert shape() == SHAPE


def test_the_first_daemon_says_how_it_writes_and_the_next_one_goes_on(tmp_path: Path) -> None:
    kept_state.claim(tmp_path)
    (tmp_path / "ovs.journal").touch()
    kept_state.claim(tmp_path)
    assert (tmp_path / "version").read_text() == kept_state.version()


@pytest.mark.parametrize("other", ["1 0123456789abcdef", "", None])
def test_another_programs_state_is_refused_in_one_sentence(tmp_path: Path, other: str | None) -> None:
    (tmp_path / "ovs.journal").touch()
    if other is not None:
        (tmp_path / "version").write_text(other)
    with pytest.raises(kept_state.ForeignStateError, match="made by another version of asap2: `asap2 lab down`"):
        kept_state.claim(tmp_path)
