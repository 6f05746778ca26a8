# SPDX-License-Identifier: Apache-2.0
"""The meters in the program's memory: their owners, limits and counters."""

from __future__ import annotations

import enum
import time
from typing import Final

from asap2.nic.silicon import abi, maps
from asap2.nic.silicon.indices import Indices
from asap2.nic.silicon.map_sizes import Layout
from asap2.nic.silicon.metering import Limit, Metered

_YOUNG: Final = 64
"""The number of meters without limit or rule that are kept, the most recently requested."""


class MeterUse(enum.IntEnum):
    """The owner of a meter."""

    OVS = 1
    """A meter of Open vSwitch's datapath, by its id."""
    POLICE = 2
    """An action police of TC, by its index."""
    PORT = 3
    """The limit on everything that enters by a port, by the port's id."""


class Meters:
    """Meters by number, which actions name. A meter lasts while it has a limit, or an action names it.

    One without a limit lets everything through: so rules may name a meter before it is there, and when it is gone.
    Numbers, limits and counters outlive the process.
    """

    def __init__(self, layout: Layout) -> None:
        self._records = layout.meters
        self._numbers = Indices(len(layout.meters), "meters", layout.grace_period)
        self._known: dict[int, int] = {}
        self._references: dict[int, int] = {}
        self._restore()

    def number(self, use: MeterUse, identity: int) -> int:
        """The number of a meter, created if necessary. Raises OSError ENOSPC if there is no room."""
        owner = use << 32 | identity
        known = self._known.get(owner)
        if known is not None:
            return known
        try:
            number = self._numbers.take()
        except OSError:
            self._sweep()
            number = self._numbers.take()
        record = self._records[number]
        self._forget(record)
        record.owner = owner
        self._known[owner] = number
        self._references[number] = 0
        return number

    def find(self, use: MeterUse, identity: int) -> int | None:
        """The number of a meter with a limit; None if there is none."""
        number = self._known.get(use << 32 | identity)
        return number if number is not None and self._records[number].flags else None

    def every(self, use: MeterUse) -> dict[int, int]:
        """The numbers of all meters of one use that have a limit, by identity."""
        return {
            owner & 0xFFFF_FFFF: number
            for owner, number in self._known.items()
            if owner >> 32 == use and self._records[number].flags
        }

    def set(
        self,
        use: MeterUse,
        identity: int,
        limit: Limit,
        *,
        fresh: Metered | None = None,
        now: int | None = None,
        mark: int = 0,
    ) -> int:
        """Set the limit of a meter from *now* on (CLOCK_MONOTONIC), and return its number.

        *fresh* replaces its counters. *mark* is a number of the owner's, below 256. Raises OSError ENOSPC if there is
        no room.
        """
        number = self.number(use, identity)
        record = self._records[number]
        record.flags = 0  # lets packets through, while it is not whole
        price, peak = limit.price, limit.peak_price
        record.mult, record.shift = price
        record.peak_mult, record.peak_shift = peak
        record.burst, record.peak_burst = limit.burst, limit.peak_burst
        record.most, record.least, record.overhead = limit.most, limit.least, limit.overhead
        record.full_at = (time.monotonic_ns() if now is None else now) + limit.burst if limit.empty else 0
        record.peak_full_at = 0
        if fresh is not None:
            for name, value in zip(_COUNTERS, fresh, strict=True):
                setattr(record, name, value)
        kind = (abi.METER_PACKETS if limit.packets else 0) | (abi.METER_CELLS if limit.cells else 0)
        record.flags = abi.METER_ON | kind | limit.counting << 8 | mark << 16
        return number

    def clear(self, use: MeterUse, identity: int) -> None:
        """Remove a meter's limit, and the meter itself if no action names it. It need not exist."""
        number = self._known.get(use << 32 | identity)
        if number is not None:
            self._forget(self._records[number])
            if not self._references[number]:
                self._give(number)

    def has(self, number: int, limit: Limit) -> bool:
        """Whether a meter has the rates and bursts of *limit*."""
        record = self._records[number]
        prices = (record.mult, record.shift), (record.peak_mult, record.peak_shift)
        bursts = record.burst, record.peak_burst
        return prices == (limit.price, limit.peak_price) and bursts == (limit.burst, limit.peak_burst)

    def mark(self, number: int) -> int:
        """The owner's number."""
        mark: int = self._records[number].flags >> 16 & 0xFF
        return mark

    def counted(self, number: int) -> Metered:
        """The counters of a meter."""
        record = self._records[number]
        return Metered(*(getattr(record, name) for name in _COUNTERS))

    def hold(self, number: int) -> None:
        """Note that one more action names a meter."""
        self._references[number] = self._references.get(number, 0) + 1

    def release(self, number: int) -> None:
        """Note that one action fewer names a meter."""
        self._references[number] -= 1
        if not self._references[number] and not self._records[number].flags:
            self._give(number)

    def _give(self, number: int) -> None:
        del self._references[number]
        self._known.pop(self._records[number].owner, None)
        self._records[number].owner = 0
        self._numbers.give(number)

    def _sweep(self, spared: int = _YOUNG) -> None:
        idle = [n for n, references in self._references.items() if not references and not self._records[n].flags]
        for number in idle[: len(idle) - spared]:
            self._give(number)

    @staticmethod
    def _forget(record: maps.MeterRecord) -> None:
        record.flags = 0
        for name in _COUNTERS:
            setattr(record, name, 0)

    def _restore(self) -> None:
        for number, record in enumerate(self._records):
            if record.owner:
                self._known[record.owner] = number
                self._references[number] = 0
        self._numbers.restore(self._known.values())

    def sweep(self) -> None:
        """Free unused meters after a restart, once all actions hold theirs again."""
        self._sweep(0)


_COUNTERS: Final = ("packets", "bytes", "over_packets", "over_bytes", "over", "used")
