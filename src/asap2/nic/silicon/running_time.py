# SPDX-License-Identifier: Apache-2.0
"""How long eBPF programs have run (BPF_ENABLE_STATS and ``struct bpf_prog_info``, linux/bpf.h)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from asap2.nic.silicon import loader

_RUN_TIME = 0
"""BPF_STATS_RUN_TIME."""
_NANOSECONDS = 1e9


class _ProgramInfo(ctypes.Structure):
    """The start of ``struct bpf_prog_info``, up to the counters of its runs."""

    run_time_ns: int
    run_count: int
    _fields_ = [
        ("before", ctypes.c_ubyte * 192),
        ("run_time_ns", ctypes.c_uint64),
        ("run_count", ctypes.c_uint64),
    ]


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Have the kernel measure all programs of the machine meanwhile, which costs some 20 ns for each run of one.

    The kernel ends this by itself when the process ends. Raises :class:`OSError`.
    """
    fd = loader.check(loader.libbpf().bpf_enable_stats(_RUN_TIME), "measuring eBPF programs")
    try:
        yield
    finally:
        os.close(fd)


def seconds(program: Path) -> float:
    """CPU time, in seconds, that the program pinned at *program* has run in while :func:`counted` was in force, however
    often. Raises :class:`OSError`."""
    fd = loader.pinned(program)
    try:
        return loader.info_of(fd, _ProgramInfo, str(program)).run_time_ns / _NANOSECONDS
    finally:
        os.close(fd)
