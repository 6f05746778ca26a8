# SPDX-License-Identifier: Apache-2.0
"""The connections of the eBPF program and of the reference, in one form."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass

from asap2.nic.conntrack.connection import Connection
from asap2.nic.conntrack.states import SCTP, TCP, UDP, SctpState, Status, TcpFlag, TcpState
from asap2.nic.conntrack.tracker import Tracker
from asap2.nic.conntrack.tuples import Tuple
from asap2.nic.silicon.connection_records import ConnectionRecord, TupleRecord
from asap2.nic.silicon.pipeline import Pipeline


@dataclass(frozen=True, order=True)
class Told:
    """What is known of a connection."""

    zone: int
    original: str
    reply: str
    status: str
    expires: int
    mark: int
    labels: int
    packets: tuple[int, ...]
    octets: tuple[int, ...]
    protocol: str


def of_reference(tracker: Tracker) -> list[Told]:
    """All that have not expired."""
    return sorted(map(told, tracker.connections()))


def told(one: Connection) -> Told:
    """What is known of a connection of the reference."""
    protocol = ""
    if one.proto == TCP:
        tcp = one.tcp
        last = (tcp.last_dir, tcp.last_index.name, tcp.last_seq, tcp.last_ack, tcp.last_end, tcp.last_win)
        sides = [(s.end, s.maxend, s.maxwin, s.maxack, s.scale, int(s.flags)) for s in tcp.seen]
        protocol = f"{tcp.state.name} {sides} {last} {tcp.retrans} {tcp.last_scale} {int(tcp.last_flags)}"
    elif one.proto == SCTP:
        protocol = f"{one.sctp.state.name} {one.sctp.tags} {[int(i) for i in one.sctp.init]}"
    elif one.proto == UDP:
        protocol = f"a stream from {one.stream_from} on"
    return Told(
        *(one.zone, _tuple(one.tuples[0]), _tuple(one.tuples[1]), repr(one.status), one.expires, one.mark, one.labels),
        *(tuple(one.packets), tuple(one.bytes), protocol),
    )


def _tuple(one: Tuple) -> str:
    return f"{one.proto} {one.src.hex()}:{one.sport:x} > {one.dst.hex()}:{one.dport:x}"


def of_program(pipeline: Pipeline, now: int) -> list[Told]:
    """All that have not expired."""
    layout = pipeline._layout
    records = (layout.connections[at] for at in range(1, layout.tracker.next))
    return sorted(_of_record(one) for one in records if one.status & Status.CONFIRMED and one.expires > now)


def record_of(pipeline: Pipeline, wanted: Told, now: int) -> int:
    """The number of the record of a connection; 0: there is none."""
    layout = pipeline._layout
    for at in range(1, layout.tracker.next):
        one = layout.connections[at]
        if one.status & Status.CONFIRMED and one.expires == wanted.expires > now and _of_record(one) == wanted:
            return at
    return 0


def _of_record(one: ConnectionRecord) -> Told:
    proto, protocol = one.original.proto, ""
    if proto == TCP:
        tcp = one.tcp
        kinds = ("SYN", "SYNACK", "FIN", "ACK", "RST", "NONE")
        last = (tcp.last_dir, kinds[tcp.last_kind], tcp.last_seq, tcp.last_ack, tcp.last_end, tcp.last_window)
        sides = [(s.end, s.max_end, s.max_window, s.max_ack, s.scale, s.flags) for s in tcp.seen]
        state = TcpState(tcp.state).name
        protocol = f"{state} {sides} {last} {tcp.retrans} {tcp.last_scale} {int(TcpFlag(tcp.last_flags))}"
    elif proto == SCTP:
        sctp = one.sctp
        tags = [int.from_bytes(int(tag).to_bytes(4, "little"), "big") for tag in sctp.vtag]
        protocol = f"{SctpState(sctp.state).name} {tags} {list(sctp.init)}"
    elif proto == UDP:
        protocol = f"a stream from {one.stream} on"
    return Told(
        *(one.original.zone, _of_tuple(one.original), _of_tuple(one.reply), repr(Status(one.status)), one.expires),
        *(one.mark, int.from_bytes(bytes(one.labels), "big"), tuple(one.packets), tuple(one.bytes), protocol),
    )


def _of_tuple(one: TupleRecord) -> str:
    start = 12 if one.family == 4 else 0
    sport, dport = (int.from_bytes(int(port).to_bytes(2, "little"), "big") for port in (one.src_port, one.dst_port))
    src, dst = bytes(one.src)[start:].hex(), bytes(one.dst)[start:].hex()
    return f"{one.proto} {src}:{sport:x} > {dst}:{dport:x}"


def forget(pipeline: Pipeline, zones: Iterable[int]) -> None:
    """Leave the program without connections; they were in these *zones*."""
    layout = pipeline._layout
    for keyed in (layout.tuples, layout.sources, layout.expectations):
        for key, _ in list(keyed.items()):
            keyed.delete(key)
    for at in range(1, layout.tracker.next):
        layout.connections[at].status = layout.connections[at].holders = 0
    for zone in zones:
        layout.zones[zone].count = 0
    number, pop = ctypes.c_uint32(), ctypes.CDLL("libbpf.so.1").bpf_map_lookup_and_delete_elem
    while pop(layout.free_connections.fd, None, ctypes.byref(number)) == 0:
        pass  # a number that is free: all are now
    layout.tracker.count = layout.tracker.translated = layout.tracker.expecting = 0
    layout.tracker.next = 1
