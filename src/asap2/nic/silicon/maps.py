# SPDX-License-Identifier: Apache-2.0
"""The memory that user space shares with eswitch.bpf.c: its structures, and matches to and from them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from functools import cache

from asap2.nic.fields import BY_NAME, FIELDS, IN_TUNNEL_AT, KEY_SIZE, NARROW, NO_ETHERNET_AT, TRACKED_AT, Width
from asap2.nic.rules import Masked, Match
from asap2.nic.silicon.abi import (
    CARRIED_MAGIC,
    DROP_REASONS,
    OPTION_KINDS,
    OPTIONS_MAX,
    OUTER_MAX,
    STAGES,
    TRACE_BYTES,
    TUNNEL_PORTS,
)

u16, u32, u64 = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64

_OUTSIDE = {field.name: field for field in FIELDS if not field.tunnel}
_IN_TUNNEL = {field.name: field for field in FIELDS if not field.hidden}
_TUNNEL_NAMES = frozenset(field.name for field in FIELDS if field.tunnel)
OVERLAID = {field.name: field.ethertypes for field in FIELDS if field.ethertypes}
"""Fields that share their place: a rule that matches on one matches on one of these ethertypes."""

HIDDEN_IN_TUNNEL = frozenset(field.name for field in FIELDS if field.hidden)
"""What cannot be matched inside a tunnel."""

OVERLAYS = {
    field.name: (other.at + other.size - field.at, other.ethertypes)
    for other in FIELDS
    for field in FIELDS
    if other.ethertypes and not field.ethertypes and field.at == other.at and not (field.tunnel or field.hidden)
}
"""Fields whose first octets are another field's in packets of these ethertypes, in which they have none there: so many
octets. A rule that matches on those octets matches on an ethertype, which is none of these."""

_ETHERTYPES = frozenset(ethertype for field in FIELDS for ethertype in field.ethertypes)
_SHIFTS = {field.name: 8 * (KEY_SIZE - field.at - field.size) for field in FIELDS}


def width(mask: bytes) -> Width:
    """Where a mask of ``struct fields`` has bits: the program skips the rest."""
    rest = bytearray(mask[:TRACKED_AT])
    for start, end in NARROW:
        rest[start:end] = bytes(end - start)
    wide = Width.WIDE if any(rest) else Width.NARROW
    return Width(wide | Width.TRACKED) if any(mask[TRACKED_AT:]) else wide


def place(name: str) -> tuple[int, int]:
    """Offset and size (octets) of a field in ``struct fields``, where it is big-endian."""
    field = BY_NAME[name]
    return field.at, field.size


def in_tunnel(match: Match) -> bool:
    """Whether *match* is for packets in a tunnel: it matches on one of its fields."""
    return not _TUNNEL_NAMES.isdisjoint(match.used())


def word(number: int) -> bytes:
    """*number* as 32 bits in the machine's byte order."""
    return number.to_bytes(4, sys.byteorder)


def number(data: bytes) -> int:
    """The inverse of :func:`word`."""
    return int.from_bytes(data[:4], sys.byteorder)


class PortRecord(ctypes.Structure):
    """``struct port``."""

    id: int
    ifindex: int
    flags: int
    miss: int
    tell: int
    miss_slot: int
    n_tables: int
    slot: int
    tables: ctypes.Array[ctypes.c_uint32]
    mac: ctypes.Array[ctypes.c_uint8]
    kind: int
    given: int
    taken: int
    refused: int
    since: int
    delivered: int
    failed: int
    _fields_ = [
        ("id", u32),
        ("ifindex", u32),
        ("flags", u32),
        ("miss", u16),
        ("tell", u16),
        ("miss_slot", u32),
        ("n_tables", u16),
        ("slot", u16),
        ("tables", u32 * STAGES),
        ("mac", ctypes.c_uint8 * 6),
        ("kind", u16),
        ("hints", u32 * (2 * STAGES)),
        ("behind_hint", u32),
        ("unused", u32),
        ("given", u64),
        ("taken", u64),
        ("refused", u64),
        ("since", u64),
        ("delivered", u64),
        ("failed", u64),
    ]


class ContinuationRecord(ctypes.Structure):
    """``struct continuation``: how a packet that user space hands in goes on."""

    slot: int
    table: int
    entry: int
    tunnel: int
    mark: int
    priority: int
    hash: int
    tracking: int
    dp_hash: int
    mru: int
    no_ethernet: int
    has_hash: int
    stage: int
    tracked: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        *((name, u32) for name in ("active", "slot", "table", "entry", "tunnel", "mark", "priority", "hash")),
        ("tracking", u32),
        ("rest", u32),
        *((name, u32) for name in ("dp_hash", "max_len", "given_tunnel", "arrived")),
        *((name, ctypes.c_uint8) for name in ("no_ethernet", "layered", "released", "lookups")),
        *((name, ctypes.c_uint8) for name in ("depth", "single", "has_hash", "stage")),
        ("tracked", ctypes.c_uint8 * (KEY_SIZE - TRACKED_AT)),
        ("connection", u32),
        ("connection_id", u32),
        ("ct_id", u16),
        ("ct_known", ctypes.c_uint8),
        ("ct_info", ctypes.c_uint8),
        ("enveloped", ctypes.c_uint8),
        ("translated", ctypes.c_uint8),
        ("mru", u16),
    ]


class MaskListRecord(ctypes.Structure):
    """``struct mask_list``: the list of masks of one (table, in port)."""

    generation: int
    table: int
    in_port: int
    first: int
    merged: int
    _fields_ = [("generation", u64), ("table", u32), ("in_port", u32), ("first", u32), ("merged", u32)]


class NodeRecord(ctypes.Structure):
    """``struct node``: one mask of a list."""

    next: int
    list: int
    priority: int
    width: int
    mask: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("next", u32),
        ("list", u32),
        ("priority", u32),
        ("width", u32),
        ("mask", ctypes.c_uint8 * KEY_SIZE),
    ]


class RuleRecord(ctypes.Structure):
    """``struct rule``."""

    node: int
    actions: int
    _fields_ = [("node", u32), ("actions", u32)]


class EntryRecord(ctypes.Structure):
    """``struct entry``: one action, and the list that follows it."""

    next: int
    op: int
    arg: int
    _fields_ = [("next", u32), ("op", u32), ("arg", u64)]


class EncapRecord(ctypes.Structure):
    """``struct encap``: outer headers or tunnel metadata; *kind* is :mod:`.encaps`' own."""

    len: int
    ip: int
    l4: int
    has_udp: int
    kind: int
    header: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        *(("len", u16), ("ip", ctypes.c_uint8), ("l4", ctypes.c_uint8), ("has_udp", u16), ("kind", u16)),
        ("header", ctypes.c_uint8 * OUTER_MAX),
    ]


class ResumeRecord(ctypes.Structure):
    """``struct resume``: where the node goes on with a packet of its NIC's."""

    table: int
    slot: int
    rule: int
    entry: int
    _fields_ = [(name, u32) for name in ("table", "slot", "rule", "entry")]


class CountRecord(ctypes.Structure):
    """``struct count``: one rule's counters in one shard."""

    packets: int
    bytes: int
    used: int
    _fields_ = [("packets", u64), ("bytes", u64), ("used", u64), ("unused", u64)]


class MeterRecord(ctypes.Structure):
    """``struct meter``."""

    full_at: int
    peak_full_at: int
    burst: int
    peak_burst: int
    packets: int
    bytes: int
    over_packets: int
    over_bytes: int
    over: int
    used: int
    owner: int
    mult: int
    shift: int
    peak_mult: int
    peak_shift: int
    most: int
    least: int
    overhead: int
    flags: int
    _fields_ = [
        *((name, u64) for name in ("full_at", "peak_full_at", "burst", "peak_burst", "packets", "bytes")),
        *((name, u64) for name in ("over_packets", "over_bytes", "over", "used", "owner")),
        *((name, u32) for name in ("mult", "shift", "peak_mult", "peak_shift", "most", "least", "overhead", "flags")),
    ]


class StatsRecord(ctypes.Structure):
    """``struct stats`` of one CPU. The pairs are for TC chains and for Open vSwitch tables."""

    drops: ctypes.Array[ctypes.c_uint64]
    hit: ctypes.Array[ctypes.c_uint64]
    missed: ctypes.Array[ctypes.c_uint64]
    probes: ctypes.Array[ctypes.c_uint64]
    cache_hits: ctypes.Array[ctypes.c_uint64]
    _fields_ = [
        ("drops", u64 * DROP_REASONS),
        ("hit", u64 * 2),
        ("missed", u64 * 2),
        ("probes", u64 * 2),
        ("cache_hits", u64 * 2),
    ]


class UpcallRecord(ctypes.Structure):
    """``struct upcall``."""

    mark: int
    kind: int
    in_port: int
    table: int
    cookie: int
    hash: int
    len: int
    max_len: int
    units: int
    at: int
    mru: int
    tunnel: int
    key: ctypes.Array[ctypes.c_uint8]
    options_len: int
    options: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("mark", u32),
        ("kind", u32),
        ("in_port", u32),
        ("table", u32),
        ("cookie", u64),
        ("hash", u32),
        ("len", u32),
        ("max_len", u32),
        ("units", u32),
        ("at", u64),
        ("mru", u32),
        ("tunnel", u32),
        ("key", ctypes.c_uint8 * KEY_SIZE),
        ("options_len", u32),
        ("unused", u32),
        ("options", ctypes.c_uint8 * OPTIONS_MAX),
    ]


class ConfigRecord(ctypes.Structure):
    """``struct config``."""

    upcall_ifindex: int
    test_hash: int
    generation: int
    traced: int
    test_len: int
    test_ifindex: int
    test_tpid: int
    test_tci: int
    test_tunnel: int
    test_resume: int
    max_rules: int
    shards: int
    tunnels: int
    tunnel_ports: ctypes.Array[ctypes.c_uint8]
    option_kinds: ctypes.Array[ctypes.c_uint8]
    upcall_limit: int
    failed: int
    test_tracked: ctypes.Array[ctypes.c_uint8]
    test_now: int
    test_restore: int
    sampled: int
    _fields_ = [
        ("upcall_ifindex", u32),
        ("test_hash", u32),
        ("generation", u64),
        ("traced", u32),
        ("test_len", u32),
        ("test_ifindex", u32),
        ("test_tpid", u32),
        ("test_tci", u32),
        ("test_tunnel", u32),
        ("max_rules", u32),
        ("shards", u32),
        ("test_resume", u32),
        ("tunnels", u16),
        ("tunnel_ports", ctypes.c_uint8 * (2 * TUNNEL_PORTS)),
        ("unused", u16),
        ("option_kinds", ctypes.c_uint8 * (4 * OPTION_KINDS)),
        ("upcall_limit", u32),
        ("upcalls", u32),
        ("failed", u64),
        ("test_tracked", ctypes.c_uint8 * (KEY_SIZE - TRACKED_AT)),
        ("test_now", u64),
        ("test_restore", u32),
        ("sampled", u32),
    ]


class TraceRecord(ctypes.Structure):
    """``struct trace``: what happened, the tunnel's metadata, and the packet. :mod:`.tracing` reads it."""

    _fields_ = [
        ("event", u32),
        ("arg", u32),
        ("cookie", u64),
        *((name, u32) for name in ("table", "vlan", "len", "tunnel")),
        ("key", u32 * 11),
        ("options_len", u32),
        ("options", ctypes.c_uint8 * OPTIONS_MAX),
        ("data", ctypes.c_uint8 * TRACE_BYTES),
    ]


TRACE_SIZE = ctypes.sizeof(TraceRecord)


class Constants(ctypes.Structure):
    """The program's constants, set before it is loaded."""

    rules: int
    shards: int
    shared: int
    cpus: int
    buckets: int
    wide_buckets: int
    stateful_buckets: int
    bloom: int
    notes: int
    tracing: int
    _fields_ = [
        (name, u32)
        for name in (
            *("rules", "shards", "shared", "cpus", "buckets", "wide_buckets", "stateful_buckets", "bloom", "notes"),
            "tracing",
        )
    ]


def encode_match(match: Match) -> tuple[bytes, bytes]:
    """Mask and value of *match* as ``struct fields``."""
    mask = value = 0
    for name, masked in match.used().items():
        shift = _SHIFTS[name]
        mask |= masked.mask << shift
        value |= masked.value << shift
    return mask.to_bytes(KEY_SIZE, "big"), value.to_bytes(KEY_SIZE, "big")


def decode_match(mask: bytes, value: bytes, *, tunnel: bool = False) -> Match:
    """The inverse of :func:`encode_match`, of a match for packets in a *tunnel* or for others."""
    used = {}
    for name, start, end in _places_in(value, tunnel=tunnel):
        bits = int.from_bytes(mask[start:end], "big")
        if bits:
            used[name] = Masked(int.from_bytes(value[start:end], "big"), bits)
    return Match(**used)


@cache
def _places(eth_type: int, tunnel: bool) -> tuple[tuple[str, int, int], ...]:
    """The fields that a ``struct fields`` with this one of :data:`_ETHERTYPES` has: name, start and end of each."""
    overlaid = {name: octets for name, (octets, ethertypes) in OVERLAYS.items() if eth_type in ethertypes}
    return tuple(
        (field.name, field.at + overlaid.get(field.name, 0), field.at + field.size)
        for field in (_IN_TUNNEL if tunnel else _OUTSIDE).values()
        if not field.ethertypes or eth_type in field.ethertypes
    )


def _places_in(data: bytes, *, tunnel: bool) -> tuple[tuple[str, int, int], ...]:
    eth_type = int.from_bytes(data[6:8], "big")
    return _places(eth_type if eth_type in _ETHERTYPES else 0, tunnel)


def has_tunnel(data: bytes) -> bool:
    """Whether a ``struct fields`` is that of a packet in a tunnel."""
    return bool(data[IN_TUNNEL_AT])


_ETH_TYPE, _IP_PROTO, _L4_SRC = (place(name)[0] for name in ("eth_type", "ip_proto", "l4_src"))


def has_ethernet(data: bytes) -> bool:
    """Whether a ``struct fields`` is that of a packet with an Ethernet header."""
    return not data[NO_ETHERNET_AT]


def about_neighbours(data: bytes) -> bool:
    """Whether a ``struct fields`` is that of a packet for which the program keeps room: ARP, neighbour discovery."""
    kind = data[_ETH_TYPE : _ETH_TYPE + 2]
    if kind == b"\x86\xdd" and data[_IP_PROTO] == 58:
        return int.from_bytes(data[_L4_SRC : _L4_SRC + 2], "big") in range(133, 138)
    return kind == b"\x08\x06"


def decode_fields(data: bytes) -> dict[str, int]:
    """The values in a ``struct fields``, by name; those of a tunnel when there is one."""
    places = _places_in(data, tunnel=has_tunnel(data))
    return {name: int.from_bytes(data[start:end], "big") for name, start, end in places}


def encode_fields(values: Mapping[str, int]) -> bytes:
    """The inverse of :func:`decode_fields`."""
    packed = 0
    for name, value in values.items():
        packed |= value << _SHIFTS[name]
    if not _TUNNEL_NAMES.isdisjoint(values):
        packed |= 1 << 8 * (KEY_SIZE - 1 - IN_TUNNEL_AT)
    return packed.to_bytes(KEY_SIZE, "big")


def carried(zone: int, state: int) -> int:
    """What a NIC tells of a packet's connection: its zone, and how it is translated (bits of ``ct_state``)."""
    return (CARRIED_MAGIC | state >> 4) << 16 | zone


def encode_tracked(values: Mapping[str, int]) -> bytes:
    """``struct tracked``: of *values*, the fields of :data:`asap2.nic.fields.TRACKED`."""
    return encode_fields(values)[TRACKED_AT:]
