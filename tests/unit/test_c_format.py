# SPDX-License-Identifier: Apache-2.0
"""The C code has the format of ``.clang-format``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLANG_FORMAT = Path(sys.executable).with_name("clang-format")


def test_c_code_is_formatted() -> None:
    files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "src").rglob("*.[ch]"))
    command = [str(CLANG_FORMAT), "--dry-run", "--Werror", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr[:2000]}\nmended by: .venv/bin/clang-format -i src/asap2/**/*.[ch]"
