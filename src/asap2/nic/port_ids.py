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


def bonded_port(pf: int) -> int:
    """Port id of the wire by which the PF's eSwitch sends while the NIC's ports are bonded."""
    return pf * PF_PORTS + 0xFFE


INTERNAL_PORTS = 0x1000_0000
"""Port ids from here on are internal ports of Open vSwitch in the node."""


def internal_port(ifindex: int) -> int:
    """Port id of the internal port whose device is *ifindex*."""
    return INTERNAL_PORTS + ifindex


ELSEWHERE_PORTS = 0x2000_0000
"""Port ids from here on, in the node's pipeline as in the silicon's, are internal ports of Open vSwitch in other
network namespaces than the node's."""


def elsewhere_port(far: int) -> int:
    """Port id of such an internal port whose far end's ifindex is *far*."""
    return ELSEWHERE_PORTS + far


NODE_SIDE_PORTS = 0x3000_0000
"""Port ids from here on are the same in the silicon's pipeline, as seen from there: the node."""


def node_side_port(far: int) -> int:
    """The port id by which the silicon gives the node what comes in by the internal port whose far end is *far*."""
    return NODE_SIDE_PORTS + far


TRUNK_PORT = 0x3FFF_FFFF
"""Port id of what comes in by the Open vSwitch datapath's own device, in the node's pipeline and, at its far end, in
the silicon's: packets of internal ports in other network namespaces."""


_SHAPERS, _SHAPED = 0x4000_0000, 0x4800_0000


def shaper_port(port: int) -> int:
    """Port id of what limits the rate of *port*."""
    return _SHAPERS + port


def shaped_port(port: int) -> int:
    """Port id of what comes out there, to come in by *port*."""
    return _SHAPED + port


def pf_of(port: int) -> int:
    """The index of the PF that a port belongs to."""
    return port // PF_PORTS
