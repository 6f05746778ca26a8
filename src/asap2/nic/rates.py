# SPDX-License-Identifier: Apache-2.0
"""What functions may send: limits in whole Mbit/s, as mlx5 sets them (esw/qos.c, apply_police_params).

A function has one such limit, ``max_tx_rate``, or that of a matchall filter on its representor, which precedes it.

Hardware makes a function's queues wait. So what a limited function sends goes through a *shaper* first, a pair of
devices in the NIC's namespace whose one end has a token bucket filter (tc-tbf(8)); what comes out of the other end
enters the eSwitch as the function's. A socket of the guest's that is too fast waits, and loses nothing. Where the
kernel has no such filter, a meter drops what is beyond the rate.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Final, Protocol

from asap2.nic.model import MAX_MTU
from asap2.nic.port_ids import shaped_port, shaper_port
from asap2.nic.rules import Action, Drop, Enter, Match, Meter, Output, Pass, Rule
from asap2.nic.silicon.abi import LIMITS
from asap2.nic.silicon.metering import NSEC_PER_SEC, Limit, Metered
from asap2.nic.silicon.meters import MeterUse
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Miss, Port, PortKind

log = logging.getLogger(__name__)

OCTETS_OF_MBIT: Final = 125_000
_LEAST_BURST: Final = 32_768
"""Octets."""
_BURSTS_OF_SECOND: Final = 50
_MOST = (1 << 32) - 1
"""Octets that the kernel has room for the number of."""
_LEAST_QUEUE: Final = 262_144
_QUEUES_OF_SECOND: Final = 20
"""A queue holds what is sent in a twentieth of a second, or :data:`_LEAST_QUEUE` octets."""
_PRIORITY: Final = 0xFFFF_FFFF
"""Of a function's own limit: after those that filters of its representor set."""


def limit_of(mbit: int) -> Limit:
    """The limit at *mbit* Mbit/s of a meter that has no queue: it lets bursts of 20 ms through."""
    rate = mbit * OCTETS_OF_MBIT
    return Limit(rate, max(NSEC_PER_SEC // _BURSTS_OF_SECOND, _LEAST_BURST * NSEC_PER_SEC // rate))


def round_mbit(octets: int) -> int:
    """A rate in octets a second in Mbit/s, to the nearest."""
    return (octets * 8 + 500_000) // 1_000_000


class Devices(Protocol):
    """What changes the links of the NIC's namespace (:class:`asap2.nic.link_changes.LinkChanges`)."""

    def add_veth(self, name: str, mtu: int, peer: str, namespace: int, mac: bytes | None) -> None:
        """Make a pair."""

    def set_up(self, ifindex: int, up: bool) -> None:
        """Set a device up or down."""

    def delete(self, name: str) -> None:
        """Remove a device, and with it its pair's other end."""

    def shape(self, ifindex: int, rate: int, burst: int, queue: int) -> None:
        """Let a device send *rate* octets a second, in bursts of *burst*, and hold *queue* octets back."""

    def find(self, name: str) -> int | None:
        """The ifindex of a device."""


class RateLimits:
    """The functions' limits in one NIC's *pipeline*, those of an earlier process included; *devices* are those of the
    namespace that is open at *namespace*."""

    def __init__(self, pipeline: Pipeline, devices: Devices, namespace: int) -> None:
        self._pipeline = pipeline
        self._devices = devices
        self._namespace = namespace
        self._handles: dict[int, int] = {}
        self._shaped: dict[int, int] = {}
        """The rules of limits, and those of what comes out of shapers, by the function's port."""
        self._policed: dict[int, int] = {}
        """Limits in Mbit/s that filters set, by port."""
        if pipeline.meters.every(MeterUse.PORT) or pipeline.meters.every(MeterUse.POLICE):
            self._restore()

    def _restore(self) -> None:
        for handle, rule in self._pipeline.rules.items():
            last = rule.actions[-1] if rule.actions else None
            if rule.table == LIMITS and rule.priority == _PRIORITY:
                self._handles[rule.in_port] = handle
            elif rule.table == LIMITS and last == Output(shaper_port(rule.in_port)):
                self._policed[rule.in_port] = 0  # it stays as it is
            elif isinstance(last, Enter) and rule.in_port == shaped_port(last.port):
                self._shaped[last.port] = handle

    def apply(self, wanted: Mapping[int, int]) -> None:
        """Limit what comes in by ports to so many Mbit/s, and nothing else; OSError ENOSPC. A limit that stays goes on
        as it is."""
        meters = self._pipeline.meters
        for port in self._handles.keys() - wanted.keys():
            self._pipeline.remove(self._handles.pop(port))
            meters.clear(MeterUse.PORT, port)
        for port in self._shaped.keys() - wanted.keys() - self._policed.keys():
            self._remove_shaper(port)
        for port, mbit in wanted.items():
            limit = limit_of(mbit)
            known = meters.find(MeterUse.PORT, port)
            if known is not None and meters.has(known, limit) and port in self._handles:
                continue
            number = meters.set(MeterUse.PORT, port, limit, fresh=Metered())
            actions: tuple[Action, ...] = (Output(shaper_port(port)),)
            if not self._can_shape(port, mbit):
                actions = Meter(number, (Drop(),)), Pass()
            if port in self._handles:
                self._pipeline.replace(self._handles[port], actions)
            else:
                self._handles[port] = self._pipeline.add(Rule(LIMITS, port, _PRIORITY, Match(), actions))

    def police(self, port: int, mbit: int) -> bool:
        """Limit what a port sends because a filter says so; whether its packets wait (by :func:`shaper_port`): else
        they have to be dropped."""
        if not self._can_shape(port, mbit):
            return False
        self._policed[port] = mbit
        return True

    def unpolice(self, port: int, max_tx_rate: int) -> None:
        """No filter limits a port any more: its own limit holds again, 0 for none. :meth:`apply` removes the shaper."""
        if self._policed.pop(port, None) is not None and max_tx_rate:
            self._can_shape(port, max_tx_rate)

    def _can_shape(self, port: int, mbit: int) -> bool:
        """Have the shaper of a port send so much; whether it does."""
        try:
            self._shape(port, mbit * OCTETS_OF_MBIT)
        except OSError as error:
            log.info("what is sent by port %#x beyond %d Mbit/s is dropped: no shaper: %s", port, mbit, error)
            return False
        return True

    def _shape(self, port: int, rate: int) -> None:
        """Have the shaper of a port send so many octets a second."""
        sends, gives = _names(port)
        if self._devices.find(sends) is None:
            self._devices.add_veth(sends, MAX_MTU, gives, self._namespace, None)
        first, last = self._devices.find(sends), self._devices.find(gives)
        if first is None or last is None:
            raise OSError(f"{sends} has gone")
        queue = min(max(_LEAST_QUEUE, rate // _QUEUES_OF_SECOND), _MOST)
        burst = min(max(_LEAST_BURST // 2, rate // _BURSTS_OF_SECOND), _MOST)
        self._devices.shape(first, rate, burst, queue)
        for ifindex in (first, last):
            self._devices.set_up(ifindex, True)
        out, into = shaper_port(port), shaped_port(port)
        self._pipeline.set_port(Port(out, first, PortKind.VF, tables=(), miss=Miss.DROP))
        if into not in self._pipeline.ports:
            self._pipeline.set_port(Port(into, last, PortKind.VF, tables=(0,), miss=Miss.DROP))
        if port not in self._shaped:
            self._shaped[port] = self._pipeline.add(Rule(0, into, 0, Match(), (Enter(port),)))
        self._pipeline.attach(last, self._namespace, "ingress")

    def _remove_shaper(self, port: int) -> None:
        for number in (shaper_port(port), shaped_port(port)):
            if number in self._pipeline.ports:
                self._pipeline.remove_port(number)
        if port in self._shaped:
            self._pipeline.remove(self._shaped.pop(port))
        with contextlib.suppress(OSError):
            self._devices.delete(_names(port)[0])


def _names(port: int) -> tuple[str, str]:
    """The devices of a port's shaper: what is sent to the first comes out of the second."""
    return f"shaper{port:x}", f"shaped{port:x}"
