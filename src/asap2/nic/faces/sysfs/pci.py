# SPDX-License-Identifier: Apache-2.0
"""PCI functions as a host sees them: configuration space, resources, identity and vital product data.

Pure functions of the driver's state. Registers and capabilities are those of PCI Express Base 3.1 and of a ConnectX as
``lspci -vvv`` shows it; register names in comments are those of include/uapi/linux/pci_regs.h. Integers in
configuration space are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from asap2.nic.function import Function, Nic, Pf
from asap2.nic.model import MELLANOX

CONFIG_SIZE = 4096
"""Bytes of a PCI Express function's configuration space."""

ETHERNET = 0x020000
"""Class code of an Ethernet controller."""

BRIDGE = 0x060400
"""Class code of a PCI-to-PCI bridge."""

INTEL, ROOT_PORT = 0x8086, 0x2030
"""Sky Lake-E PCI Express Root Port A: a port with a gen3 x16 slot."""

MEM_64 = 0x14220C
"""Resource flags of a 64-bit prefetchable memory BAR (include/linux/ioport.h: MEM_64, SIZEALIGN, PREFETCH, MEM)."""

PF_BAR = 32 << 20
VF_BAR = 1 << 20
"""Bytes of BAR 0 of a physical and of a virtual function."""

_WINDOW = 0x3800_0000_0000
_NO_RESOURCE = (0, 0, 0)
_SPEEDS = {1: "2.5 GT/s PCIe", 2: "5.0 GT/s PCIe", 3: "8.0 GT/s PCIe", 4: "16.0 GT/s PCIe"}

# Capabilities' places in a ConnectX.
_PM, _VPD, _EXPRESS, _MSIX, _VENDOR = 0x40, 0x48, 0x60, 0x9C, 0xC0
_AER, _ARI, _SRIOV, _SECONDARY = 0x100, 0x150, 0x180, 0x1C0


@dataclass(frozen=True, slots=True)
class Identity:
    """A PCI function's own. ``driver`` is empty when unbound; ``resources`` are (start, end, flags)."""

    bdf: str
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    class_code: int
    driver: str
    irq: int
    generation: int
    width: int
    resources: tuple[tuple[int, int, int], ...]

    @property
    def modalias(self) -> str:
        """The string by which modprobe finds the driver (drivers/pci/pci-sysfs.c, modalias_show)."""
        c = self.class_code
        return (
            f"pci:v{self.vendor:08X}d{self.device:08X}sv{self.subsystem_vendor:08X}sd{self.subsystem_device:08X}"
            f"bc{c >> 16:02X}sc{c >> 8 & 255:02X}i{c & 255:02X}"
        )

    @property
    def uevent(self) -> str:
        """The function's uevent variables (drivers/pci/pci-driver.c, pci_uevent)."""
        driver = f"DRIVER={self.driver}\n" if self.driver else ""
        return (
            f"{driver}PCI_CLASS={self.class_code:04X}\nPCI_ID={self.vendor:04X}:{self.device:04X}\n"
            f"PCI_SUBSYS_ID={self.subsystem_vendor:04X}:{self.subsystem_device:04X}\n"
            f"PCI_SLOT_NAME={self.bdf}\nMODALIAS={self.modalias}\n"
        )

    def texts(self) -> dict[str, str]:
        """The read-only attributes that depend on nothing but this, by file name."""
        speed, width = f"{_SPEEDS[self.generation]}\n", f"{self.width}\n"
        return {
            "vendor": f"0x{self.vendor:04x}\n",
            "device": f"0x{self.device:04x}\n",
            "subsystem_vendor": f"0x{self.subsystem_vendor:04x}\n",
            "subsystem_device": f"0x{self.subsystem_device:04x}\n",
            "class": f"0x{self.class_code:06x}\n",
            "revision": "0x00\n",
            "irq": f"{self.irq}\n",
            "modalias": f"{self.modalias}\n",
            "resource": "".join(f"0x{s:016x} 0x{e:016x} 0x{f:016x}\n" for s, e, f in self.resources),
            "max_link_speed": speed,
            "current_link_speed": speed,
            "max_link_width": width,
            "current_link_width": width,
            "ari_enabled": "1\n" if self.class_code == ETHERNET else "0\n",
            "broken_parity_status": "0\n",
            "consistent_dma_mask_bits": "64\n",
            "dma_mask_bits": "64\n",
            "d3cold_allowed": "1\n",
            "msi_bus": "1\n",
            "power_state": "D0\n",
        }


def bus_number(bdf: str) -> int:
    """The bus of ``0000:03:00.0``: 3."""
    return int(bdf[5:7], 16)


def devfn(bdf: str) -> int:
    """Device and function number as one: device × 8 + function."""
    return int(bdf[8:10], 16) << 3 | int(bdf[11:], 16)


def last_bus(nic: Nic) -> int:
    """The highest bus number that the NIC's virtual functions can take (pci_iov_bus_range)."""
    if not nic.total_vfs:
        return bus_number(nic.pci)
    return max(bus_number(pf.vf_bdf(nic.total_vfs - 1)) for pf in nic.pfs)


def _pf_window(pf: Pf) -> int:
    return _WINDOW + (bus_number(pf.nic.pci) << 32) + (pf.index << 30)


def _vf_window(pf: Pf) -> int:
    return _pf_window(pf) + (1 << 29)


def identity(function: Function) -> Identity:
    """The identity of a NIC's function."""
    pf, model = function.pf, function.nic.model
    return Identity(
        bdf=function.bdf,
        vendor=MELLANOX,
        device=function.device_id,
        subsystem_vendor=MELLANOX,
        subsystem_device=model.subsystem_id,
        class_code=ETHERNET,
        driver="mlx5_core" if function.bound else "",
        irq=24 + bus_number(function.nic.pci) * 2 + pf.index if function is pf else 0,
        generation=model.link_generation,
        width=model.link_width,
        resources=_resources(function),
    )


def _resources(function: Function) -> tuple[tuple[int, int, int], ...]:
    """BAR 0, and of a PF with SR-IOV the BAR that its virtual functions share: a VF's BAR 0 is its part of that."""
    pf, found = function.pf, [_NO_RESOURCE] * 13
    if function is pf:
        start, size = _pf_window(pf), PF_BAR
        if total := function.nic.total_vfs:
            found[7] = (_vf_window(pf), _vf_window(pf) + VF_BAR * total - 1, MEM_64)
    else:
        start, size = _vf_window(pf) + VF_BAR * function.index, VF_BAR
    found[0] = (start, start + size - 1, MEM_64)
    return tuple(found)


def root_port(bdf: str, nic: Nic) -> Identity:
    """The root port at *bdf* that the NIC is plugged into."""
    start = _pf_window(nic.pfs[0])
    window = (start, start + (1 << 31) - 1, 0x102201)
    return Identity(
        bdf=bdf,
        vendor=INTEL,
        device=ROOT_PORT,
        subsystem_vendor=0,
        subsystem_device=0,
        class_code=BRIDGE,
        driver="pcieport",
        irq=16,
        generation=nic.model.link_generation,
        width=nic.model.link_width,
        resources=(_NO_RESOURCE,) * 15 + (window, _NO_RESOURCE),
    )


def _header(own: Identity, command: int, pointer: int, kind: int) -> bytearray:
    space = bytearray(CONFIG_SIZE)
    struct.pack_into("<HHHH", space, 0, own.vendor, own.device, command, 0x0010)
    space[9:12] = own.class_code.to_bytes(3, "little")
    space[0x0C] = 8  # cache line, in dwords
    space[0x0E] = kind
    space[0x34] = pointer
    return space


def _express(space: bytearray, at: int, following: int, port_type: int, own: Identity) -> None:
    """PCI Express capability, version 2; *port_type* is that of PCI_EXP_FLAGS with the slot bit."""
    link = own.generation | own.width << 4
    struct.pack_into("<BBH", space, at, 0x10, following, 0x0002 | port_type)
    struct.pack_into("<IHH", space, at + 0x04, 0x10008FE2 if not port_type else 0x00008002, 0x2930, 0)
    struct.pack_into("<IHH", space, at + 0x0C, 0x00400000 | link, 0x0040, 0x1000 | link)
    struct.pack_into("<IH", space, at + 0x24, 0x0000001F, 0)
    struct.pack_into("<IHH", space, at + 0x2C, (2 << own.generation) - 2, own.generation, 0x001E)


def _msix(space: bytearray, following: int, function: Function) -> None:
    control = function.msix - 1 | function.bound << 15
    struct.pack_into("<BBHII", space, _MSIX, 0x11, following, control, 0x2000, 0x3000)


def _extended(space: bytearray, at: int, capability: int, following: int) -> None:
    struct.pack_into("<I", space, at, capability | 1 << 16 | following << 20)


def _error_reporting(space: bytearray, following: int) -> None:
    _extended(space, _AER, 0x0001, following)
    struct.pack_into("<I", space, _AER + 0x0C, 0x00062030)  # severity: the specification's default
    struct.pack_into("<II", space, _AER + 0x14, 0x00002000, 0x000000A0)


def config(function: Function) -> bytes:
    """The configuration space of a NIC's function."""
    return bytes(_physical_config(function) if isinstance(function, Pf) else _virtual_config(function))


def _physical_config(pf: Pf) -> bytearray:
    nic, own = pf.nic, identity(pf)
    space = _header(own, 0x0406 if pf.bound else 0x0002, _EXPRESS, 0x80 if len(nic.pfs) > 1 else 0)
    struct.pack_into("<Q", space, 0x10, own.resources[0][0] | 0xC)
    struct.pack_into("<HH", space, 0x2C, own.subsystem_vendor, own.subsystem_device)
    space[0x3C:0x3E] = bytes((own.irq, 1 + pf.index))
    _express(space, _EXPRESS, _VPD, 0, own)
    struct.pack_into("<BBHI", space, _VPD, 0x03, _MSIX, 0, 0)
    _msix(space, _VENDOR, pf)
    struct.pack_into("<BBB", space, _VENDOR, 0x09, _PM, 0x18)
    struct.pack_into("<BBHH", space, _PM, 0x01, 0, 0x81C3, 0x0008)
    _error_reporting(space, _ARI)
    _extended(space, _ARI, 0x000E, _SRIOV if nic.total_vfs else _SECONDARY)
    if pf.index + 1 < len(nic.pfs):
        space[_ARI + 5] = pf.index + 1  # next function
    if nic.total_vfs:
        _sriov(space, pf)
    _extended(space, _SECONDARY, 0x0019, 0)
    return space


def _sriov(space: bytearray, pf: Pf) -> None:
    nic, enabled = pf.nic, len(pf.vfs)
    _extended(space, _SRIOV, 0x0010, _SECONDARY)
    struct.pack_into("<HH", space, _SRIOV + 0x08, 0x0019 if enabled else 0x0010, 0)  # VFE, MSE, ARI
    struct.pack_into("<HHHH", space, _SRIOV + 0x0C, nic.total_vfs, nic.total_vfs, enabled, pf.index)
    struct.pack_into("<HH", space, _SRIOV + 0x14, pf.vf_offset, 1)
    struct.pack_into("<H", space, _SRIOV + 0x1A, nic.model.vf_device_id)
    struct.pack_into("<IIQ", space, _SRIOV + 0x1C, 0x7FF, 1, _vf_window(pf) | 0xC)


def _virtual_config(vf: Function) -> bytearray:
    """Vendor and device ids of a virtual function read as ones (SR-IOV 1.1, 3.4.1)."""
    own = identity(vf)
    space = _header(own, 0x0404 if vf.bound else 0, _EXPRESS, 0)
    space[0:4] = b"\xff" * 4
    struct.pack_into("<HH", space, 0x2C, own.subsystem_vendor, own.subsystem_device)
    _express(space, _EXPRESS, _MSIX, 0, own)
    _msix(space, 0, vf)
    _error_reporting(space, _ARI)
    _extended(space, _ARI, 0x000E, 0)
    return space


def root_port_config(bdf: str, nic: Nic) -> bytes:
    """The configuration space of the root port at *bdf*."""
    own = root_port(bdf, nic)
    space = _header(own, 0x0507, 0x90, 0x80 | 1)
    space[0x18:0x1B] = bytes((0, bus_number(nic.pci), last_bus(nic)))
    first, last, _ = own.resources[15]
    struct.pack_into("<BB", space, 0x1C, 0xF0, 0)  # no I/O window
    struct.pack_into("<HH", space, 0x20, 0xFFF0, 0)  # no memory window
    struct.pack_into("<HHII", space, 0x24, first >> 16 & 0xFFF0 | 1, last >> 16 & 0xFFF0 | 1, first >> 32, last >> 32)
    space[0x3C:0x3E] = bytes((own.irq, 1))
    _express(space, 0x90, 0xE0, 0x0140, own)
    struct.pack_into("<BBHH", space, 0xE0, 0x01, 0, 0xC803, 0x0008)
    return bytes(space)


def vital_product_data(nic: Nic) -> bytes:
    """VPD (PCI 3.0, appendix I): product name, part and serial number, and a checksum that makes the sum zero."""
    serial = "MT" + nic.pfs[0].mac.hex().upper()
    fields = b"".join(
        key.encode() + bytes((len(value),)) + value.encode()
        for key, value in (
            ("PN", nic.model.part_number),
            ("EC", "A9"),
            ("SN", serial),
            ("V0", f"PCIeGen{nic.model.link_generation} x{nic.model.link_width}"),
        )
    )
    name = nic.model.product.encode()
    data = b"\x82" + struct.pack("<H", len(name)) + name
    data += b"\x90" + struct.pack("<H", len(fields) + 4) + fields + b"RV\x01"
    return data + bytes((-sum(data) & 0xFF,)) + b"\x78"
