# SPDX-License-Identifier: Apache-2.0
"""The memory that user space shares with eswitch.bpf.c: its structures, and matches to and from them."""

from __future__ import annotations

import ctypes
import sys

from asap2.nic.rules import FIELD_BITS, Masked, Match
from asap2.nic.silicon.ports import MAX_TABLES

MAX_LOOKUPS = 8
MAX_MASKS = 65536
MAX_ACTIONS = 512
DROP_REASONS = 16
TRACE_BYTES = 4096
TEST_SLOT = 0
"""The slot of tunnels that no rule has: for metadata of a packet that is traced."""
UPCALL_SLOTS = 8192
UPCALL_UNIT = 2048
NEAR = 4096
UPCALL_MAGIC = 0xA5A0_0000
UPCALL_MAGIC_MASK = 0xFFF0_0000

PORT_ENABLED, PORT_INTERNAL, PORT_PEER, PORT_PEER_ANY, PORT_INGRESS, PORT_KNOWN = 1, 2, 4, 8, 16, 32
PORT_WIRE, PORT_METADATA, PORT_RESUME, PORT_BEHIND, PORT_ARRIVED = 64, 128, 256, 512, 1024
EVENT_MATCH, EVENT_SEND, EVENT_UPCALL, EVENT_PASS, EVENT_DROP = range(5)
OP_OUTPUT, OP_PUSH_VLAN, OP_POP_VLAN, OP_MODIFY_VLAN, OP_DROP, OP_GOTO, OP_UPCALL, OP_PASS, OP_TRUNCATE = range(1, 10)
OP_SET, OP_ENCAP, OP_DECAP, OP_SET_TUNNEL, OP_ENTER, OP_CLONE, OP_SAMPLE, OP_CHECK_LENGTH, OP_DEC_TTL = range(10, 19)
OP_HASH, OP_SET_META, OP_PUSH_MPLS, OP_POP_MPLS, OP_PUSH_ETHERNET, OP_POP_ETHERNET, OP_PUSH_NSH, OP_POP_NSH = range(
    19, 27
)
OP_ADD = 27
LAYER_ETH, LAYER_IPV4, LAYER_IPV6, LAYER_L4, LAYER_ADDRESS_LOW, LAYER_MPLS, LAYER_SCTP = range(7)
ENTRY_MARK = 0xA5C0_0000
"""Mark of a packet that user space hands in (:class:`EntryRecord`)."""
OUTER_MAX = 96
LAST_STAGE = 254
"""Behind all tables of a port: where a lookup finds nothing there, the port's miss decides."""
TUNNEL_PORTS = 8
"""UDP ports that VXLAN may come to besides 4789."""
RESUMES = 65536
DELIVER = 0xFFFF_FFFF

u16, u32, u64 = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64

FIELDS_SIZE = 128
_PLACES: dict[str, tuple[int, int]] = {
    "eth_dst": (0, 6),
    "eth_type": (6, 2),
    "eth_src": (8, 6),
    "vlan_tpid": (14, 2),
    "vlan_tci": (16, 2),
    "cvlan_tci": (18, 2),
    "ip_proto": (20, 1),
    "ip_tos": (21, 1),
    "ip_ttl": (22, 1),
    "ip_frag": (23, 1),
    "cvlan_tpid": (24, 1),
    "ipv6_label": (25, 3),
    "l4_src": (28, 2),
    "l4_dst": (30, 2),
    "ip_src": (32, 16),
    "ip_dst": (48, 16),
    "arp_sha": (64, 6),
    "tcp_flags": (70, 2),
    "arp_tha": (72, 6),
    "nd_target": (80, 16),
    "mpls_lse1": (80, 4),
    "mpls_lse2": (84, 4),
    "mpls_lse3": (88, 4),
    "mpls_labels": (92, 1),
    "nsh_flags": (80, 1),
    "nsh_ttl": (81, 1),
    "nsh_mdtype": (82, 1),
    "nsh_np": (83, 1),
    "nsh_path": (84, 4),
    "nsh_context": (88, 16),
    "dp_hash": (112, 4),
    "skb_mark": (116, 4),
    "skb_priority": (120, 4),
}
"""Offset and size of each field in ``struct fields``, big-endian."""

_TUNNEL_PLACES: dict[str, tuple[int, int]] = {
    "tun_tos": (64, 1),
    "tun_ttl": (65, 1),
    "tun_id": (66, 4),
    "tun_flags": (72, 2),
    "tun_tp_dst": (78, 2),
    "tun_src": (80, 16),
    "tun_dst": (96, 16),
}
"""The same of a packet in a tunnel; they lie over :data:`HIDDEN_IN_TUNNEL`."""

_MPLS_FIELDS = frozenset({"mpls_lse1", "mpls_lse2", "mpls_lse3", "mpls_labels"})
_NSH_FIELDS = frozenset({"nsh_flags", "nsh_ttl", "nsh_mdtype", "nsh_np", "nsh_path", "nsh_context"})
OVERLAID: dict[str, tuple[int, ...]] = {
    "nd_target": (0x86DD,),
    **dict.fromkeys(_MPLS_FIELDS, (0x8847, 0x8848)),
    **dict.fromkeys(_NSH_FIELDS, (0x894F,)),
}
"""Fields that share their place: a rule that matches on one matches on one of these ethertypes."""

HIDDEN_IN_TUNNEL = frozenset({"arp_sha", "arp_tha"}) | OVERLAID.keys()
"""What cannot be matched inside a tunnel."""

_NO_ETHERNET, _IN_TUNNEL_FLAG = 124, 125
"""Where a ``struct fields`` tells that the packet has no Ethernet header, and that it came out of a tunnel."""

_IN_TUNNEL = {name: place for name, place in _PLACES.items() if name not in HIDDEN_IN_TUNNEL} | _TUNNEL_PLACES
_SHIFTS = {name: 8 * (FIELDS_SIZE - at - size) for name, (at, size) in (_PLACES | _TUNNEL_PLACES).items()}

UNSUPPORTED_FIELDS = frozenset(FIELD_BITS) - _SHIFTS.keys()
"""Fields of the vocabulary that the key has no room for."""

TUNNEL_LIST = 0x2000_0000
"""Bit of a table: the list of its rules that match on a tunnel."""


_NARROW = ((0, 32), (40, 48), (56, 64))
"""Where, in ``struct fields``, all is that rules on Ethernet, IPv4 and ports match on."""


def wide(mask: bytes) -> bool:
    """Whether a mask of ``struct fields`` has bits elsewhere than IPv4 rules have them: the program skips the rest."""
    rest = bytearray(mask)
    for start, end in _NARROW:
        rest[start:end] = bytes(end - start)
    return any(rest)


def place(name: str) -> tuple[int, int]:
    """Offset and size (octets) of a field in ``struct fields``, where it is big-endian."""
    at, size = _PLACES.get(name) or _TUNNEL_PLACES[name]
    return at, size


def in_tunnel(match: Match) -> bool:
    """Whether *match* is for packets in a tunnel: it matches on one of its fields."""
    return not _TUNNEL_PLACES.keys().isdisjoint(match.used())


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
        ("tables", u32 * MAX_TABLES),
        ("mac", ctypes.c_uint8 * 6),
        ("kind", u16),
        ("hints", u32 * (2 * MAX_TABLES)),
        ("given", u64),
        ("taken", u64),
        ("refused", u64),
        ("since", u64),
        ("delivered", u64),
        ("failed", u64),
    ]


class EntryRecord(ctypes.Structure):
    """``struct entry``: how a packet that user space hands in goes on."""

    slot: int
    table: int
    cell: int
    tunnel: int
    mark: int
    priority: int
    hash: int
    dp_hash: int
    no_ethernet: int
    has_hash: int
    stage: int
    _fields_ = [
        *((name, u32) for name in ("active", "slot", "table", "cell", "tunnel", "mark", "priority", "hash")),
        *((name, u32) for name in ("dp_hash", "max_len", "given_tunnel", "arrived")),
        *((name, ctypes.c_uint8) for name in ("no_ethernet", "layered", "released", "lookups")),
        *((name, ctypes.c_uint8) for name in ("depth", "single", "has_hash", "stage")),
    ]


class HeadRecord(ctypes.Structure):
    """``struct head``: the list of masks of one (table, in port)."""

    generation: int
    table: int
    in_port: int
    first: int
    merged: int
    _fields_ = [("generation", u64), ("table", u32), ("in_port", u32), ("first", u32), ("merged", u32)]


class NodeRecord(ctypes.Structure):
    """``struct node``: one mask of a list."""

    next: int
    head: int
    priority: int
    wide: int
    mask: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("next", u32),
        ("head", u32),
        ("priority", u32),
        ("wide", u32),
        ("mask", ctypes.c_uint8 * FIELDS_SIZE),
    ]


class RuleRecord(ctypes.Structure):
    """``struct rule``."""

    node: int
    actions: int
    _fields_ = [("node", u32), ("actions", u32)]


class CellRecord(ctypes.Structure):
    """``struct cell``: one action, and the list that follows it."""

    next: int
    op: int
    arg: int
    _fields_ = [("next", u32), ("op", u32), ("arg", u64)]


class EncapRecord(ctypes.Structure):
    """``struct encap``: outer headers (*kind* 1) or tunnel metadata (*kind* 2)."""

    len: int
    ip: int
    udp: int
    kind: int
    header: ctypes.Array[ctypes.c_uint8]
    _fields_ = [("len", u16), ("ip", u16), ("udp", u16), ("kind", u16), ("header", ctypes.c_uint8 * OUTER_MAX)]


class ResumeRecord(ctypes.Structure):
    """``struct resume``: where the node goes on with a packet of its NIC's."""

    table: int
    slot: int
    _fields_ = [("table", u32), ("slot", u32)]


class CountRecord(ctypes.Structure):
    """``struct count``: one rule's counters in one shard."""

    packets: int
    bytes: int
    used: int
    _fields_ = [("packets", u64), ("bytes", u64), ("used", u64), ("unused", u64)]


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
    key: ctypes.Array[ctypes.c_uint8]
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
        ("key", ctypes.c_uint8 * FIELDS_SIZE),
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
    upcall_limit: int
    failed: int
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
        ("upcall_limit", u32),
        ("upcalls", u32),
        ("failed", u64),
    ]


class TraceRecord(ctypes.Structure):
    """``struct trace``: what happened, the tunnel's metadata, and the packet. :mod:`.tracing` reads it."""

    _fields_ = [("head", u64 * 4), ("key", u32 * 11), ("unused", u32), ("data", ctypes.c_uint8 * TRACE_BYTES)]


TRACE_SIZE = ctypes.sizeof(TraceRecord)


class Constants(ctypes.Structure):
    """The program's constants, set before it is loaded."""

    rules: int
    shards: int
    shared: int
    cpus: int
    buckets: int
    wide_buckets: int
    bloom: int
    tracing: int
    _fields_ = [
        (name, u32) for name in ("rules", "shards", "shared", "cpus", "buckets", "wide_buckets", "bloom", "tracing")
    ]


def encode_match(match: Match) -> tuple[bytes, bytes]:
    """Mask and value of *match* as ``struct fields``."""
    mask = value = 0
    for name, masked in match.used().items():
        shift = _SHIFTS[name]
        mask |= masked.mask << shift
        value |= masked.value << shift
    return mask.to_bytes(FIELDS_SIZE, "big"), value.to_bytes(FIELDS_SIZE, "big")


def decode_match(mask: bytes, value: bytes, *, tunnel: bool = False) -> Match:
    """The inverse of :func:`encode_match`, of a match for packets in a *tunnel* or for others."""
    used = {}
    for name, (at, size) in _places(value, tunnel=tunnel).items():
        bits = int.from_bytes(mask[at : at + size], "big")
        if bits:
            used[name] = Masked(int.from_bytes(value[at : at + size], "big"), bits)
    return Match(**used)


def _places(data: bytes, *, tunnel: bool) -> dict[str, tuple[int, int]]:
    """The fields that a ``struct fields`` has: of those that share a place, what its ethertype says."""
    if tunnel:
        return _IN_TUNNEL
    eth_type = int.from_bytes(data[6:8], "big")
    return {name: at for name, at in _PLACES.items() if name not in OVERLAID or eth_type in OVERLAID[name]}


def has_tunnel(data: bytes) -> bool:
    """Whether a ``struct fields`` is that of a packet in a tunnel."""
    return bool(data[_IN_TUNNEL_FLAG])


def has_ethernet(data: bytes) -> bool:
    """Whether a ``struct fields`` is that of a packet with an Ethernet header."""
    return not data[_NO_ETHERNET]


def decode_fields(data: bytes) -> dict[str, int]:
    """The values in a ``struct fields``, by name; those of a tunnel when there is one."""
    places = _places(data, tunnel=has_tunnel(data))
    return {name: int.from_bytes(data[at : at + size], "big") for name, (at, size) in places.items()}


def encode_fields(values: dict[str, int]) -> bytes:
    """The inverse of :func:`decode_fields`."""
    packed = 0
    for name, shift in _SHIFTS.items():
        packed |= values.get(name, 0) << shift
    if not _TUNNEL_PLACES.keys().isdisjoint(values):
        packed |= 1 << 8 * (FIELDS_SIZE - 1 - _IN_TUNNEL_FLAG)
    return packed.to_bytes(FIELDS_SIZE, "big")
