# SPDX-License-Identifier: Apache-2.0
"""``python hostile.py DEVICE OWN-MAC COUNT SEED RATE [learn]``: what a hostile guest sends, RATE frames a second (0: as
many as one processor can). Prints how many went out.

With *learn* it takes no other guest's address, but a thousand that nobody has, and broadcast.

Run by itself in a guest; it needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20  # include/uapi/linux/if_packet.h
BATCH = 32
"""Frames for each system call."""

VICTIM = bytes.fromhex("020000000101")
SPOOFED = (*(bytes.fromhex(f"0200000002{n:02x}") for n in range(16)), VICTIM, b"\xff" * 6, bytes(6))


def ipv4(proto: int, payload: bytes, *, ihl: int = 5, total: int | None = None, fragment: int = 0) -> bytes:
    """A header that need not say the truth, and *payload*."""
    length = 20 + len(payload) if total is None else total
    header = struct.pack(">BBHHHBBH", 0x40 | ihl, 0, length & 0xFFFF, 7, fragment, 64, proto, 0)
    return header + b"\x0a\x3a\0\1\x0a\x3a\0\2" + payload


def udp(port: int, payload: bytes) -> bytes:
    """A datagram without a checksum."""
    return struct.pack(">HHHH", 12345, port, 8 + len(payload) & 0xFFFF, 0) + payload


def vxlan(payload: bytes) -> bytes:
    """*payload* in VXLAN, in UDP, in IPv4."""
    return ipv4(17, udp(4789, struct.pack(">II", 0x0800_0000, 77 << 8) + payload))


def body(kind: str, rng: random.Random) -> bytes:
    """Ethertype and what follows."""
    noise = rng.randbytes(rng.randrange(80))
    if kind == "noise":
        return rng.randbytes(2) + noise
    if kind == "cut":
        whole = b"\x08\0" + ipv4(6, struct.pack(">HHIIHHHH", 1, 2, 3, 4, 0x5010, 9, 0, 0))
        return whole[: rng.randrange(2, len(whole))]
    if kind == "header lies":
        return b"\x08\0" + ipv4(rng.choice((1, 6, 17, 132)), noise, ihl=rng.randrange(16), total=rng.randrange(65536))
    if kind == "fragments":
        return b"\x08\0" + ipv4(17, noise, fragment=rng.choice((0x2000, 0x2001, 1, 0x1FFF, 0x3FFF)))
    if kind == "extensions":
        kinds = (0, 43, 44, 60)
        chain = (bytes((rng.choice(kinds), rng.randrange(3))) + bytes(6) for _ in range(rng.randrange(12)))
        headers = bytes(32) + b"".join(chain)
        return b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(headers) - 32, rng.choice(kinds), 1) + headers
    if kind == "tags":
        # What ends inside its first tag the kernel drops before anything of ours sees it (skb_vlan_untag).
        tags = [rng.choice((b"\x81\0", b"\x88\xa8")) + rng.randbytes(2) for _ in range(rng.randrange(2, 30))]
        return b"".join(tags) + (b"\x08\0" + ipv4(17, noise) if rng.random() < 0.7 else b"")
    inner = SPOOFED[0] + VICTIM + b"\x08\0" + ipv4(17, udp(9, noise))
    for _ in range(rng.randrange(1, 6)):
        inner = SPOOFED[0] + VICTIM + b"\x08\0" + vxlan(inner)
    return b"\x08\0" + vxlan(inner)[: rng.choice((10_000, rng.randrange(30, 90)))]


KINDS = ("noise", "cut", "header lies", "fragments", "extensions", "tags", "tunnels")


class Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    ]


def send(device: str, frames: list[bytes], rate: int) -> list[bytes]:
    """Send *frames*, *rate* a second (0: as fast as one processor can): those that went out."""
    vectors, messages = (Vector * len(frames))(), (Message * len(frames))()
    for frame, vector, message in zip(frames, vectors, messages, strict=True):
        vector.base, vector.length = frame, len(frame)
        message.vectors, message.vector_count = ctypes.addressof(vector), 1
    libc, at, refused = ctypes.CDLL(None, use_errno=True), 0, set[int]()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, 0))
        sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        began = time.monotonic()
        while at < len(frames):
            some = min(BATCH, len(frames) - at)
            if rate:
                time.sleep(max(0, began + at / rate - time.monotonic()))
            sent = libc.sendmmsg(sender.fileno(), ctypes.byref(messages, at * ctypes.sizeof(Message)), some, 0)
            if sent < 0:  # one that the kernel does not take
                refused.add(at)
            at += max(sent, 1)
    return [frame for number, frame in enumerate(frames) if number not in refused]


def hurry() -> None:
    """Have a processor when there is something to send, as a guest with processors of its own has."""
    with contextlib.suppress(OSError):
        os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")


def main() -> None:
    """Send."""
    device, own, count, seed, rate, *learn = sys.argv[1:]
    rng = random.Random(int(seed))
    mac = bytes.fromhex(own.replace(":", ""))
    others = (*(bytes.fromhex(f"02000003{n:04x}") for n in range(1000)), b"\xff" * 6) if learn else SPOOFED
    frames = [
        rng.choice(SPOOFED) + (mac if rng.random() < 0.5 else rng.choice(others)) + body(rng.choice(KINDS), rng)
        for _ in range(int(count))
    ]
    hurry()
    sent = Counter("own" if frame[6:12] == mac else "spoofed" for frame in send(device, frames, int(rate)))
    print(json.dumps(sent | Counter(total=sent.total())))


if __name__ == "__main__":
    main()
