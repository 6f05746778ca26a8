# SPDX-License-Identifier: Apache-2.0
"""Guests' names and records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asap2.lab.layout import NAME
from asap2.openstack.virt.guest import NAME_MAX, Guests, Interface, free_name, start_time
from asap2.openstack.virt.pci import PciError

UUID = "0ac70391-8e43-49d7-89d4-a25cf9fe72ff"


@pytest.mark.parametrize(
    ("hostname", "taken", "name"),
    [
        ("vm1", set(), "vm1"),
        ("vm1", {"vm1"}, "vm1-0ac70391"),
        ("My_Server.example", set(), "my-server-example"),
        ("---", set(), "server"),
        ("x" * 63, set(), "x" * NAME_MAX),
        ("x" * 63, {"x" * NAME_MAX}, f"{'x' * 23}-0ac70391"),
        ("é", set(), "server"),
    ],
)
def test_a_guests_name_is_one_that_the_lab_takes(hostname: str, taken: set[str], name: str) -> None:
    assert free_name(hostname, UUID, taken) == name
    assert NAME.fullmatch(name)
    assert len(name) <= NAME_MAX


def test_a_guest_is_found_again_by_its_record(tmp_path: Path) -> None:
    guests = Guests(tmp_path)
    guest = guests.new(UUID, "instance-00000001", "vm1")
    guest.interfaces["port"] = Interface("0000:03:00.2", "eth0")
    guest.save()
    assert guests.find(UUID) == guest
    assert [each.uuid for each in guests.all()] == [UUID]
    guest.forget()
    assert guests.find(UUID) is None


def test_a_guest_is_not_taken_for_a_later_process_of_its_number(tmp_path: Path) -> None:
    guest = Guests(tmp_path).new(UUID, "instance-00000001", "vm1")
    started = start_time(os.getpid()) or 0
    states = []
    for guest.pid, guest.started in ((0, 0), (os.getpid(), started), (os.getpid(), started - 1)):
        states.append(guest.running)
    assert states == [False, True, False]


def test_one_vf_that_does_not_come_back_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class StuckVf:
        def __init__(self, address: str) -> None:
            self.address = address

        def release(self) -> None:
            if self.address == "0000:03:00.2":
                raise PciError("0000:03:00.2 is stuck")

    monkeypatch.setattr("asap2.openstack.virt.guest.Vf", StuckVf)
    guest = Guests(tmp_path).new(UUID, "instance-00000001", "vm1")
    guest.interfaces = {"a": Interface("0000:03:00.2", "eth0"), "b": Interface("0000:03:00.3", "eth1")}
    with pytest.raises(PciError, match="is stuck"):
        guest.stop()
    assert list(guest.interfaces) == ["a"]


def test_a_process_that_has_ended_has_no_start_time() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(process.pid) is None
    assert start_time(process.pid) is None
