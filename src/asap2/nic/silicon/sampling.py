# SPDX-License-Identifier: Apache-2.0
"""Sampling of packets in the reference eSwitch."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from asap2.nic.rules import Psample
from asap2.nic.silicon import packet
from asap2.nic.silicon.abi import IN_PORT, SAMPLE_BYTES
from asap2.nic.silicon.events import Sampled
from asap2.nic.silicon.journey import Journey, without_tag
from asap2.nic.silicon.ports import Port

_LEAST_TYPE: Final = 0x600
_ETH_P_802_3, _ETH_P_802_2 = 0x0001, 0x0004


def sampled(action: Psample, what: Journey, port: Port) -> Sampled:
    """What the programs that listen to psample get of a packet: its outer tag, or room for an Ethernet header, is not a
    part of it. It came in by *port*."""
    untagged = without_tag(what.frame)
    octets = untagged[packet.HEADER :] if what.bare else untagged
    known = [limit for limit in (action.length, what.cut, SAMPLE_BYTES) if limit is not None]
    tunnel = action.tunnel or what.goes_into
    if tunnel is None and what.came_in:
        tunnel = replace(what.came_in, tp_dst=port.tunnel_port)
    if action.ifindex == IN_PORT:
        action = replace(action, ifindex=port.id)
    return Sampled(action, len(octets), _type(untagged), tunnel, octets[: min(known)])


def _type(frame: bytes) -> int:
    """The Ethernet type as the kernel takes it (eth_type_trans)."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind >= _LEAST_TYPE:
        return kind
    return _ETH_P_802_3 if frame[14:16] == b"\xff\xff" else _ETH_P_802_2
