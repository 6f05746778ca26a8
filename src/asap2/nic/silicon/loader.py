# SPDX-License-Identifier: Apache-2.0
"""Getting an eBPF object into the kernel and at its maps and programs: libbpf by ctypes.

libbpf 1.1 (Debian 12) does not know tcx, but its system-call wrappers pass any attach type on.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gzip
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

_MAP_TYPE_ARRAY, _MAP_TYPE_PERCPU_ARRAY, _MAP_TYPE_RINGBUF = 2, 6, 27  # enum bpf_map_type
NOEXIST = 1
"""Flag of :meth:`Map.update`: fail with EEXIST when the key is there (BPF_NOEXIST)."""


@functools.cache
def libbpf() -> ctypes.CDLL:
    """The library."""
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as e:
        raise OSError(e.errno, "the library libbpf.so.1 (Debian package libbpf1) is missing") from e
    pointer, fd, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [ctypes.c_char_p, pointer]),
        ("bpf_object__open_mem", pointer, [ctypes.c_char_p, size, pointer]),
        ("bpf_object__load", ctypes.c_int, [pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__find_map_by_name", pointer, [pointer, ctypes.c_char_p]),
        ("bpf_object__find_program_by_name", pointer, [pointer, ctypes.c_char_p]),
        ("bpf_map__set_max_entries", ctypes.c_int, [pointer, ctypes.c_uint32]),
        ("bpf_map__set_map_flags", ctypes.c_int, [pointer, ctypes.c_uint32]),
        ("bpf_map__reuse_fd", ctypes.c_int, [pointer, ctypes.c_int]),
        ("bpf_map__set_initial_value", ctypes.c_int, [pointer, pointer, size]),
        ("bpf_map__fd", ctypes.c_int, [pointer]),
        ("bpf_map__name", ctypes.c_char_p, [pointer]),
        ("bpf_object__next_map", pointer, [pointer, pointer]),
        ("bpf_program__fd", ctypes.c_int, [pointer]),
        ("bpf_program__set_autoload", ctypes.c_int, [pointer, ctypes.c_bool]),
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
        ("bpf_prog_load", fd, [ctypes.c_int, *[ctypes.c_char_p] * 3, size, pointer]),
        ("bpf_prog_query", ctypes.c_int, [fd, ctypes.c_int, ctypes.c_uint32, *[pointer] * 3]),
        ("bpf_enable_stats", fd, [ctypes.c_int]),
        ("bpf_tc_hook_create", ctypes.c_int, [pointer]),
        ("bpf_tc_attach", ctypes.c_int, [pointer, pointer]),
        ("bpf_prog_test_run_opts", ctypes.c_int, [fd, pointer]),
        ("libbpf_num_possible_cpus", ctypes.c_int, []),
        ("libbpf_set_print", pointer, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def check(result: int, what: str) -> int:
    """*result*; OSError for what libbpf 1.x returns on errors, -errno."""
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def possible_cpus() -> int:
    """CPUs that the kernel may ever bring up."""
    return check(libbpf().libbpf_num_possible_cpus(), "counting CPUs")


_Info = TypeVar("_Info", bound=ctypes.Structure)


def info_of(fd: int, record: type[_Info], what: str) -> _Info:
    """What the kernel says of the map, program or link *fd* (BPF_OBJ_GET_INFO_BY_FD): as much of it as the ctypes type
    *record* has, which begins as the kernel's structure does. OSError, in which it is called *what*."""
    info = record()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    check(libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), what)
    return info


class _MapInfo(ctypes.Structure):
    """The start of ``struct bpf_map_info``."""

    key_size: int
    value_size: int
    max_entries: int
    _fields_ = [(n, ctypes.c_uint32) for n in ("type", "id", "key_size", "value_size", "max_entries", "flags")]


class Map:
    """An eBPF map, by file descriptor. Keys and values are bytes in the machine's layout."""

    def __init__(self, fd: int, name: str) -> None:
        info = info_of(fd, _MapInfo, f"map {name}")
        self.fd = fd
        self.name = name
        self.key_size: int = info.key_size
        self.value_size: int = info.value_size
        self.max_entries: int = info.max_entries
        self._mapped: mmap.mmap | None = None

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set *key*. Raises :class:`OSError`: EEXIST under :data:`NOEXIST`, E2BIG when the map is full."""
        check(libbpf().bpf_map_update_elem(self.fd, key, value, flags), f"map {self.name}")

    def lookup(self, key: bytes, size: int | None = None) -> bytes | None:
        """The value of *key*; *size* bytes for a per-CPU map."""
        value = ctypes.create_string_buffer(size or self.value_size)
        result = libbpf().bpf_map_lookup_elem(self.fd, key, value)
        if result == -2:
            return None
        check(result, f"map {self.name}")
        return value.raw

    def delete(self, key: bytes) -> None:
        """Remove *key*; ENOENT when it is not there."""
        check(libbpf().bpf_map_delete_elem(self.fd, key), f"map {self.name}")

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, when nobody else changes the map."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_size)
        while libbpf().bpf_map_get_next_key(self.fd, key, following) == 0:
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
    check(libbpf().bpf_obj_pin(fd, os.fsencode(path)), f"cannot pin {path.name}")


def unpin_all(directory: Path) -> None:
    """Remove every pin of *directory*."""
    for path in directory.iterdir():
        path.unlink()


def pinned(path: Path) -> int:
    """A file descriptor of what is pinned at *path*; FileNotFoundError."""
    return check(libbpf().bpf_obj_get(os.fsencode(path)), str(path))


def load(
    source: Path,
    directory: Path,
    maps: dict[str, int | None],
    programs: tuple[str, ...],
    constants: ctypes.Structure | None = None,
    shared: dict[str, Path] | None = None,
    preallocated: tuple[str, ...] = (),
) -> None:
    """Load the object file *source*, giving each of *maps* its size, and pin its maps and programs in *directory*.

    *constants* are what the program's ``.rodata`` begins as. The maps of *shared* are not made: those that are pinned
    there are used, and pinned in *directory*, too. The hash maps *preallocated* get memory for all their entries now,
    so that an insertion never fails for lack of memory.
    """
    lib = libbpf()
    with _opened(source) as (handle, told):
        if constants is not None:
            _set_constants(handle, constants)
        found = {name: lib.bpf_object__find_map_by_name(handle, name.encode()) for name in maps}
        for name, path in (shared or {}).items():
            fd = pinned(path)
            try:
                check(lib.bpf_map__reuse_fd(found[name], fd), f"sharing map {name}")
            finally:
                os.close(fd)
        for name, entries in maps.items():
            if shared and name in shared:
                continue
            if entries is not None:
                check(lib.bpf_map__set_max_entries(found[name], entries), f"size of map {name}")
            if name in preallocated:
                check(lib.bpf_map__set_map_flags(found[name], 0), f"flags of map {name}")
        _load(handle, source, told)
        for name in programs:
            program = lib.bpf_object__find_program_by_name(handle, name.encode())
            pin(lib.bpf_program__fd(program), directory / name)
        for name in maps:
            pin(lib.bpf_map__fd(found[name]), directory / name)


def load_beside(
    source: Path,
    maps: Mapping[str, int],
    wanted: str,
    others: Iterable[str],
    constants: ctypes.Structure,
) -> int:
    """Load the program *wanted* of the object file *source*, which uses the *maps* of another that is loaded already,
    by descriptor; maps of other names are its own. Its *others* are left out. A descriptor of the program. OSError.
    """
    with _opened(source) as (handle, told):
        lib = libbpf()
        one = lib.bpf_object__next_map(handle, None)
        while one:
            name = lib.bpf_map__name(one).decode()
            if name in maps:
                check(lib.bpf_map__reuse_fd(one, maps[name]), f"sharing map {name}")
            one = lib.bpf_object__next_map(handle, one)
        for name in others:
            program = lib.bpf_object__find_program_by_name(handle, name.encode())
            check(lib.bpf_program__set_autoload(program, False), f"leaving out {name}")
        _set_constants(handle, constants)
        _load(handle, source, told)
        return os.dup(lib.bpf_program__fd(lib.bpf_object__find_program_by_name(handle, wanted.encode())))


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tuple[int, list[str]]]:
    """The object file *source* of libbpf, and what libbpf says meanwhile."""
    if not source.exists() and not _compressed(source).exists():
        raise FileNotFoundError(2, f"{source} is missing: `make setup` builds it")
    lib = libbpf()
    told: list[str] = []
    printer = _printer(told)
    lib.libbpf_set_print(printer)
    try:
        handle = _open(lib, source)
        if not handle:
            raise OSError(ctypes.get_errno(), f"{source} is not an eBPF object file")
        try:
            yield handle, told
        finally:
            lib.bpf_object__close(handle)
    finally:
        lib.libbpf_set_print(None)


def _set_constants(handle: int, constants: ctypes.Structure) -> None:
    lib = libbpf()
    rodata = lib.bpf_object__find_map_by_name(handle, b".rodata")
    size = ctypes.sizeof(constants)
    check(lib.bpf_map__set_initial_value(rodata, ctypes.byref(constants), size), "the program's constants")


def _load(handle: int, source: Path, told: list[str]) -> None:
    result = libbpf().bpf_object__load(handle)
    if result < 0:
        why = verifier_says("".join(told)) or os.strerror(-result)
        raise OSError(-result, f"the kernel {os.uname().release} refuses the program {source.name}: {why}")


def _compressed(source: Path) -> Path:
    """What a wheel has in place of the object file *source*."""
    return source.with_name(f"{source.name}.gz")


def _open(lib: ctypes.CDLL, source: Path) -> int | None:
    """libbpf's handle of an object file, compressed or not; None when it is none."""
    handle: int | None
    if source.exists():
        handle = lib.bpf_object__open_file(os.fsencode(source), None)
    else:
        data = gzip.decompress(_compressed(source).read_bytes())
        handle = lib.bpf_object__open_mem(data, len(data), None)
    return handle


_Print = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
"""``libbpf_print_fn_t``: level, format, ``va_list``."""
_MOST_TOLD = 1 << 20
"""Bytes of one thing that libbpf says: the verifier's log is one."""


def _printer(told: list[str]) -> Any:
    """What gives *told* the warnings of libbpf."""
    text = ctypes.create_string_buffer(_MOST_TOLD)
    libc = ctypes.CDLL(None)

    def note(level: int, form: bytes, arguments: int) -> int:
        if level:  # not a warning
            return 0
        libc.vsnprintf(text, ctypes.c_size_t(len(text)), form, ctypes.c_void_p(arguments))
        told.append(text.value.decode(errors="replace"))
        return 0

    return _Print(note)


def verifier_says(log: str) -> str | None:
    """The verifier's reason in what libbpf has printed: the last line before the verifier's statistics."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    ends = [number for number, line in enumerate(lines) if line.startswith("processed ")]
    return lines[ends[-1] - 1] if ends and ends[-1] else None


def new_cell() -> int:
    """A file descriptor of a new array map of one 32-bit number."""
    return check(libbpf().bpf_map_create(_MAP_TYPE_ARRAY, b"cell", 4, 4, 1, None), "creating a map")


def new_ring(size: int) -> int:
    """A file descriptor of a new ring buffer of *size* octets, a power of two."""
    return check(libbpf().bpf_map_create(_MAP_TYPE_RINGBUF, b"ring", 0, 0, size, None), "creating a ring buffer")


def new_per_cpu(size: int) -> int:
    """A file descriptor of a new array map of one value of *size* octets for each CPU."""
    return check(libbpf().bpf_map_create(_MAP_TYPE_PERCPU_ARRAY, b"percpu", 4, size, 1, None), "creating a map")


class _ProgramInfo(ctypes.Structure):
    """The start of ``struct bpf_prog_info``."""

    id: int
    _fields_ = [("type", ctypes.c_uint32), ("id", ctypes.c_uint32)]


def program_id(program: int) -> int:
    """The number that the kernel has for the *program* with that descriptor."""
    return info_of(program, _ProgramInfo, "program").id


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
        self._run = functools.partial(libbpf().bpf_prog_test_run_opts, program, ctypes.byref(self._opts))
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
        check(self._run(), "BPF_PROG_TEST_RUN")
        return opts.duration
