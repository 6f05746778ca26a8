# SPDX-License-Identifier: Apache-2.0
"""The system calls about namespaces and mounts that Python 3.11 lacks, by ctypes over the C library.

Each raises :class:`OSError` with the kernel's errno and the path concerned. Man pages: unshare(2), mount(2),
umount2(2), pidfd_getfd(2); for open_tree, move_mount, fsopen, fsconfig and fsmount (Linux 5.2)
include/uapi/linux/mount.h.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MS_SLAVE = 0x8_0000
MS_SHARED = 0x10_0000

MNT_DETACH = 0x2

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_PIDFD_GETFD = 438
"""The numbers are the same on every architecture."""
_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_BENEATH = 0x200
_FS_CLOEXEC = 0x1
"""FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC."""
_FSCONFIG_CMD_CREATE = 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, what: Path | str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(what) or None)
    return result


def unshare(flags: int) -> None:
    """Give this process new namespaces of the kinds in *flags* (CLONE_NEW*)."""
    _checked(_libc.unshare(flags))


def mount(source: Path | str, target: Path | str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount *source* of file system *kind* on *target*."""
    _checked(
        _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, options.encode() or None),
        target,
    )


def bind(source: Path | str, target: Path | str) -> None:
    """Make *source* (a file or a directory, without the mounts below it) appear at *target* as well."""
    mount(source, target, flags=MS_BIND)


def detach(target: Path | str) -> None:
    """Unmount *target* and all below it from the tree, now; the last user's leaving ends it (umount -l)."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def clone_tree(path: Path | str, *, follow: bool = True) -> int:
    """A file descriptor of a copy, belonging to no tree yet, of what is mounted at *path* and below. Unless it is to
    *follow* a symbolic link, the copy is of the link itself."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE | (0 if follow else _AT_SYMLINK_NOFOLLOW)
    path_bytes = ctypes.c_char_p(os.fsencode(path))
    return _checked(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, path_bytes, ctypes.c_uint(flags)), path)


def attach_tree(tree: int, target: Path | str, *, beneath: bool = False) -> None:
    """Put the copy that :func:`clone_tree` gave at *target*, which may be in another mount namespace by now. A *target*
    that is a symbolic link is covered itself; such a copy can be of a link, too.

    With *beneath*, it goes under what is mounted there, and shows when that is taken away (Linux 6.5; EINVAL before).
    """
    empty, path = ctypes.c_char_p(b""), ctypes.c_char_p(os.fsencode(target))
    flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH | (_MOVE_MOUNT_BENEATH if beneath else 0))
    _checked(_libc.syscall(_SYS_MOVE_MOUNT, tree, empty, _AT_FDCWD, path, flags), target)


def mounted(kind: str, attributes: int = 0) -> int:
    """A descriptor of a new mount of a file system of that *kind*, which belongs to no tree and goes with its last
    descriptor. The MS_ flags among *attributes* up to MS_NOEXEC are those of fsmount(2)."""
    context = _checked(_libc.syscall(_SYS_FSOPEN, ctypes.c_char_p(kind.encode()), ctypes.c_uint(_FS_CLOEXEC)))
    try:
        _checked(_libc.syscall(_SYS_FSCONFIG, context, ctypes.c_uint(_FSCONFIG_CMD_CREATE), None, None, 0))
        flags = ctypes.c_uint(_FS_CLOEXEC), ctypes.c_uint(attributes)
        return _checked(_libc.syscall(_SYS_FSMOUNT, context, *flags))
    finally:
        os.close(context)


def descriptor_of(process: int, number: int) -> int:
    """A copy of descriptor *number* of the process whose pidfd is *process*."""
    copy = _checked(_libc.syscall(_SYS_PIDFD_GETFD, process, number, 0))
    os.set_inheritable(copy, False)
    return copy
