# SPDX-License-Identifier: Apache-2.0
"""What an end of a verification is: a VF of this host with its representor, and where its network device is."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from asap2.errors import Asap2Error, UsageError
from asap2.host.inventory import Host, Netdev, Pf, Vf
from asap2.host.kernel import namespaces
from asap2.host.verify import agent


@dataclass(frozen=True, slots=True)
class Port:
    """A VF and its representor."""

    pf: Pf
    vf: Vf
    representor: Netdev


@dataclass(frozen=True, slots=True)
class Guest:
    """Where packets are sent from: a namespace (None: this one), a device there, its addresses without lengths."""

    netns: str | None
    device: str
    addresses: tuple[str, ...]

    def address_for(self, peer: str) -> str:
        """The address that packets to *peer* come from; Asap2Error when there is none of its kind."""
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
    """Where the VF's network device is: in *netns* if given, else where it is found; Asap2Error when nowhere."""
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
