# SPDX-License-Identifier: Apache-2.0
"""What is compiled: all of it is in one list, and packages have all of it."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
NATIVE = runpy.run_path(str(ROOT / "scripts/native.py"))
CROSS = "aarch64-linux-gnu-gcc"
PACKAGE = ROOT / "src/asap2"
GENERATOR = "asap2.nic.silicon.generate"
"""The module that writes generated.h: setup.py leaves it out."""
DATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["asap2"]


def packed() -> set[Path]:
    """The files that the wheel has beside Python's."""
    return {path for pattern in DATA for path in PACKAGE.glob(pattern)}


def test_every_c_source_is_in_the_list() -> None:
    listed = {PACKAGE / file.source for file in NATIVE["FILES"]}
    others = {path for file in NATIVE["FILES"] for pattern in file.others for path in PACKAGE.glob(pattern)}
    assert set(PACKAGE.rglob("*.c")) <= listed | others
    assert all(path.exists() for path in listed)


def included(source: Path) -> set[Path]:
    """The project's headers that *source* includes, and those that they include."""
    names = re.findall(r'^#include "(.+)"$', source.read_text(), re.MULTILINE)
    direct = {(source.parent / name).resolve() for name in names}
    return direct.union(*map(included, direct))


@pytest.mark.parametrize("file", NATIVE["FILES"], ids=lambda file: file.output)
def test_a_file_is_compiled_again_when_a_header_of_it_changes(file: Any) -> None:
    known = {path for pattern in file.others for path in PACKAGE.glob(pattern)}
    assert included(PACKAGE / file.source) <= known


def test_the_wheel_has_every_compiled_file() -> None:
    assert {PACKAGE / file.output for file in NATIVE["FILES"]} <= packed()


def test_nothing_imports_the_module_that_a_wheel_is_without() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{one.name}" for one in node.names]
                assert not {node.module, *names} & {GENERATOR}, path
            elif isinstance(node, ast.Import):
                assert GENERATOR not in {one.name for one in node.names}, path
    assert (PACKAGE.parent / f"{GENERATOR.replace('.', '/')}.py").exists()


def test_the_wheel_has_every_other_file_of_the_package_but_sources_of_c() -> None:
    listed = subprocess.run(["git", "ls-files", "src/asap2"], cwd=ROOT, check=True, capture_output=True, text=True)
    data = {ROOT / name for name in listed.stdout.split() if not name.endswith((".py", ".c", ".h"))}
    assert data <= packed()


def test_no_compiled_file_has_a_path_of_this_machine() -> None:
    NATIVE["build"](tell=lambda _: None)
    for file in NATIVE["FILES"]:
        assert str(PACKAGE).encode() not in (PACKAGE / file.output).read_bytes(), file.output


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"{CROSS} is not installed")
@pytest.mark.parametrize("name", ["redirect library", "redirect daemon"])
def test_what_redirects_compiles_for_aarch64(name: str, tmp_path: Path) -> None:
    (file,) = (one for one in NATIVE["FILES"] if one.what == name)
    words = [CROSS, *file.command()[1:], str(PACKAGE / file.source), "-o", str(tmp_path / "output"), *file.libraries]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLANG", "clang-that-is-not-there")
    native = runpy.run_path(str(ROOT / "scripts/native.py"))
    with pytest.raises(native["NativeError"]) as error:
        native["build"](native["FILES"][:1])
    assert str(error.value) == (
        "the eBPF program cannot be compiled: clang-that-is-not-there is not installed; Debian and Ubuntu have what is "
        "needed in `apt install clang gcc libc6-dev linux-libc-dev libbpf-dev`"
    )


def test_broken_code_shows_the_compilers_words(tmp_path: Path) -> None:
    source = tmp_path / "broken.c"
    source.write_text("int f(void) { return missing; }\n")
    file = NATIVE["File"]("library", str(tmp_path / "broken.so"), str(source), NATIVE["library"])
    with pytest.raises(NATIVE["NativeError"], match="undeclared"):
        NATIVE["build"]([file], lambda _: None)
