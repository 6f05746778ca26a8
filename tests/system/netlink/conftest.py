# SPDX-License-Identifier: Apache-2.0
"""A network namespace with a toy netlink server, and programs that run in it with the redirect library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asap2.netlink
from tests.places import open_to_all
from tests.system.patience import PATIENCE

HERE = Path(__file__).parent
NAMESPACE = f"t-nl-{os.getpid()}"


class Redirected:
    """The namespace, its server, and how to run programs there."""

    def __init__(self, directory: Path, library: Path) -> None:
        self.directory = directory
        self.library = library
        self.socket = directory / "netlink.sock"
        self.server: subprocess.Popen[str] | None = None
        self.environment = {**os.environ, "ASAP2_NETLINK_SOCK": str(self.socket), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment["ASAP2_NETLINK_WAIT"] = "300"

    def start_server(self, filters: int = 0, program: str = "toy_server") -> None:
        """Start the toy server, or another, and wait until it listens."""
        self.server = subprocess.Popen(
            ["ip", "netns", "exec", NAMESPACE, sys.executable, HERE / f"{program}.py", self.socket, str(filters)],
            env={**os.environ, "PYTHONPATH": str(HERE.parents[2])},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "ready\n"

    def stop_server(self) -> None:
        """Kill it, as hard as can be."""
        if self.server is not None:
            self.server.kill()
            self.server.communicate()
            self.server = None

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line that runs *arguments* in the namespace with the library."""
        prefix = ["ip", "netns", "exec", NAMESPACE, "env", f"LD_PRELOAD={self.library}"]
        return [*prefix, *map(str, arguments)]

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a program, and give what it wrote to standard output and error."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def program(self, name: str, *arguments: str) -> str:
        """Run one of the functions of ``program.py``."""
        return self.run(sys.executable, HERE / "program.py", name, *arguments)


@pytest.fixture(scope="session")
def redirect_library() -> Iterator[Path]:
    """The redirect library, built from its source."""
    source = Path(asap2.netlink.__file__).parent / "redirect.c"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    with open_to_all() as directory:
        library = directory / "redirect.so"
        subprocess.run(["gcc", *flags, "-o", library, source, "-ldl", "-lpthread"], check=True)
        yield library


@pytest.fixture(scope="session", autouse=True)
def _none_of_killed_runs() -> None:
    """Remove the namespaces of test runs that were killed: their names have the number of a dead process."""
    for namespace in Path("/run/netns").glob("t-nl-*"):
        if not Path(f"/proc/{namespace.name.split('-')[2]}").exists():
            subprocess.run(["ip", "netns", "del", namespace.name], check=True)


@pytest.fixture
def namespace(redirect_library: Path) -> Iterator[Redirected]:
    """An empty namespace without a server."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    with open_to_all() as directory:
        here = Redirected(directory, redirect_library)
        try:
            yield here
        finally:
            here.stop_server()
            subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest.fixture
def redirected(namespace: Redirected) -> Redirected:
    """A namespace with a pair of devices ``v0`` and ``v1``, and a toy server."""
    subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "-n", NAMESPACE, "link", "add", "v0", "type", "veth", "peer", "name", "v1"], check=True)
    namespace.start_server()
    return namespace
