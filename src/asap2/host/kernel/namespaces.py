# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: which there are, entering one, and where a VF's network device is."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from asap2.errors import UsageError
from asap2.host.inventory import Away
from asap2.host.kernel.ethtool import bus_address
from asap2.host.kernel.links import Link, addresses, links, mac_text
from asap2.namespaces import CLONE_NEWNET, setns
from asap2.netlink.client import Connection

NAMED = Path("/run/netns")
"""Where ``ip netns`` keeps them."""
CONTAINERS = Path("/run/docker/netns")
"""Where Docker does; what follows the Container Network Interface uses :data:`NAMED`."""


def path_of(name: str) -> str:
    """The namespace that *name*, one of ``ip netns`` or a process id, means; UsageError when there is none."""
    path = Path(f"/proc/{name}/ns/net") if name.isdecimal() else NAMED / name
    if "/" in name or not path.exists():
        raise UsageError(f"there is no network namespace {name!r}; `ip netns` lists the named ones")
    return str(path)


def every() -> Iterator[str]:
    """Each namespace once but this one, the named ones first."""
    seen = {os.stat("/proc/self/ns/net").st_ino}
    paths = [*sorted(NAMED.glob("*")), *(path / "ns/net" for path in Path("/proc").iterdir() if path.name.isdecimal())]
    for path in paths:
        try:
            number = path.stat().st_ino
        except OSError:
            continue
        if number not in seen:
            seen.add(number)
            yield str(path)


def enter(path: str) -> None:
    """Make the namespace that of the calling thread; OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)


def device_of(function: str) -> tuple[str, list[str]] | None:
    """The network device, in this thread's namespace, of the PCI function at address *function*, and its addresses."""
    with Connection() as route:
        has = addresses(route)
        for link in links(route):
            if function == _function(link):
                return link.name, has.get(link.index, [])
    return None


def _function(link: Link) -> str | None:
    """The PCI address of the function behind *link*, a device of this thread's namespace."""
    if link.name == "lo":
        return None
    name = link.attrs.get("parent_dev_name")
    return bus_address(link.name) if name is None else str(name)


def away(functions: Iterable[str]) -> dict[str, Away]:
    """Where the network devices of the PCI *functions* are, of those that are in a namespace with a name."""
    wanted, found = set(functions), dict[str, Away]()

    def look() -> None:
        for path in [*sorted(NAMED.glob("*")), *sorted(CONTAINERS.glob("*"))]:
            if wanted <= found.keys():
                return
            try:
                enter(str(path))
                with Connection() as route:
                    for link in links(route):
                        function = _function(link)
                        if function in wanted and function not in found:
                            found[function] = Away(path.name, link.name, mac_text(link.attrs.get("address", b"")))
            except OSError:  # it is no namespace any more
                continue

    if wanted:  # a thread of its own stays in the last namespace
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    return found


def find(function: str, paths: Iterable[str]) -> tuple[str, str, list[str]] | None:
    """The first of *paths* that has the network device of the PCI function at *function*: path, device, addresses.

    The calling thread is in another namespace afterwards.
    """
    for path in paths:
        try:
            enter(path)
            found = device_of(function)
        except OSError:
            continue
        if found:
            return path, *found
    return None
