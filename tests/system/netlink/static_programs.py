# SPDX-License-Identifier: Apache-2.0
"""Programs that make their system calls without libc, compiled for the tests and kept in build/programs."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
TOP = HERE.parents[2]
BUILT = TOP / "build/programs"
GOCODE = "/usr/share/gocode"
"""Where Debian has the source of Go's packages."""


def c_program(name: str) -> Path:
    """``NAME.c``, statically linked."""
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", str(HERE / f"{name}.c"), "-lpthread"]
    return _built(name, [HERE / f"{name}.c"], command, {})


def go_program(name: str) -> Path:
    """The command in ``go/NAME``."""
    command = ["go", "build", str(HERE / "go" / name / "main.go")]
    variables = {"GO111MODULE": "off", "GOPATH": GOCODE, "GOCACHE": str(BUILT / "go-cache"), "CGO_ENABLED": "0"}
    return _built(name, sorted((HERE / "go" / name).glob("*.go")), command, variables)


def _built(name: str, sources: list[Path], command: list[str], variables: dict[str, str]) -> Path:
    digest = hashlib.sha256("\n".join(command).encode())
    for source in sources:
        digest.update(source.read_bytes())
    program = BUILT / f"{name}-{digest.hexdigest()[:12]}"
    if not program.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        new = f"{program}.new"
        position = 2 if command[0] == "go" else 1
        words = [*command[:position], "-o", new, *command[position:]]
        done = subprocess.run(words, env=os.environ | variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        os.rename(new, program)
    return program
