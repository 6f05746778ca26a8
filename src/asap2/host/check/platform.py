# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine's software and of its IOMMU."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host import versions
from asap2.host.check.finding import Result, check, fail, ok, unknown, warn
from asap2.host.inventory import Host, Pf

PFS = tuple[Pf, ...]


@check("kernel", "TC flower rules go to a NIC's eSwitch since Linux 4.13")
def kernel(host: Host, _pfs: PFS) -> Iterator[Result]:
    """The kernel's version."""
    release = host.platform.kernel
    if versions.at_least(release, versions.KERNEL):
        yield ok(f"Linux {release}")
    else:
        yield fail(f"Linux {release}", f"install Linux {versions.text(versions.KERNEL)} or newer")


@check("iproute2", "older ones show neither in_hw nor the eSwitch's modes")
def iproute2(host: Host, _pfs: PFS) -> Iterator[Result]:
    """The version of ip, tc and devlink."""
    version, need = host.platform.iproute2, versions.text(versions.IPROUTE2)
    if version is None:
        yield warn("there is no `ip`", f"install iproute2 {need} or newer")
    elif versions.numbers(version) and not versions.at_least(version, versions.IPROUTE2):
        yield fail(f"iproute2 {version}", f"install iproute2 {need} or newer")
    else:
        yield ok(f"iproute2 {version}")


@check("openvswitch", "Open vSwitch offloads flows through TC since 2.8")
def openvswitch(host: Host, _pfs: PFS) -> Iterator[Result]:
    """The version of Open vSwitch."""
    version, need = host.openvswitch.installed, versions.text(versions.OPEN_VSWITCH)
    if version is None:
        yield fail("Open vSwitch is not installed", f"install Open vSwitch {need} or newer")
    elif versions.at_least(version, versions.OPEN_VSWITCH):
        yield ok(f"Open vSwitch {version}")
    else:
        yield fail(f"Open vSwitch {version}", f"install Open vSwitch {need} or newer")


@check("openstack", "nova, neutron and os-vif plug VFs with switchdev capability since Pike")
def openstack(host: Host, _pfs: PFS) -> Iterator[Result]:
    """The versions of OpenStack's parts, where present."""
    parts = host.platform.components
    if not parts:
        yield ok("OpenStack is not installed here")
    for name, version in parts:
        if versions.at_least(version, versions.PIKE[name]):
            yield ok(f"{name} {version}")
        else:
            yield fail(f"{name} {version}", f"upgrade {name} to {versions.text(versions.PIKE[name])} (Pike) or newer")


@check("iommu", "a virtual machine gets a VF through VFIO, which needs an IOMMU; containers do not")
def iommu(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Whether the IOMMU is on."""
    words = " ".join(host.platform.iommu_words)
    if host.platform.iommu_groups:
        yield ok(f"on, {host.platform.iommu_groups} groups{f', {words}' if words else ''}")
    else:
        fix = "turn on VT-d or AMD-Vi in the BIOS, and boot with `intel_iommu=on iommu=pt` (AMD: `iommu=pt`)"
        yield warn(f"there is no IOMMU group{f', though booted with {words}' if words else ''}", fix)


@check("firmware", "offload needs firmware at least this new")
def firmware(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether each NIC's firmware is new enough for its model."""
    for pf in pfs:
        device = versions.DEVICES.get((pf.vendor, pf.device))
        name = device.name if device else f"{pf.vendor:04x}:{pf.device:04x}"
        if pf.firmware is None:
            yield unknown(f"{name}: the driver does not report its firmware", f"ethtool -i {pf.name}", pf.name)
        elif device is None:
            yield unknown(f"{name}, firmware {pf.firmware}: no minimum is known for this model", None, pf.name)
        elif device.firmware and not versions.at_least(pf.firmware, versions.numbers(device.firmware)):
            fix = f"mlxfwmanager -d {pf.address} --online -u   # {device.firmware} or newer, then reboot"
            yield fail(f"{name}, firmware {pf.firmware}, older than {device.firmware}", fix, pf.name)
        else:
            yield ok(f"{name}, firmware {pf.firmware}", pf.name)


CHECKS = (kernel, iproute2, openvswitch, openstack, iommu, firmware)
