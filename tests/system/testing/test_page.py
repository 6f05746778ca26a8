# SPDX-License-Identifier: Apache-2.0
"""The code of docs/testing.md, run as a reader would run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.system.patience import PATIENCE

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"


def test_its_programs_run(tmp_path: Path) -> None:
    programs = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    assert set(programs) == {"test_offload.py", "check_offload.py", "test_representor.py"}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    commands = [["-m", "pytest", "-q", "-p", "no:cacheprovider"], ["check_offload.py"]]
    running = [
        subprocess.Popen([sys.executable, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for words in commands
    ]
    tested, checked = (process.communicate(timeout=5 * PATIENCE)[0] for process in running)
    assert "2 passed" in tested
    assert re.search(r"offloaded    .*in_port\(eth0\).*eth_type\(0x0800\)", checked), checked
