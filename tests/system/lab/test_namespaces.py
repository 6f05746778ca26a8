# SPDX-License-Identifier: Apache-2.0
"""Namespaces are kept and entered also inside containers and chroots, and errors come out of them."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.lab.child import Child
from asap2.lab.namespaces import call_in, create, kept_below, own_the_mounts
from asap2.namespaces import CLONE_NEWNS
from asap2.syscalls import MS_BIND, MS_PRIVATE, MS_REC, mount, unshare


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Makes a call in a mount namespace of its own, in which the test's directory is a private tmpfs."""

    def make(call: Callable[[], Any]) -> Any:
        def inside() -> Any:
            unshare(CLONE_NEWNS)
            own_the_mounts()
            mount("tmpfs", tmp_path, "tmpfs")
            mount("", tmp_path, flags=MS_PRIVATE)
            return call()

        return Child(inside).result()

    yield make
    assert not list(tmp_path.iterdir())


Container = Callable[[Callable[[], Any]], Any]


def test_mount_namespaces_can_be_kept_in_any_container(container: Container, tmp_path: Path) -> None:
    def keep_many() -> int:
        for number in range(8):
            create(tmp_path / "nodes" / str(number) / "ns", ["mnt", "net", "uts"], lambda: None)
        return len(list(kept_below(tmp_path)))

    for processor in sorted(os.sched_getaffinity(0)):
        subprocess.run(["taskset", "-c", str(processor), "true"], check=True)
        assert container(keep_many) == 24


def test_what_is_made_in_a_chroot_has_its_root(container: Container, tmp_path: Path) -> None:
    def in_chroot() -> list[str]:
        root = tmp_path / "root"
        for name in ("proc", "usr", "keep"):
            (root / name).mkdir(parents=True)
        for name in ("proc", "usr"):
            mount(f"/{name}", root / name, flags=MS_BIND | MS_REC)
        (root / "marker").touch()
        mount("tmpfs", root / "keep", "tmpfs")
        mount("", root / "keep", flags=MS_PRIVATE)
        os.chroot(root)
        os.chdir("/")
        create(Path("/keep/ns"), ["mnt"], lambda: mount("tmpfs", "/usr", "tmpfs"))
        return sorted(call_in(Path("/keep/ns"), lambda: [*os.listdir("/"), *os.listdir("/usr")]))

    assert container(in_chroot) == ["keep", "marker", "proc", "usr"]


def test_an_error_inside_comes_out(container: Container, tmp_path: Path) -> None:
    def fail() -> None:
        create(tmp_path / "ns", ["net"], lambda: os.mkdir("/proc/nonsense"))

    with pytest.raises(OSError, match="No such file or directory") as caught:
        container(fail)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "/proc/nonsense")


def test_any_other_exception_inside_comes_out_as_its_text() -> None:
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError: .*by zero"):
        Child(lambda: 1 // 0).result()


def test_what_a_call_returns_comes_out(container: Container) -> None:
    assert container(lambda: {"a": [1, None, "text"]}) == {"a": [1, None, "text"]}
