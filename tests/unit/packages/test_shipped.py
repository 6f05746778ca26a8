# SPDX-License-Identifier: Apache-2.0
"""A wheel has each module that one of its modules imports, and not those that only tests run."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src"
SHIPPED: dict[str, Any] = runpy.run_path(str(ROOT / "scripts/shipped.py"))
FILES: dict[str, Path] = SHIPPED["modules"](SOURCE)
WITHOUT: set[str] = SHIPPED["left_out"](FILES)


def imports(text: str) -> Iterator[str]:
    yield from SHIPPED["imports"](text)


def test_what_only_a_checkout_runs_is_left_out_and_what_commands_run_is_not() -> None:
    assert {"asap2.nic.silicon.generate"} <= WITHOUT
    assert not {"asap2.nic.silicon.loader", "asap2.nic.conntrack.table", "asap2.nic.conntrack", "asap2"} & WITHOUT
    assert not {"asap2.nic.silicon.reference", "asap2.nic.conntrack.tracker"} & WITHOUT, "asap2 trace --packet runs it"


def test_nothing_that_is_shipped_imports_what_is_not() -> None:
    for name in set(FILES) - WITHOUT:
        assert not set(imports(FILES[name].read_text())) & WITHOUT, name


def test_setuptools_packs_the_others() -> None:
    found = [("asap2.nic.silicon", "generate", "a"), ("asap2.nic.silicon", "__init__", "b"), ("asap2", "errors", "c")]
    assert SHIPPED["shipped"](found, SOURCE) == found[1:]


def test_an_import_is_found_wherever_it_stands() -> None:
    text = "from a import b\ndef f():\n    import c.d as e\n    from . import g\n"
    assert set(imports(text)) == {"a", "a.b", "c.d"}
