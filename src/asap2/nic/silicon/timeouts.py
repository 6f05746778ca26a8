# SPDX-License-Identifier: Apache-2.0
"""Timeouts of connections: those of each protocol, and timeout policies, which an action names.

They are in the map ``policies``, so they survive the process. The program numbers a protocol's timeouts by state; the
kernel shows them in the order of CTA_TIMEOUT_<PROTOCOL>_*, as here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from asap2.nic.silicon.abi import OWN_POLICIES, POLICY_TIMEOUTS, Policy
from asap2.nic.silicon.connection_records import TIMEOUTS, PolicyRecord

Timeouts = tuple[int, ...]
"""A protocol's timeouts in seconds, in the kernel's order."""

GENERIC: Final = 255
"""Any protocol without timeouts of its own."""
_OWN: Final = {
    6: Policy.TCP,
    17: Policy.UDP,
    136: Policy.UDPLITE,
    1: Policy.ICMP,
    58: Policy.ICMPV6,
    132: Policy.SCTP,
    47: Policy.GRE,
    GENERIC: Policy.GENERIC,
}
_STATES: Final = {6: (*range(1, 10), 12, 13), 132: (*range(1, 9), 9)}
"""The program's index of each timeout; for protocols not listed, its position."""


def _shown(protocol: int, seconds: Any) -> Timeouts:
    count = len(TIMEOUTS[_OWN[protocol]])
    return tuple(seconds[at] if at < POLICY_TIMEOUTS else 0 for at in _STATES.get(protocol, range(count)))


DEFAULTS: Final = {
    protocol: _shown(protocol, (*TIMEOUTS[own], *(0,) * POLICY_TIMEOUTS)) for protocol, own in _OWN.items()
}
"""The kernel's defaults by IP protocol."""


@dataclass(frozen=True, slots=True)
class TimeoutPolicy:
    """A timeout policy for connections of *protocol* over *family*; *uses* counts the actions that name it."""

    name: str
    family: int
    protocol: int
    timeouts: Timeouts
    uses: int = 0


class TimeoutPolicies:
    """The timeouts in the map with these *records*."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._uses: dict[int, int] = {}

    def __iter__(self) -> Iterator[TimeoutPolicy]:
        """The policies with a name."""
        for number in range(OWN_POLICIES, len(self._records)):
            record: PolicyRecord = self._records[number]
            if record.name:
                yield self._policy(number)

    def get(self, name: str) -> TimeoutPolicy | None:
        """The policy called *name*."""
        number = self.number(name)
        return self._policy(number) if number else None

    def number(self, name: str) -> int:
        """The program's number for a policy; 0 if there is none of that name."""
        raw = os.fsencode(name)
        if not raw:
            return 0
        for number in range(OWN_POLICIES, len(self._records)):
            if self._records[number].name == raw:
                return number
        return 0

    def name(self, number: int) -> str:
        """The name of a policy; empty if it has none."""
        return os.fsdecode(self._records[number].name) if number >= OWN_POLICIES else ""

    def put(self, policy: TimeoutPolicy) -> None:
        """Add a policy, or replace the one of that name. Raises OSError ENOMEM if there is no room."""
        number = self.number(policy.name) or self._free()
        record: PolicyRecord = self._records[number]
        _write(record, policy.protocol, policy.timeouts)
        record.family, record.protocol, record.name = policy.family, policy.protocol, os.fsencode(policy.name)

    def delete(self, name: str) -> None:
        """Remove a policy; its connections continue with the timeouts of their protocol."""
        number = self.number(name)
        if number:
            record: PolicyRecord = self._records[number]
            record.name = b""
            _write(record, record.protocol, self.defaults(record.protocol) or ())

    def used(self, number: int, change: int) -> None:
        """Change the number of actions that name a policy."""
        if number:
            self._uses[number] = self._uses.get(number, 0) + change

    def defaults(self, protocol: int) -> Timeouts | None:
        """The default timeouts of *protocol*; None if it has none of its own."""
        own = _OWN.get(protocol)
        return None if own is None else _shown(protocol, self._records[own].seconds)

    def set_defaults(self, protocol: int, timeouts: Timeouts) -> None:
        """Set the default timeouts of *protocol*."""
        _write(self._records[_OWN[protocol]], protocol, timeouts)

    def _free(self) -> int:
        for number in range(OWN_POLICIES, len(self._records)):
            if not self._records[number].name and not self._uses.get(number):
                return number
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def _policy(self, number: int) -> TimeoutPolicy:
        record: PolicyRecord = self._records[number]
        shown = _shown(record.protocol, record.seconds)
        return TimeoutPolicy(self.name(number), record.family, record.protocol, shown, self._uses.get(number, 0))


def _write(record: PolicyRecord, protocol: int, timeouts: Timeouts) -> None:
    for at, seconds in zip(_STATES.get(protocol, range(len(timeouts))), timeouts, strict=True):
        record.seconds[at] = seconds
