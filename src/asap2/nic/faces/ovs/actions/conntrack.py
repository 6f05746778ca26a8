# SPDX-License-Identifier: Apache-2.0
"""The action ct: its attributes checked as Linux checks them, and written back as Linux writes them.

Checks and their order: ovs_ct_copy_action, parse_ct and parse_nat of net/openvswitch/conntrack.c.
"""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass
from socket import IPPROTO_TCP, IPPROTO_UDP
from typing import Final

from asap2.netlink.tables import ovs as protocol
from asap2.netlink.wire import NetlinkError, attribute
from asap2.nic.ethertypes import ETH_P_IP, ETH_P_IPV6
from asap2.nic.faces.ovs.key import Fields, invalid, walk
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, Masked

_CT = protocol.CT.numbers
COMMIT: Final = _CT["commit"]
ZONE: Final = _CT["zone"]
MARK: Final = _CT["mark"]
LABELS: Final = _CT["labels"]
HELPER: Final = _CT["helper"]
NAT: Final = _CT["nat"]
FORCE_COMMIT: Final = _CT["force_commit"]
EVENTMASK: Final = _CT["eventmask"]
TIMEOUT: Final = _CT["timeout"]

_NAT = protocol.NAT.numbers
NAT_SRC: Final = _NAT["src"]
NAT_DST: Final = _NAT["dst"]
NAT_IP_MIN: Final = _NAT["ip_min"]
NAT_IP_MAX: Final = _NAT["ip_max"]
NAT_PROTO_MIN: Final = _NAT["proto_min"]
NAT_PROTO_MAX: Final = _NAT["proto_max"]
NAT_PERSISTENT: Final = _NAT["persistent"]
NAT_PROTO_HASH: Final = _NAT["proto_hash"]
NAT_PROTO_RANDOM: Final = _NAT["proto_random"]

_LENGTHS: Final = {
    COMMIT: (0, 0),
    FORCE_COMMIT: (0, 0),
    ZONE: (2, 2),
    MARK: (8, 8),
    LABELS: (32, 32),
    HELPER: (1, 16),
    NAT: (0, 1 << 16),
    EVENTMASK: (4, 4),
    TIMEOUT: (1, 32),
}
"""The least and the greatest length of each attribute (ovs_ct_attr_lens)."""
_RANGE_OF_ADDRESSES: Final = (NAT_IP_MIN, NAT_IP_MAX)
_RANGES: Final = (_RANGE_OF_ADDRESSES, (NAT_PROTO_MIN, NAT_PROTO_MAX))
_NAT_LENGTHS: Final = {
    **dict.fromkeys((NAT_SRC, NAT_DST, NAT_PERSISTENT, NAT_PROTO_HASH, NAT_PROTO_RANDOM), 0),
    **dict.fromkeys((NAT_PROTO_MIN, NAT_PROTO_MAX), 2),
}
_FAMILIES: Final = {ETH_P_IP: socket.AF_INET, ETH_P_IPV6: socket.AF_INET6}
_ADDRESS: Final = {socket.AF_INET: 4, socket.AF_INET6: 16}
"""Octets of an address."""

HELPERS: Final = {(b"ftp", IPPROTO_TCP), (b"tftp", IPPROTO_UDP)}
"""Helpers that connections may have, by name and protocol."""


@dataclass(slots=True)
class _Given:
    """The attributes of an action ct as they have been read so far (struct ovs_conntrack_info)."""

    family: socket.AddressFamily
    commit: bool = False
    force: bool = False
    zone: int = 0
    mark: bytes = b""
    labels: bytes = b""
    helper: bytes | None = None
    eventmask: int | None = None
    timeout: bytes = b""
    nat: dict[int, bytes] | None = None


def read_ct(value: bytes, key: Fields) -> Ct:
    """The action for packets with the masked *key*. EINVAL; ERANGE for two translations in one action."""
    given = _read(value, _FAMILIES.get(key.get("eth_type", 0)))
    if given.helper is not None and (given.helper, key.get("ip_proto", 0)) not in HELPERS:
        raise invalid()
    return Ct(
        given.zone,
        given.commit,
        given.force,
        _mark(given.mark) if given.mark else None,
        _labels(given.labels) if given.labels else None,
        None if given.nat is None else _nat(given.nat),
        (given.helper or b"").decode(),
        int(given.family),
        given.eventmask,
        given.timeout.decode(errors="surrogateescape"),
    )


def echoed_ct(value: bytes) -> bytes:
    """A checked action as the kernel gives it back (ovs_ct_action_to_attr)."""
    given = _read(value, _family_of(value))
    out = attribute(FORCE_COMMIT if given.force else COMMIT, b"") if given.commit else b""
    out += attribute(ZONE, given.zone.to_bytes(2, sys.byteorder))
    for kind, data in ((MARK, given.mark), (LABELS, given.labels)):
        if data:
            out += attribute(kind, data)
    if given.helper is not None:
        out += attribute(HELPER, given.helper + b"\0")
    if given.eventmask is not None:
        out += attribute(EVENTMASK, given.eventmask.to_bytes(4, sys.byteorder))
    if given.timeout:
        out += attribute(TIMEOUT, given.timeout + b"\0")
    return out if given.nat is None else out + attribute(NAT, _echoed_nat(given.nat))


def _family_of(value: bytes) -> socket.AddressFamily:
    """The address family of a checked action: only its addresses depend on that."""
    translations = (walk(data, padded=False) for kind, data in walk(value, padded=False) if kind == NAT)
    lengths = {len(data) for inner in translations for kind, data in inner if kind in (NAT_IP_MIN, NAT_IP_MAX)}
    return socket.AF_INET6 if _ADDRESS[socket.AF_INET6] in lengths else socket.AF_INET


def _read(value: bytes, family: socket.AddressFamily | None) -> _Given:
    if family is None:
        raise invalid()
    given = _Given(family)
    for kind, data in walk(value, padded=False):
        least, most = _LENGTHS.get(kind, (0, -1))
        if not least <= len(data) <= most:
            raise invalid()
        _take(given, kind, data)
    if not given.commit and (given.mark or given.labels):
        raise invalid()
    return given


def _take(given: _Given, kind: int, data: bytes) -> None:
    if kind in (COMMIT, FORCE_COMMIT):
        given.commit = True
        given.force |= kind == FORCE_COMMIT
    elif kind == ZONE:
        given.zone = _number(data)
    elif kind == MARK:
        given.mark = _with_mask(data)
    elif kind == LABELS:
        given.labels = _with_mask(data)
    elif kind == HELPER:
        given.helper = _name(data)
    elif kind == NAT:
        given.nat = _read_nat(data, given)
    elif kind == EVENTMASK:
        given.eventmask = _number(data)
    elif kind == TIMEOUT:
        given.timeout = _name(data)


def _read_nat(value: bytes, given: _Given) -> dict[int, bytes]:
    """The attributes of a translation, in addition to those of one before it in the same action (parse_nat)."""
    nat, chosen = dict(given.nat or {}), given.nat is not None
    # Of a range's end, only one in this attribute counts.
    for last in (NAT_IP_MAX, NAT_PROTO_MAX):
        nat.pop(last, None)
    for kind, data in walk(value, padded=False):
        if len(data) != (_ADDRESS[given.family] if kind in _RANGE_OF_ADDRESSES else _NAT_LENGTHS.get(kind, -1)):
            raise invalid()
        if kind in (NAT_SRC, NAT_DST):
            if chosen:
                raise NetlinkError(errno.ERANGE)
            chosen = True
        nat[kind] = data
    if nat and not chosen:
        raise invalid()
    if chosen and not given.commit:
        raise invalid()
    for first, last in _RANGES:
        if last in nat:
            nat.setdefault(first, bytes(len(nat[last])))
    return nat


def _echoed_nat(nat: dict[int, bytes]) -> bytes:
    if NAT_SRC not in nat and NAT_DST not in nat:
        return b""
    same = {last for first, last in _RANGES if nat.get(first) == nat.get(last)}
    return b"".join(attribute(kind, nat[kind]) for kind in sorted(nat) if kind not in same)


def _nat(nat: dict[int, bytes]) -> Nat:
    first, least = nat.get(NAT_IP_MIN, b""), nat.get(NAT_PROTO_MIN, b"")
    return Nat(
        NatKind.SRC if NAT_SRC in nat else NatKind.DST if NAT_DST in nat else None,
        first,
        nat.get(NAT_IP_MAX, first),
        _number(least),
        _number(nat.get(NAT_PROTO_MAX, least)),
        NAT_PERSISTENT in nat,
        NAT_PROTO_HASH in nat,
        NAT_PROTO_RANDOM in nat,
    )


def _with_mask(data: bytes) -> bytes:
    """A value and its mask, of which some bit is set."""
    if not any(data[len(data) // 2 :]):
        raise invalid()
    return data


def _mark(data: bytes) -> Masked:
    """The kernel does not mask the value: bits of it outside the mask are set, too (ovs_ct_set_mark)."""
    value, mask = _number(data[:4]), _number(data[4:])
    return Masked(value, mask | value)


def _labels(data: bytes) -> Masked:
    value, mask = int.from_bytes(data[:16], "big"), int.from_bytes(data[16:], "big")
    return Masked(value & mask, mask)


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _name(data: bytes) -> bytes:
    if b"\0" not in data:
        raise invalid()
    return data.split(b"\0", 1)[0]
