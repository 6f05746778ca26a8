# SPDX-License-Identifier: Apache-2.0
"""Packets that the program has sampled: what an action asks for (``struct sampling``), and the ring buffer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from asap2.nic.rules import Psample, SetTunnel
from asap2.nic.silicon.abi import OPTIONS_MAX, SampleFlag
from asap2.nic.silicon.events import Sampled
from asap2.nic.silicon.loader import Map
from asap2.nic.silicon.ringbuffer import RingBuffer

_SAMPLING = struct.Struct("=IIIIIIHH16sBBHI16s16s")
_SAMPLE = struct.Struct("=QIIHHHH")
"""``struct sample`` up to the tunnel's key: the time in nanoseconds, length and octets that follow, the packet's type,
octets of an address of its tunnel, that tunnel's port, octets of its options. Then come ``struct bpf_tunnel_key``,
``struct sampling``, and room for options."""
_KEY = struct.Struct("=I16sBB2sI16s")
"""``struct bpf_tunnel_key``, in which an IPv4 address is a number. What the kernel calls remote is the source, as a
receiver does."""
_OPTIONS: Final = _SAMPLE.size + _KEY.size + _SAMPLING.size
_DATA: Final = (_OPTIONS + OPTIONS_MAX + 7) & ~7
_CSUM, _ID, _DONT_FRAGMENT = 0x01, 0x04, 0x100
"""Bits of ``tunnel_flags`` (include/uapi/linux/if_tunnel.h)."""
_OWN_TUNNEL: Final = {SampleFlag.TUNNEL_IPV4: 4, SampleFlag.TUNNEL_IPV6: 16}


def pack(action: Psample) -> bytes:
    """*action* as ``struct sampling``."""
    flags = SampleFlag(0)
    for flag, given in (
        (SampleFlag.PROBABILITY, action.probability),
        (SampleFlag.COUNTED, action.counted),
        (SampleFlag.CUT, action.length is not None),
    ):
        flags |= flag if given else SampleFlag(0)
    tunnel = action.tunnel
    if tunnel is not None:
        flags |= SampleFlag.TUNNEL_IPV4 if len(tunnel.dst) == 4 else SampleFlag.TUNNEL_IPV6
    own = tunnel or SetTunnel(0, b"", b"", ttl=0)
    return _SAMPLING.pack(
        *(action.group, action.rate, action.every, action.length or 0, action.ifindex, action.out),
        *(flags, len(action.cookie), action.cookie, own.tos, own.ttl, own.tp_dst, own.tun_id),
        *(own.src.rjust(16, b"\0"), own.dst.rjust(16, b"\0")),
    )


def unpack(data: bytes, offset: int = 0) -> Psample:
    """The inverse of :func:`pack`."""
    group, rate, every, length, ifindex, out, bits, size, cookie, tos, ttl, port, tun_id, src, dst = (
        _SAMPLING.unpack_from(data, offset)
    )
    flags = SampleFlag(bits)
    tunnel = None
    for flag, octets in _OWN_TUNNEL.items():
        if flag in flags:
            tunnel = SetTunnel(tun_id, src[16 - octets :], dst[16 - octets :], tos, ttl, port)
    return Psample(
        group,
        rate,
        every,
        length if SampleFlag.CUT in flags else None,
        ifindex,
        out,
        cookie[:size],
        probability=SampleFlag.PROBABILITY in flags,
        tunnel=tunnel,
        counted=SampleFlag.COUNTED in flags,
    )


def _read(record: bytes) -> tuple[int, Sampled]:
    now, original, length, protocol, octets, port, options = _SAMPLE.unpack_from(record)
    action = unpack(record, _SAMPLE.size + _KEY.size)
    tunnel = action.tunnel
    if tunnel is None and octets:
        tun_id, remote, tos, ttl, bits, _label, local = _KEY.unpack_from(record, _SAMPLE.size)
        ends = remote[:octets], local[:octets]
        source, destination = (end[::-1] for end in ends) if octets == 4 else ends
        flags = int.from_bytes(bits, "big")
        known = bool(flags & _CSUM), bool(flags & _DONT_FRAGMENT), record[_OPTIONS : _OPTIONS + options]
        tunnel = SetTunnel(tun_id, source, destination, tos, ttl, port, *known, bool(flags & _ID))
    return now, Sampled(action, original, protocol, tunnel, record[_DATA : _DATA + length])


class Samples:
    """The ring buffer *map*, of which this is the only reader."""

    def __init__(self, map: Map) -> None:
        self._ring = RingBuffer(map)
        self.fd = map.fd
        """A descriptor that is readable when there are samples."""

    def read(self, most: int) -> Iterator[tuple[int, Sampled]]:
        """The oldest samples, at most so many, each with its time in nanoseconds of CLOCK_MONOTONIC."""
        return map(_read, self._ring.read(most))

    def discard(self) -> None:
        """Forget the samples that are there."""
        for _ in self._ring.read():
            pass
