# SPDX-License-Identifier: Apache-2.0
"""Namespaces that outlive the process that made them, each kept by a bind mount of its /proc/PID/ns file.

A *bundle* is a directory of such files, named as in /proc (``net``, ``mnt``, ``uts``): a node's or a guest's ``ns``
directory. The bundle must be on a private mount (mount_namespaces(7): a mount namespace cannot be kept elsewhere).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asap2.lab.child import Child
from asap2.lab.enter import KINDS, enter
from asap2.namespaces import CLONE_NEWNS, setns
from asap2.syscalls import MS_REC, MS_SLAVE, attach_tree, bind, clone_tree, mount, unshare


def create(bundle: Path, kinds: Iterable[str], inside: Callable[[], object]) -> None:
    """Make new namespaces of *kinds*, keep them in *bundle* (made if need be), and call *inside* in them.

    In a new mount namespace no mount tells the machine's, though what the machine unmounts goes there too; its root is
    this process's root, also in a chroot.

    A mount namespace can be kept only in one with a smaller number (mount_namespaces(7): "to avoid circularities").
    Linux numbers namespaces from a range for each processor since 6.18 (DEFINE_COOKIE in kernel/nstree.c), so inside a
    container a new one may have the smaller number: it is made anew on each processor until one is right.
    """
    wanted = [kind for kind in ("mnt", "net", "uts") if kind in kinds]
    bundle.mkdir(parents=True, exist_ok=True)
    if not any(_create(bundle, wanted, inside, processor) for processor in sorted(os.sched_getaffinity(0))):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(bundle))


def _create(bundle: Path, kinds: Sequence[str], inside: Callable[[], object], processor: int) -> bool:
    """Do so with namespaces made on *processor*; False when the mount namespace, kept first, cannot be kept."""
    ours, theirs = socket.socketpair()

    def populate() -> None:
        ours.close()
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {processor})
        unshare(sum(KINDS[kind] for kind in kinds))
        os.sched_setaffinity(0, processors)
        if "mnt" in kinds:
            own_the_mounts()
        theirs.send(b"made")
        if theirs.recv(8):
            inside()

    with ours:
        child = Child(populate)
        theirs.close()
        kept = False
        try:
            if ours.recv(8):
                for kind in kinds:
                    (bundle / kind).touch()
                    bind(f"/proc/{child.pid}/ns/{kind}", bundle / kind)
                kept = True
                ours.send(b"kept")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        finally:
            ours.shutdown(socket.SHUT_WR)
            child.result()
        return kept


def own_the_mounts() -> None:
    """Make every mount of this new namespace a slave (private where it was), and its root this process's root.

    setns(2) puts a process at the namespace's root. Made in a chroot, the namespace would have another root than this
    process, so a copy of the chroot's tree is put over it.
    """
    directory = os.getcwd()
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    setns(own, CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_SLAVE)
    if not os.path.samestat(os.stat("/"), os.fstat(root)):
        os.fchdir(root)
        os.chroot(".")
        tree = clone_tree("/")
        setns(own, CLONE_NEWNS)
        attach_tree(tree, "/")
        setns(own, CLONE_NEWNS)
        os.close(tree)
    os.close(root)
    os.close(own)
    os.chdir(directory)


def call_in(bundle: Path, call: Callable[[], Any], kinds: Iterable[str] = KINDS) -> Any:
    """What *call* returns when made by a process in the namespaces of *bundle*; see :meth:`Child.result`."""

    def entered() -> Any:
        enter(bundle, kinds)
        return call()

    return Child(entered).result()


def identity(path: Path) -> tuple[int, int]:
    """What two open ways to one namespace have in common: device and inode of its nsfs file (namespaces(7))."""
    found = path.stat()
    return found.st_dev, found.st_ino


def kept_below(directory: Path) -> Iterator[Path]:
    """The files below *directory* that keep a namespace: those on nsfs, not on the file system of *directory*."""
    try:
        own = directory.stat().st_dev
    except FileNotFoundError:
        return
    for path in [*directory.glob("*/*/ns/*"), *directory.glob("nodes/*/nics/*/net"), *directory.glob("wiring/*/net")]:
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_dev != own:
                yield path
