# SPDX-License-Identifier: Apache-2.0
"""Requests and a server for tests that call a face's handlers themselves."""

from __future__ import annotations

from typing import Any

from asap2.netlink.request import EMULATED_FAMILIES, Client, GenlFamily, Netns, Request
from asap2.netlink.wire import NETLINK_GENERIC, NETLINK_ROUTE

HOME = Netns(1, -1)


class StillServer:
    """Takes registrations, and remembers what it was to send; the kernel behind it knows nothing."""

    netns = HOME

    def __init__(self) -> None:
        self.routes: dict[int, Any] = {}
        self.families: dict[str, GenlFamily] = {}
        self.sent: list[tuple[str, str, bytes]] = []
        self.showers: dict[tuple[int, int], Any] = {}
        self.notified: list[tuple[int, Any]] = []

    def route(self, types: Any, handler: Any) -> None:
        self.routes.update(dict.fromkeys(types, handler))

    def family(self, family: GenlFamily) -> None:
        self.families[family.name] = family

    def ethtool_ioctl(self, commands: Any, handler: Any, _setting: Any = ()) -> None:
        self.ioctl = (tuple(commands), handler)

    def show(self, protocol: int, types: Any, shower: Any) -> None:
        self.showers.update({(protocol, type_): shower for type_ in types})

    def notify(self, _netns: Netns, group: int, message: Any) -> None:
        self.notified.append((group, message))

    def multicast(self, family: str, group: str, payload: bytes, _netns: Netns | None = None) -> None:
        self.sent.append((family, group, payload))

    def kernel(self, _netns: Netns, _protocol: int) -> Any:
        raise KeyError("there is no kernel here")


def request(type_: int, payload: bytes, flags: int = 1, cookie: int = HOME.cookie) -> Request:
    """A request of a program in the namespace with *cookie*."""
    protocol = NETLINK_GENERIC if type_ in EMULATED_FAMILIES else NETLINK_ROUTE
    return Request(type_, flags, 7, payload, Client(protocol, 1234, Netns(cookie, -1)))
