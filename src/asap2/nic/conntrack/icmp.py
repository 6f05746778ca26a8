# SPDX-License-Identifier: Apache-2.0
"""Which ICMP messages are errors about another packet, and which are not tracked."""

from __future__ import annotations

from typing import NamedTuple

from asap2.nic.conntrack.states import ICMP
from asap2.nic.conntrack.tuples import (
    ICMP_ERRORS,
    ICMPV6_FIRST_QUERY,
    IPV4,
    LAST_ICMP_TYPE,
    UNTRACKED_ICMPV6,
    Transport,
)

_ICMP_HEADER = 8


class About(NamedTuple):
    error: bool
    inner: int
    """The octet at which the quoted datagram begins."""


def about(data: bytes, family: int, found: Transport) -> About | None:
    """Whether an ICMP message is an error; ``None`` if it is invalid or not tracked (nf_conntrack_icmpv4_error(),
    nf_conntrack_icmpv6_error())."""
    if (family == IPV4) != (found.proto == ICMP):
        return About(False, 0)
    if len(data) < found.at + _ICMP_HEADER:
        return None
    kind, inner = data[found.at], found.at + _ICMP_HEADER
    if family == IPV4:
        return None if kind > LAST_ICMP_TYPE else About(kind in ICMP_ERRORS, inner)
    if kind in UNTRACKED_ICMPV6:
        return None
    return About(kind < ICMPV6_FIRST_QUERY, inner)
