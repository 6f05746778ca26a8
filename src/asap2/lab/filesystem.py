# SPDX-License-Identifier: Apache-2.0
"""The file system of a node or guest: the machine's tree, with some places mounted over it.

A *view* is made in a new mount namespace. /run is fresh; what is written to /etc, /usr/local and /var/log stays in the
view (overlayfs over the machine's); the directories of Open vSwitch and OVN are empty; /sys is that of the view's own
network namespace. Programs of nodes and guests run with the netlink redirect library, by /etc/ld.so.preload. A node
besides has the FUSE tree over parts of /sys, a systemctl that runs Open vSwitch, and a modprobe that knows the NIC's
driver.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asap2.lab.child import Child
from asap2.lab.enter import enter
from asap2.syscalls import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    attach_tree,
    bind,
    clone_tree,
    detach,
    mount,
)

OVERLAID = ("/etc", "/usr/local", "/var/log")
STATE = (
    "/etc/openvswitch",
    "/var/lib/openvswitch",
    "/var/log/openvswitch",
    "/etc/ovn",
    "/var/lib/ovn",
    "/var/log/ovn",
)
"""Where Debian's Open vSwitch and OVN keep their databases and logs."""

FACES = ("bus/pci", "class/net", "devices", "module")
"""The parts of /sys that the node's daemon serves."""

PROC = "/run/asap2-proc"
"""Where the redirect library looks for what the daemon serves of /proc (netlink/procfs.h)."""

PROC_NET = "/run/asap2-proc-net"
"""What /proc/net leads to in a node: links to what the process itself has there, and to what the daemon serves."""

SERVED_TO_ALL = ("dev",)
"""The files of /proc/net that the daemon serves to processes of every network namespace."""

_LATER = (
    *(f"{family}_tables_{what}" for family in ("arp", "ip", "ip6") for what in ("names", "matches", "targets")),
    *("bonding", "ip_vs", "ip_vs_conn", "ip_vs_stats", "netfilter", "nf_conntrack", "nf_conntrack_expect", "pktgen"),
    *("sctp", "vlan", "xfrm_stat", "xt_hashlimit", "xt_recent"),
)
"""What /proc/net has once a module is loaded: a link there leads to nothing until then."""

_OCTAL = re.compile(r"\\([0-7]{3})")
"""How mountinfo writes blanks, line ends and backslashes (proc_pid_mountinfo(5))."""

REDIRECT = "/usr/local/lib/asap2/redirect.so"
SYSTEMCTL = "/usr/local/bin/systemctl"
MODPROBE = "/usr/local/sbin/modprobe"


@dataclass(frozen=True, slots=True)
class View:
    """What to lay over the machine's tree. ``files`` maps paths below one of :data:`OVERLAID` to contents and mode;
    ``binds`` maps paths of the view to directories or files of the machine; ``sysfs`` is a mounted sysfs of the
    view's network namespace, or None to mount one; ``hidden`` is the lab's root, which nobody sees from inside."""

    hostname: str
    hidden: Path
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    binds: dict[str, Path] = field(default_factory=dict)
    sysfs: Path | None = None


def redirected(library: Path) -> dict[str, tuple[bytes, int]]:
    """The files that make a view's programs ask the NIC's daemon; *library* is the redirect library as built."""
    return {REDIRECT: (library.read_bytes(), 0o755), "/etc/ld.so.preload": (f"{REDIRECT}\n".encode(), 0o644)}


def node_files(library: Path) -> dict[str, tuple[bytes, int]]:
    """The files that turn a view into a node."""
    # SIGINT is ignored till Python is up and dies of it like other programs, without a traceback
    shim = f"#!/bin/sh\ntrap '' INT\nexec {sys.executable} -m asap2.lab.openvswitch \"$@\"\n"
    modprobe = Path(__file__).with_name("modprobe.sh").read_bytes()
    return {**redirected(library), SYSTEMCTL: (shim.encode(), 0o755), MODPROBE: (modprobe, 0o755)}


def lay_out(view: View) -> None:
    """Make the calling process's mount namespace, which must be new, into *view*."""
    binds = {target: clone_tree(source) for target, source in view.binds.items()}
    sysfs = clone_tree(view.sysfs) if view.sysfs else None
    kept = [(path, clone_tree(path)) for path in _mounts_below("/sys")]

    _overlay(view)
    with contextlib.suppress(OSError):
        detach(view.hidden)

    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for directory, mode in (("/run/lock", 0o1777), ("/run/netns", 0o755)):
        os.mkdir(directory)
        os.chmod(directory, mode)
    for target, tree in binds.items():
        _place(tree, target)
    for directory in STATE:
        if directory not in binds:
            _empty(directory)

    if os.path.ismount("/sys"):
        detach("/sys")
    if sysfs is None:
        mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    else:
        attach_tree(sysfs, "/sys")
    for path, tree in kept:
        with contextlib.suppress(FileNotFoundError):
            attach_tree(tree, path)
    if os.path.isdir("/proc/bus/pci"):
        mount("tmpfs", "/proc/bus/pci", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=755")
    if SYSTEMCTL in view.files and os.path.exists("/usr/bin/systemctl"):
        bind(SYSTEMCTL, "/usr/bin/systemctl")


def _overlay(view: View) -> None:
    """Lay an overlay over each of OVERLAID; their upper layers live on a tmpfs that is then taken out of the tree."""
    files = {
        **view.files,
        "/etc/hostname": (f"{view.hostname}\n".encode(), 0o644),
        "/etc/hosts": (f"127.0.0.1 localhost {view.hostname}\n::1 localhost\n".encode(), 0o644),
    }
    with contextlib.suppress(OSError):
        files["/etc/resolv.conf"] = (Path("/etc/resolv.conf").read_bytes(), 0o644)
    staging = view.hidden
    mount("tmpfs", staging, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for number, lower in enumerate(OVERLAID):
        upper, work = staging / f"upper{number}", staging / f"work{number}"
        for directory in (upper, work):
            directory.mkdir()
        shutil.copystat(lower, upper)
        for path, (content, mode) in files.items():
            if path.startswith(f"{lower}/"):
                target = upper / path[len(lower) + 1 :]
                _directories_like(Path(path).parent, target.parent)
                target.write_bytes(content)
                target.chmod(mode)
        mount("overlay", lower, "overlay", options=f"lowerdir={lower},upperdir={upper},workdir={work}")
    detach(staging)


def _directories_like(original: Path, copy: Path) -> None:
    """Make directory *copy* and its missing parents, with the modes of the originals where there are any."""
    if copy.exists():
        return
    _directories_like(original.parent, copy.parent)
    copy.mkdir()
    if original.exists():
        shutil.copystat(original, copy)


def _place(tree: int, target: str) -> None:
    """Put *tree* at *target*, making the mountpoint, a file or directory as the tree's root is."""
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.isdir(f"/proc/self/fd/{tree}"):
        path.mkdir(exist_ok=True)
    else:
        path.touch()
    attach_tree(tree, target)
    os.close(tree)


def _empty(directory: str) -> None:
    """Cover *directory* with an empty one. Where the parent is the machine's own, nothing is made in it."""
    if not os.path.isdir(directory):
        if not directory.startswith(OVERLAID):
            return
        os.makedirs(directory)
    mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")


def _mounts_below(directory: str) -> Iterator[str]:
    """Where something is mounted below *directory*, without what is mounted below that."""
    found: list[str] = []
    with open("/proc/self/mountinfo", errors="surrogateescape") as table:
        for line in table:
            path = _OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[4])
            if path.startswith(f"{directory}/") and not any(path == top or path.startswith(f"{top}/") for top in found):
                found.append(path)
    yield from found


def show_faces(bundle: Path, served: Path, realsys: Path) -> None:
    """Lay the FUSE tree mounted at *served* over /sys of a node or guest, in place of one that was laid there before.

    *realsys* is the real sysfs of that, whose devices/system shows through. The old tree is taken away last, so that
    nobody sees the real sysfs meanwhile; nothing is asked of it, since its server may be dead.
    """

    def lay() -> None:
        faces = [(f"/sys/{part}", clone_tree(served / part)) for part in FACES]
        faces.append(("/sys/devices/system", clone_tree(realsys / "devices/system")))
        if os.path.isdir(served / "proc"):
            faces.append((PROC, clone_tree(served / "proc")))
        new = os.stat(served / FACES[0]).st_dev
        enter(bundle, ["mnt"])
        if all(_mounted_on(f"/sys/{part}") == [new] for part in FACES) and _mounted_on("/sys/devices/system"):
            return
        for path, tree in faces:
            if path == PROC and not _mounted_on(path):
                os.makedirs(path, exist_ok=True)
            _replace(path, tree)
        if _mounted_on(PROC) and not _mounted_on("/proc/net"):
            with contextlib.suppress(OSError):  # a kernel that cannot: programs with the redirect library do without
                _cover_proc_net()

    Child(lay).result()


def _cover_proc_net() -> None:
    """Have all programs find in /proc/net what the daemon serves there, also those that the redirect library does not
    see. /proc/net is a link to the net of the process that looks, over which nothing can be mounted. But a link can be
    mounted over the link."""
    os.mkdir(PROC_NET, 0o755)
    for name in {*os.listdir("/proc/self/net"), *_LATER}:
        os.symlink(f"{PROC}/net/{name}" if name in SERVED_TO_ALL else f"/proc/self/net/{name}", f"{PROC_NET}/{name}")
    link = f"{PROC_NET}.link"
    os.symlink(PROC_NET, link)
    tree = clone_tree(link, follow=False)
    attach_tree(tree, "/proc/net")
    os.close(tree)


def _replace(path: str, tree: int) -> None:
    """Mount *tree* on *path*, in place of all that is mounted there.

    Where the kernel cannot mount beneath (Linux before 6.5), or nothing is mounted there, it goes on top in the end.
    """
    try:
        if not _mounted_on(path):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        attach_tree(tree, path, beneath=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _uncover(path)
        attach_tree(tree, path)
        return
    detach(path)


def _mounted_on(path: str) -> list[int]:
    """The devices of what is mounted on *path* itself."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        _, _, device, _, place, *_ = line.split(b" ")
        if place == os.fsencode(path):
            major, minor = device.split(b":")
            found.append(os.makedev(int(major), int(minor)))
    return found


def _uncover(path: str) -> None:
    """Take away everything that is mounted on *path* itself."""
    while True:
        try:
            detach(path)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return
