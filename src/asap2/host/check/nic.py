# SPDX-License-Identifier: Apache-2.0
"""Checks of the NIC as a PCI device: driver, SR-IOV, link, virtual functions."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host.check.finding import Result, check, fail, listed, ok, unknown, warn
from asap2.host.inventory import Host, Pf

PFS = tuple[Pf, ...]
GEN3 = 8.0
"""GT/s."""
WIDTH = 16


@check("nic", "offload needs a NIC with SR-IOV and an eSwitch")
def nic(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether there is a NIC at all."""
    if not pfs:
        yield fail("no PCI network controller here has SR-IOV or an eSwitch", "lspci -nn | grep -i ethernet")
    for pf in pfs:
        yield ok(f"{pf.address}, {pf.netdev or 'without a network device'}", pf.name)


@check("driver", "the eSwitch is managed by the PF's driver")
def driver(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the PF is bound to a driver that has an eSwitch."""
    for pf in pfs:
        if pf.driver is None:
            yield fail("no driver is bound", f"echo {pf.address} > /sys/bus/pci/drivers_probe", pf.name)
        elif pf.eswitch is None:
            fix = "use the PF itself (not a VF), a driver with switchdev support, and firmware with SR-IOV on"
            yield fail(f"{pf.driver} has no eSwitch to manage here: {pf.eswitch_refusal}", fix, pf.name)
        else:
            yield ok(pf.driver, pf.name)


@check("sriov", "VFs can be created only when SR-IOV is enabled in firmware and BIOS")
def sriov(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the PF can have VFs."""
    for pf in pfs:
        if pf.total_vfs:
            yield ok(f"up to {pf.total_vfs} VFs", pf.name)
        else:
            fix = f"mstconfig -d {pf.address} set SRIOV_EN=1 NUM_OF_VFS=8   # SR-IOV on in the BIOS too, then reboot"
            yield fail("the function offers no VFs: SR-IOV is off in its firmware", fix, pf.name)


@check("vfs", "a guest's packets reach the eSwitch through a VF")
def vfs(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether there are VFs, and drivers for them."""
    for pf in pfs:
        loose = [vf.address for vf in pf.vfs if vf.driver is None]
        if not pf.total_vfs:
            continue
        if not pf.num_vfs:
            yield fail("there are no VFs", f"asap2 host setup --vfs {min(pf.total_vfs, 4)} {pf.name}", pf.name)
        elif loose:
            fix = f"echo {loose[0]} > /sys/bus/pci/drivers/{pf.driver}/bind"
            yield warn(f"{len(loose)} of {pf.num_vfs} VFs have no driver: {listed(loose)}", fix, pf.name)
        else:
            yield ok(f"{pf.num_vfs} VFs", pf.name)


@check("pcie", "100 Gbit/s needs PCI Express gen3 x16")
def pcie(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the link is as good as the card and the page's advice."""
    for pf in pfs:
        have, could = _link(pf.link_speed, pf.link_width), _link(pf.max_link_speed, pf.max_link_width)
        fix = f"put the card into another slot, or look at the BIOS: `lspci -vvs {pf.address} | grep LnkSta`"
        if not pf.link_width or not pf.link_speed:
            yield unknown("the kernel does not report the PCI Express link", f"lspci -vvs {pf.address}", pf.name)
        elif pf.link_width < pf.max_link_width or pf.link_speed < pf.max_link_speed:
            yield warn(f"{have}, and the card could {could}", fix, pf.name)
        elif pf.link_speed < GEN3:
            yield warn(f"{have}, older than gen3", fix, pf.name)
        else:
            yield ok(have if pf.link_width >= WIDTH else f"{have}, which is all that this card has", pf.name)


def _link(speed: float, width: int) -> str:
    return f"{speed:g} GT/s x{width}"


CHECKS = (nic, driver, sriov, vfs, pcie)
