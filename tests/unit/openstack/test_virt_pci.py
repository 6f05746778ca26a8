# SPDX-License-Identifier: Apache-2.0
"""The virt driver's reading of sysfs, on a tree of files as mlx5's is in switchdev mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.openstack.virt.pci import PciError, Vf, inventory, uplink_of, vf_number

PF, VF0, VF1 = "0000:03:00.0", "0000:03:00.2", "0000:03:00.3"
PF_MAC = "ec:0d:9a:46:9e:84"


def write(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("class_", "class")).write_text(f"{text}\n")
    return path


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    pf = write(tmp_path / PF, class_="0x020000", vendor="0x15b3", device="0x1017", numa_node="-1", sriov_totalvfs="8")
    write(pf / "net/enp3s0f0", phys_port_name="p0", address=PF_MAC)
    write(pf / "net/eth0", phys_port_name="pf0vf0", address="02:00:00:00:00:01")
    for number, address in enumerate((VF0, VF1)):
        vf = write(tmp_path / address, class_="0x020000", vendor="0x15b3", device="0x1018", numa_node="0")
        (vf / "physfn").symlink_to(f"../{PF}")
        (pf / f"virtfn{number}").symlink_to(f"../{address}")
    write(tmp_path / "0000:00:00.0", class_="0x060400", vendor="0x8086", device="0x0001")
    return tmp_path


def test_the_inventory_has_the_network_functions_alone(devices: Path) -> None:
    assert [each["address"] for each in inventory(devices)] == [PF, VF0, VF1]


def test_a_physical_function(devices: Path) -> None:
    pf = inventory(devices)[0]
    assert (pf["dev_type"], pf["vendor_id"], pf["product_id"]) == ("type-PF", "15b3", "1017")
    assert (pf["label"], pf["dev_id"], pf["numa_node"]) == ("label_15b3_1017", "pci_0000_03_00_0", None)


def test_a_virtual_function_names_its_parent(devices: Path) -> None:
    vf = inventory(devices)[2]
    assert (vf["dev_type"], vf["parent_addr"], vf["parent_ifname"]) == ("type-VF", PF, "enp3s0f0")
    assert vf["capabilities"] == {"sriov": {"pf_mac_address": PF_MAC, "vf_num": 1}}
    assert vf["numa_node"] == 0


def test_a_function_without_virtual_functions(devices: Path) -> None:
    (devices / PF / "sriov_totalvfs").unlink()
    assert inventory(devices)[0]["dev_type"] == "type-PCI"


def test_the_uplink_is_told_from_the_representors(devices: Path) -> None:
    assert uplink_of(devices / PF) == "enp3s0f0"


def test_the_only_device_is_the_uplink_in_legacy_mode(tmp_path: Path) -> None:
    write(tmp_path / PF / "net/enp3s0f0")
    assert uplink_of(tmp_path / PF) == "enp3s0f0"


def test_a_function_without_an_uplink(devices: Path) -> None:
    (devices / PF / "net/enp3s0f0/phys_port_name").write_text("pf0vf9\n")
    with pytest.raises(PciError, match="has 2 network devices"):
        uplink_of(devices / PF)


def test_a_virtual_function_that_is_not_its_parents(devices: Path) -> None:
    (devices / PF / "virtfn1").unlink()
    with pytest.raises(PciError, match="not among the virtual functions"):
        vf_number(devices / VF1)


def test_only_a_virtual_function_is_handed_out(devices: Path) -> None:
    with pytest.raises(PciError, match="not a virtual function"):
        Vf(PF, devices)
