# SPDX-License-Identifier: Apache-2.0
"""An end of a verification: a VF of this host, its representor, and the place of its network device."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Iterator
from dataclasses import dataclass

from asap2.errors import Asap2Error, UsageError
from asap2.host.inventory import Host, Netdev, Pf, Vf
from asap2.host.kernel import namespaces
from asap2.host.kernel.links import Link, link_named, set_address, set_up
from asap2.host.verify import agent
from asap2.netlink.client import Connection
from asap2.netlink.wire import NetlinkError


@dataclass(frozen=True, slots=True)
class Port:
    """A VF and its representor."""

    pf: Pf
    vf: Vf
    representor: Netdev


@dataclass(frozen=True, slots=True)
class Guest:
    """The origin of packets: a namespace (None: this one), a device there, and its addresses without prefix lengths."""

    netns: str | None
    device: str
    addresses: tuple[str, ...]

    def address_for(self, peer: str) -> str:
        """The source address of packets to *peer*; raises Asap2Error if there is none of its family."""
        version = ipaddress.ip_address(peer).version
        of_kind = [one for one in self.addresses if ipaddress.ip_address(one).version == version]
        if not of_kind:
            raise Asap2Error(f"{self.device} has no IPv{version} address to reach {peer} from")
        return of_kind[0]


def port_of(host: Host, name: str) -> Port:
    """The VF that *name* means: its representor, its PCI address, its network device, its guest in Open vSwitch's
    external_ids; UsageError for what is none."""
    short = name.removeprefix("0000:")
    for pf in host.pfs:
        for vf in pf.vfs:
            representor = host.representor(pf, vf.index)
            interface = host.openvswitch.interface(representor.name) if representor else None
            guests = [value for _, value in interface.external_ids] if interface else []
            names = [vf.address.removeprefix("0000:"), vf.netdev, representor.name if representor else None, *guests]
            if short not in names and name not in names:
                continue
            if representor is None:
                raise Asap2Error(f"VF {vf.index} of {pf.name} has no representor: is {pf.name} in switchdev mode?")
            return Port(pf, vf, representor)
    known = ", ".join(netdev.name for pf in host.pfs for _, netdev in host.representors(pf)) or "none"
    raise UsageError(f"{name} is no VF of this host, nor its representor; representors here: {known}")


def guest_of(port: Port, netns: str | None) -> Guest:
    """Find the VF's network device, in *netns* if given; raises Asap2Error if it is nowhere."""
    if port.vf.opened_by:
        raise Asap2Error(
            f"VF {port.vf.index} of {port.pf.name} is in a virtual machine ({port.vf.opened_by}): send from within it, "
            f"and watch here with --listen"
        )
    paths = [namespaces.path_of(netns)] if netns else list(namespaces.every())
    if netns is None and port.vf.netdev:
        here = namespaces.device_of(port.vf.address)
        if here:
            return Guest(None, here[0], _plain(here[1]))
    found = agent.ask({"do": "find", "function": port.vf.address, "paths": paths})
    if found is None:
        where = f"the namespace {netns}" if netns else "any network namespace"
        raise Asap2Error(
            f"the network device of VF {port.vf.index} of {port.pf.name} ({port.vf.address}) is not in {where}"
        )
    return Guest(found[0], found[1], _plain(found[2]))


def _plain(addresses: list[str]) -> tuple[str, ...]:
    return tuple(one.partition("/")[0] for one in addresses)


def shown(netns: str | None) -> str:
    """A namespace for people."""
    return "this host" if netns is None else os.path.basename(netns) if "/proc/" not in netns else netns


@contextlib.contextmanager
def addressed(guest: Guest, address: str | None) -> Iterator[Guest]:
    """*guest*, its device up and with *address* meanwhile; where it is another namespace's, it has what it has.
    Asap2Error when it has none."""
    if guest.netns is not None or address is None:
        if not guest.addresses:
            if guest.netns is None:
                how = "say one with --address, as 10.57.0.1/24"
                raise Asap2Error(f"{guest.device} has no address to send from: {how}")
            raise Asap2Error(
                f"{guest.device} in {shown(guest.netns)} has no address to send from: give it one there, by "
                f"`ip addr add ADDRESS/LENGTH dev {guest.device}`"
            )
        yield guest
        return
    with Connection() as route:
        link = link_named(route, guest.device)
        if link is None:
            raise Asap2Error(f"{guest.device} has gone")
        added = _add(route, link, address)
        try:
            set_up(route, link.index, True)
            yield Guest(None, guest.device, (str(ipaddress.ip_interface(address).ip),))
        finally:
            with contextlib.suppress(NetlinkError):
                if not link.up:
                    set_up(route, link.index, False)
                if added:
                    set_address(route, link.index, address, False)


def _add(route: Connection, link: Link, address: str) -> bool:
    """Give *link* the address; return whether it did not have it."""
    try:
        set_address(route, link.index, address, True)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return False
        raise Asap2Error(f"{link.name} cannot get {address}: {error.text or error.strerror}") from None
    return True
