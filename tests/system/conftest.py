# SPDX-License-Identifier: Apache-2.0
"""System tests run as root; in a chroot they run in a mount namespace of which it is the root.

There "/" is no mount point, and ``ip netns exec``, as other programs that want private mounts, would fail.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asap2.lab.namespaces import own_the_mounts
from asap2.namespaces import CLONE_NEWNS
from asap2.syscalls import unshare


@pytest.fixture(scope="session", autouse=True)
def _as_root() -> None:
    if os.geteuid():
        pytest.fail("the system tests make namespaces and load programs, and so need root")


@pytest.fixture(scope="session", autouse=True)
def _root_is_a_mount_point(_as_root: None) -> None:
    mount_points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    if "/" not in mount_points:
        os.chmod("/", Path("/").stat().st_mode | 0o011)  # mktemp's directories are closed to users who are not root
        unshare(CLONE_NEWNS)
        own_the_mounts()
