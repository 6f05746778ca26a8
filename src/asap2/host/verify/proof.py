# SPDX-License-Identifier: Apache-2.0
"""The proof by traffic that follows a set-up: from a VF of a NIC that was just set up to a peer on the wire."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from asap2.errors import Asap2Error, UsageError
from asap2.host.inventory import Host
from asap2.host.observe import observe
from asap2.host.verify import COUNT, ECHO_PORT, PROTOCOLS
from asap2.host.verify.endpoint import Port, addressed, guest_of
from asap2.host.verify.verify import Result, need_switch, send


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom to send to, an IP address, and the address with its prefix's length that the VF gets meanwhile, if any."""

    peer: str
    address: str | None = None


def checked(peer: str, address: str | None) -> Wanted:
    """What is wanted, as it was typed; UsageError for what are no addresses, or not of one kind."""
    try:
        other = ipaddress.ip_address(peer)
    except ValueError:
        raise UsageError(f"--verify takes an IP address, not {peer!r}") from None
    if address is not None:
        reaches(address, other)
    return Wanted(str(other), address)


def reaches(address: str, other: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """UsageError when *address*, as it was typed, is none with a prefix, or not one to reach *other* from."""
    try:
        mine = ipaddress.ip_interface(address)
    except ValueError:
        raise UsageError(f"--address takes an address with its prefix, as 10.57.0.1/24, not {address!r}") from None
    if mine.version != other.version or other not in mine.network or other == mine.ip:
        raise UsageError(f"{other} cannot be reached from {address}: it is not another address of that prefix")


def prove(names: Iterable[str], wanted: Wanted) -> tuple[Host, Port, list[Result]]:
    """Send from the first VF of the first of the PFs *names*, one protocol after the other until one is not offloaded;
    Asap2Error when it has no representor, device or address."""
    host = observe(full=True, filters=False, openflow=False)
    need_switch(host)
    port = _first(host, names)
    with addressed(guest_of(port, None), wanted.address) as guest:
        results: list[Result] = []
        for protocol in PROTOCOLS:
            results.append(send(host, port, guest, wanted.peer, protocol, COUNT, ECHO_PORT))
            if not results[-1].offloaded:
                break
    return host, port, results


def _first(host: Host, names: Iterable[str]) -> Port:
    for name in names:
        pf = host.pf(name)
        for vf in pf.vfs if pf else ():
            representor = host.representor(pf, vf.index) if pf else None
            if pf and representor:
                return Port(pf, vf, representor)
    raise Asap2Error("there is no VF with a representor to send from")
