# SPDX-License-Identifier: Apache-2.0
"""What a machine must provide for a lab: found by trying, reported in one sentence.

``python -m asap2.lab.machine`` says what is lacking, if anything, and exits 1 then.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import stat
import struct
import sys
from collections.abc import Callable

from asap2.lab.child import Child
from asap2.lab.namespaces import own_the_mounts
from asap2.lab.syscalls import mount, unshare
from asap2.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS

PROGRAMS = ("ip", "nsenter", "ovs-vswitchd", "ovs-vsctl", "ethtool", "devlink", "lspci", "tcpdump", "iperf3", "ping")

_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_BPF_PROG_LOAD = 5
_BPF_LINK_CREATE = 28
_BPF_PROG_TYPE_SCHED_CLS = 3
_BPF_TCX_INGRESS = 46
"""Commands and constants of bpf(2): include/uapi/linux/bpf.h."""
_LOOPBACK = 1
"""Interface index of lo in every network namespace."""


def lacking() -> str | None:
    """One sentence that says what this machine lacks, or None if it lacks nothing."""
    if os.geteuid() != 0:
        return "this needs root: it makes network namespaces and loads eBPF programs"
    for name in PROGRAMS:
        if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            return f"the program {name} is not installed; `make setup` installs what is needed"
    for attempt, complaint in _ATTEMPTS:
        try:
            Child(attempt).result()
        except (OSError, RuntimeError) as error:
            return f"{complaint} ({getattr(error, 'strerror', None) or error})"
    return None


def _fuse() -> None:
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def _namespaces() -> None:
    unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS)


def _mounts() -> None:
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    own_the_mounts()
    mount("tmpfs", "/run", "tmpfs")
    for name in ("upper", "work", "merged", "bpf", "sys"):
        os.mkdir(f"/run/{name}")
    mount("overlay", "/run/merged", "overlay", options="lowerdir=/etc,upperdir=/run/upper,workdir=/run/work")
    mount("sysfs", "/run/sys", "sysfs")
    mount("bpffs", "/run/bpf", "bpf")


def _sysctl() -> None:
    unshare(CLONE_NEWNET)
    if os.path.isdir("/proc/sys/net/ipv6"):
        os.close(os.open("/proc/sys/net/ipv6/conf/all/disable_ipv6", os.O_WRONLY))


def _tcx() -> None:
    """Attach a program that does nothing to the loopback device of a namespace that ends with this process."""
    unshare(CLONE_NEWNET)
    instructions = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)  # r0 = 0; exit
    code, licence = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"GPL")
    load = struct.pack("=IIQQ", _BPF_PROG_TYPE_SCHED_CLS, 2, ctypes.addressof(code), ctypes.addressof(licence))
    program = _bpf(_BPF_PROG_LOAD, load)
    _bpf(_BPF_LINK_CREATE, struct.pack("=IIII", program, _LOOPBACK, _BPF_TCX_INGRESS, 0))


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"unknown processor architecture {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, command, buffer, len(buffer))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


_ATTEMPTS: tuple[tuple[Callable[[], None], str], ...] = (
    (_fuse, "/dev/fuse cannot be opened: load the fuse module, or give this container the device"),
    (_namespaces, "namespaces cannot be made here: a container needs the privilege for it"),
    (_mounts, "overlayfs, sysfs and bpf file systems cannot be mounted here: a container needs the privilege for it"),
    (_sysctl, "/proc/sys/net is read-only here: a container needs it writable"),
    (
        _tcx,
        "the kernel cannot attach eBPF programs by tcx: Linux 6.6 or newer is needed, and the privilege to use bpf(2)",
    ),
)


def main() -> int:
    """Print what is missing."""
    sentence = lacking()
    if sentence:
        print(f"asap2: {sentence}", file=sys.stderr)
    return 1 if sentence else 0


if __name__ == "__main__":
    sys.exit(main())
