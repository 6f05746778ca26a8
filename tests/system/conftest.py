# SPDX-License-Identifier: Apache-2.0
"""System tests run as root; in a chroot they run in a mount namespace of which it is the root.

There "/" is no mount point, and ``ip netns exec``, as other programs that want private mounts, would fail.
"""

from __future__ import annotations

import os

import pytest

from asap2.lab.namespaces import own_the_mounts
from asap2.namespaces import CLONE_NEWNS
from asap2.syscalls import unshare
from tests.places import in_chroot, open_the_root


@pytest.fixture(scope="session", autouse=True)
def _as_root() -> None:
    if os.geteuid():
        pytest.fail("the system tests make namespaces and load programs, and so need root")


@pytest.fixture(scope="session", autouse=True)
def _root_is_a_mount_point(_as_root: None) -> None:
    if in_chroot():
        open_the_root()
        unshare(CLONE_NEWNS)
        own_the_mounts()
