# SPDX-License-Identifier: Apache-2.0
"""LICENSE says which files are not under the Apache licence, and every file says so itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TAG = re.compile(rb"\A(?:#!.*\n)?(?:#|//|/\*|--) ?SPDX-License-Identifier: ([^\n]+?)(?: \*/)?\n")
_CODE = (".py", ".c", ".h", ".sh")


def licences() -> dict[str, str]:
    """The licence that each source file of the project names."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    found = {}
    for name in filter(None, listed.decode().split("\0")):
        text = (ROOT / name).read_bytes() if name.endswith(_CODE) else b""
        if text:
            tag = _TAG.match(text)
            found[name] = tag[1].decode() if tag else ""
    return found


def test_every_file_names_its_licence() -> None:
    assert {name for name, licence in licences().items() if not licence} == set()


def test_the_licence_file_names_what_is_under_another() -> None:
    patterns = re.findall(r"^    (\S+)$", (ROOT / "LICENSE").read_text(), re.MULTILINE)
    excepted = {name for name, licence in licences().items() if licence != "Apache-2.0"}
    named = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}
    assert named == excepted
