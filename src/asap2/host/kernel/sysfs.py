# SPDX-License-Identifier: Apache-2.0
"""PCI functions in sysfs: SR-IOV, drivers, links, NUMA (Documentation/ABI/testing/sysfs-bus-pci).

Reading never fails for what is not there. Writing raises OSError with the kernel's errno.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")
DEVICES = SYS / "bus/pci/devices"
DRIVERS = SYS / "bus/pci/drivers"
NETWORK_CLASS = 0x02
"""Base class of network controllers (PCI Code and ID Assignment Specification)."""


@dataclass(frozen=True, slots=True)
class Function:
    """A PCI function at *address*; its attributes are read as they are asked for."""

    address: str

    @property
    def path(self) -> Path:
        """Its directory."""
        return DEVICES / self.address

    def text(self, name: str) -> str | None:
        """An attribute without its newline; None when it cannot be read."""
        return text(self.path / name)

    def number(self, name: str, default: int = 0) -> int:
        """An attribute that is a number, in decimal or with 0x."""
        found = self.text(name)
        try:
            return int(found, 0) if found else default
        except ValueError:
            return default

    def link(self, name: str) -> str | None:
        """The last part of where a symbolic link leads; None when there is none."""
        try:
            return os.path.basename(os.readlink(self.path / name))
        except OSError:
            return None

    @property
    def exists(self) -> bool:
        """Whether there is such a function."""
        return self.path.exists()

    @property
    def driver(self) -> str | None:
        """Its driver's name; None when unbound."""
        return self.link("driver")

    @property
    def driver_override(self) -> str | None:
        """The only driver that may bind it; None for any."""
        found = self.text("driver_override")
        return None if found in (None, "", "(null)") else found

    @property
    def netdev(self) -> str | None:
        """Its network device in this network namespace; the uplink comes first where representors are here too."""
        return next(iter(sorted(self._names("net"), key=self._by_port)), None)

    def _by_port(self, name: str) -> tuple[bool, str]:
        return "pf" in (text(self.path / "net" / name / "phys_port_name") or ""), name

    @property
    def vfs(self) -> list[tuple[int, Function]]:
        """Its virtual functions with their numbers."""
        numbers = [name.removeprefix("virtfn") for name in self._names("") if name.startswith("virtfn")]
        found = [(int(number), self.link(f"virtfn{number}")) for number in numbers if number.isdecimal()]
        return [(number, Function(address)) for number, address in sorted(found) if address]

    @property
    def irqs(self) -> list[str]:
        """The numbers of its MSI interrupts."""
        return sorted(self._names("msi_irqs"), key=lambda name: (len(name), name))

    def link_speed(self, which: str) -> float:
        """``current`` or ``max`` speed of its PCI Express link in GT/s; 0 when unknown."""
        words = (self.text(f"{which}_link_speed") or "").split()
        try:
            return float(words[0]) if words else 0.0
        except ValueError:
            return 0.0

    def _names(self, directory: str) -> list[str]:
        try:
            return os.listdir(self.path / directory)
        except OSError:
            return []


def text(path: Path) -> str | None:
    """A file's text without the newline at its end; None when it cannot be read."""
    try:
        return path.read_text(errors="replace").rstrip("\n")
    except OSError:
        return None


def physical_functions() -> Iterator[Function]:
    """The network controllers that are no virtual functions, by address."""
    try:
        addresses = sorted(os.listdir(DEVICES))
    except OSError:
        return
    for address in addresses:
        function = Function(address)
        if function.number("class") >> 16 == NETWORK_CLASS and function.link("physfn") is None:
            yield function


def set_numvfs(address: str, count: int) -> None:
    """Enable *count* virtual functions. EBUSY when some are and *count* is not 0; ERANGE above the total."""
    _write(DEVICES / address / "sriov_numvfs", str(count))


def bind(address: str, driver: str) -> None:
    """Bind a function to *driver*. EBUSY when it is bound, ENODEV when the driver does not want it."""
    _write(DRIVERS / driver / "bind", address)


def unbind(address: str, driver: str) -> None:
    """Take a function from *driver*. ENODEV when it is not bound to it."""
    _write(DRIVERS / driver / "unbind", address)


def set_driver_override(address: str, driver: str | None) -> None:
    """Let only *driver* bind the function; None for any that knows it."""
    _write(DEVICES / address / "driver_override", driver or "\n")


def set_autoprobe(address: str, on: bool) -> None:
    """Whether the PF's new virtual functions are bound at once (sriov_drivers_autoprobe)."""
    _write(DEVICES / address / "sriov_drivers_autoprobe", "1" if on else "0")


def _write(path: Path, value: str) -> None:
    """Write as ``echo`` does: one write, whose error is the attribute's answer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, value.encode() + b"\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
