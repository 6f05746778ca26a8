# SPDX-License-Identifier: Apache-2.0
"""Getting an eBPF object into the kernel and at its maps, programs and tcx links: libbpf by ctypes.

libbpf 1.1 (Debian 12) does not know tcx, but its system-call wrappers pass any attach type on.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from asap2.namespaces import in_netns

Hook = Literal["ingress", "egress"]

_TCX = {"ingress": 46, "egress": 47}  # enum bpf_attach_type
_MAP_TYPE_ARRAY = 2  # enum bpf_map_type
NOEXIST = 1
"""Flag of :meth:`Map.update`: fail with EEXIST when the key is there (BPF_NOEXIST)."""


@functools.cache
def _libbpf() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as e:
        raise OSError(e.errno, "the library libbpf.so.1 (Debian package libbpf1) is missing") from e
    pointer, fd, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [ctypes.c_char_p, pointer]),
        ("bpf_object__load", ctypes.c_int, [pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__find_map_by_name", pointer, [pointer, ctypes.c_char_p]),
        ("bpf_object__find_program_by_name", pointer, [pointer, ctypes.c_char_p]),
        ("bpf_map__set_max_entries", ctypes.c_int, [pointer, ctypes.c_uint32]),
        ("bpf_map__reuse_fd", ctypes.c_int, [pointer, ctypes.c_int]),
        ("bpf_map__set_initial_value", ctypes.c_int, [pointer, pointer, size]),
        ("bpf_map__fd", ctypes.c_int, [pointer]),
        ("bpf_program__fd", ctypes.c_int, [pointer]),
        ("bpf_obj_pin", ctypes.c_int, [fd, ctypes.c_char_p]),
        ("bpf_obj_get", fd, [ctypes.c_char_p]),
        ("bpf_obj_get_info_by_fd", ctypes.c_int, [fd, pointer, pointer]),
        ("bpf_map_create", fd, [ctypes.c_int, ctypes.c_char_p, *[ctypes.c_uint32] * 3, pointer]),
        ("bpf_map_update_elem", ctypes.c_int, [fd, pointer, pointer, ctypes.c_uint64]),
        ("bpf_map_lookup_elem", ctypes.c_int, [fd, pointer, pointer]),
        ("bpf_map_delete_elem", ctypes.c_int, [fd, pointer]),
        ("bpf_map_get_next_key", ctypes.c_int, [fd, pointer, pointer]),
        ("bpf_link_create", fd, [fd, ctypes.c_int, ctypes.c_int, pointer]),
        ("bpf_link_update", ctypes.c_int, [fd, fd, pointer]),
        ("bpf_link_detach", ctypes.c_int, [fd]),
        ("bpf_prog_test_run_opts", ctypes.c_int, [fd, pointer]),
        ("libbpf_num_possible_cpus", ctypes.c_int, []),
        ("libbpf_set_print", pointer, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def _check(result: int, what: str) -> int:
    """libbpf 1.x returns -errno."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def possible_cpus() -> int:
    """CPUs that the kernel may ever bring up."""
    return _check(_libbpf().libbpf_num_possible_cpus(), "counting CPUs")


class _MapInfo(ctypes.Structure):
    """The start of ``struct bpf_map_info``."""

    key_size: int
    value_size: int
    max_entries: int
    _fields_ = [(n, ctypes.c_uint32) for n in ("type", "id", "key_size", "value_size", "max_entries", "flags")]


class _LinkInfo(ctypes.Structure):
    """The start of ``struct bpf_link_info``, with the tcx member of its union."""

    ifindex: int
    _fields_ = [(n, ctypes.c_uint32) for n in ("type", "id", "prog_id", "unused", "ifindex", "attach_type")]


class Map:
    """An eBPF map, by file descriptor. Keys and values are bytes in the machine's layout."""

    def __init__(self, fd: int, name: str) -> None:
        info = _MapInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        _check(_libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), f"map {name}")
        self.fd = fd
        self.name = name
        self.key_size: int = info.key_size
        self.value_size: int = info.value_size
        self.max_entries: int = info.max_entries
        self._mapped: mmap.mmap | None = None

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set *key*. Raises :class:`OSError`: EEXIST under :data:`NOEXIST`, E2BIG when the map is full."""
        _check(_libbpf().bpf_map_update_elem(self.fd, key, value, flags), f"map {self.name}")

    def lookup(self, key: bytes, size: int | None = None) -> bytes | None:
        """The value of *key*; *size* bytes for a per-CPU map."""
        value = ctypes.create_string_buffer(size or self.value_size)
        result = _libbpf().bpf_map_lookup_elem(self.fd, key, value)
        if result == -2:
            return None
        _check(result, f"map {self.name}")
        return value.raw

    def delete(self, key: bytes) -> None:
        """Remove *key*; ENOENT when it is not there."""
        _check(_libbpf().bpf_map_delete_elem(self.fd, key), f"map {self.name}")

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, when nobody else changes the map."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_size)
        while _libbpf().bpf_map_get_next_key(self.fd, key, following) == 0:
            key = following.raw
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def mapped(self, record: type[Any]) -> ctypes.Array[Any]:
        """The memory of an mmapable array as an array of the ctypes type *record*."""
        step = (self.value_size + 7) & ~7
        if ctypes.sizeof(record) != step:
            raise OSError(22, f"map {self.name} was made by another version of this program")
        made: ctypes.Array[Any] = (record * self.max_entries).from_buffer(self.memory())
        return made

    def memory(self) -> mmap.mmap:
        """The memory of an mmapable array."""
        if self._mapped is None:
            step = (self.value_size + 7) & ~7
            length = (step * self.max_entries + mmap.PAGESIZE - 1) & ~(mmap.PAGESIZE - 1)
            self._mapped = mmap.mmap(self.fd, length)
        return self._mapped


def pin(fd: int, path: Path) -> None:
    """Keep what *fd* stands for in the kernel under *path* of a bpffs."""
    _check(_libbpf().bpf_obj_pin(fd, os.fsencode(path)), f"cannot pin {path.name}")


def unpin_all(directory: Path) -> None:
    """Remove every pin of *directory*."""
    for path in directory.iterdir():
        path.unlink()


def pinned(path: Path) -> int:
    """A file descriptor of what is pinned at *path*; FileNotFoundError."""
    return _check(_libbpf().bpf_obj_get(os.fsencode(path)), str(path))


def load(
    source: Path,
    directory: Path,
    maps: dict[str, int | None],
    programs: tuple[str, ...],
    constants: ctypes.Structure | None = None,
    shared: dict[str, Path] | None = None,
) -> None:
    """Load the object file *source*, giving each of *maps* its size, and pin its maps and programs in *directory*.

    *constants* are what the program's ``.rodata`` begins as. The maps of *shared* are not made: those that are pinned
    there are used, and pinned in *directory*, too.
    """
    lib = _libbpf()
    if not source.exists():
        raise FileNotFoundError(2, f"{source} is missing: `make setup` builds it")
    lib.libbpf_set_print(None)
    handle = lib.bpf_object__open_file(os.fsencode(source), None)
    if not handle:
        raise OSError(ctypes.get_errno(), f"{source} is not an eBPF object file")
    try:
        if constants is not None:
            rodata = lib.bpf_object__find_map_by_name(handle, b".rodata")
            size = ctypes.sizeof(constants)
            _check(lib.bpf_map__set_initial_value(rodata, ctypes.byref(constants), size), "the program's constants")
        found = {name: lib.bpf_object__find_map_by_name(handle, name.encode()) for name in maps}
        for name, path in (shared or {}).items():
            fd = pinned(path)
            try:
                _check(lib.bpf_map__reuse_fd(found[name], fd), f"sharing map {name}")
            finally:
                os.close(fd)
        for name, entries in maps.items():
            if shared and name in shared:
                continue
            if entries is not None:
                _check(lib.bpf_map__set_max_entries(found[name], entries), f"size of map {name}")
        result = lib.bpf_object__load(handle)
        if result < 0:
            raise OSError(-result, f"the kernel refuses the eSwitch program: {os.strerror(-result)}")
        for name in programs:
            program = lib.bpf_object__find_program_by_name(handle, name.encode())
            pin(lib.bpf_program__fd(program), directory / name)
        for name in maps:
            pin(lib.bpf_map__fd(found[name]), directory / name)
    finally:
        lib.bpf_object__close(handle)


def new_cell() -> int:
    """A file descriptor of a new array map of one 32-bit number."""
    return _check(_libbpf().bpf_map_create(_MAP_TYPE_ARRAY, b"cell", 4, 4, 1, None), "creating a map")


def link_is_attached(link: int) -> bool:
    """Whether the tcx link's device still exists."""
    info = _LinkInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    _check(_libbpf().bpf_obj_get_info_by_fd(link, ctypes.byref(info), ctypes.byref(size)), "tcx link")
    return bool(info.ifindex)


def update_link(link: int, program: int) -> None:
    """Run *program* at *link* from now on."""
    _check(_libbpf().bpf_link_update(link, program, None), "tcx link")


def detach_link(link: int) -> None:
    """Run nothing at *link* any more, from now on. (Closing its last descriptor does so too, but some time later.)"""
    _check(_libbpf().bpf_link_detach(link), "tcx link")


class _LinkCreateOpts(ctypes.Structure):
    """The start of ``struct bpf_link_create_opts``."""

    _fields_ = [("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32)]


_BPF_F_BEFORE = 1 << 3


def attach_tcx(program: int, ifindex: int, hook: Hook, netns: int | None, *, first: bool = True) -> int:
    """A link that runs *program* on the packets of the device *ifindex*: *first* before the programs that run there
    already, or else after them; a file descriptor."""
    lib = _libbpf()
    options = ctypes.byref(_LinkCreateOpts(ctypes.sizeof(_LinkCreateOpts), _BPF_F_BEFORE)) if first else None
    result = in_netns(netns, lambda: lib.bpf_link_create(program, ifindex, _TCX[hook], options))
    if result == -22:
        raise OSError(22, "cannot attach the eSwitch program: this kernel has no tcx (it takes Linux 6.6 or newer)")
    return _check(result, f"cannot attach the eSwitch program to device {ifindex}")


class _TestRunOpts(ctypes.Structure):
    """``struct bpf_test_run_opts``."""

    duration: int
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


_SK_BUFF_SIZE, _SK_BUFF_IFINDEX, _SK_BUFF_GSO_SEGS = 192, 40, 164  # struct __sk_buff


class TestRun:
    """Runs *program* on packets without a network (BPF_PROG_TEST_RUN), as if they came in by device *ifindex* of this
    network namespace; each *repeat* times."""

    __test__ = False  # for pytest it looks like a test

    def __init__(self, program: int, *, ifindex: int = 0, repeat: int = 1) -> None:
        self._context = ctypes.create_string_buffer(_SK_BUFF_SIZE)
        struct.pack_into("=I", self._context, _SK_BUFF_IFINDEX, ifindex)
        self._opts = _TestRunOpts()
        self._opts.sz = ctypes.sizeof(self._opts)
        self._opts.ctx_in, self._opts.ctx_size_in = ctypes.addressof(self._context), _SK_BUFF_SIZE
        self._opts.repeat = repeat
        self._run = functools.partial(_libbpf().bpf_prog_test_run_opts, program, ctypes.byref(self._opts))
        self._segments = 1

    def on(self, packet: bytes, segments: int = 1) -> int:
        """Run it on *packet*; nanoseconds a run. One of more than one *segments* is a super-packet for the program, not
        for the kernel."""
        opts = self._opts
        opts.data_in, opts.data_size_in = packet, len(packet)
        opts.data_size_out = opts.ctx_size_out = 0  # else the sizes of the last run are the room for this one's output
        if segments != self._segments:
            struct.pack_into("=I", self._context, _SK_BUFF_GSO_SEGS, segments if segments > 1 else 0)
            self._segments = segments
        _check(self._run(), "BPF_PROG_TEST_RUN")
        return opts.duration
