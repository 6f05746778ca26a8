# SPDX-License-Identifier: Apache-2.0
"""Encode actions of connection tracking for the program: ``struct tracking``, in a slot of :mod:`.encaps`."""

from __future__ import annotations

import struct
from typing import Final

from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, CtHardware, Masked
from asap2.nic.silicon.abi import CtFlag

HELPERS: Final = ("", "ftp", "tftp")
"""Names of helpers, by their number."""

_TRACKING = struct.Struct("=HHIII16s16s16s16sHHBBBBI")
_POLICY: Final = 11
_KINDS = {NatKind.SRC: CtFlag.NAT_SRC, NatKind.DST: CtFlag.NAT_DST}


def unsupported(action: Ct | CtHardware) -> str | None:
    """One sentence saying why the program cannot take *action*, or ``None``."""
    if not 0 <= action.zone < 65536:
        return f"zone {action.zone} is out of range"
    if isinstance(action, CtHardware):
        return None
    if action.helper not in HELPERS:
        return f"there is no helper {action.helper}"
    nat = action.nat
    if nat is not None and (len(nat.ip_min) != len(nat.ip_max) or len(nat.ip_min) not in (0, 4, 16)):
        return "a range of addresses has two IPv4 or two IPv6 addresses"
    return None


def _octets(number: int) -> bytes:
    return number.to_bytes(16, "big")


def pack(action: Ct | CtHardware, policy: int = 0) -> bytes:
    """*action* as ``struct tracking``, with the number of its timeout policy."""
    if isinstance(action, CtHardware):
        flags = (CtFlag.NAT if action.nat else CtFlag(0)) | (CtFlag.INSIDE if action.inside else CtFlag(0))
        empty = bytes(16)
        return _TRACKING.pack(action.zone, flags, 0, 0, 0, *[empty] * 4, 0, 0, 0, 0, 0, 0, action.resume)
    flags = CtFlag(0)
    for flag, given in (
        (CtFlag.COMMIT, action.commit),
        (CtFlag.FORCE, action.force),
        (CtFlag.OFFLOAD, action.offload),
        (CtFlag.MARK, action.mark is not None),
        (CtFlag.LABELS, action.labels is not None),
        (CtFlag.EVENT_MASK, action.eventmask is not None),
    ):
        flags |= flag if given else CtFlag(0)
    mark, labels, nat = action.mark or Masked(0, 0), action.labels or Masked(0, 0), action.nat
    low = high = bytes(16)
    ports = (0, 0)
    addresses = 0
    if nat is not None:
        flags |= CtFlag.NAT | (_KINDS[nat.kind] if nat.kind else CtFlag(0))
        addresses = len(nat.ip_min)
        flags |= CtFlag.NAT_ADDRESSES if addresses else CtFlag(0)
        flags |= CtFlag.NAT_PORTS if nat.port_min or nat.port_max else CtFlag(0)
        flags |= CtFlag.NAT_PERSISTENT if nat.persistent else CtFlag(0)
        flags |= CtFlag.NAT_HASH if nat.hash else CtFlag(0)
        flags |= CtFlag.NAT_RANDOM if nat.random else CtFlag(0)
        low, high = nat.ip_min.rjust(16, b"\0"), nat.ip_max.rjust(16, b"\0")
        ports = nat.port_min, nat.port_max
    return _TRACKING.pack(
        *(action.zone, flags, mark.value, mark.mask, action.eventmask or 0),
        *(_octets(labels.value), _octets(labels.mask), low, high, *ports),
        *(policy, HELPERS.index(action.helper), action.family, addresses, 0),
    )


def policy_of(data: bytes) -> int:
    """The number of the timeout policy in a packed action."""
    number: int = _TRACKING.unpack_from(data)[_POLICY]
    return number


def unpack(data: bytes, *, hardware: bool, timeout: str = "") -> Ct | CtHardware:
    """The inverse of :func:`pack`; *timeout* is the name of the policy."""
    zone, bits, mark, mark_mask, events, labels, labels_mask, low, high, *rest = _TRACKING.unpack_from(data)
    port_min, port_max, _policy, helper, family, addresses, resume = rest
    flags = CtFlag(bits)
    if hardware:
        return CtHardware(zone, CtFlag.NAT in flags, resume, inside=CtFlag.INSIDE in flags)
    nat = None
    if CtFlag.NAT in flags:
        nat = Nat(
            next((kind for kind, flag in _KINDS.items() if flag in flags), None),
            *(low[16 - addresses :], high[16 - addresses :], port_min, port_max),
            persistent=CtFlag.NAT_PERSISTENT in flags,
            hash=CtFlag.NAT_HASH in flags,
            random=CtFlag.NAT_RANDOM in flags,
        )
    return Ct(
        zone,
        commit=CtFlag.COMMIT in flags,
        force=CtFlag.FORCE in flags,
        mark=Masked(mark, mark_mask) if CtFlag.MARK in flags else None,
        labels=_masked(labels, labels_mask) if CtFlag.LABELS in flags else None,
        nat=nat,
        helper=HELPERS[helper],
        family=family,
        eventmask=events if CtFlag.EVENT_MASK in flags else None,
        timeout=timeout,
        offload=CtFlag.OFFLOAD in flags,
    )


def _masked(value: bytes, mask: bytes) -> Masked:
    return Masked(int.from_bytes(value, "big"), int.from_bytes(mask, "big"))
