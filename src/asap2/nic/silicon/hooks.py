# SPDX-License-Identifier: Apache-2.0
"""Where programs run: at tcx ingress and egress of devices, or at those of a clsact qdisc where the kernel has no tcx.

Either way a pinned file stands for it: a program runs at its device while the file exists, whoever is alive. With tcx
(Linux 6.6) the file is the link. Before, it is an array of one program, and a filter of the device calls the one in it.
The kernel empties an array that no file names and nobody has open: its filter stays with the device, does nothing from
then on, and is used again by the next program of the same file name.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from asap2.namespaces import in_netns
from asap2.netlink.client import Connection
from asap2.netlink.tables.tc import TC_H_MIN_EGRESS, TC_H_MIN_INGRESS
from asap2.netlink.wire import NLM_F_DUMP, NetlinkError
from asap2.nic.silicon import loader

Hook = Literal["ingress", "egress"]
Instructions = tuple[tuple[int, int, int, int], ...]

_TCX: Final = {"ingress": 46, "egress": 47}  # enum bpf_attach_type
_BPF_F_BEFORE: Final = 1 << 3
_POINTS: Final = {"ingress": 1, "egress": 2}  # enum bpf_tc_attach_point
_PARENTS: Final = {"ingress": TC_H_MIN_INGRESS, "egress": TC_H_MIN_EGRESS}
_BPF_TC_F_REPLACE: Final = 1
_MAP_TYPE_PROG_ARRAY: Final = 3  # enum bpf_map_type
_PROG_TYPE_SCHED_CLS: Final = 3  # enum bpf_prog_type
_TAIL_CALL: Final = 12  # enum bpf_func_id
_RTM_GETTFILTER: Final = 46
_TCMSG: Final = struct.Struct("=BxHiIII")
"""struct tcmsg: family, padding, interface index, handle, parent, priority << 16 | protocol."""
_FIRST, _LAST = 1, 0x8000
"""Priority of a program that comes first, and the least one of those that come after others."""
_U32: Final = struct.Struct("=I")
_LOOPBACK: Final = 1
"""Interface index of lo in every network namespace."""


class _LinkCreateOpts(ctypes.Structure):
    """The start of ``struct bpf_link_create_opts``."""

    _fields_ = [("sz", ctypes.c_size_t), ("flags", ctypes.c_uint32)]


class _LinkInfo(ctypes.Structure):
    """The start of ``struct bpf_link_info``, with the tcx member of its union."""

    prog_id: int
    ifindex: int
    _fields_ = [(n, ctypes.c_uint32) for n in ("type", "id", "prog_id", "unused", "ifindex", "attach_type")]


class _TcHook(ctypes.Structure):
    """``struct bpf_tc_hook``."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    ]


class _TcOpts(ctypes.Structure):
    """``struct bpf_tc_opts``."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    ]


@functools.cache
def has_tcx() -> bool:
    """Whether the kernel has tcx: it does not know the question otherwise."""
    count = ctypes.c_uint32(0)
    result = loader.libbpf().bpf_prog_query(_LOOPBACK, _TCX["ingress"], 0, None, None, ctypes.byref(count))
    return bool(result != -errno.EINVAL)


def attach(program: int, ifindex: int, hook: Hook, netns: int | None, path: Path, *, first: bool = True) -> None:
    """Run *program* on the packets of the device *ifindex* in the namespace of descriptor *netns* (``None``: this one),
    and let *path* of a bpffs stand for it: *first* before the programs that run there already, or else after them.

    Where *path* stands for a program of that device already, this one takes its place, and no packet is without.
    OSError.
    """
    if not has_tcx():
        in_netns(netns, lambda: _attach_filter(program, ifindex, hook, path, first))
        return
    if path.exists():
        link = loader.pinned(path)
        try:
            if _device_of(link) == ifindex:
                loader.check(loader.libbpf().bpf_link_update(link, program, None), "tcx link")
                return
        finally:
            os.close(link)
        path.unlink()
    options = ctypes.byref(_LinkCreateOpts(ctypes.sizeof(_LinkCreateOpts), _BPF_F_BEFORE)) if first else None
    create = loader.libbpf().bpf_link_create
    result = in_netns(netns, lambda: create(program, ifindex, _TCX[hook], options))
    _pin_and_close(loader.check(result, f"cannot attach the eSwitch program to device {ifindex}"), path)


def try_out() -> None:
    """Run a program that does nothing at the loopback device of this network namespace, which is to end thereafter.

    Raises :class:`OSError`: the kernel, or this user, cannot.
    """
    program = load(b"try", ((0xB7, 0, 0, -1), (0x95, 0, 0, 0)))  # r0 = TC_ACT_UNSPEC; exit
    try:
        if has_tcx():
            link = loader.libbpf().bpf_link_create(program, _LOOPBACK, _TCX["ingress"], None)
            os.close(loader.check(link, "attaching a program"))
        else:
            point = _clsact(_LOOPBACK, "ingress")
            options = _TcOpts(ctypes.sizeof(_TcOpts), program, 0, 0, 1, _FIRST)
            loader.check(loader.libbpf().bpf_tc_attach(point, ctypes.byref(options)), "attaching a program")
    finally:
        os.close(program)


def is_attached(path: Path) -> bool:
    """Whether *path* stands for a program of a device that still exists; no, where the kernel does not tell."""
    if not has_tcx():
        return False
    try:
        link = loader.pinned(path)
    except FileNotFoundError:
        return False
    try:
        return bool(_device_of(link))
    finally:
        os.close(link)


def swap(path: Path, program: int, but: int) -> None:
    """Let the device that *path* stands for run *program* in place of what it runs, at once and without a packet in
    between; not if that is the program with the number *but*. OSError."""
    held = loader.pinned(path)
    try:
        if _running(held) in (None, but):
            return
        if has_tcx():
            loader.check(loader.libbpf().bpf_link_update(held, program, None), "tcx link")
        else:
            put_program(held, program)
    finally:
        os.close(held)


def put_program(array: int, program: int) -> None:
    """Let *array*, an array of programs, have *program* in its first place. OSError."""
    result = loader.libbpf().bpf_map_update_elem(array, _U32.pack(0), _U32.pack(program), 0)
    loader.check(result, "the program of a device")


def detach(path: Path) -> None:
    """Run nothing any more, from now on. (Unlinking *path* does so too, but some time later.)"""
    held = loader.pinned(path)
    try:
        if has_tcx():
            loader.check(loader.libbpf().bpf_link_detach(held), "tcx link")
        else:
            loader.libbpf().bpf_map_delete_elem(held, _U32.pack(0))
    finally:
        os.close(held)
    path.unlink()


def _link_info(link: int) -> _LinkInfo:
    return loader.info_of(link, _LinkInfo, "tcx link")


def _running(held: int) -> int | None:
    """The number of the program that runs at the device for which a link or an array stands; None: none."""
    if has_tcx():
        return _link_info(held).prog_id
    found = loader.Map(held, "hook").lookup(_U32.pack(0))
    return int(_U32.unpack(found)[0]) if found is not None else None


def _device_of(link: int) -> int:
    """Interface index of the tcx link's device; 0: it is gone."""
    return _link_info(link).ifindex


def _pin_and_close(held: int, path: Path) -> None:
    try:
        loader.pin(held, path)
    finally:
        os.close(held)


def _attach_filter(program: int, ifindex: int, hook: Hook, path: Path, first: bool) -> None:
    """:func:`attach` without tcx, in this network namespace."""
    lib = loader.libbpf()
    handle = zlib.crc32(os.fsencode(Path(path.parent.name, path.name))) | 1
    fresh = not path.exists()
    array = lib.bpf_map_create(_MAP_TYPE_PROG_ARRAY, b"hook", 4, 4, 1, None) if fresh else loader.pinned(path)
    loader.check(array, "creating a map")
    try:
        put_program(array, program)
        point = _clsact(ifindex, hook)
        filters = dict(_filters(ifindex, hook))
        if handle not in filters or fresh:
            last = max((priority + 1 for priority in filters.values() if priority >= _LAST), default=_LAST)
            priority = filters.get(handle) or (_FIRST if first else last)
            call = _calling(array)
            options = _TcOpts(ctypes.sizeof(_TcOpts), call, _BPF_TC_F_REPLACE, 0, handle, priority)
            try:
                result = lib.bpf_tc_attach(point, ctypes.byref(options))
            finally:
                os.close(call)
            loader.check(result, f"cannot attach the eSwitch program to device {ifindex}")
        if fresh:
            loader.pin(array, path)
    finally:
        os.close(array)


def _clsact(ifindex: int, hook: Hook) -> Any:
    """A reference to the hook of the device's clsact qdisc, which it is given if it has none."""
    point = ctypes.byref(_TcHook(ctypes.sizeof(_TcHook), ifindex, _POINTS[hook], 0))
    made = loader.libbpf().bpf_tc_hook_create(point)
    if made != -errno.EEXIST:
        loader.check(made, f"cannot give device {ifindex} a clsact qdisc")
    return point


def _filters(ifindex: int, hook: Hook) -> Iterator[tuple[int, int]]:
    """Handle and priority of each filter of a device there."""
    with Connection() as connection:
        try:
            found = connection.request(_RTM_GETTFILTER, NLM_F_DUMP, _TCMSG.pack(0, 0, ifindex, 0, _PARENTS[hook], 0))
        except NetlinkError as error:
            raise OSError(error.errno, f"cannot read the filters of device {ifindex}") from error
    for message in found:
        _family, _ifindex, handle, _parent, info = _TCMSG.unpack_from(message.payload)[-5:]
        if handle:
            yield handle, info >> 16


def _calling(array: int) -> int:
    """A descriptor of a program that calls the one in *array*; without one, the next filter goes on."""
    return load(
        b"hook",
        (
            (0x18, 1 << 4 | 2, 0, array),  # r2 = array, by descriptor
            (0x00, 0, 0, 0),
            (0xB7, 3, 0, 0),  # r3 = 0
            (0x85, 0, 0, _TAIL_CALL),
            (0xB7, 0, 0, -1),  # r0 = TC_ACT_UNSPEC
            (0x95, 0, 0, 0),  # exit
        ),
    )


def load(name: bytes, instructions: Instructions) -> int:
    """A descriptor of a program, by the opcode, registers, offset and immediate value of each instruction."""
    code = b"".join(struct.pack("=BBhi", *one) for one in instructions)
    make = loader.libbpf().bpf_prog_load
    return loader.check(make(_PROG_TYPE_SCHED_CLS, name, b"GPL", code, len(instructions), None), "loading a program")
