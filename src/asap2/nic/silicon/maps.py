# SPDX-License-Identifier: Apache-2.0
"""The memory that user space shares with eswitch.bpf.c: its structures, and rules to and from them."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

from asap2.nic.rules import (
    FIELD_BITS,
    Action,
    Drop,
    Goto,
    Masked,
    Match,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    Truncate,
    Upcall,
)
from asap2.nic.silicon.ports import MAX_TABLES

MAX_LOOKUPS = 8
MAX_MASKS = 4096
MAX_ACTIONS = 512
DROP_REASONS = 16
TRACE_BYTES = 1024
UPCALL_SLOTS = 8192
UPCALL_MAGIC = 0xA5A0_0000
UPCALL_MAGIC_MASK = 0xFFF0_0000

PORT_ENABLED, PORT_INTERNAL, PORT_PEER, PORT_PEER_ANY, PORT_INGRESS, PORT_KNOWN = 1, 2, 4, 8, 16, 32
EVENT_MATCH, EVENT_SEND, EVENT_UPCALL, EVENT_PASS, EVENT_DROP = range(5)
OP_OUTPUT, OP_PUSH_VLAN, OP_POP_VLAN, OP_MODIFY_VLAN, OP_DROP, OP_GOTO, OP_UPCALL, OP_PASS, OP_TRUNCATE = range(1, 10)

u16, u32, u64 = ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64

FIELDS_SIZE = 96
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
    "ipv6_label": (24, 4),
    "l4_src": (28, 2),
    "l4_dst": (30, 2),
    "ip_src": (32, 16),
    "ip_dst": (48, 16),
    "arp_sha": (64, 6),
    "tcp_flags": (70, 2),
    "arp_tha": (72, 6),
    "nd_target": (80, 16),
}
"""Offset and size of each field in ``struct fields``, big-endian."""

_SHIFTS = tuple((name, 8 * (FIELDS_SIZE - at - size)) for name, (at, size) in _PLACES.items())

UNSUPPORTED_FIELDS = tuple(name for name in FIELD_BITS if name not in _PLACES)
"""Fields of the vocabulary that the key has no room for."""


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
    miss_slot: int
    n_tables: int
    tables: ctypes.Array[ctypes.c_uint32]
    mac: ctypes.Array[ctypes.c_uint8]
    kind: int
    _fields_ = [
        ("id", u32),
        ("ifindex", u32),
        ("flags", u32),
        ("miss", u32),
        ("miss_slot", u32),
        ("n_tables", u32),
        ("tables", u32 * MAX_TABLES),
        ("mac", ctypes.c_uint8 * 6),
        ("kind", u16),
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
    mask: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("next", u32),
        ("head", u32),
        ("priority", u32),
        ("unused", u32),
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
        ("upcalls", u64),
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
        ("unused", u32),
        ("key", ctypes.c_uint8 * FIELDS_SIZE),
    ]


class ConfigRecord(ctypes.Structure):
    """``struct config``."""

    upcall_ifindex: int
    generation: int
    traced: int
    test_len: int
    test_ifindex: int
    test_tpid: int
    test_tci: int
    max_rules: int
    shards: int
    _fields_ = [
        ("upcall_ifindex", u32),
        ("unused", u32),
        ("generation", u64),
        ("traced", u32),
        ("test_len", u32),
        ("test_ifindex", u32),
        ("test_tpid", u32),
        ("test_tci", u32),
        ("unused2", u32),
        ("max_rules", u32),
        ("shards", u32),
    ]


class TraceRecord(ctypes.Structure):
    """``struct trace``."""

    event: int
    arg: int
    cookie: int
    table: int
    vlan: int
    len: int
    data: ctypes.Array[ctypes.c_uint8]
    _fields_ = [
        ("event", u32),
        ("arg", u32),
        ("cookie", u64),
        ("table", u32),
        ("vlan", u32),
        ("len", u32),
        ("unused", u32),
        ("data", ctypes.c_uint8 * TRACE_BYTES),
    ]


class Constants(ctypes.Structure):
    """The program's constants, set before it is loaded."""

    rules: int
    shards: int
    shared: int
    cpus: int
    cached: int
    tracing: int
    _fields_ = [("rules", u32), ("shards", u32), ("shared", u32), ("cpus", u32), ("cached", u32), ("tracing", u32)]


def encode_match(match: Match) -> tuple[bytes, bytes]:
    """Mask and value of *match* as ``struct fields``."""
    mask = value = 0
    for name, shift in _SHIFTS:
        masked = getattr(match, name)
        if masked.mask:
            mask |= masked.mask << shift
            value |= masked.value << shift
    return mask.to_bytes(FIELDS_SIZE, "big"), value.to_bytes(FIELDS_SIZE, "big")


def decode_match(mask: bytes, value: bytes) -> Match:
    """The inverse of :func:`encode_match`."""
    used = {}
    for name, (at, size) in _PLACES.items():
        bits = int.from_bytes(mask[at : at + size], "big")
        if bits:
            used[name] = Masked(int.from_bytes(value[at : at + size], "big"), bits)
    return Match(**used)


def decode_fields(data: bytes) -> dict[str, int]:
    """The values in a ``struct fields``, by name."""
    return {name: int.from_bytes(data[at : at + size], "big") for name, (at, size) in _PLACES.items()}


def encode_fields(values: dict[str, int]) -> bytes:
    """The inverse of :func:`decode_fields`."""
    packed = 0
    for name, shift in _SHIFTS:
        packed |= values.get(name, 0) << shift
    return packed.to_bytes(FIELDS_SIZE, "big")


def encode_actions(actions: Sequence[Action]) -> list[tuple[int, int]]:
    """*actions* as (op, argument); an output's argument is still the port's id."""
    cells = []
    for at, action in enumerate(actions):
        match action:
            case Output(port):
                cells.append((OP_OUTPUT, port))
            case PushVlan(vid, pcp, tpid):
                cells.append((OP_PUSH_VLAN, tpid << 16 | pcp << 13 | vid))
            case PopVlan():
                cells.append((OP_POP_VLAN, 0))
            case ModifyVlan(vid, pcp, tpid):
                cells.append((OP_MODIFY_VLAN, tpid << 16 | pcp << 13 | vid))
            case Drop():
                cells.append((OP_DROP, 0))
            case Goto(table):
                cells.append((OP_GOTO, table))
            case Upcall(cookie):
                cells.append((OP_UPCALL, cookie))
            case Pass():
                cells.append((OP_PASS, 0))
            case Truncate(length):
                for_upcall = at + 1 < len(actions) and isinstance(actions[at + 1], Upcall)
                cells.append((OP_TRUNCATE, for_upcall << 32 | length))
            case _:
                raise ValueError(f"no such action in the program: {action}")
    return cells


def decode_action(op: int, arg: int) -> Action:
    """The inverse of :func:`encode_actions` for one action."""
    tag = (arg & 0xFFF, arg >> 13 & 7, arg >> 16)
    match op:
        case 1:
            return Output(arg)
        case 2:
            return PushVlan(*tag)
        case 3:
            return PopVlan()
        case 4:
            return ModifyVlan(*tag)
        case 6:
            return Goto(arg)
        case 7:
            return Upcall(arg)
        case 8:
            return Pass()
        case 9:
            return Truncate(arg & 0xFFFF_FFFF)
        case _:
            return Drop()


def unsupported(match: Match, actions: Sequence[Action]) -> str | None:
    """One sentence saying why the program cannot take such a rule, or ``None``."""
    for name in UNSUPPORTED_FIELDS:
        if getattr(match, name).mask:
            return f"matching on {name} is not supported"
    if len(actions) > MAX_ACTIONS:
        return f"{len(actions)} actions are more than the {MAX_ACTIONS} that a rule can have"
    for at, action in enumerate(actions):
        last = at + 1 == len(actions)
        match action:
            case Output() | PopVlan():
                pass
            case PushVlan(vid, pcp, tpid) | ModifyVlan(vid, pcp, tpid):
                if not (0 <= vid < 4096 and 0 <= pcp < 8):
                    return f"VLAN id {vid} with priority {pcp} is out of range"
                if tpid not in (0x8100, 0x88A8):
                    return f"VLAN ethertype {tpid:#06x} is not supported"
            case Drop() | Pass() | Goto():
                if not last:
                    return f"{type(action).__name__.lower()} must be the last action"
            case Upcall(cookie):
                if cookie >> 64:
                    return "an upcall's cookie has at most 64 bits"
            case Truncate(length):
                if length < 14:
                    return "a packet cannot be cut inside its Ethernet header"
                following = actions[at + 1] if not last else None
                if not isinstance(following, Upcall) and not (isinstance(following, Output) and at + 2 == len(actions)):
                    return "only the last output, or a copy for user space, can be cut short"
            case _:
                return f"the action {type(action).__name__} is not supported"
    return None
