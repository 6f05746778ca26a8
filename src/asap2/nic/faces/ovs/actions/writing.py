# SPDX-License-Identifier: Apache-2.0
"""Checked action lists as the kernel gives them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asap2.netlink.wire import NLA_TYPE_MASK, attribute, attributes
from asap2.nic.faces.ovs.actions.conntrack import echoed_ct
from asap2.nic.faces.ovs.actions.numbers import (
    CHECK_IF_GREATER,
    CHECK_IF_LESS_EQUAL,
    CHECK_LENGTH,
    CHECK_PKT_LEN,
    CLONE,
    CT,
    DEC_TTL,
    DEC_TTL_ACTION,
    SAMPLE,
    SAMPLE_ACTIONS,
    SAMPLE_PROBABILITY,
    SET,
)
from asap2.nic.faces.ovs.key import Fields, emit_tunnel, read_tunnel, walk
from asap2.nic.faces.ovs.key.numbers import TUNNEL


def echoed(payload: bytes) -> bytes:
    """A checked action list as the kernel gives it back: it writes some attributes itself (ovs_nla_put_actions)."""
    out = bytearray()
    for number, value in attributes(payload):
        kind, value = number & NLA_TYPE_MASK, bytes(value)
        anew = _ANEW[kind](value) if kind in _ANEW else None
        out += attribute(number, value) if anew is None else attribute(kind, anew)
    return bytes(out)


def _sample(value: bytes) -> bytes:
    inner = dict(walk(value, padded=False))
    probability = attribute(SAMPLE_PROBABILITY, inner[SAMPLE_PROBABILITY])
    return probability + attribute(SAMPLE_ACTIONS, echoed(inner[SAMPLE_ACTIONS]))


def _check_length(value: bytes) -> bytes:
    inner = dict(walk(value, padded=False))
    lists = b"".join(attribute(which, echoed(inner[which])) for which in (CHECK_IF_LESS_EQUAL, CHECK_IF_GREATER))
    return attribute(CHECK_LENGTH, inner[CHECK_LENGTH][:2]) + lists


def _dec_ttl(value: bytes) -> bytes:
    return attribute(DEC_TTL_ACTION, echoed(dict(walk(value, padded=False))[DEC_TTL_ACTION]))


def _set(value: bytes) -> bytes | None:
    (kind, payload), *_ = walk(value)
    if kind != TUNNEL:
        return None
    fields: Fields = {}
    read_tunnel(payload, fields)
    return attribute(TUNNEL, emit_tunnel(fields, fields["tun_proto"], fields.get("tun_opts_len", 0)))


_ANEW: Final[dict[int, Callable[[bytes], bytes | None]]] = {
    CLONE: echoed,
    CT: echoed_ct,
    SAMPLE: _sample,
    CHECK_PKT_LEN: _check_length,
    DEC_TTL: _dec_ttl,
    SET: _set,
}
"""The arguments that the kernel writes itself; None: not this one."""
