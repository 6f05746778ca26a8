# SPDX-License-Identifier: Apache-2.0
"""/sys of a node and its guests: a FUSE file system that lays the software NICs over their real sysfs.

The file system is mounted aside; the node's mount namespace takes bus/pci, class/net, devices and module from it, over
a real sysfs, and a guest's the same from guests/NAME. Files of the node's /proc are served too, below proc. One
thread of the process that made the file system serves it, as kernfs does: a file's content is produced by each read at
its start, truncation means nothing, and root too is refused what an attribute's mode does not allow. The kernel
caches neither names nor contents, so a change is seen at once.

Files of network devices in the real sysfs can be written; the rest of it belongs to the host and cannot (EROFS).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from asap2.nic import statistics
from asap2.nic.device import Driver
from asap2.nic.faces.sysfs import tree as sysfs_tree
from asap2.nic.faces.sysfs.inner import InnerViews
from asap2.nic.faces.sysfs.kinds import KindFiles
from asap2.nic.faces.sysfs.procfs import net_dev_of
from asap2.nic.faces.sysfs.tree import Attribute, Directory, Link, Real, Tree
from asap2.nic.kinds.links import KindLinks
from asap2.nic.netdevs import Counters, NetDev, NetDevs

MNT_DETACH = 2
"""umount2(2): detach now, clean up when no longer busy."""

_PAGE = 4096
_ATTRIBUTES_KEPT = 60.0
"""Seconds for which the kernel may remember a file's type and mode: they are the same as long as there is the file."""

_MOST_REAL_OPEN = 512
"""Files of the real sysfs that may be open, each a descriptor of this process, before only root may open more."""

_INNER = "/proc/netns/"
"""Where the views of namespaces within the node are, by cookie."""
_LIBFUSE_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
_NETDEV_FILE = re.compile(r"(?:^|/)net/")
_STAT = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size")
_TIMES = ("st_atime", "st_mtime", "st_ctime")


Devices: TypeAlias = Callable[[], list[NetDev]]
Build: TypeAlias = Callable[[list[NetDev]], Tree]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _asking_process() -> int:
    """The thread whose request is served."""
    import mfusepy

    pid: int = mfusepy.fuse_get_context()[2]
    return pid


@dataclass(frozen=True, slots=True)
class GuestView:
    """A guest: ``real`` is a sysfs of its network namespace, ``namespace`` a descriptor of that."""

    real: Path
    namespace: int


class _View:
    """One /sys: its tree, over the real sysfs at ``real``."""

    def __init__(self, real: Path, generation: Callable[[], int], devices: Devices, build: Build) -> None:
        self.real = real
        self._generation = generation
        self._devices = devices
        self._build = build
        self._tree: Tree | None = None
        self._made_of: tuple[int, list[NetDev]] | None = None

    def tree(self) -> Tree:
        """The tree of now; rebuilt only when the driver or a network device has changed."""
        made_of = (self._generation(), self._devices())
        if self._tree is None or made_of != self._made_of:
            self._tree = self._build(made_of[1])
            self._made_of = made_of
        return self._tree

    def path(self, path: str) -> str:
        """Where the real file with this path below /sys is."""
        return os.path.join(self.real, path)


def _asking_user() -> int:
    """The user id of the process whose request is served."""
    import mfusepy

    uid: int = mfusepy.fuse_get_context()[0]
    return uid


class SysFs:
    """The file system. :meth:`start` mounts it at *mountpoint*; *real* is a sysfs of the node's network namespace.

    *lock* guards *driver* and *netdevs*; it is held while their state is read or changed, never while a real file is
    used. :attr:`changed` is called, with the lock held, when a program has written an attribute. *proc* are files of
    the node's /proc, by their path there, that it serves too; *kinds* are the devices of our own kinds.
    """

    def __init__(
        self,
        driver: Driver,
        netdevs: NetDevs,
        real: Path,
        mountpoint: Path,
        lock: threading.RLock,
        changed: Callable[[], None],
        guests: Mapping[str, GuestView] = MappingProxyType({}),
        proc: Mapping[str, Attribute] = MappingProxyType({}),
        kinds: KindLinks | None = None,
    ) -> None:
        self.mountpoint = mountpoint
        self._operations = _Operations(driver, netdevs, real, lock, changed, guests, proc, kinds)
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    def start(self) -> None:
        """Mount, and return when the file system answers. OSError says why it cannot be."""
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise OSError(errno.ENOENT, "/dev/fuse is missing or cannot be used", "/dev/fuse")
        self._thread = threading.Thread(target=self._serve, name="sysfs", daemon=True)
        with _process_kept():
            self._thread.start()
            self._operations.ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise OSError(errno.EIO, f"the sysfs file system was not mounted at {self.mountpoint}: {self._failure}")

    def stop(self) -> None:
        """Unmount and end the thread; a file that is still open somewhere gives ENOTCONN from now on."""
        if self._thread is None:
            return
        self._operations.stopping = True
        with contextlib.suppress(OSError):
            os.stat(self.mountpoint / "stop")  # any request, so that libfuse's loop sees that it is to end
        self._thread.join(1)
        if self._thread.is_alive():
            ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(self.mountpoint), MNT_DETACH)
            self._thread.join(1)
        self._thread = None

    def _serve(self) -> None:
        # mfusepy takes libfuse 2 where it is there too, and then loses direct_io and the timeouts without a word.
        os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
        try:
            import mfusepy

            self._operations.end = mfusepy.fuse_exit
            mfusepy.FUSE(
                self._operations,
                str(self.mountpoint),
                foreground=True,
                nothreads=True,
                allow_other=True,
                default_permissions=True,
                fsname="sysfs",
                subtype="asap2",
            )
        except (OSError, RuntimeError, AttributeError) as error:
            self._failure = str(error)
        finally:
            self._operations.ready.set()


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Keep from libfuse what is the whole process's: it goes to / and takes the signals that are at their default."""
    directory = os.open(".", os.O_PATH | os.O_CLOEXEC)
    default = []
    if threading.current_thread() is threading.main_thread():
        default = [number for number in _LIBFUSE_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in default:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in default:
            signal.signal(number, signal.SIG_DFL)
        os.fchdir(directory)
        os.close(directory)


class _Open:
    """An open attribute: its content is made at the first read, and again at each read from the start."""

    __slots__ = ("attribute", "content")

    def __init__(self, attribute: Attribute) -> None:
        self.attribute = attribute
        self.content: bytes | None = None


class _Operations:
    """What libfuse calls. Paths begin with a slash; an OSError becomes the call's result.

    mfusepy takes any attribute that has the name of an operation (``lock``, for one) for that operation.
    """

    use_ns = True

    def __init__(
        self,
        driver: Driver,
        netdevs: NetDevs,
        real: Path,
        lock: threading.RLock,
        changed: Callable[[], None],
        guests: Mapping[str, GuestView],
        proc: Mapping[str, Attribute],
        kinds: KindLinks | None,
    ) -> None:
        self._kinds = kinds
        self._changed = changed
        self._driver = driver
        self._netdevs = netdevs
        self._lock = lock
        self._node = _View(real, self._generation, netdevs.all, self._build_node)
        self._guests = {name: self._guest_view(guest) for name, guest in guests.items()}
        self._proc = proc
        self._inner = InnerViews(kinds, self._inner_view) if kinds is not None else None
        self.ready = threading.Event()
        self.stopping = False
        self.end: Any = None
        self._handles: dict[int, _Open | int] = {}
        self._next = 0
        self._real_open = 0
        """Files of the real sysfs that are open."""
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._mounted = time.time_ns()

    def init_with_config(self, _connection: Any, config: Any) -> None:
        """Names and contents are not to be cached, and reads and writes come as they are."""
        config.direct_io = 1
        config.use_ino = 0
        config.entry_timeout = config.negative_timeout = 0.0
        config.attr_timeout = _ATTRIBUTES_KEPT
        self.ready.set()

    def _generation(self) -> int:
        return self._driver.generation + (self._kinds.version if self._kinds is not None else 0)

    def _build_node(self, devices: list[NetDev]) -> Tree:
        tree = sysfs_tree.build(self._driver, devices, self._node.real, self._shown)
        files = {"net/dev": Attribute(self._net_dev), **self._proc}
        if self._kinds is not None:
            kinds, home = KindFiles(self._kinds), self._kinds.home_of_node
            kinds.put_in(tree, home, self._node.real)
            files |= kinds.proc(home, self._node.real)
        for path, file in files.items():
            directory, _slash, name = f"proc/{path}".rpartition("/")
            tree.root.at(directory).entries[name] = file
        tree.root.at("proc").entries["netns"] = Directory()
        tree.root.entries["guests"] = Directory(None, {name: Directory() for name in self._guests})
        return tree

    def _guest_view(self, guest: GuestView) -> _View:
        return _View(
            guest.real,
            self._generation,
            lambda: self._netdevs.inside(guest.namespace),
            lambda devices: self._build_guest(guest, devices),
        )

    def _build_guest(self, guest: GuestView, devices: list[NetDev]) -> Tree:
        tree = sysfs_tree.build_guest(self._driver, devices, guest.real, self._shown)
        if self._kinds is not None:
            KindFiles(self._kinds).put_in(tree, self._kinds.reader.nsid(guest.namespace), guest.real)
        return tree

    def _inner_view(self, real: Path, nsid: int) -> _View:
        def build(_devices: list[NetDev]) -> Tree:
            tree = sysfs_tree.Tree(Directory(""), {})
            assert self._kinds is not None
            KindFiles(self._kinds).put_in(tree, nsid, real)
            return tree

        return _View(real, self._generation, list, build)

    def _view(self, path: str) -> tuple[_View, str]:
        """The /sys that *path* is in, and the path there."""
        parts = path.strip("/").split("/", 2)
        if parts[0] == "guests" and len(parts) > 1 and parts[1] in self._guests:
            return self._guests[parts[1]], parts[2] if len(parts) > 2 else ""
        if self._inner is not None and path.startswith(_INNER):
            cookie, _, rest = path.removeprefix(_INNER).partition("/")
            with self._lock:
                return self._inner.of(cookie), rest
        return self._node, path.strip("/")

    def _net_dev(self) -> str:
        """The node's /proc/net/dev, as the asking process is to see it."""
        by_name = {device.name: device for device in self._netdevs.all()}
        return net_dev_of(_asking_process(), lambda name: self._shown(by_name[name]) if name in by_name else None)

    def _shown(self, device: NetDev) -> Counters | None:
        return statistics.shown(self._netdevs, device)

    def find(self, path: str) -> tuple[_View, sysfs_tree.Node]:
        """The node at *path*, and the /sys that it is in."""
        view, inner = self._view(path)
        with self._lock:
            return view, sysfs_tree.resolve(view.tree(), inner)

    # ---- looking

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, Any]:
        if self.stopping:
            self.end()
            raise _error(errno.ENODEV)
        view, node = self.find(path)
        if isinstance(node, Real):
            result = os.lstat(view.path(node.path))
            found: dict[str, Any] = {name: getattr(result, name) for name in _STAT}
            found.update((name, getattr(result, f"{name}_ns")) for name in _TIMES)
            return found
        kind, links, size = {
            Directory: (stat.S_IFDIR | 0o755, 2, 0),
            Link: (stat.S_IFLNK | 0o777, 1, 0),
        }.get(type(node)) or (stat.S_IFREG | node.mode, 1, node.size)  # type: ignore[union-attr]
        return {
            "st_mode": kind,
            "st_nlink": links,
            "st_uid": self._uid,
            "st_gid": self._gid,
            "st_size": size,
            "st_atime": self._mounted,
            "st_mtime": self._mounted,
            "st_ctime": self._mounted,
        }

    def readlink(self, path: str) -> str:
        view, inner = self._view(path)
        with self._lock:
            tree = view.tree()
            node = sysfs_tree.resolve(tree, inner)
        if isinstance(node, Link):
            return node.target
        if not isinstance(node, Real):
            raise _error(errno.EINVAL)
        return sysfs_tree.relocate(tree, inner, node.path, os.readlink(view.path(node.path)))

    def readdir(self, path: str, _handle: int) -> Iterable[str]:
        view, node = self.find(path)
        if isinstance(node, Real):
            return [".", "..", *os.listdir(view.path(node.path))]
        if not isinstance(node, Directory):
            raise _error(errno.ENOTDIR)
        names = set(node.entries)
        if node.real is not None:
            with contextlib.suppress(FileNotFoundError):
                names |= {name for name in os.listdir(view.path(node.real)) if not node.hides(name)}
        return [".", "..", *sorted(names)]

    # ---- reading and writing

    def open(self, path: str, flags: int) -> int:
        view, node = self.find(path)
        access = flags & os.O_ACCMODE
        opened: _Open | int
        if isinstance(node, Real):
            if access != os.O_RDONLY and not _NETDEV_FILE.search(node.path):
                raise _error(errno.EROFS)
            if self._real_open >= _MOST_REAL_OPEN and _asking_user():
                raise _error(errno.ENFILE)
            opened = os.open(view.path(node.path), access | os.O_NONBLOCK | os.O_CLOEXEC)
        elif isinstance(node, Attribute):
            if (access != os.O_WRONLY and not node.show) or (access != os.O_RDONLY and not node.store):
                raise _error(errno.EACCES)
            opened = _Open(node)
        else:
            raise _error(errno.EISDIR)
        self._next += 1
        self._handles[self._next] = opened
        self._real_open += isinstance(opened, int)
        return self._next

    def read(self, _path: str, size: int, offset: int, handle: int) -> bytes:
        opened = self._handles[handle]
        if isinstance(opened, int):
            return os.pread(opened, size, offset)
        if offset == 0 or opened.content is None:
            assert opened.attribute.show is not None
            with contextlib.nullcontext() if opened.attribute.alone else self._lock:
                content = opened.attribute.show()
            opened.content = os.fsencode(content) if isinstance(content, str) else content
        return opened.content[offset : offset + size]

    def write(self, _path: str, data: bytes, offset: int, handle: int) -> int:
        opened = self._handles[handle]
        data = data[:_PAGE]
        if isinstance(opened, int):
            return os.pwrite(opened, data, offset)
        assert opened.attribute.store is not None
        with self._lock:
            opened.attribute.store(data)
            self._changed()
        return len(data)

    def release(self, _path: str, handle: int) -> int:
        opened = self._handles.pop(handle)
        if isinstance(opened, int):
            os.close(opened)
            self._real_open -= 1
        return 0

    def truncate(self, _path: str, _length: int, _handle: int | None = None) -> int:
        return 0

    def utimens(self, _path: str, _times: Any = None) -> int:
        return 0

    def statfs(self, _path: str) -> dict[str, int]:
        return {"f_bsize": _PAGE, "f_frsize": _PAGE, "f_namemax": 255}

    # ---- what sysfs refuses

    def _refuse(self, *_arguments: Any) -> int:
        raise _error(errno.EPERM)

    chmod = chown = mknod = mkdir = unlink = rmdir = rename = symlink = link = _refuse

    def create(self, _path: str, _mode: int, _flags: Any = None) -> int:
        raise _error(errno.EACCES)
