# SPDX-License-Identifier: Apache-2.0
"""The Python that has nova, or neutron: they seldom share one with asap2. And what :mod:`oracle` answers there."""

from __future__ import annotations

import importlib.resources
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asap2.errors import Asap2Error, UsageError

COMMANDS = {
    "nova": ("nova-compute", "nova-manage", "nova-scheduler", "nova-conductor"),
    "neutron": ("neutron-openvswitch-agent", "neutron-server", "neutron-db-manage"),
}
"""Programs whose first line names the Python that runs them."""
SHEBANG_MAX = 512
PLACES = {
    "devstack": "opt/stack/data/venv/bin/python3",
    "Kolla's containers": "var/lib/kolla/venv/bin/python3",
    "OpenStack-Ansible": "openstack/venvs/{}-*/bin/python3",
    "a distribution": "usr/bin/python3",
}
"""Where tools put it, from the root."""
SECONDS = 120
"""How long a service's code may take to load and to answer."""


def candidates(service: str) -> Iterator[str]:
    """Pythons that may have *service*, likely ones first."""
    yield sys.executable
    yield str(Path(sys.prefix).parent / ".venv-openstack/bin/python")  # beside this project's own
    for command in COMMANDS[service]:
        path = shutil.which(command)
        if path:
            with open(path, "rb") as file:
                first = file.readline(SHEBANG_MAX)
            if first.startswith(b"#!"):
                yield first[2:].decode(errors="replace").split()[0]
    for pattern in PLACES.values():
        yield from sorted(map(str, Path("/").glob(pattern.format(service))), reverse=True)


def has(python: str, service: str) -> bool:
    """Whether *python* has *service*."""
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({service!r}) is None)"
    try:
        return subprocess.run([python, "-c", look], capture_output=True, timeout=SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def find(service: str, python: str | None) -> str:
    """The Python that has *service*: the one called *python*, or the first of :func:`candidates` that has it."""
    if python is not None:
        if not has(python, service):
            raise UsageError(f"{python} has no {service}, whose own parsers --check asks: name the Python that has it")
        return python
    for one in dict.fromkeys(candidates(service)):
        if has(one, service):
            return one
    raise Asap2Error(
        f"{service} is not installed here, and --check asks its own parsers: run it where {service} is, "
        "or name the Python that has it with --python"
    )


def ask(python: str, question: dict[str, Any]) -> dict[str, Any]:
    """What *python*'s oracle answers."""
    with importlib.resources.as_file(importlib.resources.files(__package__).joinpath("oracle.py")) as program:
        try:
            done = subprocess.run(
                [python, str(program)], input=json.dumps(question), capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            raise Asap2Error(f"{python} did not answer in {SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise Asap2Error(f"{question['service']} of {python} does not load: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
