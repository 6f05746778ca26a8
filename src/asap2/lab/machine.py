# SPDX-License-Identifier: Apache-2.0
"""What a machine must provide for a lab: found by trying, reported in one sentence.

``python -m asap2.lab.machine`` says what is lacking, if anything, and exits 1 then.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Callable

from asap2.extras import remedy
from asap2.lab.child import Child
from asap2.lab.namespaces import own_the_mounts
from asap2.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS
from asap2.nic.silicon import hooks
from asap2.syscalls import mount, unshare

PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ovs-vswitchd": "openvswitch-switch",
    "ovs-vsctl": "openvswitch-switch",
    "ethtool": "ethtool",
    "devlink": "iproute2",
    "lspci": "pciutils",
    "tcpdump": "tcpdump",
    "iperf3": "iperf3",
    "ping": "iputils-ping",
}
"""Each with the package that Debian and Ubuntu have it in."""


def lacking() -> str | None:
    """One sentence that says what this machine lacks, or None if it lacks nothing."""
    if os.geteuid() != 0:
        return "this needs root: it makes network namespaces and loads eBPF programs"
    for name, package in PROGRAMS.items():
        if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            return f"the program {name} is not installed; {remedy('setup', package)} installs it"
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


def _types() -> None:
    os.close(os.open("/sys/kernel/btf/vmlinux", os.O_RDONLY))


def _hooks() -> None:
    unshare(CLONE_NEWNET)
    hooks.try_out()


_ATTEMPTS: tuple[tuple[Callable[[], None], str], ...] = (
    (_fuse, "/dev/fuse cannot be opened: load the fuse module, or give this container the device"),
    (_namespaces, "namespaces cannot be made here: a container needs the privilege for it"),
    (_mounts, "overlayfs, sysfs and bpf file systems cannot be mounted here: a container needs the privilege for it"),
    (_sysctl, "/proc/sys/net is read-only here: a container needs it writable"),
    (
        _types,
        "the kernel has no type information of its own, without which it takes no eBPF program with functions: use one "
        "built with CONFIG_DEBUG_INFO_BTF, as the kernels of distributions are",
    ),
    (
        _hooks,
        "eBPF programs cannot be attached to devices here: that takes tcx (Linux 6.6), or before that the modules "
        "sch_ingress and cls_bpf, and the privilege to use bpf(2)",
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
