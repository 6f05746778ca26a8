# SPDX-License-Identifier: Apache-2.0
"""Header rewrite of one frame, its checksums kept right (RFC 1624): the specification of rewrite.h."""

from __future__ import annotations

from asap2.nic.checksums import sum_of, updated, updated_sctp
from asap2.nic.rules import AddTtl, Frag, Masked, SetField
from asap2.nic.silicon import packet
from asap2.nic.silicon.abi import EXTENSIONS

_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _UDP, _ICMPV6, _SCTP = 6, 17, 58, 132
_MPLS = (0x8847, 0x8848)
_EXTENSIONS = (0, 43, 44, 60)
_L4_HEADER = {_TCP: 20, _UDP: 8, _SCTP: 12}
_L4_CHECKSUM = {_TCP: 16, _UDP: 6, _ICMPV6: 2}


def rewrite(frame: bytes, action: SetField | AddTtl) -> bytes:
    """*frame* with the field rewritten; as it is where it has no such header, or a later fragment no such port."""
    fields = packet.parse(frame)
    if isinstance(action, AddTtl):
        action = SetField("ip_ttl", Masked(fields.get("ip_ttl", 0) + action.amount & 0xFF, 0xFF))
    at, eth_type = 12, fields.get("eth_type", 0)
    for tag in ("vlan_tci", "cvlan_tci"):
        at += 4 if tag in fields else 0
    l3 = at + 2
    if action.field in ("eth_dst", "eth_src"):
        return _put(frame, 0 if action.field == "eth_dst" else 6, 6, action.to.value, action.to.mask)
    if action.field == "mpls_lse1":
        whole = eth_type in _MPLS and len(frame) >= l3 + 4
        return _put(frame, l3, 4, action.to.value, action.to.mask) if whole else frame
    if eth_type == _IPV4 and len(frame) >= l3 + 20 and frame[l3] & 15 >= 5:
        l4 = l3 + (frame[l3] & 15) * 4
        places = {"ip_tos": (l3 + 1, 1), "ip_ttl": (l3 + 8, 1), "ip_src": (l3 + 12, 4), "ip_dst": (l3 + 16, 4)}
    elif eth_type == _IPV6 and len(frame) >= l3 + 40:
        l4 = _behind_extensions(frame, l3)
        places = {"ipv6_label": (l3, 4), "ip_ttl": (l3 + 7, 1), "ip_src": (l3 + 8, 16), "ip_dst": (l3 + 24, 16)}
    else:
        return frame
    if fields.get("ip_frag", 0) == Frag.IS_FRAGMENT:
        l4 = 0
    proto = fields.get("ip_proto", 0)
    if action.field in ("sctp_src", "sctp_dst"):
        if proto != _SCTP or not l4 or len(frame) < l4 + _L4_HEADER[_SCTP]:
            return frame
        changed = _put(frame, l4 + (2 if action.field == "sctp_dst" else 0), 2, action.to.value, action.to.mask)
        return _with_crc(frame, changed, l4)
    if action.field == "ipv6_label" and eth_type != _IPV6:
        return frame
    if action.field in ("l4_src", "l4_dst"):
        if not l4 or proto not in _L4_HEADER or len(frame) < l4 + _L4_HEADER[proto]:
            return frame
        place = (l4 + (2 if action.field == "l4_dst" else 0), 2)
        return _with_l4(frame, _put(frame, *place, action.to.value, action.to.mask), place, l4, proto, eth_type)
    if action.field == "ip_tos" and eth_type == _IPV6:
        return _put(frame, l3, 4, action.to.value << 20, action.to.mask << 20)
    at, size = places[action.field]
    limit = (1 << 8 * size) - 1
    changed = _put(frame, at, size, action.to.value & limit, action.to.mask & limit)
    if eth_type == _IPV4:
        changed = _checksum(frame, changed, (at & ~1 | (l3 & 1), size + (size & 1)), l3 + 10)
    if action.field in ("ip_src", "ip_dst") and (eth_type == _IPV6 or proto != _ICMPV6):
        changed = _with_l4(frame, changed, (at, size), l4, proto, eth_type)
    return changed


def _with_crc(old: bytes, new: bytes, l4: int) -> bytes:
    """*new* with SCTP's checksum changed as much as the right one is: what was wrong stays wrong."""
    if old == new:
        return new
    return new[: l4 + 8] + updated_sctp(old[l4:], new[l4:]) + new[l4 + 12 :]


def _behind_extensions(frame: bytes, l3: int) -> int:
    proto, at = frame[l3 + 6], l3 + 40
    for _ in range(EXTENSIONS):
        if proto not in _EXTENSIONS:
            break
        if len(frame) < at + 8:
            return 0
        following = frame[at]
        at += 8 if proto == 44 else (frame[at + 1] + 1) * 8
        proto = following
    return at


def _put(frame: bytes, at: int, size: int, value: int, mask: int) -> bytes:
    old = int.from_bytes(frame[at : at + size], "big")
    return frame[:at] + (old & ~mask | value & mask).to_bytes(size, "big") + frame[at + size :]


def _with_l4(old: bytes, new: bytes, place: tuple[int, int], l4: int, proto: int, eth_type: int) -> bytes:
    """*new* with the checksum of its transport header right after what changed at *place*."""
    offset = _L4_CHECKSUM.get(proto)
    if not l4 or offset is None or (proto == _ICMPV6 and eth_type != _IPV6) or len(new) < l4 + offset + 2:
        return new
    check = l4 + offset
    if proto == _UDP and new[check : check + 2] == b"\0\0":
        return new
    fixed = _checksum(old, new, place, check)
    if proto == _UDP and fixed[check : check + 2] == b"\0\0":
        fixed = fixed[:check] + b"\xff\xff" + fixed[check + 2 :]
    return fixed


def _checksum(old: bytes, new: bytes, place: tuple[int, int], check: int) -> bytes:
    """Update the checksum at *check* for the octets at *place*, an even distance from it."""
    at, size = place
    before, after = old[at : at + size], new[at : at + size]
    if before == after:
        return new
    checksum = updated(int.from_bytes(new[check : check + 2], "big"), sum_of(before), sum_of(after))
    return new[:check] + checksum.to_bytes(2, "big") + new[check + 2 :]
