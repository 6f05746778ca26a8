# SPDX-License-Identifier: Apache-2.0
"""What each port has on its way to user space, what arrived, and what was lost.

The program lets a port hand over no more than :attr:`UpcallAccounts.limit` units of packets that user space is not done
with, so that no port takes the memory and the time that the others need. It numbers what it hands over, so what is lost
on the way, wherever that is, is a gap in the numbers. All figures are kept with the port, in the program's memory: they
outlive the process.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from asap2.nic.silicon import maps
from asap2.nic.silicon.events import UpcallContext
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.portslots import PortSlots

_REMEMBERED = 64
"""Packets of a port that may come in another order than they were numbered in, as from several CPUs."""
_ON_THE_WAY_NS = 100_000_000
"""After this time what was handed over has arrived, or is lost."""


@dataclass(frozen=True, slots=True)
class UpcallCounts:
    """Packets of one port that reached their receiver in user space, and that did not."""

    delivered: int = 0
    lost: int = 0


class _Account:
    """One port: *waiting* units have arrived and are not done with; *last* is the highest number that arrived."""

    __slots__ = ("first", "last", "recent", "record", "waiting")

    def __init__(self, record: maps.PortRecord) -> None:
        self.record = record
        self.first = self.last = record.taken
        self.waiting = 0
        self.recent: deque[int] = deque(maxlen=_REMEMBERED)


class UpcallAccounts:
    """The accounts of one pipeline's ports. A port without an account of its own has nothing on its way."""

    def __init__(self, layout: Layout, ports: PortSlots) -> None:
        self._config = layout.config
        self._ports = ports
        self._accounts: dict[int, _Account] = {}

    @property
    def limit(self) -> int:
        """Units that one port may have on their way; 0 is no limit. A packet is one unit for each 2048 bytes begun."""
        return self._config.upcall_limit

    @limit.setter
    def limit(self, units: int) -> None:
        self._config.upcall_limit = units

    @property
    def failed(self) -> int:
        """Packets of all ports, present and past, that were lost after the program had handed them over."""
        return self._config.failed

    def restart(self) -> None:
        """A new receiver begins: what an earlier one was not done with is lost."""
        self._accounts.clear()
        for port_id in self._ports.ports:
            record = self._ports.record(port_id)
            if record is not None:
                self._fail(record, max(0, record.given - record.taken))
                record.taken = record.given

    def forget(self, port_id: int) -> None:
        """The port is no more."""
        self._accounts.pop(port_id, None)

    def arrived(self, context: UpcallContext) -> int:
        """A frame of a packet has arrived. Its packet's units with the first frame of each packet, else 0."""
        account = self._account(context.port)
        if account is None:
            return 0
        at, units = context.at, context.units
        if at > account.last:
            self._fail(account.record, at - units - account.last)
            account.last = at
        elif at <= account.first or at in account.recent:
            return 0
        else:
            self._fail(account.record, -units)
        account.recent.append(at)
        account.waiting += units
        return units

    def done(self, port_id: int, units: int, delivered: bool) -> None:
        """User space is done with a frame that :meth:`arrived` gave *units* for: another may come in its place."""
        account = self._account(port_id)
        if account is None or not units:
            return
        account.waiting = max(0, account.waiting - units)
        account.record.taken = account.last - account.waiting
        if delivered:
            account.record.delivered += 1
        else:
            self._fail(account.record, 1)

    def floods(self, port_id: int) -> bool:
        """Whether half of what the port may have on its way, or more, has arrived and waits."""
        account = self._accounts.get(port_id)
        return account is not None and 0 < self.limit <= 2 * account.waiting

    def settle(self) -> None:
        """All that has arrived was read: what else was handed over, but for the very last, is lost."""
        now = time.monotonic_ns()
        for port_id in self._ports.ports:
            account = self._account(port_id)
            if account is not None and account.record.given > account.last:
                given = account.record.given
                if now - account.record.since > _ON_THE_WAY_NS:
                    self._fail(account.record, given - account.last)
                    account.last = given
                    account.record.taken = given - account.waiting

    def counts(self, port_id: int) -> UpcallCounts:
        """What became of a port's packets; nothing, for one that does not exist."""
        record = self._ports.record(port_id)
        return UpcallCounts(record.delivered, record.refused + record.failed) if record else UpcallCounts()

    def _account(self, port_id: int) -> _Account | None:
        account = self._accounts.get(port_id)
        if account is None:
            record = self._ports.record(port_id)
            if record is not None:
                account = self._accounts[port_id] = _Account(record)
        return account

    def _fail(self, record: maps.PortRecord, packets: int) -> None:
        if packets:
            record.failed += packets
            self._config.failed += packets
