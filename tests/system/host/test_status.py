# SPDX-License-Identifier: Apache-2.0
"""``asap2 host status`` of a real node, and what a guest can do to it."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from tests.system.host.conftest import PF, Hosts

RENAME = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8923, struct.pack('16s16s8x', {!r}, {!r}))"
"""SIOCSIFNAME (linux/sockios.h)."""
HOSTILE = (b"[red]x[b]\xff", b"\x1b]0;x\x07\x9b2J")
COMMANDS = ("status", "check", "explain", "metrics --once", "persist --dry-run", "capture /tmp/c.json")


def rename(lab: Hosts, old: bytes, new: bytes) -> None:
    """Rename a device of the guest's."""
    lab.ok("vm1", f"{sys.executable} -c {shlex.quote(RENAME.format(old, new))}")


@pytest.fixture(scope="module")
def guested(bench: Hosts) -> Hosts:
    """The lab with hv1 set up, and its VF 1 a guest's."""
    bench.clear("hv1")
    bench.done("hv1", "setup", "--vfs", "2", "--bridge", "br-int", "--representors")
    bench.hand_over("hv1", "vm1")
    return bench


def test_a_vf_of_a_guest_is_shown_with_its_mac_and_place(guested: Hosts) -> None:
    mac = guested.ok("vm1", "cat /sys/class/net/eth0/address").strip()
    (nic,) = guested.data("hv1", "status")["nics"]
    assert (nic["vfs"][1]["mac"], nic["vfs"][1]["guest"]) == (mac, "eth0 in vm1")
    text = guested.done("hv1", "status")
    assert mac in text
    assert "eth0 in vm1" in text
    assert "in the namespace vm1" in guested.host("hv1", "setup", "--vfs", "1").stderr


@pytest.mark.parametrize("name", HOSTILE, ids=["markup and octets", "a terminal's commands"])
def test_no_name_that_a_guest_gives_its_device_disturbs_a_command(guested: Hosts, name: bytes) -> None:
    guested.ok("vm1", "ip link set eth0 down")
    rename(guested, b"eth0", name)
    try:
        for words in COMMANDS if b"red" in name else ("status",):
            done = guested.host("hv1", *words.split())
            assert done.returncode == 0, done.stdout + done.stderr
            assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)
        done = guested.host("hv1", "verify", "eth1", "--listen", "0.5")
        assert "Traceback" not in done.stderr
        if b"red" in name:
            assert "[red]x[b]\\xff in vm1" in guested.done("hv1", "status")
    finally:
        rename(guested, name, b"eth0")
    assert f"{PF}v0" in guested.done("hv1", "status")
