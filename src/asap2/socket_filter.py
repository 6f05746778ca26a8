# SPDX-License-Identifier: Apache-2.0
"""Classic BPF programs that say what a socket receives (linux/filter.h, socket(7))."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

Step = tuple[int, int, int, int]
"""An instruction, ``struct sock_filter``: code, how many to skip if a comparison holds and if not, and the operand."""
NOTHING: tuple[Step, ...] = ((0x06, 0, 0, 0),)
"""The program that drops all: BPF_RET|BPF_K with 0."""
_SO_ATTACH_FILTER = 26
"""include/uapi/asm-generic/socket.h."""
_STEP = struct.Struct("=HBBI")


def attach(sock: socket.socket, program: Sequence[Step]) -> None:
    """Have *sock* receive what *program* lets through, and nothing else. OSError: EINVAL for a program that is none."""
    code = ctypes.create_string_buffer(b"".join(_STEP.pack(*step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def parsed(text: str) -> tuple[Step, ...]:
    """The program that ``tcpdump -ddd`` printed: a line with the number of steps, then one line for each.

    Raises:
        ValueError: *text* is no such program.
    """
    steps = []
    for line in text.splitlines()[1:]:
        code, true, false, operand = map(int, line.split())
        steps.append((code, true, false, operand))
    return tuple(steps)
