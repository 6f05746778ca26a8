# SPDX-License-Identifier: Apache-2.0
"""The topology file: which nodes, NICs, cables and guests a lab has, from strict TOML (documented in docs/lab.md).

:func:`load` gives frozen classes in which every reference is resolved and every limit checked; what is wrong with a
file comes as a :class:`TopologyError` whose one sentence names the key.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from asap2.errors import UsageError
from asap2.lab.impairment import GOOD, KEYS, Impairment
from asap2.lab.toml_table import Asking as Asking
from asap2.lab.toml_table import Table
from asap2.lab.toml_table import TopologyError as TopologyError
from asap2.nic.model import MODELS

NETDEV_NAME_MAX = 15
"""Characters in a network device's name: IFNAMSIZ - 1 (include/uapi/linux/if.h)."""
NODE_NAME_MAX = 32
"""Characters in the name of a node or guest; it is a host name, and part of socket paths."""
NIC_NAME_MAX = 15
LEAST_RULES = 256
"""Least room for rules with which an eSwitch is of use."""
CONNECTIONS, LEAST_CONNECTIONS, MOST_CONNECTIONS = 262144, 256, 4194304
"""Connections that a node has room for: unless told otherwise as many as Linux on a machine of more than 4 GiB."""

PCI_ADDRESS = re.compile(r"0000:(?!00)[0-9a-f]{2}:00\.0")
"""Where a NIC may be: function 0 of device 0 on a bus behind a root port, which bus 00 holds."""
DEVICE = re.compile(r"[^\s/:%]+")
"""A network device's name as the kernel's dev_valid_name() takes it; the per cent sign would be a pattern."""


@dataclass(frozen=True, slots=True)
class Nic:
    """A software ConnectX. ``vfs`` is what sriov_numvfs is set to when the lab comes up; ``switchdev`` whether the
    eSwitch is put into that mode then, with hw-tc-offload on; ``rules`` how many the eSwitch has room for."""

    name: str
    index: int
    model: str
    pci: str
    ports: int
    total_vfs: int
    vfs: int
    switchdev: bool
    rules: int

    @property
    def bus(self) -> str:
        """The PCI domain and bus, as ``0000:03``."""
        return self.pci[:7]

    def netdev(self, port: int) -> str:
        """The name of the physical function's network device, as systemd-udevd gives it."""
        return f"enp{int(self.pci[5:7], 16)}s0f{port}"

    def vf_netdev(self, port: int, vf: int) -> str:
        """The name of a virtual function's network device."""
        return f"{self.netdev(port)}v{vf}"

    def pf_address(self, port: int) -> str:
        """The PCI address of a physical function."""
        return f"{self.bus}:00.{port}"

    def vf_address(self, port: int, vf: int) -> str:
        """The PCI address of a virtual function: they follow the physical functions, port by port."""
        devfn = 2 + port * self.total_vfs + vf
        return f"{self.bus}:{devfn >> 3:02x}.{devfn & 7}"


@dataclass(frozen=True, slots=True)
class Node:
    """A hypervisor. ``connections`` is how many can be tracked in it: the most that nf_conntrack_max can be. ``setup``
    are the commands of a shell that run in it when all else of the lab is up."""

    name: str
    nics: tuple[Nic, ...]
    openvswitch: bool
    connections: int = CONNECTIONS
    setup: tuple[str, ...] = ()

    def nic(self, name: str) -> Nic | None:
        """The NIC called *name*, if there is one."""
        return next((nic for nic in self.nics if nic.name == name), None)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a cable: a port of a NIC."""

    node: str
    nic: str
    index: int
    port: int

    def __str__(self) -> str:
        return f"{self.node}/{self.nic}/p{self.port}"


@dataclass(frozen=True, slots=True)
class Cable:
    """Joins the uplinks of two ports, and is as bad as its impairment."""

    ends: tuple[End, End]
    impairment: Impairment = GOOD


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch in the rack, which joins any number of ports."""

    name: str
    ends: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class Guest:
    """A namespace that holds a virtual function of ``node`` as ``device``."""

    name: str
    node: str
    nic: Nic
    port: int
    vf: int
    device: str
    mac: str | None
    address: str | None

    @property
    def vf_netdev(self) -> str:
        """The name that the virtual function's network device has in the node."""
        return self.nic.vf_netdev(self.port, self.vf)


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab."""

    nodes: tuple[Node, ...]
    cables: tuple[Cable, ...] = ()
    guests: tuple[Guest, ...] = ()
    switches: tuple[Switch, ...] = ()
    source: str = field(default="", compare=False)


def load(path: Path) -> Topology:
    """The topology that the file at *path* describes."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise TopologyError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TopologyError(f"{path} is not UTF-8 text") from None
    try:
        return parse(text)
    except TopologyError as error:
        raise TopologyError(f"{path}: {error}") from None


def parse(text: str) -> Topology:
    """The topology that *text* describes."""
    return read(text, lambda _: None)


def read(text: str, ask: Callable[[Asking], object]) -> Topology:
    """As :func:`parse`; *ask* is told what each table is asked for."""
    try:
        table = Table(tomllib.loads(text), "the file", (), ask)
    except tomllib.TOMLDecodeError as error:
        raise TopologyError(f"not TOML: {error}") from None
    nodes = tuple(_node(node) for node in table.tables("node"))
    if not nodes:
        raise TopologyError("the file: there is no [[node]]; a lab has at least one")
    by_name = _unique(nodes, lambda node: node.name, "node: name")
    cables = tuple(_cable(cable, by_name) for cable in table.tables("cable"))
    switches = tuple(_switch(switch, by_name) for switch in table.tables("switch"))
    guests = tuple(_guest(guest, by_name) for guest in table.tables("guest"))
    table.done()
    for node in nodes:
        if not node.nics:
            raise TopologyError(f"node {node.name}: there is no [[node.nic]]; a node has at least one")
    joined = [end for ends in (*(one.ends for one in cables), *(one.ends for one in switches)) for end in ends]
    _unique(joined, str, "cable: ends: the port")
    _unique(switches, lambda switch: switch.name, "switch: name")
    _unique([*by_name, *(guest.name for guest in guests)], lambda name: name, "guest: name")
    _unique(guests, lambda guest: guest.mac, "guest: mac")
    _unique(guests, lambda guest: guest.address and guest.address.split("/")[0], "guest: address")
    _unique(guests, lambda g: f"{g.vf} of {g.node}/{g.nic.name}/p{g.port}", "guest: vf")
    return Topology(nodes, cables, guests, switches, text)


T = TypeVar("T")


def _unique(things: Iterable[T], key: Callable[[T], str | None], what: str) -> dict[str, T]:
    found: dict[str, T] = {}
    for thing in things:
        name = key(thing)
        if name is None:
            continue
        if name in found:
            raise TopologyError(f"{what} {name} is there twice")
        found[name] = thing
    return found


def _node(table: Table) -> Node:
    name = table.name("name", NODE_NAME_MAX)
    nics = tuple(_nic(nic, index) for index, nic in enumerate(table.tables("nic")))
    openvswitch = table.boolean("openvswitch", True)
    connections = table.integer("connections", LEAST_CONNECTIONS, MOST_CONNECTIONS, CONNECTIONS)
    setup = tuple(table.strings("setup"))
    table.done()
    _unique(nics, lambda nic: nic.name, f"{table.where}: nic: name")
    _unique(nics, lambda nic: nic.pci, f"{table.where}: nic: pci")
    return Node(name, nics, openvswitch, connections, setup)


def _nic(table: Table, index: int) -> Nic:
    name = table.name("name", NIC_NAME_MAX, f"nic{index}")
    model = table.string("model", one_of=tuple(MODELS)) or "ConnectX-5"
    if model not in MODELS:
        raise table.error("model", f"{model!r} is not one of {', '.join(MODELS)}")
    pci = table.string("pci", pattern=PCI_ADDRESS) or f"0000:{3 + index:02x}:00.0"
    if not PCI_ADDRESS.fullmatch(pci):
        raise table.error("pci", f"{pci!r} must be function 0 of device 0 on a bus from 01, as 0000:03:00.0")
    ports = table.integer("ports", 1, 2, 1)
    total_vfs = table.integer("total_vfs", 0, MODELS[model].max_vfs, 8)
    vfs = table.integer("vfs", 0, total_vfs, 0)
    rules = table.integer("rules", LEAST_RULES, MODELS[model].max_rules, MODELS[model].max_rules)
    mode = table.string("mode", one_of=("legacy", "switchdev")) or "legacy"
    if mode not in ("legacy", "switchdev"):
        raise table.error("mode", f"{mode!r} must be legacy or switchdev")
    if mode == "switchdev" and not vfs:
        raise table.error("mode", "switchdev needs vfs to be at least 1")
    table.done()
    return Nic(name, index, model, pci, ports, total_vfs, vfs, mode == "switchdev", rules)


def _cable(table: Table, nodes: dict[str, Node]) -> Cable:
    ends = table.strings("ends", 2)
    if len(ends) != 2:
        raise table.error("ends", f"must name two ports, each as NODE/NIC or NODE/NIC/pPORT, not {len(ends)}")
    words = {key: text for key in KEYS if (text := table.string(key)) is not None}
    table.done()
    try:
        impairment = GOOD.changed(words)
    except UsageError as error:
        raise TopologyError(f"{table.where}: {error}") from None
    return Cable((_end(table, ends[0], nodes), _end(table, ends[1], nodes)), impairment)


def _switch(table: Table, nodes: dict[str, Node]) -> Switch:
    name = table.name("name", NODE_NAME_MAX)
    ends = tuple(_end(table, text, nodes) for text in table.strings("ends"))
    table.done()
    return Switch(name, ends)


def _end(table: Table, text: str, nodes: dict[str, Node]) -> End:
    parts = re.fullmatch(r"([^/]+)/([^/]+)(?:/p(\d{1,4}))?", text, re.ASCII)
    if parts is None:
        raise table.error("ends", f"{text!r} is not NODE/NIC or NODE/NIC/pPORT")
    node, nic = _find_nic(table, "ends", nodes, parts[1], parts[2])
    port = int(parts[3] or 0)
    if port >= nic.ports:
        raise table.error("ends", f"{text!r} leads nowhere: {nic.name} of {node.name} has {_count(nic.ports, 'port')}")
    return End(node.name, nic.name, nic.index, port)


def _find_nic(table: Table, key: str, nodes: dict[str, Node], node_name: str, nic_name: str) -> tuple[Node, Nic]:
    node = nodes.get(node_name)
    if node is None:
        raise table.error(key, f"names node {node_name!r}, which there is not; there is {', '.join(nodes)}")
    nic = node.nic(nic_name)
    if nic is None:
        has = ", ".join(nic.name for nic in node.nics) or "no NIC"
        raise table.error(key, f"names NIC {nic_name!r}, which {node.name} has not; it has {has}")
    return node, nic


def _guest(table: Table, nodes: dict[str, Node]) -> Guest:
    name = table.name("name", NODE_NAME_MAX)
    node_name = table.needed("node")
    node = nodes.get(node_name)
    if node is None:
        raise table.error("node", f"is {node_name!r}, which there is not; there is {', '.join(nodes)}")
    nic_name = table.string("nic")
    if nic_name is None:
        if len(node.nics) != 1:
            raise table.error("nic", f"must be given, since {node.name} has {_count(len(node.nics), 'NIC')}")
        nic_name = node.nics[0].name
    _, nic = _find_nic(table, "nic", nodes, node_name, nic_name)
    port = table.integer("port", 0, nic.ports - 1, 0)
    count = nic.vfs or nic.total_vfs
    vf = table.integer("vf", 0, None)
    if vf >= count:
        raise table.error("vf", f"is {vf}, and {nic.name} of {node.name} has {_count(count, 'VF')}, from 0")
    device = table.string("device", NETDEV_NAME_MAX) or "eth0"
    if not DEVICE.fullmatch(device) or device in (".", "..", "lo"):
        raise table.error("device", f"{device!r} is not a name for a network device")
    mac, address = _mac(table), _address(table)
    table.done()
    return Guest(name, node.name, nic, port, vf, device, mac, address)


def _mac(table: Table) -> str | None:
    text = table.string("mac")
    if text is None:
        return None
    mac = text.lower()
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac):
        raise table.error("mac", f"{text!r} is not a MAC address as fa:16:3e:b9:b8:ce")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise table.error("mac", f"{text!r} is not the address of one device")
    return mac


def _address(table: Table) -> str | None:
    text = table.string("address")
    if text is None:
        return None
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise table.error("address", f"{text!r} is not an address as 10.57.0.1/24") from None
    if "/" not in text:
        raise table.error("address", f"{text!r} lacks the prefix length, as in 10.57.0.1/24")
    return str(interface)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
