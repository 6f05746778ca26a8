# SPDX-License-Identifier: Apache-2.0
"""The pipeline's port ids of a NIC's functions, representors and wires."""

from __future__ import annotations

PF_PORTS = 0x1000
"""Port ids a physical function has for itself."""


def pf_port(pf: int) -> int:
    """Port id of the PF's netdev (the uplink representor)."""
    return pf * PF_PORTS + 1


def vf_port(pf: int, vf: int) -> int:
    """Port id of a VF."""
    return pf * PF_PORTS + 0x100 + vf


def representor_port(pf: int, vf: int) -> int:
    """Port id of a VF's representor."""
    return pf * PF_PORTS + 0x800 + vf


def wire_port(pf: int) -> int:
    """Port id of the wire, the uplink."""
    return pf * PF_PORTS + 0xFFF


INTERNAL_PORTS = 0x1000_0000
"""Port ids from here on are internal ports of Open vSwitch in the node."""


def internal_port(ifindex: int) -> int:
    """Port id of the internal port whose device is *ifindex*."""
    return INTERNAL_PORTS + ifindex


def pf_of(port: int) -> int:
    """The index of the PF that a port belongs to."""
    return port // PF_PORTS
