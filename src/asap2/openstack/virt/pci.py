# SPDX-License-Identifier: Apache-2.0
"""PCI network functions as sysfs shows them, and a VF's MAC, VLAN and driver, set as libvirt does.

All goes through the host's own interfaces, sysfs and ``ip link``: a real NIC takes the same.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

DEVICES = Path("/sys/bus/pci/devices")
NO_MAC = "00:00:00:00:00:00"
NETDEV_SECONDS = 10.0
"""How long a VF's network device may take to come after its driver is bound."""


class PciError(Exception):
    """A PCI function is not as it should be, or does not do as it should; the text is one sentence."""


def run(*command: str) -> str:
    """The output of *command*; PciError with its words when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise PciError(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split()) or done.returncode}")
    return done.stdout


def inventory(devices: Path = DEVICES) -> list[dict[str, object]]:
    """Every network function below *devices*, as nova's resource tracker wants it (nova/objects/pci_device.py).

    A VF that a guest holds is there too: nova takes away what a host no longer reports. The VF's own network
    capabilities are left out: nova would write them over those that a port's binding:profile asks for.
    """
    return [_described(path) for path in sorted(devices.iterdir()) if _read(path / "class").startswith("0x02")]


def _described(path: Path) -> dict[str, object]:
    vendor, product = _read(path / "vendor")[2:], _read(path / "device")[2:]
    described: dict[str, object] = {
        "dev_id": f"pci_{re.sub('[:.]', '_', path.name)}",
        "address": path.name,
        "vendor_id": vendor,
        "product_id": product,
        "label": f"label_{vendor}_{product}",
        "numa_node": _numa_node(path),
        "dev_type": "type-PCI",
    }
    if (path / "physfn").exists():
        pf = (path / "physfn").resolve()
        uplink = uplink_of(pf)
        described |= {"dev_type": "type-VF", "parent_addr": pf.name, "parent_ifname": uplink}
        mac = _read(pf / "net" / uplink / "address")
        described["capabilities"] = {"sriov": {"pf_mac_address": mac, "vf_num": vf_number(path)}}
    elif int(_read(path / "sriov_totalvfs") or 0):
        described["dev_type"] = "type-PF"
    return described


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _numa_node(path: Path) -> int | None:
    text = _read(path / "numa_node")
    return int(text) if text and int(text) >= 0 else None


def uplink_of(pf: Path) -> str:
    """The network device of the physical function at *pf*, which lists its VFs' representors too in switchdev mode."""
    names = sorted(each.name for each in (pf / "net").iterdir()) if (pf / "net").is_dir() else []
    for name in names:
        if re.fullmatch(r"p\d+", _read(pf / "net" / name / "phys_port_name")):
            return name
    if len(names) != 1:
        raise PciError(f"{pf.name} has {len(names)} network devices, and none of them is the uplink")
    return names[0]


def vf_number(vf: Path) -> int:
    """The number that the VF at *vf* has at its physical function."""
    for link in (vf / "physfn").resolve().glob("virtfn*"):
        if link.resolve().name == vf.resolve().name:
            return int(link.name.removeprefix("virtfn"))
    raise PciError(f"{vf.name} is not among the virtual functions of its physical function")


class Vf:
    """The virtual function at the PCI *address*."""

    def __init__(self, address: str, devices: Path = DEVICES) -> None:
        self.path = devices / address
        if not (self.path / "physfn").exists():
            raise PciError(f"{address} is not a virtual function of this host")
        self.pf = (self.path / "physfn").resolve()

    def claim(self, mac: str, vlan: int = 0) -> str:
        """Set *mac*, and the *vlan* where there is one, at the physical function, and bind the VF again, which makes it
        take them; its network device's name."""
        self._set(mac, vlan)
        self._rebind()
        return self._netdev()

    def release(self) -> None:
        """Take the network device back, wherever it is, with neither MAC nor VLAN, as it was before :meth:`claim`."""
        self._set(NO_MAC, 0)
        self._rebind()
        self._netdev()

    def _set(self, mac: str, vlan: int) -> None:
        uplink, number = uplink_of(self.pf), str(vf_number(self.path))
        run("ip", "link", "set", uplink, "vf", number, "mac", mac)
        if vlan or re.search(rf"vf {number} .*\bvlan [1-9]", run("ip", "link", "show", uplink)):
            run("ip", "link", "set", uplink, "vf", number, "vlan", str(vlan))

    def _rebind(self) -> None:
        driver = self.path / "driver"
        if driver.exists():
            self._write(driver / "unbind")
        self._write(self.pf / "driver" / "bind")

    def _write(self, path: Path) -> None:
        try:
            path.write_text(self.path.name)
        except OSError as error:
            raise PciError(f"`echo {self.path.name} > {path}` failed: {error.strerror}") from None

    def _netdev(self) -> str:
        deadline = time.monotonic() + NETDEV_SECONDS
        while True:
            names = [each.name for each in (self.path / "net").iterdir()] if (self.path / "net").is_dir() else []
            if names:
                return names[0]
            if time.monotonic() > deadline:
                raise PciError(f"{self.path.name} has no network device after its driver was bound")
            time.sleep(0.02)
