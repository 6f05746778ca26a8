# SPDX-License-Identifier: Apache-2.0
"""Labs of other topologies than the page's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.offload.conftest import Bench


@contextlib.contextmanager
def running(name: str, topology: str) -> Iterator[Bench]:
    """A lab with *topology*, taken down at the end; *name* tells it from other labs."""
    if os.geteuid():
        pytest.fail("the system tests make namespaces and so need root")
    root, file = Path(f"/run/t-{name}-{os.getpid()}"), Path(f"/tmp/t-{name}-{os.getpid()}.toml")
    bench = Bench(root)
    file.write_text(topology)
    try:
        up = bench.asap2("lab", "up", str(file))
        assert up.returncode == 0, up.stderr
        yield bench
    finally:
        file.unlink()
        down = bench.asap2("lab", "down")
        assert down.returncode == 0, down.stderr
