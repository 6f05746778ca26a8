# SPDX-License-Identifier: Apache-2.0
"""The TC action pedit: raw edits of header octets to the header fields that they rewrite.

Each key replaces the bits of a 32-bit word that ``mask`` does not keep by those of ``val``; words lie in the packet as
in memory (net/sched/act_pedit.c). Only edits of whole known fields, or of bits within them, have a meaning for a NIC.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, Final

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.steps import Beyond, Step
from asap2.nic.fields import FIELDS, Field, Header, Location
from asap2.nic.rules import AddTtl, Masked, SetField

HTYPE_NETWORK, HTYPE_ETH, HTYPE_IP4, HTYPE_IP6, HTYPE_TCP, HTYPE_UDP = range(6)
CMD_SET, CMD_ADD = 0, 1

_HEADERS: Final = {
    HTYPE_ETH: Header.ETHERNET,
    HTYPE_IP4: Header.IPV4,
    HTYPE_IP6: Header.IPV6,
    HTYPE_TCP: Header.L4,
    HTYPE_UDP: Header.L4,
}
_FIELDS: Final[dict[int, list[tuple[Field, Location]]]] = {
    kind: [(field, at) for field in FIELDS for at in field.found if at.header is header and field.depth is not None]
    for kind, header in _HEADERS.items()
}
"""Header type to the fields that lie there."""
_TTL: Final = {HTYPE_IP4: (8, 0), HTYPE_IP6: (4, 24)}
"""Header type to where its time to live is: the offset of its word, and its place there in memory order."""
_UNSUPPORTED: Final = "mlx5_core: attempt to offload an unsupported field"
_TWICE: Final = "mlx5_core: curr_pmask and new mask same. Acting twice on same location"
_CHECKSUM: Final = {HTYPE_IP4: range(10, 12)}
"""Octets that are kept right by themselves, so an edit of them is not needed and not done."""


def parse(keys: Iterable[Any], kinds: Iterable[tuple[int, int]]) -> list[Step]:
    """The rewrites of pedit *keys* (mask, val, off as in struct tc_pedit_key), *kinds* their (header type, command).

    An edit that is not of a known field, or that adds to another than the time to live, is a :class:`.Beyond`.
    """
    values: dict[int, dict[int, tuple[int, int]]] = {}
    added: list[Step] = []
    twice = False
    for key, (header, command) in zip(keys, kinds, strict=True):
        if header == HTYPE_NETWORK:
            return [Beyond("mlx5_core: legacy pedit isn't offloaded", "pedit without a header is not supported")]
        if key.offmask or header not in _FIELDS:
            return [Beyond(_UNSUPPORTED, "pedit of this kind is not supported")]
        if command == CMD_ADD:
            added.append(_addition(header, key, bool(added)))
            continue
        if command != CMD_SET:
            raise NetlinkError(errno.EINVAL)
        octets = values.setdefault(header, {})
        for index in range(4):
            changed = ~(key.mask >> 8 * index) & 0xFF
            if changed:
                value, mask = octets.get(key.off + index, (0, 0))
                twice |= bool(mask & changed)
                octets[key.off + index] = (
                    value & ~changed | (key.val >> 8 * index) & changed,
                    mask | changed,
                )
    rewrites: list[Step] = []
    for header, octets in values.items():
        for offset in _CHECKSUM.get(header, ()):
            octets.pop(offset, None)
        rewrites += _fields(header, octets)
    if twice:
        rewrites.append(Beyond(_TWICE))
    if added and any(isinstance(step, SetField) and step.field == "ip_ttl" for step in rewrites):
        text = "can't set and add to the same HW field"
        return [Beyond(f"mlx5_core: {text}", "pedit that sets and adds to the time to live is not supported")]
    return rewrites + added


def _addition(header: int, key: Any, again: bool) -> Step:
    """What a key with the command "add" does (take one off a time to live, mostly), *again* if there was one before."""
    if again:
        return Beyond(_TWICE, "pedit that adds twice is not supported")
    offset, shift = _TTL.get(header, (-1, 0))
    changed = ~key.mask & 0xFFFF_FFFF
    if key.off != offset or changed != 0xFF << shift or not key.val & changed:
        return Beyond(_UNSUPPORTED, "pedit that adds to another field than the time to live is not supported")
    return AddTtl(key.val >> shift & 0xFF)


def _fields(header: int, octets: dict[int, tuple[int, int]]) -> Iterable[Step]:
    for field, at in _FIELDS[header]:
        start, length, shift = at.offset, at.octets, at.shift
        value = mask = 0
        for offset in range(start, start + length):
            octet, changed = octets.get(offset, (0, 0))
            value, mask = value << 8 | octet, mask << 8 | changed
        own = (1 << min(field.bits, 8 * length)) - 1 << shift
        if mask & own:
            yield SetField(field.name, Masked((value & own) >> shift, (mask & own) >> shift))
            for offset in range(start, start + length):
                rest = (mask & ~own) >> 8 * (start + length - 1 - offset) & 0xFF
                if rest:
                    octets[offset] = (0, rest)
                else:
                    octets.pop(offset, None)
    if octets:
        yield Beyond(_UNSUPPORTED, f"pedit of octet {min(octets)} of header {header} is not supported")
