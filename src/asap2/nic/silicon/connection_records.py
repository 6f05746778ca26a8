# SPDX-License-Identifier: Apache-2.0
"""The memory of connections that user space shares with connection_records.h, and default timeouts."""

from __future__ import annotations

import ctypes
from typing import Final

from asap2.nic.silicon.abi import KEEP_MOST, POLICY_NAME, POLICY_TIMEOUTS, Policy

u16, u32, u64 = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64

_DAY: Final = 86400
TIMEOUTS: Final = {
    Policy.TCP: (120, 120, 60, 5 * _DAY, 120, 60, 30, 120, 10, 120, 0, 0, 300, 300),
    Policy.UDP: (30, 120),
    Policy.UDPLITE: (30, 120),
    Policy.ICMP: (30,),
    Policy.ICMPV6: (30,),
    Policy.SCTP: (10, 10, 3, 3, 210, 3, 3, 3, 30),
    Policy.GRE: (30, 180),
    Policy.GENERIC: (600,),
}
"""Default timeouts by state, in seconds, as in the kernel (``nf_conntrack_*_timeout_*``)."""


class TupleRecord(ctypes.Structure):
    """``struct tuple``: addresses with IPv4 in the last octets, ports in network byte order, zone in the machine's."""

    src: ctypes.Array[ctypes.c_uint8]
    dst: ctypes.Array[ctypes.c_uint8]
    src_port: int
    dst_port: int
    zone: int
    proto: int
    family: int
    _fields_ = [
        ("src", ctypes.c_uint8 * 16),
        ("dst", ctypes.c_uint8 * 16),
        ("src_port", u16),
        ("dst_port", u16),
        ("zone", u16),
        ("proto", ctypes.c_uint8),
        ("family", ctypes.c_uint8),
    ]


class TcpEndRecord(ctypes.Structure):
    """``struct tcp_end``: the state of one end of a TCP connection."""

    scale: int
    flags: int
    _fields_ = [
        *((name, u32) for name in ("end", "max_end", "max_window", "max_ack")),
        ("scale", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("unused", u16),
    ]


class TcpRecord(ctypes.Structure):
    """``struct tcp_connection``."""

    seen: ctypes.Array[TcpEndRecord]
    state: int
    _fields_ = [
        ("seen", TcpEndRecord * 2),
        *((name, ctypes.c_uint8) for name in ("state", "last_dir", "retrans", "last_kind")),
        *((name, u32) for name in ("last_seq", "last_ack", "last_end")),
        ("last_window", u16),
        ("last_scale", ctypes.c_uint8),
        ("last_flags", ctypes.c_uint8),
    ]


class SctpRecord(ctypes.Structure):
    """``struct sctp_connection``."""

    vtag: ctypes.Array[ctypes.c_uint32]
    state: int
    _fields_ = [
        ("vtag", u32 * 2),
        ("state", ctypes.c_uint8),
        ("init", ctypes.c_uint8 * 2),
        ("last_dir", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
    ]


class _ProtocolRecord(ctypes.Union):
    tcp: TcpRecord
    sctp: SctpRecord
    stream: int
    _fields_ = [("tcp", TcpRecord), ("sctp", SctpRecord), ("stream", u64), ("proto", u64 * 8)]


class ConnectionRecord(ctypes.Structure):
    """``struct connection``: times are ns of CLOCK_MONOTONIC; *status* is 0 if there is none, else of
    :class:`asap2.nic.conntrack.states.Status`."""

    original: TupleRecord
    reply: TupleRecord
    expires: int
    started: int
    status: int
    mark: int
    labels: ctypes.Array[ctypes.c_uint8]
    id: int
    master: int
    packets: ctypes.Array[ctypes.c_uint64]
    bytes: ctypes.Array[ctypes.c_uint64]
    used: int
    event_mask: int
    policy: int
    helper: int
    tcp: TcpRecord
    sctp: SctpRecord
    stream: int
    _anonymous_ = ("_protocol",)
    _fields_ = [
        ("original", TupleRecord),
        ("status", u32),
        ("mark", u32),
        ("expires", u64),
        ("used", u64),
        ("reply", TupleRecord),
        ("event_mask", u32),
        ("policy", ctypes.c_uint8),
        ("helper", ctypes.c_uint8),
        ("mapped", ctypes.c_uint8),
        ("unused", ctypes.c_uint8),
        ("uncounted", u32),
        ("holders", u32),
        ("more_unused", ctypes.c_uint8 * 8),
        ("packets", u64 * 2),
        ("bytes", u64 * 2),
        ("labels", ctypes.c_uint8 * 16),
        ("started", u64),
        ("id", u32),
        ("master", u32),
        ("_protocol", _ProtocolRecord),
    ]


class KeptRecord(ctypes.Structure):
    """``struct kept``: a record's number, and its connection's id."""

    at: int
    id: int
    _fields_ = [("at", u32), ("id", u32)]


class KeepingRecord(ctypes.Structure):
    """``struct keeping``: a request to change connections (:class:`.abi.Keep`), and its result."""

    what: int
    count: int
    result: int
    kept: ctypes.Array[KeptRecord]
    connection: ConnectionRecord
    _fields_ = [
        ("what", u32),
        ("count", u32),
        ("result", ctypes.c_int32),
        ("kept", KeptRecord * KEEP_MOST),
        ("connection", ConnectionRecord),
    ]


class TrackerRecord(ctypes.Structure):
    """``struct tracker``: state shared by all connections."""

    count: int
    max: int
    next: int
    ids: int
    events: int
    translated: int
    liberal: int
    loose: int
    max_retrans: int
    ignore_rst: int
    checksum: int
    expecting: int
    acct: int
    timestamp: int
    _fields_ = [
        *((name, u32) for name in ("count", "max", "next", "ids", "events", "translated")),
        *((name, ctypes.c_uint8) for name in ("liberal", "loose", "max_retrans", "ignore_rst")),
        ("expecting", u32),
        *((name, ctypes.c_uint8) for name in ("checksum", "acct", "timestamp")),
        ("unused", ctypes.c_uint8 * 5),
    ]


class ExpectationRecord(ctypes.Structure):
    """``struct expectation``."""

    reply: TupleRecord
    expires: int
    master: int
    master_id: int
    status: int
    _fields_ = [
        ("reply", TupleRecord),
        ("expires", u64),
        *((name, u32) for name in ("master", "master_id", "status", "unused")),
    ]


class ZoneRecord(ctypes.Structure):
    """``struct zone``: the number of connections in a zone and, if *limited*, its limit."""

    count: int
    limit: int
    limited: int
    _fields_ = [(name, u32) for name in ("count", "limit", "limited", "hand")]


class PolicyRecord(ctypes.Structure):
    """``struct policy``: timeouts by state, in seconds."""

    seconds: ctypes.Array[ctypes.c_uint32]
    name: bytes
    family: int
    protocol: int
    _fields_ = [
        ("seconds", u32 * POLICY_TIMEOUTS),
        ("name", ctypes.c_char * POLICY_NAME),
        ("family", u16),
        ("protocol", ctypes.c_uint8),
        ("unused", ctypes.c_uint8 * 5),
    ]


class TrackerStatsRecord(ctypes.Structure):
    """``struct tracker_stats`` of one CPU: the kernel's nf_conntrack_stat."""

    _fields_ = [
        (name, u64)
        for name in (
            *("found", "invalid", "insert", "insert_failed", "drop", "early_drop", "error", "clash", "carried"),
        )
    ]
