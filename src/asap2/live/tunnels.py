# SPDX-License-Identifier: Apache-2.0
"""The traffic of each tunnel: what Open vSwitch counts for its port, and what of that the host's CPU has seen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter

from asap2.host.inventory import Bridge
from asap2.live import openflow
from asap2.live.counted import Stats
from asap2.live.counters import split
from asap2.live.snapshot import Counters
from asap2.live.switch import TUNNELS, devices

EVERY = 0.5
"""Seconds between two readings: Open vSwitch itself knows no more often."""
_AGAIN = 5.0
"""Seconds until a bridge that has not answered is asked again."""
_numbers = attrgetter(*(one.name for one in dataclasses.fields(Counters)))


class TunnelCounters:
    """The counters of the tunnels of a host; *socket* gives the path of a file in Open vSwitch's run directory, None
    where there is no such directory."""

    def __init__(self, socket: Callable[[str], str | None]) -> None:
        self._socket = socket
        self._due: dict[str, float] = {}
        self._whole: dict[str, Stats] = {}
        self._kept: dict[str, Counters] = {}

    def read(self, bridges: Iterable[Bridge], seen: Callable[[str], Stats]) -> Mapping[str, Counters]:
        """The counters of each tunnel's port, by its interface's name; *seen* gives those of a network device. A port
        that Open vSwitch tells nothing of is left out."""
        bridges = tuple(bridges)
        for bridge in bridges:
            self._ask(bridge)
        device_of = {name: device.name for name, device in devices(bridges).items() if name in self._whole}
        for device in set(device_of.values()):
            names = [name for name, one in device_of.items() if one == device]
            for name, share in shares({name: self._whole[name] for name in names}, seen(device)).items():
                self._kept[name] = grown(self._kept.get(name), split(self._whole[name], share, 0))
        return {name: self._kept[name] for name in device_of}

    def _ask(self, bridge: Bridge) -> None:
        """Ask a bridge that has tunnels, when it is time."""
        interfaces = [each for port in bridge.ports for each in port.interfaces if each.type in TUNNELS]
        if not interfaces or time.monotonic() < self._due.get(bridge.name, 0.0):
            return
        self._due[bridge.name] = time.monotonic() + EVERY
        path = self._socket(f"{bridge.name}.mgmt")
        try:
            found = openflow.port_counters(path) if path is not None else {}
        except OSError:
            self._due[bridge.name] = time.monotonic() + _AGAIN
            return
        for each in interfaces:
            if each.ofport is None or each.ofport not in found:
                continue
            before, self._whole[each.name] = self._whole.get(each.name), found[each.ofport]
            if before is not None and any(new < old for new, old in zip(found[each.ofport], before, strict=True)):
                self._kept.pop(each.name, None)  # the port was made again


def shares(whole: Mapping[str, Stats], seen: Stats) -> dict[str, Stats]:
    """Of what the CPU has *seen* at a device, the part of each tunnel that uses it, whose traffic is *whole*: nobody
    counts it, so each has the part that its traffic is of that of all."""
    total = [sum(column) for column in zip(*whole.values(), strict=True)]

    def part(number: int, place: int) -> int:
        return round(seen[place] * number / total[place]) if total[place] else 0

    return {
        name: Stats(*(min(number, part(number, place)) for place, number in enumerate(one[:4])))
        for name, one in whole.items()
    }


def grown(before: Counters | None, now: Counters) -> Counters:
    """*now*, but nothing less than *before*: what is shared out anew must not make a counter go back."""
    if before is None:
        return now
    return Counters(*(max(pair) for pair in zip(_numbers(before), _numbers(now), strict=True)))
