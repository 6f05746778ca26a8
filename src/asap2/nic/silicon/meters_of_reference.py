# SPDX-License-Identifier: Apache-2.0
"""The meters of the reference eSwitch: what each counts of a packet, and whether that is over its limit."""

from __future__ import annotations

from asap2.nic.silicon import packet
from asap2.nic.silicon.journey import Journey, length_of
from asap2.nic.silicon.metering import Counting, Limit, Metered, ReferenceMeter


class Meters:
    """Meters by number. One that has no limit lets everything through, and counts nothing."""

    def __init__(self) -> None:
        self._meters: dict[int, ReferenceMeter] = {}

    def set(self, number: int, limit: Limit | None, now: int) -> None:
        """Give a meter a limit from *now* (ns) on, with nothing counted; None takes the limit away."""
        if limit is None:
            self._meters.pop(number, None)
        else:
            self._meters[number] = ReferenceMeter(limit, now)

    def counted(self, number: int) -> Metered:
        """What a meter, which has a limit, has counted."""
        return self._meters[number].counted

    def over(self, number: int, what: Journey, now: int) -> bool:
        """Whether a packet is over a meter's limit at *now* (ns); the meter counts it."""
        meter = self._meters.get(number)
        if meter is None:
            return False
        match meter.limit.counting:
            case Counting.TC:
                return meter.over(what.segments, what.arrived - packet.HEADER, what.arrived, now)
            case Counting.OVS:
                return meter.over(1, length_of(what), length_of(what), now)
            case Counting.WIRE:
                room = packet.HEADER if what.bare else 0
                return meter.over(what.segments, len(what.frame) - room, length_of(what), now)
