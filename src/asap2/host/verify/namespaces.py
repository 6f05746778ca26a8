# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: which there are, entering one, and where a VF's network device is."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from asap2.errors import UsageError
from asap2.host.kernel.ethtool import bus_address
from asap2.host.kernel.links import addresses, links
from asap2.netlink.client import Connection

CLONE_NEWNET = 0x40000000
NAMED = Path("/run/netns")
"""Where ``ip netns`` keeps them."""


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
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    finally:
        os.close(descriptor)


def device_of(function: str) -> tuple[str, list[str]] | None:
    """The network device, in this thread's namespace, of the PCI function at address *function*, and its addresses."""
    with Connection() as route:
        has = addresses(route)
        for link in links(route):
            if link.name == "lo":
                continue
            if function == link.attrs.get("parent_dev_name", None) or (
                "parent_dev_name" not in link.attrs and bus_address(link.name) == function
            ):
                return link.name, has.get(link.index, [])
    return None


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
