# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what surrounds the driver: a backend that only writes down what it is told, and netdevs from a list."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import pytest

from asap2.nic.device import Driver
from asap2.nic.function import Function, Nic, Pf, Role, Vf
from asap2.nic.netdevs import Counters, NetDev, Where


@dataclass
class RecordingBackend:
    """Writes down each call as a word and what it is about; ``rules`` is the answer to "how many are offloaded", and
    ``fails`` the call that fails, as it is written down."""

    done: list[str] = field(default_factory=list)
    rules: int = 0
    fails: str = ""

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what == self.fails:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))

    def take(self) -> list[str]:
        """What was done since the last time."""
        done, self.done = self.done, []
        return done

    def create(self, function: Function) -> None:
        self._do(f"create {function.netdev}")

    def destroy(self, function: Function) -> None:
        self._do(f"destroy {function.netdev}")

    def create_representor(self, function: Function) -> None:
        self._do(f"create rep {function.far}")

    def destroy_representor(self, function: Function) -> None:
        self._do(f"destroy rep {function.far}")

    def program(self, pf: Pf) -> None:
        self._do(f"program {pf.netdev} {pf.mode.name.lower()} {len(pf.vfs)}")


class ListedNetDevs:
    """What the driver's functions would have in one namespace, with ifindexes in the order of the PCI bus; ``extra``
    are further devices and ``away`` the names of those that are in another namespace."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.extra: list[NetDev] = []
        self.away: set[str] = set()
        self.passed: dict[Where, Counters] = {}
        self.of_vf: dict[int, dict[str, int]] = {}

    def all(self) -> list[NetDev]:
        found = []
        for place, function in enumerate(self.driver.functions()):
            if function.bound:
                found.append(NetDev(10 + place, function.netdev, function.role, function))
            if function.pf.switchdev and function is not function.pf:
                found.append(NetDev(100 + place, f"eth{function.index}", Role.REPRESENTOR, function))
        return [device for device in found + self.extra if device.name not in self.away]

    def by_ifindex(self, ifindex: int, _netns_cookie: int | None = None) -> NetDev | None:
        return next((device for device in self.all() if device.ifindex == ifindex), None)

    def inside(self, _namespace: int) -> list[NetDev]:
        return []

    def limit(self, _function: Function, _mbit: int) -> bool:
        return False

    def unlimit(self, _function: Function) -> None:
        pass

    def by_nsid(self, ifindex: int, id_in: Callable[[int], int | None]) -> NetDev | None:
        return self.by_ifindex(ifindex) if id_in(0) is not None else None

    def hidden(self) -> list[int]:
        return []

    def last_known(self, ifindex: int, netns_cookie: int | None = None) -> NetDev | None:
        return self.by_ifindex(ifindex, netns_cookie)

    def counted(self, _device: NetDev, where: Where) -> Counters:
        return self.passed.get(where, Counters())

    def vf_counters(self, vf: Vf) -> dict[str, int]:
        return self.of_vf.get(vf.index, {})

    def by_name(self, name: str, _netns_cookie: int | None = None) -> NetDev | None:
        return next((device for device in self.all() if device.name == name), None)


def nic(model: str = "ConnectX-5", ports: int = 1, total_vfs: int = 8, pci: str = "0000:03:00.0") -> Nic:
    """An adapter as a topology configures it."""
    config = {"name": "nic0", "model": model, "pci": pci, "ports": ports, "total_vfs": total_vfs, "netns": "/nics/0"}
    return Nic.configured(config)


def booted(*nics: Nic) -> tuple[Driver, RecordingBackend]:
    """A driver whose PFs are bound; *nics* or one ConnectX-5 with one port and 8 VFs."""
    backend = RecordingBackend()
    driver = Driver(list(nics) or [nic()], backend, lambda _pf: backend.rules)
    driver.probe_all()
    backend.take()
    return driver, backend


def refused(number: int) -> AbstractContextManager[pytest.ExceptionInfo[OSError]]:
    """The block raises OSError with this errno."""
    return pytest.raises(OSError, check=lambda error: error.errno == number)
