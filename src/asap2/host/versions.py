# SPDX-License-Identifier: Apache-2.0
"""Versions, and the oldest of each thing with which hardware offload works.

The minimums are those of NVIDIA's page "Getting started with Mellanox ASAP^2"; OpenStack's Pike is nova 16, neutron 11
and os-vif 1.7 (releases.openstack.org/pike).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MELLANOX = 0x15B3
"""PCI vendor id."""

KERNEL = (4, 13)
IPROUTE2 = (4, 12)
OPEN_VSWITCH = (2, 8)
PIKE = {"nova": (16,), "neutron": (11,), "os-vif": (1, 7)}


@dataclass(frozen=True, slots=True)
class Device:
    """A NIC model: its name, and the oldest firmware that offloads, None where every one does. ``tunnels`` is whether
    its eSwitch encapsulates; ``software_steering`` whether the driver can write its rules without the firmware."""

    name: str
    firmware: str | None = None
    tunnels: bool = True
    software_steering: bool = False


DEVICES = {
    (MELLANOX, 0x1013): Device("ConnectX-4", None, tunnels=False),
    (MELLANOX, 0x1015): Device("ConnectX-4 Lx", "14.21.0338", tunnels=False),
    (MELLANOX, 0x1017): Device("ConnectX-5", "16.21.0338"),
    (MELLANOX, 0x1019): Device("ConnectX-5 Ex", "16.21.0338"),
    (MELLANOX, 0x101B): Device("ConnectX-6"),
    (MELLANOX, 0x101D): Device("ConnectX-6 Dx", software_steering=True),
    (MELLANOX, 0x101F): Device("ConnectX-6 Lx", software_steering=True),
    (MELLANOX, 0x1021): Device("ConnectX-7", software_steering=True),
    (MELLANOX, 0xA2D2): Device("BlueField"),
    (MELLANOX, 0xA2D6): Device("BlueField-2", software_steering=True),
    (MELLANOX, 0xA2DC): Device("BlueField-3", software_steering=True),
}
"""By PCI vendor and device id (the PCI ID database)."""


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that *version* begins with: (6, 1, 0) of "v6.1.0-13-amd64"; empty when it begins with none."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(one) for one in found[1].split(".")) if found else ()


def at_least(version: str, minimum: tuple[int, ...]) -> bool:
    """Whether *version* is *minimum* or newer; missing numbers are 0."""
    have = numbers(version)
    size = max(len(have), len(minimum))
    return have + (0,) * (size - len(have)) >= minimum + (0,) * (size - len(minimum))


def text(version: tuple[int, ...]) -> str:
    """A version for people."""
    return ".".join(map(str, version))
