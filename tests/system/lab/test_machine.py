# SPDX-License-Identifier: Apache-2.0
"""What a machine lacks is one sentence: each thing is taken away in turn, from a process of our own."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = f"{sys.executable} -m asap2.lab.machine"
USER = "unshare --user --map-root-user"
WITHOUT_BPF = """
import ctypes, os, struct, sys
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]  # of bpf(2)
code = struct.pack("=" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, number, 0x06, 0, 0, 0x00050001, 0x06, 0, 0, 0x7FFF0000)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Program(4, code)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes a program that a seccomp filter (prctl(2)) refuses bpf(2) with EPERM, as some containers do."""


def look(taken_away: str, how: str = "exec") -> subprocess.CompletedProcess[str]:
    """Look at the machine where the shell's words *taken_away* were said, by a command that begins with *how*."""
    command = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-euc", f"{taken_away}\n{how} {LOOK}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_nothing_is_said_where_nothing_is_lacking() -> None:
    done = look(":")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("taken_away", "how", "said"),
    [
        (":", "exec unshare --user", "this needs root: it makes network namespaces"),
        (":", "PATH=/nowhere exec", "the program nsenter is not installed; `make setup` installs it"),
        ("mount --bind /dev/null /dev/fuse; mount --bind /etc/hosts /dev/fuse", "exec", "/dev/fuse cannot be opened"),
        ("mount -t tmpfs tmpfs /dev", "exec", "/dev/fuse cannot be opened"),
        (
            ":",
            f"exec {USER} sh -euc 'echo 0 >/proc/sys/user/max_net_namespaces; exec \"$@\"' -",
            "namespaces cannot be made here",
        ),
        (":", f"exec {USER}", "overlayfs, sysfs and bpf file systems cannot be mounted"),
        ("mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys", "exec", "/proc/sys/net is read-only"),
        ("mount -t tmpfs tmpfs /sys/kernel/btf", "exec", "the kernel has no type information of its own"),
        (":", f"exec {sys.executable} -c '{WITHOUT_BPF}'", "eBPF programs cannot be attached to devices here"),
    ],
    ids=["root", "program", "no-device", "no-fuse", "namespaces", "mounts", "sysctl", "types", "hooks"],
)
def test_what_is_lacking_is_one_sentence(taken_away: str, how: str, said: str) -> None:
    done = look(taken_away, how)
    assert done.returncode == 1
    assert done.stderr.startswith(f"asap2: {said}")
    assert done.stderr.count("\n") == 1
