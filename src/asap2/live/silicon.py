# SPDX-License-Identifier: Apache-2.0
"""One software NIC, watched from outside: which netdev is at which far end, and what the eSwitch has counted.

The far ends are named as in :mod:`asap2.nic.veth`. The maps are read where they are pinned, so the node's daemon is not
disturbed, and may be dead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asap2.live.counted import NOTHING, Read, Stats, StatsReader
from asap2.live.snapshot import Drops
from asap2.namespaces import in_netns
from asap2.nic.links import Link, LinkReader
from asap2.nic.silicon import loader, maps
from asap2.nic.silicon.events import DropReason

_FAR = re.compile(r"pf(\d+)(?:(vf|rep)(\d+))?|p(\d+)")
_NOTHING = Read(NOTHING, None)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The far ends of one PF: ``pf`` of its netdev, ``wire`` of the cable; of its VFs and representors by number."""

    pf: Link | None
    wire: Link | None
    vfs: dict[int, Link]
    representors: dict[int, Link]


class SiliconWatch:
    """A NIC whose silicon is the network namespace at *netns*, and whose pipeline is pinned in *pins*. OSError."""

    def __init__(self, netns: Path, pins: Path) -> None:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._stats = StatsReader(descriptor)
            self._links = in_netns(descriptor, LinkReader)
        finally:
            os.close(descriptor)
        self._drops = _opened(pins / "stats")
        self.now: dict[int, Read] = {}
        """The counters of the far ends, by interface index, as :meth:`read` has found them."""

    def close(self) -> None:
        """Close sockets and maps."""
        self._stats.close()
        self._links.close()
        if self._drops is not None:
            os.close(self._drops.fd)

    def read(self) -> None:
        """Read the counters of all far ends; OSError."""
        self.now = self._stats.all()

    def far_ends(self) -> dict[int, Pairs]:
        """The far ends by the number of the PF; OSError."""
        links = {link.name: link for link in self._links.all()}
        numbers = sorted({int(found[1] or found[4]) for name in links if (found := _FAR.fullmatch(name))})
        return {number: _pairs(number, links) for number in numbers}

    def nsid(self, namespace: int) -> int | None:
        """The id that the network namespace open at *namespace* has here."""
        return self._links.nsid(namespace)

    def near(self, far: Link) -> Link | None:
        """The netdev at the other side of *far*, wherever it is."""
        return self._links.one(far.peer, far.nsid) if far.nsid is not None else None

    def counted(self, far: Link | None) -> Stats:
        """The counters of *far* itself."""
        return self.now.get(far.ifindex, _NOTHING).all if far is not None else NOTHING

    def counted_behind(self, far: Link | None) -> Stats:
        """The counters of the device at the other side of *far*, in whichever namespace that is; OSError."""
        if far is None or far.nsid is None or not far.peer:
            return NOTHING
        return self._stats.one(far.peer, far.nsid) or NOTHING

    def drops(self) -> tuple[Drops, ...]:
        """What the eSwitch has dropped, by reason; without reasons that have not occurred."""
        return _drops(self._drops)


def _pairs(number: int, links: dict[str, Link]) -> Pairs:
    def numbered(kind: str) -> dict[int, Link]:
        found = ((re.fullmatch(rf"pf{number}{kind}(\d+)", name), link) for name, link in links.items())
        return dict(sorted((int(one[1]), link) for one, link in found if one))

    pf, wire = links.get(f"pf{number}"), links.get(f"p{number}")
    return Pairs(pf, wire, numbered("vf"), numbered("rep"))


class Refusals:
    """What the ports of a node's own pipeline, pinned in *pins*, have refused or lost on the way to Open vSwitch."""

    def __init__(self, pins: Path) -> None:
        self._devices = _opened(pins / "devs")
        self._ports = _opened(pins / "ports")
        self._records: Any = ()
        if self._ports is not None:
            with contextlib.suppress(OSError):  # of another version: nothing is known then
                self._records = self._ports.mapped(maps.PortRecord)

    def close(self) -> None:
        """Close the maps."""
        self._records = ()
        for one in (self._devices, self._ports):
            if one is not None:
                os.close(one.fd)

    def slot(self, ifindex: int) -> int:
        """The number by which :meth:`of` knows the device; 0 when it is no port."""
        found = self._devices.lookup(maps.word(ifindex)) if self._devices is not None else None
        slot = maps.number(found) if found is not None else 0
        return slot if slot < len(self._records) else 0

    def of(self, slot: int) -> int:
        """The packets of that port."""
        if not slot or slot >= len(self._records):
            return 0
        record = self._records[slot]
        return int(record.refused + record.failed)


def _opened(path: Path) -> loader.Map | None:
    """The map that is pinned at *path*; None when there is none."""
    try:
        return loader.Map(loader.pinned(path), path.name)
    except OSError:
        return None


def _drops(stats: loader.Map | None) -> tuple[Drops, ...]:
    size = ctypes.sizeof(maps.StatsRecord)
    if stats is None or stats.value_size != size:
        return ()
    cpus = loader.possible_cpus()
    data = stats.lookup(bytes(4), size * cpus) or bytes(size * cpus)
    records = [maps.StatsRecord.from_buffer_copy(data, size * cpu).drops for cpu in range(cpus)]
    counted = ((reason.name.lower(), sum(one[reason] for one in records)) for reason in DropReason)
    return tuple(Drops(name, packets) for name, packets in counted if packets)
