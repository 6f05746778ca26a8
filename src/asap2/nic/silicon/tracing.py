# SPDX-License-Identifier: Apache-2.0
"""What a program loaded for tracing would do with a packet: it is run on bytes, without a network."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from asap2.nic.fields import KEY_SIZE
from asap2.nic.rules import SetTunnel
from asap2.nic.silicon import abi, maps
from asap2.nic.silicon.encaps import metadata
from asap2.nic.silicon.events import Dropped, DropReason, Event, Matched, Passed, Sampled, Sent, Upcalled, UpcallKind
from asap2.nic.silicon.loader import TestRun
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.samples import Samples

_MINIMUM = 14 + 40
"""BPF_PROG_TEST_RUN takes no packet that ends in its IP header; a shorter one is cut in the program."""

_TRACE = struct.Struct(f"=IIQIIIII16sBB2sI16sI{abi.OPTIONS_MAX}s")
"""``struct trace`` without the packet; the tunnel's part is ``struct bpf_tunnel_key``."""
_UPCALL = struct.Struct(f"=IIIIQIIIIQ8x{KEY_SIZE}s8x{abi.OPTIONS_MAX}x")
_CSUM, _KEY, _SEQ, _DONT_FRAGMENT = 0x01, 0x04, 0x08, 0x100
"""Bits of ``tunnel_flags`` (include/uapi/linux/if_tunnel.h); a sequence number marks what a packet came in with."""


class Tracing:
    """Runs the program of a pipeline, one packet at a time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._run = TestRun(layout.program)
        self._traces = memoryview(layout.traces).cast("B")
        self._upcalls = memoryview(layout.upcalls).cast("B")
        self._size = maps.TRACE_SIZE
        self._incoming: SetTunnel | None = None
        self._samples = Samples(layout.samples)
        layout.config.sampled = 1

    def process(
        self,
        frame: bytes,
        ifindex: int,
        tag: tuple[int, int] | None,
        segments: int,
        flow_hash: int,
        tunnel: SetTunnel | None,
        resume: int,
        tracked: Mapping[str, int],
        carried: tuple[int, int] | None,
        now: int,
    ) -> list[Event]:
        """As :meth:`asap2.nic.silicon.pipeline.Pipeline.trace`."""
        config = self._layout.config
        config.traced = 0
        config.test_ifindex = ifindex
        config.test_tpid, config.test_tci = tag or (0, 0)
        config.test_hash = flow_hash
        config.test_resume, config.test_restore = resume, maps.carried(*carried) if carried else 0
        config.test_now = now
        config.test_tracked[:] = list(maps.encode_tracked(tracked))
        if len(frame) < _MINIMUM:
            config.test_len = len(frame)
            frame = frame.ljust(_MINIMUM, b"\0")
        else:
            config.test_len = 0
        if tunnel != self._incoming:
            config.test_tunnel = tunnel is not None
            if tunnel is not None:
                self._layout.encaps[abi.TEST_SLOT].header[:] = metadata(tunnel)
            self._incoming = tunnel
        self._samples.discard()
        self._run.on(frame, segments)
        return [self._event(at * self._size) for at in range(min(config.traced, len(self._layout.traces)))]

    def _sample(self) -> Sampled:
        ((_, sampled),) = self._samples.read(1)
        return sampled

    def _event(self, at: int) -> Event:
        event, arg, cookie, table, vlan, length, tunnel, *key = _TRACE.unpack_from(self._traces, at)
        if event == abi.EVENT_MATCH:
            return Matched(arg, table)
        if event == abi.EVENT_DROP:
            return Dropped(DropReason(arg))
        at += _TRACE.size
        frame = bytes(self._traces[at : at + min(length, abi.TRACE_BYTES)])
        if vlan:
            frame = frame[:12] + vlan.to_bytes(4, "big") + frame[12:]
        if event == abi.EVENT_SEND:
            return Sent(arg, frame, _tunnel(tunnel, *key) if tunnel else None, cookie)
        if event == abi.EVENT_SAMPLE:
            return self._sample()
        if event == abi.EVENT_PASS:
            return Passed(frame)
        _, kind, in_port, table, cookie, _, _, max_length, _, _, fields = _UPCALL.unpack_from(
            self._upcalls, arg % abi.UPCALL_SLOTS * _UPCALL.size
        )
        known = {name: value for name, value in maps.decode_fields(fields).items() if value}
        if kind in (UpcallKind.FRAGMENT, UpcallKind.HELPER):
            cookie = 0  # it names places in the program's memory
        return Upcalled(UpcallKind(kind), in_port, table, cookie, max_length, frame, known)


def _tunnel(
    size: int,
    tun_id: int,
    remote: bytes,
    tos: int,
    ttl: int,
    flags: bytes,
    _label: int,
    local: bytes,
    length: int,
    options: bytes,
) -> SetTunnel | None:
    """Metadata that an action has given; ``None`` for what the packet came in with. An IPv4 address is a number there.

    The kernel calls remote what is the source, as a receiver does.
    """
    bits = int.from_bytes(flags, "big")
    if bits & _SEQ:
        return None
    source, destination = remote[:size], local[:size]
    if size == 4:
        source, destination = (struct.pack(">I", *struct.unpack("=I", one)) for one in (source, destination))
    known = bool(bits & _CSUM), bool(bits & _DONT_FRAGMENT), options[:length], bool(bits & _KEY)
    return SetTunnel(tun_id, source, destination, tos, ttl, 0, *known)
