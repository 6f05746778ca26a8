# SPDX-License-Identifier: Apache-2.0
"""Action lists to steps, checked as the kernel checks them."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attributes
from asap2.nic.ethertypes import ETH_P_MPLS
from asap2.nic.faces.ovs.actions.conntrack import read_ct
from asap2.nic.faces.ovs.actions.headers import HEADERS, Packets
from asap2.nic.faces.ovs.actions.numbers import (
    CHECK_IF_GREATER,
    CHECK_IF_LESS_EQUAL,
    CHECK_LENGTH,
    CHECK_PKT_LEN,
    CLONE,
    CT,
    CT_CLEAR,
    DEC_TTL,
    DEC_TTL_ACTION,
    DROP,
    HASH,
    LENGTHS,
    METER,
    OUTPUT,
    PSAMPLE,
    PSAMPLE_COOKIE,
    PSAMPLE_GROUP,
    RECIRC,
    SAMPLE,
    SAMPLE_ACTIONS,
    SAMPLE_PROBABILITY,
    SET,
    SET_MASKED,
    TRUNC,
    USERSPACE,
    USERSPACE_ACTIONS,
    USERSPACE_EGRESS_TUN_PORT,
    USERSPACE_PID,
    USERSPACE_USERDATA,
)
from asap2.nic.faces.ovs.actions.rewriting import read_set
from asap2.nic.faces.ovs.actions.steps import ByMeter, Nested, PortOutput, Recirc, Step, Userspace
from asap2.nic.faces.ovs.key import Fields, invalid, walk
from asap2.nic.faces.ovs.key.numbers import MAX_PORTS, TUNNEL, VARIABLE
from asap2.nic.rules import CheckLength, Clone, CtClear, DecTtl, Drop, Hash, HashAlgorithm, Psample, Sample, Truncate
from asap2.nic.silicon.abi import IN_PORT, SAMPLE_COOKIE

_TUNNEL_KEY: Final = TUNNEL.to_bytes(2, sys.byteorder)
_ETH_HLEN: Final = 14
_ALWAYS: Final = 0xFFFF_FFFF
_DEPTH: Final = 16
"""OVS_COPY_ACTIONS_MAX_DEPTH."""


@dataclass(slots=True)
class _List:
    """Where reading is: in the list *payload*, so deep, with *packets* as they are there; ``last``: at its end, and
    ``tunnel`` is the attribute of the action that has set one, empty where none has."""

    payload: bytes
    packets: Packets
    depth: int
    tunnel: bytes = b""
    last: bool = False


def parse(payload: bytes, key: Fields) -> tuple[Step, ...]:
    """The steps of an action list for packets with the masked *key*.

    EINVAL for one that is malformed, or not safe for such packets, or that this datapath does not have.
    """
    labels = key.get("mpls_labels", 0).bit_count() if key.get("eth_type") in ETH_P_MPLS else 0
    packets = Packets(key, key.get("eth_type", 0), key.get("vlan_tci", 0), labels, bool(key.get("mac_proto", 1)))
    return tuple(_steps(_List(payload, packets, 1)))


def _steps(at: _List) -> Iterator[Step]:
    if at.depth > _DEPTH:
        raise NetlinkError(errno.EOVERFLOW)
    found = walk(at.payload, padded=False)
    for place, (kind, value) in enumerate(found, 1):
        if LENGTHS.get(kind) not in (VARIABLE, len(value)):
            raise invalid()
        at.last = place == len(found)
        yield from READERS[kind](value, at)


def _within(payload: bytes, at: _List) -> tuple[Step, ...]:
    """The steps of a list in an action: the packet has the link layer there that it came with (ovs_key_mac_proto)."""
    packets = replace(at.packets, ethernet=bool(at.packets.key.get("mac_proto", 1)))
    return tuple(_steps(_List(payload, packets, at.depth + 1, at.tunnel)))


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _output(value: bytes, _at: _List) -> tuple[Step, ...]:
    if (port := _number(value)) >= MAX_PORTS:
        raise invalid()
    return (PortOutput(port),)


def _recirc(value: bytes, _at: _List) -> tuple[Step, ...]:
    return (Recirc(_number(value)),)


def _trunc(value: bytes, _at: _List) -> tuple[Step, ...]:
    if (length := _number(value)) < _ETH_HLEN:
        raise invalid()
    return (Truncate(length),)


def _hash(value: bytes, _at: _List) -> tuple[Step, ...]:
    if (algorithm := _number(value[:4])) not in list(HashAlgorithm):
        raise invalid()
    return (Hash(HashAlgorithm(algorithm), _number(value[4:])),)


def _meter(value: bytes, _at: _List) -> tuple[Step, ...]:
    """A meter that is not there lets every packet through."""
    return (ByMeter(_number(value)),)


def _ct(value: bytes, at: _List) -> tuple[Step, ...]:
    """What packets have come with decides, whatever actions before this one make of them."""
    return (read_ct(value, at.packets.key),)


def _ct_clear(_value: bytes, _at: _List) -> tuple[Step, ...]:
    return (CtClear(),)


def _drop(_value: bytes, at: _List) -> tuple[Step, ...]:
    if not at.last:
        raise invalid()
    return (Drop(),)


def _set(value: bytes, at: _List) -> Iterable[Step]:
    steps = tuple(read_set(value, at.packets, masked=False))
    if value[2:4] == _TUNNEL_KEY:
        at.tunnel = value[4:]
    return steps


def _set_masked(value: bytes, at: _List) -> Iterable[Step]:
    return read_set(value, at.packets, masked=True)


def _clone(value: bytes, at: _List) -> tuple[Step, ...]:
    return (Nested(Clone(()), (_within(value, at),)),)


def _attributes_of(found: Iterable[tuple[int, bytes]], last: int) -> dict[int, bytes]:
    """The attributes of an action by number, from 1 to *last*, none of them twice."""
    inner: dict[int, bytes] = {}
    for number, data in found:
        if not 0 < number <= last or number in inner:
            raise invalid()
        inner[number] = data
    return inner


def _sample(value: bytes, at: _List) -> tuple[Step, ...]:
    inner = _attributes_of(walk(value), SAMPLE_ACTIONS)
    probability = inner.get(SAMPLE_PROBABILITY, b"")
    if len(probability) != 4 or SAMPLE_ACTIONS not in inner:
        raise invalid()
    return (Nested(Sample(_number(probability), ()), (_within(inner[SAMPLE_ACTIONS], at),)),)


def _psample(value: bytes, _at: _List) -> tuple[Step, ...]:
    """Its rate depends on the actions "sample" that it is in (:func:`.steps.to_rule`)."""
    inner = _attributes_of(walk(value), PSAMPLE_COOKIE)
    group, cookie = inner.get(PSAMPLE_GROUP), inner.get(PSAMPLE_COOKIE, b"")
    if group is not None and len(group) < 4:
        raise NetlinkError(errno.ERANGE)
    if len(cookie) > SAMPLE_COOKIE:
        raise NetlinkError(errno.ERANGE)
    if group is None or len(group) != 4:
        raise invalid()
    return (Psample(_number(group), _ALWAYS, ifindex=IN_PORT, cookie=cookie, probability=True),)


def _check_length(value: bytes, at: _List) -> tuple[Step, ...]:
    inner = _attributes_of(walk(value, padded=False), CHECK_IF_LESS_EQUAL)
    length = _number(inner.get(CHECK_LENGTH, b"")[:2])
    if len(inner) != 3 or not length:
        raise invalid()
    # As the kernel: the shorter ones' list first.
    others = _within(inner[CHECK_IF_LESS_EQUAL], at)
    return (Nested(CheckLength(length, (), ()), (_within(inner[CHECK_IF_GREATER], at), others)),)


def _dec_ttl(value: bytes, at: _List) -> tuple[Step, ...]:
    """Attributes that the kernel does not know it passes over, in this action alone."""
    inner = _attributes_of((one for one in walk(value) if one[0] <= DEC_TTL_ACTION), DEC_TTL_ACTION)
    if DEC_TTL_ACTION not in inner:
        raise invalid()
    return (Nested(DecTtl(()), (_within(inner[DEC_TTL_ACTION], at),)),)


def _userspace(value: bytes, at: _List) -> tuple[Step, ...]:
    inner = {kind & NLA_TYPE_MASK: bytes(data) for kind, data in attributes(value)}
    if any(len(inner[kind]) < 4 for kind in (USERSPACE_PID, USERSPACE_EGRESS_TUN_PORT) if kind in inner):
        raise NetlinkError(errno.ERANGE)
    pid = int.from_bytes(inner.get(USERSPACE_PID, b"")[:4], sys.byteorder)
    if not pid:
        raise invalid()
    egress = inner.get(USERSPACE_EGRESS_TUN_PORT)
    step = Userspace(
        pid,
        inner.get(USERSPACE_USERDATA),
        at.payload if USERSPACE_ACTIONS in inner else None,
        None if egress is None else int.from_bytes(egress[:4], sys.byteorder),
        at.tunnel,
    )
    return (step,)


_Reader = Callable[[bytes, _List], Iterable[Step]]


def _header(read: Callable[[bytes, Packets], Step]) -> _Reader:
    return lambda value, at: (read(value, at.packets),)


READERS: Final[dict[int, _Reader]] = {
    OUTPUT: _output,
    USERSPACE: _userspace,
    SET: _set,
    SET_MASKED: _set_masked,
    SAMPLE: _sample,
    RECIRC: _recirc,
    HASH: _hash,
    TRUNC: _trunc,
    CT: _ct,
    CT_CLEAR: _ct_clear,
    CLONE: _clone,
    CHECK_PKT_LEN: _check_length,
    DEC_TTL: _dec_ttl,
    DROP: _drop,
    PSAMPLE: _psample,
    METER: _meter,
    **{kind: _header(read) for kind, read in HEADERS.items()},
}
"""Every action that this datapath has."""
