# SPDX-License-Identifier: Apache-2.0
"""The tree of /sys: what is where, who owns which netdev, and where links lead."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asap2.nic import statistics
from asap2.nic.device import Driver
from asap2.nic.faces.sysfs import tree as sysfs_tree
from asap2.nic.faces.sysfs.tree import Attribute, Directory, Link, Real, Tree
from asap2.nic.function import EswitchMode, Role
from asap2.nic.model import UPCALL_MTU
from asap2.nic.netdevs import NetDev
from tests.unit.nic.backend import ListedNetDevs, booted, nic, refused

PF = "0000:03:00.0"
PORT = "devices/pci0000:00/0000:00:1e.0"


class Sys:
    """The tree of a driver, used as a program uses /sys."""

    def __init__(self, driver: Driver, real: Path) -> None:
        self.driver = driver
        self.netdevs = ListedNetDevs(driver)
        self.real = real
        for directory in ("class/net", "bus/pci/slots", "devices/virtual/net/lo", "devices/system/cpu", "module/fuse"):
            (real / directory).mkdir(parents=True)
        (real / "devices/system/cpu/online").write_text("0-3,40\n")

    @property
    def tree(self) -> Tree:
        return sysfs_tree.build(
            self.driver, self.netdevs.all(), self.real, lambda device: statistics.shown(self.netdevs, device)
        )

    def node(self, path: str) -> sysfs_tree.Node:
        return sysfs_tree.resolve(self.tree, path)

    def read(self, path: str) -> str:
        node = self.node(path)
        assert isinstance(node, Attribute)
        assert node.show
        content = node.show()
        return content if isinstance(content, str) else content.decode()

    def write(self, path: str, text: bytes) -> None:
        node = self.node(path)
        assert isinstance(node, Attribute)
        assert node.store
        node.store(text)

    def follow(self, path: str) -> str:
        """Where the link at *path* leads, which must be there."""
        node = self.node(path)
        assert isinstance(node, Link)
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), node.target))
        self.node(target)
        return target

    def names(self, path: str) -> list[str]:
        node = self.node(path)
        assert isinstance(node, Directory)
        return sorted(node.entries)


@pytest.fixture
def sys(tmp_path: Path) -> Sys:
    return Sys(booted()[0], tmp_path)


def links(directory: Directory, path: str = "") -> Iterator[str]:
    for name, node in directory.entries.items():
        place = f"{path}/{name}".lstrip("/")
        if isinstance(node, Link):
            yield place
        elif isinstance(node, Directory):
            yield from links(node, place)


def test_every_link_leads_somewhere(sys: Sys) -> None:
    sys.driver.set_numvfs(PF, 2)
    sys.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    found = list(links(sys.tree.root))
    assert len(found) > 20
    for path in found:
        sys.follow(path)


def test_the_pf_is_found_by_name_by_address_and_by_driver(sys: Sys) -> None:
    assert sys.follow("class/net/enp3s0f0") == f"{PORT}/{PF}/net/enp3s0f0"
    assert sys.follow(f"bus/pci/devices/{PF}") == f"{PORT}/{PF}"
    assert sys.follow(f"bus/pci/drivers/mlx5_core/{PF}") == f"{PORT}/{PF}"
    assert sys.follow(f"{PORT}/{PF}/driver") == "bus/pci/drivers/mlx5_core"
    assert sys.node(f"{PORT}/{PF}/net/enp3s0f0/device") == Link(f"../../../{PF}")
    assert sys.names("bus/pci/devices") == ["0000:00:1e.0", PF]


def test_vfs_and_their_pf_know_each_other(sys: Sys) -> None:
    sys.driver.set_numvfs(PF, 2)
    assert sys.follow(f"{PORT}/{PF}/virtfn1") == f"{PORT}/0000:03:00.3"
    assert sys.follow(f"{PORT}/0000:03:00.3/physfn") == f"{PORT}/{PF}"
    assert sys.names(f"{PORT}/0000:03:00.3/net") == ["enp3s0f0v1"]
    with pytest.raises(FileNotFoundError):
        sys.node(f"{PORT}/{PF}/virtfn2")
    with pytest.raises(FileNotFoundError):
        sys.node(f"{PORT}/0000:03:00.3/sriov_numvfs")


def test_representors_share_the_pfs_device(sys: Sys) -> None:
    sys.driver.set_numvfs(PF, 2)
    sys.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert sys.names(f"{PORT}/{PF}/net") == ["enp3s0f0", "eth0", "eth1"]
    assert sys.read("devices/pci0000:00/0000:00:1e.0/0000:03:00.0/net/eth1/phys_port_name") == "pf0vf1\n"


def test_the_switch_id_is_there_in_switchdev_mode_and_for_the_eswitchs_ports_only(sys: Sys) -> None:
    sys.driver.set_numvfs(PF, 1)
    path = f"{PORT}/{PF}/net/enp3s0f0/phys_switch_id"
    with refused(errno.EOPNOTSUPP):
        sys.read(path)
    sys.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert sys.read(path) == sys.read(f"{PORT}/{PF}/net/eth0/phys_switch_id") != ""
    with refused(errno.EOPNOTSUPP):
        sys.read(f"{PORT}/0000:03:00.2/net/enp3s0f0v0/phys_switch_id")


def test_an_unbound_vf_has_neither_driver_nor_netdev(sys: Sys) -> None:
    sys.driver.set_numvfs(PF, 1)
    sys.write("bus/pci/drivers/mlx5_core/unbind", b"0000:03:00.2\n")
    for gone in (f"{PORT}/0000:03:00.2/driver", f"{PORT}/0000:03:00.2/net", "bus/pci/drivers/mlx5_core/0000:03:00.2"):
        with pytest.raises(FileNotFoundError):
            sys.node(gone)
    sys.write("bus/pci/drivers_probe", b"0000:03:00.2\n")
    assert sys.names(f"{PORT}/0000:03:00.2/net") == ["enp3s0f0v0"]


def test_a_vf_in_another_namespace_leaves_an_empty_net_directory(sys: Sys) -> None:
    sys.driver.set_numvfs(PF, 1)
    sys.netdevs.away.add("enp3s0f0v0")
    assert sys.names(f"{PORT}/0000:03:00.2/net") == []
    assert sys.node("class/net/enp3s0f0v0") == Real("class/net/enp3s0f0v0")


@pytest.mark.parametrize(
    ("path", "text", "number"),
    [
        ("sriov_numvfs", b"many\n", errno.EINVAL),
        ("sriov_numvfs", b"9\n", errno.ERANGE),
        ("sriov_numvfs", b"99999999\n", errno.ERANGE),
        ("sriov_numvfs", b"-1\n", errno.EINVAL),
        ("sriov_numvfs", b"", errno.EINVAL),
        ("sriov_drivers_autoprobe", b"maybe\n", errno.EINVAL),
        ("uevent", b"explode\n", errno.EINVAL),
        ("driver/bind", b"0000:03:00.0\n", errno.EBUSY),
        ("driver/bind", b"0000:03:00.0 \n", errno.ENODEV),
        ("driver/unbind", b"0000:03:00.7\n", errno.ENODEV),
        ("driver/new_id", b"15b3\n", errno.EINVAL),
        ("driver/new_id", b"15b3 1017\n", errno.EEXIST),
        ("driver/remove_id", b"15b3 1017\n", errno.ENODEV),
    ],
)
def test_writes_give_the_kernels_errors(sys: Sys, path: str, text: bytes, number: int) -> None:
    place = path.replace("driver/", "bus/pci/drivers/mlx5_core/") if "/" in path else f"{PORT}/{PF}/{path}"
    with refused(number):
        sys.write(place, text)


def test_attributes_show_what_was_written(sys: Sys) -> None:
    sys.write(f"{PORT}/{PF}/sriov_numvfs", b"2\n")
    sys.write(f"{PORT}/{PF}/sriov_drivers_autoprobe", b"0\n")
    assert sys.read(f"{PORT}/{PF}/driver_override") == "(null)\n"
    sys.write(f"{PORT}/{PF}/driver_override", b"vfio-pci\nrest")
    shown = [sys.read(f"{PORT}/{PF}/{name}") for name in ("sriov_numvfs", "sriov_drivers_autoprobe", "driver_override")]
    assert shown == ["2\n", "0\n", "vfio-pci\n"]
    sys.write(f"{PORT}/{PF}/driver_override", b"\n")
    assert sys.read(f"{PORT}/{PF}/driver_override") == "(null)\n"


def test_a_vf_without_a_driver_can_be_given_more_vectors(sys: Sys) -> None:
    count = f"{PORT}/0000:03:00.2/sriov_vf_msix_count"
    sys.driver.set_numvfs(PF, 1)
    assert sys.read(f"{PORT}/{PF}/sriov_vf_total_msix") == "192\n"
    with refused(errno.EBUSY):
        sys.write(count, b"21\n")
    sys.driver.unbind("0000:03:00.2")

    def vectors() -> int:
        node = sys.node(f"{PORT}/0000:03:00.2/config")
        assert isinstance(node, Attribute)
        assert node.show
        config = node.show()
        assert isinstance(config, bytes)
        return int.from_bytes(config[0x9E:0xA0], "little") % 0x800 + 1

    assert vectors() == 12
    sys.write(count, b"21\n")
    assert vectors() == 21
    for text, number in ((b"1\n", errno.EINVAL), (b"-1\n", errno.EINVAL), (b"25\n", errno.EOVERFLOW)):
        with refused(number):
            sys.write(count, text)
    assert vectors() == 21
    sys.driver.restore(sys.driver.snapshot())
    assert vectors() == 21
    sys.write(count, b"0\n")
    assert vectors() == 12


def test_cpus_near_the_device_are_all_that_are_online(sys: Sys) -> None:
    assert sys.read(f"{PORT}/{PF}/local_cpulist") == "0-3,40\n"
    assert sys.read(f"{PORT}/{PF}/local_cpus") == "100,0000000f\n"
    assert sys.read(f"{PORT}/{PF}/numa_node") == "-1\n"


def test_what_is_not_ours_is_the_real_sysfs_but_for_the_hosts_pci_bus(sys: Sys) -> None:
    assert sys.node("class/net/lo/mtu") == Real("class/net/lo/mtu")
    assert sys.node("devices/virtual/net/lo") == Real("devices/virtual/net/lo")
    assert sys.node(f"{PORT}/{PF}/net/enp3s0f0/tx_queue_len") == Real("devices/virtual/net/enp3s0f0/tx_queue_len")
    assert sys.node("module/fuse") == Real("module/fuse")
    for hidden in ("bus/pci/devices/0000:00:00.0", "bus/pci/slots", "devices/virtual/net/enp3s0f0"):
        with pytest.raises(FileNotFoundError):
            sys.node(hidden)
    with pytest.raises(NotADirectoryError):
        sys.node(f"{PORT}/{PF}/vendor/x")


def test_internal_ports_stay_virtual_and_have_no_lower_device(sys: Sys) -> None:
    sys.netdevs.extra.append(NetDev(7, "br0", Role.INTERNAL))
    assert sys.node("class/net/br0") == Real("class/net/br0")
    assert sys.read("devices/virtual/net/br0/iflink") == "7\n"
    for settings in ("speed", "duplex"):
        with pytest.raises(OSError, match="Invalid argument"):
            sys.read(f"devices/virtual/net/br0/{settings}")


@pytest.mark.parametrize(("mtu", "shown"), [(9000, 9000), (UPCALL_MTU, 1500)])
def test_the_mtu_of_an_internal_port_is_what_open_vswitchs_would_be(sys: Sys, mtu: int, shown: int) -> None:
    sys.netdevs.extra.append(NetDev(7, "ovs-system", Role.INTERNAL))
    own = sys.real / "devices/virtual/net/ovs-system/mtu"
    own.parent.mkdir()
    own.write_text(f"{mtu}\n")
    assert sys.read("devices/virtual/net/ovs-system/mtu") == f"{shown}\n"
    sys.write("devices/virtual/net/ovs-system/mtu", b"1400\n")
    assert own.read_text() == "1400\n"


@pytest.mark.parametrize(
    ("path", "real", "target", "text"),
    [
        (
            f"{PORT}/{PF}/net/enp3s0f0/master",
            "devices/virtual/net/enp3s0f0/master",
            "../ovs-system",
            "../../../../../virtual/net/ovs-system",
        ),
        (
            "devices/virtual/net/br0/lower_enp3s0f0",
            "devices/virtual/net/br0/lower_enp3s0f0",
            "../enp3s0f0",
            f"../../../pci0000:00/0000:00:1e.0/{PF}/net/enp3s0f0",
        ),
        ("class/net/lo", "class/net/lo", "../../devices/virtual/net/lo", "../../devices/virtual/net/lo"),
        (
            "devices/virtual/net/lo/subsystem",
            "devices/virtual/net/lo/subsystem",
            "../../../../class/net",
            "../../../../class/net",
        ),
    ],
)
def test_real_links_lead_right_from_where_they_are_seen(sys: Sys, path: str, real: str, target: str, text: str) -> None:
    assert sysfs_tree.relocate(sys.tree, path, real, target) == text


def test_two_nics_have_a_root_port_each(tmp_path: Path) -> None:
    second = nic(pci="0000:82:00.0")
    second.name = "nic1"
    sys = Sys(booted(nic(), second)[0], tmp_path)
    assert sys.names("bus/pci/devices") == ["0000:00:1e.0", "0000:00:1e.1", PF, "0000:82:00.0"]
    assert sys.follow("class/net/enp130s0f0").startswith("devices/pci0000:00/0000:00:1e.1/0000:82:00.0/")


def test_a_nic_without_sriov_has_no_files_for_it(tmp_path: Path) -> None:
    sys = Sys(booted(nic(total_vfs=0))[0], tmp_path)
    assert not [name for name in sys.names(f"{PORT}/{PF}") if name.startswith("sriov")]


def test_modules_that_programs_look_for_are_there(sys: Sys) -> None:
    for module in ("mlx5_core", "openvswitch"):
        assert sys.read(f"module/{module}/initstate") == "live\n"
    assert sys.follow("module/mlx5_core/drivers/pci:mlx5_core") == "bus/pci/drivers/mlx5_core"
    assert sys.follow("bus/pci/drivers/mlx5_core/module") == "module/mlx5_core"


def test_a_guest_has_its_functions_and_nothing_to_manage(tmp_path: Path) -> None:
    driver, _ = booted()
    driver.set_numvfs("0000:03:00.0", 2)
    sys = Sys(driver, tmp_path)
    (vf,) = [device for device in sys.netdevs.all() if device.role is Role.VF and device.name.endswith("v1")]
    tree = sysfs_tree.build_guest(driver, [replace(vf, name="eth0")], tmp_path, lambda _device: None)
    functions = sysfs_tree.resolve(tree, "bus/pci/devices")
    assert isinstance(functions, Directory)
    assert sorted(functions.entries) == ["0000:00:1e.0", "0000:03:00.3"]
    link = sysfs_tree.resolve(tree, "class/net/eth0")
    assert isinstance(link, Link)
    assert link.target == f"../../{PORT}/0000:03:00.3/net/eth0"
    device = sysfs_tree.resolve(tree, f"{PORT}/0000:03:00.3")
    assert isinstance(device, Directory)
    assert not {"physfn", "sriov_numvfs"} & set(device.entries)
    unbind = sysfs_tree.resolve(tree, "bus/pci/drivers/mlx5_core/unbind")
    assert isinstance(unbind, Attribute)
    assert unbind.store
    with pytest.raises(OSError, match="Operation not permitted"):
        unbind.store(b"0000:03:00.3")
