# SPDX-License-Identifier: Apache-2.0
"""What stands where in /sys: the tree of a node that has software NICs, laid over its real sysfs.

:func:`build` makes it from the driver's state and the node's network devices; :func:`resolve` finds a path in it. A
directory may take the rest of its entries from a real one; what is in neither does not exist. Paths are relative to
/sys, without a slash at either end.

Sources: drivers/pci/pci-sysfs.c, drivers/pci/iov.c, drivers/base/bus.c, net/core/net-sysfs.c of Linux 6.x.
"""

from __future__ import annotations

import errno
import functools
import os
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from asap2.nic.device import Driver
from asap2.nic.faces.sysfs import kstrto, pci
from asap2.nic.faces.tc.root_qdiscs import queues
from asap2.nic.function import ZERO_MAC, Function, Nic, Pf, Role, Vf
from asap2.nic.model import MAX_MTU, MOST_VF_VECTORS, SHOWN_UPCALL_MTU, UPCALL_MTU
from asap2.nic.netdevs import Counters, NetDev

MLX5_CORE = "bus/pci/drivers/mlx5_core"
PCIEPORT = "bus/pci/drivers/pcieport"
VIRTUAL_NET = "devices/virtual/net"
MODULES = ("mlx5_core", "openvswitch")
"""Modules that programs look for in /sys/module."""

_STATISTICS = (
    *("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped"),
    *("multicast", "collisions", "rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors"),
    *("rx_fifo_errors", "rx_missed_errors", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors"),
    *("tx_heartbeat_errors", "tx_window_errors", "rx_compressed", "tx_compressed", "rx_nohandler"),
)
"""What is in a netdev's directory ``statistics`` (net/core/net-sysfs.c)."""

_UEVENT_ACTIONS = ("add", "remove", "change", "move", "online", "offline", "bind", "unbind")


@dataclass(frozen=True, slots=True)
class Real:
    """A file, directory or link of the real sysfs, by its path there."""

    path: str


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Attribute:
    """A file. ``show`` gives its content; ``store`` takes what one write(2) wrote. Both may raise OSError.

    ``show`` is called with the lock that guards the driver held, unless it is to be called ``alone``.
    """

    show: Callable[[], str | bytes] | None = None
    store: Callable[[bytes], None] | None = None
    size: int = 4096
    alone: bool = False

    @property
    def mode(self) -> int:
        """The permission bits."""
        return (0o444 if self.show else 0) | (0o200 if self.store else 0)


@dataclass(slots=True)
class Directory:
    """A directory: its own entries, then those of the real directory ``real`` (None: none) that are not ``hidden``,
    and whose names do not match ``without`` in full."""

    real: str | None = None
    entries: dict[str, Node] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    without: re.Pattern[str] | None = None

    def hides(self, name: str) -> bool:
        """Whether the real directory's *name* is not to be seen."""
        return name in self.hidden or (self.without is not None and self.without.fullmatch(name) is not None)

    def at(self, path: str) -> Directory:
        """The directory at *path* below this one; a missing one is made, over its namesake in the real sysfs."""
        node = self
        for name in path.split("/"):
            real = None if node.real is None else posixpath.join(node.real, name)
            child = node.entries.setdefault(name, Directory(real))
            assert isinstance(child, Directory), path
            node = child
        return node


Shown: TypeAlias = Callable[[NetDev], Counters | None]
Node: TypeAlias = Real | Link | Attribute | Directory


@dataclass(frozen=True, slots=True)
class Tree:
    """The whole: ``root``, and where the netdevs are that the real sysfs has in devices/virtual/net."""

    root: Directory
    moved: dict[str, str]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def relative(link: str, target: str) -> str:
    """The text of a link at path *link* to path *target*, as the kernel writes it."""
    return posixpath.relpath("/" + target, "/" + posixpath.dirname(link))


def resolve(tree: Tree, path: str) -> Node:
    """The node at *path*. ENOENT and ENOTDIR as usual; what the real sysfs lacks is found out by using it."""
    node: Node = tree.root
    names = [name for name in path.split("/") if name]
    for place, name in enumerate(names):
        match node:
            case Real():
                return Real("/".join((node.path, *names[place:])))
            case Directory():
                entry = node.entries.get(name)
                if entry is None:
                    if node.real is None or node.hides(name):
                        raise _error(errno.ENOENT)
                    entry = Real(posixpath.join(node.real, name))
                node = entry
            case _:
                raise _error(errno.ENOTDIR)
    return node


def relocate(tree: Tree, path: str, real: str, target: str) -> str:
    """The link text *target* of the real link at *real*, made right for where it is seen (*path*) and for where the
    netdevs that it names are."""
    if posixpath.isabs(target):
        return target
    names = posixpath.normpath(posixpath.join(posixpath.dirname(real), target)).split("/")
    depth = VIRTUAL_NET.count("/") + 1
    if "/".join(names[:depth]) == VIRTUAL_NET and len(names) > depth and names[depth] in tree.moved:
        names[: depth + 1] = tree.moved[names[depth]].split("/")
    elif path == real:
        return target
    return relative(path, "/".join(names))


def build(driver: Driver, netdevs: Iterable[NetDev], real: Path, shown: Shown) -> Tree:
    """The tree for the driver's present state and *netdevs*; *real* is where the real sysfs is mounted, *shown* gives
    the counters that a netdev shows (:func:`asap2.nic.statistics.shown`)."""
    builder = _Builder(driver, list(netdevs), real, shown)
    builder.buses()
    builder.functions()
    builder.netdevs()
    builder.modules(MODULES)
    return Tree(builder.root, builder.moved)


def build_guest(driver: Driver, netdevs: Iterable[NetDev], real: Path, shown: Shown) -> Tree:
    """The tree of a guest, as :func:`build`: of the NICs it has the virtual functions of its *netdevs*, no more.

    They stay bound: what is bound again would come to the node."""
    builder = _Builder(driver, list(netdevs), real, shown)
    builder.buses()
    builder.virtual_functions()
    builder.netdevs()
    builder.modules(("mlx5_core",))
    return Tree(builder.root, builder.moved)


def _constant(text: str) -> Attribute:
    return Attribute(lambda: text)


def _refuse_new_id(data: bytes) -> None:
    """new_id: the driver knows its devices, so a valid id is there already; EINVAL without vendor and device."""
    _ids(data)
    raise _error(errno.EEXIST)


def _refuse_remove_id(data: bytes) -> None:
    _ids(data)
    raise _error(errno.ENODEV)


def _ids(data: bytes) -> None:
    words = kstrto.line(data).split()
    try:
        ids = [int(word, 16) for word in words]
    except ValueError:
        raise _error(errno.EINVAL) from None
    if len(ids) < 2:
        raise _error(errno.EINVAL)


def _uevent_action(data: bytes) -> None:
    if kstrto.line(data).split(" ")[0] not in _UEVENT_ACTIONS:
        raise _error(errno.EINVAL)


def _refuse(_data: bytes) -> None:
    raise _error(errno.EPERM)


def _no_link_settings() -> str:
    """EINVAL, as for each device whose driver has no get_link_ksettings (net/core/net-sysfs.c, speed_show)."""
    raise _error(errno.EINVAL)


def _shown_mtu(file: Path) -> str:
    text = file.read_text()
    return f"{SHOWN_UPCALL_MTU}\n" if int(text) == UPCALL_MTU else text


def _write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _set_mtu(file: Path, data: bytes) -> None:
    if kstrto.unsigned(data) > MAX_MTU:
        raise _error(errno.EINVAL)
    file.write_bytes(data)


def _accept_number(data: bytes) -> None:
    kstrto.unsigned(data)


class _Builder:
    """Puts the tree together; each method one part of /sys."""

    def __init__(self, driver: Driver, netdevs: list[NetDev], real: Path, shown: Shown) -> None:
        self.driver = driver
        self.devices = netdevs
        self.real = real
        self.shown = shown
        self.root = Directory("")
        self.moved: dict[str, str] = {}
        self.numa = "0\n" if (real / "devices/system/node/node0").exists() else "-1\n"

    # ---- bus/pci

    def buses(self) -> None:
        """bus/pci: its own files, and the drivers; the host's devices are not the node's."""
        bus = self.root.at("bus/pci")
        bus.entries["devices"] = Directory()
        drivers = Directory()
        bus.entries["drivers"] = drivers
        bus.entries["drivers_autoprobe"] = Attribute(lambda: "1\n", _accept_number)
        bus.entries["drivers_probe"] = Attribute(None, lambda data: self.driver.probe(kstrto.line(data)))
        bus.entries["rescan"] = Attribute(None, _accept_number)
        bus.entries["uevent"] = Attribute(None, _uevent_action)
        for name in ("slots", "resource_alignment"):
            bus.hidden.add(name)
        mlx5 = self._driver_directory(MLX5_CORE)
        mlx5.entries["bind"] = Attribute(None, lambda data: self.driver.bind(kstrto.line(data)))
        mlx5.entries["unbind"] = Attribute(None, lambda data: self.driver.unbind(kstrto.line(data)))
        mlx5.entries["new_id"] = Attribute(None, _refuse_new_id)
        mlx5.entries["remove_id"] = Attribute(None, _refuse_remove_id)
        mlx5.entries["module"] = Link(relative(f"{MLX5_CORE}/module", "module/mlx5_core"))
        self._driver_directory(PCIEPORT)

    def _driver_directory(self, path: str) -> Directory:
        directory = self.root.at(path)
        directory.entries["uevent"] = Attribute(None, _uevent_action)
        return directory

    # ---- devices/pciDDDD:00

    def functions(self) -> None:
        """The root ports, and below each its NIC's functions."""
        for place, nic in enumerate(self.driver.nics):
            domain = nic.pci[:4]
            port = f"{domain}:00:{0x1E - place // 8:02x}.{place % 8}"
            parent = f"devices/pci{domain}:00/{port}"
            self._root_port(parent, port, nic)
            for function in nic.functions():
                self._function(f"{parent}/{function.bdf}", function)

    def virtual_functions(self) -> None:
        """The functions of the netdevs, each below a root port, and with nothing to be managed."""
        for place, nic in enumerate(self.driver.nics):
            mine = [one.function for one in self.devices if one.nic is nic and one.role is Role.VF and one.function]
            domain = nic.pci[:4]
            port = f"{domain}:00:{0x1E - place // 8:02x}.{place % 8}"
            parent = f"devices/pci{domain}:00/{port}"
            if mine:
                self._root_port(parent, port, nic)
            for function in mine:
                config = functools.partial(bytes, pci.config(function))
                device = self._place(f"{parent}/{function.bdf}", pci.identity(function), config)
                device.entries["driver_override"] = _constant("(null)\n")
                device.entries["net"] = Directory()
        mlx5 = self.root.at(MLX5_CORE)
        for name in ("bind", "unbind"):
            mlx5.entries[name] = Attribute(None, _refuse)
        self.root.at("bus/pci").entries["drivers_probe"] = Attribute(None, _refuse)

    def _place(self, path: str, own: pci.Identity, config: Callable[[], bytes]) -> Directory:
        """What every PCI device has: its directory, and the links to it and from it."""
        directory = self.root.at(posixpath.dirname(path))
        device = Directory()
        directory.entries[own.bdf] = device
        device.entries.update((name, _constant(text)) for name, text in own.texts().items())
        device.entries["config"] = Attribute(config, lambda _data: None, pci.CONFIG_SIZE)
        device.entries["uevent"] = Attribute(lambda: own.uevent, _uevent_action)
        device.entries["enable"] = Attribute(lambda: f"{int(bool(own.driver))}\n", _accept_number)
        device.entries["rescan"] = Attribute(None, _accept_number)
        device.entries["numa_node"] = _constant(self.numa)
        device.entries["local_cpulist"] = Attribute(lambda: (self.real / "devices/system/cpu/online").read_text())
        device.entries["local_cpus"] = Attribute(self._cpu_mask)
        device.entries["subsystem"] = Link(relative(f"{path}/subsystem", "bus/pci"))
        by_bus = f"bus/pci/devices/{own.bdf}"
        self.root.at("bus/pci/devices").entries[own.bdf] = Link(relative(by_bus, path))
        if own.driver:
            place = f"bus/pci/drivers/{own.driver}"
            device.entries["driver"] = Link(relative(f"{path}/driver", place))
            self.root.at(place).entries[own.bdf] = Link(relative(f"{place}/{own.bdf}", path))
        return device

    def _cpu_mask(self) -> str:
        mask = 0
        for part in (self.real / "devices/system/cpu/online").read_text().strip().split(","):
            first, _, last = part.partition("-")
            for cpu in range(int(first), int(last or first) + 1):
                mask |= 1 << cpu
        words = f"{mask:x}"
        padded = words.zfill(-(-len(words) // 8) * 8)
        return ",".join([padded[i : i + 8] for i in range(0, len(padded), 8)]).lstrip("0") + "\n"

    def _root_port(self, path: str, bdf: str, nic: Nic) -> None:
        port = self._place(path, pci.root_port(bdf, nic), lambda: pci.root_port_config(bdf, nic))
        port.entries["secondary_bus_number"] = _constant(f"{pci.bus_number(nic.pci)}\n")
        port.entries["subordinate_bus_number"] = _constant(f"{pci.last_bus(nic)}\n")

    def _function(self, path: str, function: Function) -> None:
        device = self._place(path, pci.identity(function), lambda: pci.config(function))
        device.entries["driver_override"] = Attribute(
            lambda: f"{function.driver_override or '(null)'}\n",
            lambda data: self.driver.set_driver_override(function.bdf, kstrto.line(data).split("\n", 1)[0]),
        )

        if function.bound:
            device.entries["net"] = Directory()
        match function:
            case Pf():
                self._physical(device, function)
            case Vf():
                self._virtual(device, function)

    def _physical(self, device: Directory, pf: Pf) -> None:
        nic, vpd = pf.nic, pci.vital_product_data(pf.nic)
        device.entries["vpd"] = Attribute(lambda: vpd, None, 0)
        if not nic.total_vfs:
            return
        device.entries["sriov_totalvfs"] = _constant(f"{nic.total_vfs}\n")
        device.entries["sriov_numvfs"] = Attribute(
            lambda: f"{len(pf.vfs)}\n",
            lambda data: self.driver.set_numvfs(pf.bdf, kstrto.unsigned(data, 16)),
        )
        device.entries["sriov_offset"] = _constant(f"{pf.vf_offset}\n")
        device.entries["sriov_stride"] = _constant("1\n")
        device.entries["sriov_vf_device"] = _constant(f"{nic.model.vf_device_id:x}\n")
        device.entries["sriov_drivers_autoprobe"] = Attribute(
            lambda: f"{int(pf.autoprobe)}\n",
            lambda data: self.driver.set_autoprobe(pf.bdf, kstrto.boolean(data)),
        )
        vectors = MOST_VF_VECTORS * nic.total_vfs if pf.bound and nic.model.dynamic_msix else 0
        device.entries["sriov_vf_total_msix"] = _constant(f"{vectors}\n")
        for vf in pf.vfs:
            device.entries[f"virtfn{vf.index}"] = Link(f"../{vf.bdf}")

    def _virtual(self, device: Directory, vf: Vf) -> None:
        device.entries["physfn"] = Link(f"../{vf.pf.bdf}")
        device.entries["sriov_vf_msix_count"] = Attribute(None, lambda data: self._set_msix(vf, data))

    def _set_msix(self, vf: Vf, data: bytes) -> None:
        try:
            count = kstrto.unsigned(data, 31)
        except OSError:
            raise _error(errno.EINVAL) from None  # what kstrtoint() says is not told (sriov_vf_msix_count_store)
        self.driver.set_msix(vf.bdf, count)

    # ---- class/net

    def netdevs(self) -> None:
        """The NICs' netdevs below their functions; the rest stays where the real sysfs has it."""
        virtual, by_class = self.root.at(VIRTUAL_NET), self.root.at("class/net")
        paths = {
            name: f"devices/{node.target.partition('devices/')[2]}"
            for name, node in self.root.at("bus/pci/devices").entries.items()
            if isinstance(node, Link)
        }
        for device in self.devices:
            if device.role is Role.INTERNAL:
                virtual.entries[device.name] = own = Directory(f"{VIRTUAL_NET}/{device.name}")
                own.entries["iflink"] = _constant(f"{device.ifindex}\n")
                mtu = self.real / VIRTUAL_NET / device.name / "mtu"
                own.entries["mtu"] = Attribute(functools.partial(_shown_mtu, mtu), functools.partial(_write, mtu))
                own.entries["speed"] = own.entries["duplex"] = Attribute(_no_link_settings)
            elif device.parent is not None and (bdf := device.parent.bdf) in paths:
                self._netdev(device, f"{paths[bdf]}/net", bdf, by_class, virtual)

    def _netdev(self, device: NetDev, parent: str, bdf: str, by_class: Directory, virtual: Directory) -> None:
        path = f"{parent}/{device.name}"
        own = Directory(f"{VIRTUAL_NET}/{device.name}")
        self.root.at(parent).entries[device.name] = own
        by_class.entries[device.name] = Link(relative(f"class/net/{device.name}", path))
        virtual.hidden.add(device.name)
        self.moved[device.name] = path
        own.entries["device"] = Link(f"../../../{bdf}")
        own.entries["subsystem"] = Link(relative(f"{path}/subsystem", "class/net"))
        own.entries["iflink"] = _constant(f"{device.ifindex}\n")
        own.entries["dev_port"] = _constant("0\n")
        own.entries["phys_port_name"] = Attribute(lambda: _given(device.phys_port_name))
        own.entries["phys_switch_id"] = Attribute(lambda: _given(device.phys_switch_id))
        own.entries["speed"] = Attribute(lambda: f"{device.port_speed if self._linked(device) else -1}\n")
        own.entries["duplex"] = Attribute(lambda: "full\n" if self._linked(device) else "unknown\n")
        mtu = self.real / VIRTUAL_NET / device.name / "mtu"
        own.entries["mtu"] = Attribute(mtu.read_text, lambda data: _set_mtu(mtu, data))
        for way in ("rx", "tx"):
            for number in range(1, queues(device)):
                own.at("queues").entries[f"{way}-{number}"] = Real(f"{VIRTUAL_NET}/{device.name}/queues/{way}-0")
        own.entries["addr_assign_type"] = Attribute(functools.partial(self._address_assigned, device))
        counted = own.at("statistics")
        for name in _STATISTICS:
            counted.entries[name] = Attribute(functools.partial(self._statistic, device, name))

    def _address_assigned(self, device: NetDev) -> str:
        """NET_ADDR_PERM where the address is the function's own; else as the kernel has it."""
        own = device.function.mac if device.function is not None else ZERO_MAC
        netdev = self.real / VIRTUAL_NET / device.name
        if (
            device.role is not Role.REPRESENTOR
            and any(own)
            and (netdev / "address").read_text().strip() == own.hex(":")
        ):
            return "0\n"
        return (netdev / "addr_assign_type").read_text()

    def _statistic(self, device: NetDev, name: str) -> str:
        counters = self.shown(device)
        if counters is None:
            return (self.real / VIRTUAL_NET / device.name / "statistics" / name).read_text()
        return f"{getattr(counters, name, 0)}\n"

    def _linked(self, device: NetDev) -> bool:
        """Whether a netdev with link settings has a link: EINVAL while it is down, and for representors, which have
        none (net/core/net-sysfs.c, speed_show and duplex_show)."""
        if device.port_speed is None:
            raise _error(errno.EINVAL)
        return (self.real / VIRTUAL_NET / device.name / "carrier").read_text().strip() == "1"

    # ---- module

    def modules(self, names: Iterable[str]) -> None:
        """module/NAME for what there behaves as if it had been loaded."""
        for name in names:
            module = self.root.at(f"module/{name}")
            module.entries["initstate"] = _constant("live\n")
            module.entries["refcnt"] = _constant("0\n")
            module.entries["taint"] = _constant("\n")
            module.entries["coresize"] = _constant("0\n")
            module.entries["uevent"] = Attribute(None, _uevent_action)
            module.entries.setdefault("holders", Directory())
        drivers = self.root.at("module/mlx5_core/drivers")
        drivers.entries["pci:mlx5_core"] = Link(relative("module/mlx5_core/drivers/pci:mlx5_core", MLX5_CORE))


def _given(text: str | None) -> str:
    if text is None:
        raise _error(errno.EOPNOTSUPP)
    return f"{text}\n"
