# SPDX-License-Identifier: Apache-2.0
"""Packets that pass a representor, counted in the kernel behind a filter (AF_PACKET, classic BPF)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from types import TracebackType

from asap2 import socket_filter
from asap2.socket_filter import Step

ETH_P_ALL = 3
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_STATISTICS = 263, 1, 6
PACKET_MR_PROMISC = 1
LDH, LDB, LD, JEQ, RET = 0x28, 0x30, 0x20, 0x15, 0x06
"""BPF_LD|BPF_{H,B,W}|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K (linux/bpf_common.h)."""
SNAP = 96
_STATISTICS = struct.Struct("=II")


def between(one: str, other: str, protocol: int) -> list[Step]:
    """A filter for packets of an IP *protocol* between two addresses, either way."""
    six = ipaddress.ip_address(one).version == 6
    first, second = ipaddress.ip_address(one).packed, ipaddress.ip_address(other).packed
    kind, at, source = (0x86DD, 20, 22) if six else (0x0800, 23, 26)
    ways = []
    for sender, receiver in ((first, second), (second, first)):
        ways.append([(source + 4 * n, word) for n, word in enumerate(_words(sender) + _words(receiver))])
    code = [(LDH, 12, None), (JEQ, kind, "no"), (LDB, at, None), (JEQ, protocol, "no")]
    made: list[tuple[int, int, str | None]] = list(code)
    for number, words in enumerate(ways):
        for offset, word in words:
            made += [(LD, offset, None), (JEQ, word, "second" if number == 0 else "no")]
        made.append((RET, SNAP, "yes" if number == 0 else None))
    made.append((RET, 0, None))
    second_at = len(code) + 2 * len(ways[0]) + 1
    targets = {"no": len(made) - 1, "second": second_at}
    return [
        (op, 0, targets[to] - at_ - 1, value) if op == JEQ and to else (op, 0, 0, value)
        for at_, (op, value, to) in enumerate(made)
    ]


def _words(address: bytes) -> list[int]:
    return [int.from_bytes(address[at : at + 4], "big") for at in range(0, len(address), 4)]


class Watch:
    """Counts the packets that pass a device, both ways, from when it is made until :meth:`count` is asked last."""

    def __init__(self, device: str, code: list[Step] | None = None) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        if code:
            socket_filter.attach(self._socket, code)
        self._socket.bind((device, ETH_P_ALL))
        index = socket.if_nametoindex(device)
        self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("=iHH8x", index, PACKET_MR_PROMISC, 0))
        self._count = 0

    def count(self) -> int:
        """Packets so far; the kernel counts those too that nobody reads."""
        packets, _ = _STATISTICS.unpack(self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))
        self._count += packets
        return self._count

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
