# SPDX-License-Identifier: Apache-2.0
"""The modules that a node shows in /proc, and those that can be unloaded there."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.nic.faces.sysfs.modules import UNLOAD, files, listing


def test_the_daemons_modules_are_listed_beside_the_machines(tmp_path: Path) -> None:
    machine = tmp_path / "modules"
    machine.write_text("veth 40960 2 - Live 0xffffffffc0000000\nopenvswitch 249856 1 - Live 0xffffffffc0100000\n")
    assert [line.split()[0] for line in listing(machine).splitlines()] == ["mlx5_core", "openvswitch", "veth"]
    assert "openvswitch 0 0 - Live" in listing(machine)


def test_a_kernel_without_modules_has_those_of_the_daemon(tmp_path: Path) -> None:
    assert len(listing(tmp_path / "none").splitlines()) == 2


def test_a_module_is_unloaded_by_its_name() -> None:
    unloaded = []
    store = files({"openvswitch": lambda: unloaded.append("openvswitch")})[UNLOAD].store
    assert store is not None
    store(b"openvswitch\n")
    assert unloaded == ["openvswitch"]
    with pytest.raises(FileNotFoundError):
        store(b"veth\n")
