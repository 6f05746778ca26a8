# SPDX-License-Identifier: Apache-2.0
"""Programs in which the eBPF program and the reference eSwitch once differed, each as small as it can be."""

from __future__ import annotations

from collections.abc import Sequence

from asap2.nic.rules import (
    Action,
    Clone,
    Ct,
    CtHardware,
    Decap,
    Encap,
    Goto,
    Masked,
    Match,
    Output,
    PopVlan,
    Rule,
    SetField,
    SetTunnel,
)
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.tunnel import encapsulate
from tests.system.nic.silicon.frames import IPV4, IPV6, MACS
from tests.system.nic.silicon.packets import ipv4, udp
from tests.system.nic.silicon.steps import Add, Send, SetPorts, Step

_ETHERNET = MACS[0] + MACS[1]
_IP = b"\x08\x00" + ipv4("10.0.0.1", "10.0.0.2", 17, udp(1000, 2000, b"12345678"))
_ARP = b"\x08\x06" + bytes.fromhex("0001080006040001") + bytes(20)
_TAG = b"\x81\x00\0\x39"
_OVER_4 = Encap("vxlan", 77, IPV4[0], IPV4[1], eth_src=MACS[0], eth_dst=MACS[1])
_OVER_6 = Encap("vxlan", 78, IPV6[0], IPV6[1], eth_src=MACS[0], eth_dst=MACS[1])
_METADATA = SetTunnel(77, IPV4[0], IPV4[1])
_ANY_TUNNEL = Match(tun_id=Masked(1, 1))


def _one(frame: bytes, *actions: Action, in_metadata: bool = False) -> Sequence[Step]:
    """One packet, one rule."""
    ports = SetPorts((Port(1, 101, PortKind.VF), Port(2, 102, PortKind.VF)))
    return [ports, Add(1, Rule(0, 1, 1, actions=actions)), Send(frame, in_metadata=in_metadata)]


def _from_tunnel(kind: PortKind, metadata: bool, miss: Miss, frame: bytes, *rules: Rule) -> Sequence[Step]:
    """A packet in a tunnel, and rules."""
    ports = SetPorts((Port(1, 101, kind, miss=miss, tables=(0,) if rules else (), metadata=metadata),))
    added = [Add(number, rule) for number, rule in enumerate(rules)]
    return [ports, *added, Send(frame, came_in=_METADATA if metadata else None)]


REGRESSIONS: dict[str, Sequence[Step]] = {
    "the checksum lies in the word that the ttl is in": _one(
        _ETHERNET + _IP, SetField("ip_ttl", Masked(7, 0xFF)), Output(2)
    ),
    "of the two zeros of a checksum, the kernel's": _one(
        _ETHERNET + b"\x08\x00" + ipv4("10.0.0.1", "10.0.0.2", 6, b"\0\0\xff\xff" + bytes(12) + b"\xff\xff\0\0"),
        SetField("l4_dst", Masked(0, 0xFFFF)),
        Output(2),
    ),
    "a tag in a tunnel is popped after it": _one(
        encapsulate(_ETHERNET + _TAG + _IP, _OVER_4, 0), Decap(), PopVlan(), Output(2)
    ),
    "two tags go into a tunnel": _one(_ETHERNET + _TAG + _TAG + _IP, _OVER_4, Output(2), in_metadata=True),
    "three tags go into a tunnel": _one(_ETHERNET + _TAG * 3 + _IP, _OVER_6, Output(2), in_metadata=True),
    "ARP comes out of a tunnel over IPv6": _one(encapsulate(_ETHERNET + _ARP, _OVER_6, 0), Decap(), Output(2)),
    "a packet shorter than any comes out of a tunnel": _one(
        encapsulate(_ETHERNET + b"\x88\xb5\1", _OVER_6, 0), Decap(), Output(2)
    ),
    "a tag that is cut short comes out of a tunnel": _one(
        encapsulate(_ETHERNET + _TAG[:3], _OVER_4, 0), Decap(), Output(2), PopVlan(), Output(2)
    ),
    "a tunnel's packet with its tag in the packet": _one(
        encapsulate(_ETHERNET + _IP, _OVER_4, 0)[:12] + _TAG + encapsulate(_ETHERNET + _IP, _OVER_4, 0)[12:],
        Decap(),
        Output(2),
    ),
    "a tunnel in a tunnel": _one(_ETHERNET + _IP, _OVER_4, _OVER_6, _OVER_4, Output(2)),
    "a tunnel for each copy": _one(_ETHERNET + _ARP, _OVER_4, Output(2), Decap(), _OVER_6, Output(2)),
    "a short packet into a tunnel and out again": _one(_ETHERNET + _IP[:3], _OVER_4, Decap(), Output(2)),
    "IPv6 that says to be another version holds no tunnel": _one(
        encapsulate(_ETHERNET + _IP, _OVER_6, 0)[:14] + b"\x40" + encapsulate(_ETHERNET + _IP, _OVER_6, 0)[15:],
        Decap(),
        Output(2),
    ),
    "rules for tunnels that send a packet in circles": _from_tunnel(
        PortKind.UPLINK,
        False,
        Miss.DROP,
        encapsulate(_ETHERNET + _IP, _OVER_4, 0),
        Rule(0, 1, 1, _ANY_TUNNEL, (Goto(0),)),
    ),
    "user space is told of the tunnel by a port without tables": _from_tunnel(
        PortKind.NODE, True, Miss.UPCALL, _ETHERNET + _IP
    ),
    "after decap the tunnel is no more to be seen": _from_tunnel(
        PortKind.NODE, True, Miss.UPCALL, _ETHERNET + _IP, Rule(0, 1, 1, _ANY_TUNNEL, (Decap(), Goto(0)))
    ),
    "a NIC does not know what a copy has committed since": _one(
        _ETHERNET + _IP, Ct(), Clone((Ct(commit=True),)), CtHardware(0, nat=False, resume=0), Output(2)
    ),
    "a NIC does not know what a copy has committed for a helper": _one(
        _ETHERNET + _IP, Ct(), Clone((Ct(commit=True, helper="tftp"),)), CtHardware(0, nat=False, resume=0), Output(2)
    ),
    "a NIC carries what a copy has committed since and given to it": _one(
        _ETHERNET + _IP, Ct(), Clone((Ct(commit=True, offload=True),)), CtHardware(0, nat=False, resume=0), Output(2)
    ),
    "a NIC knows what was committed with the packet itself": _one(
        _ETHERNET + _IP, Ct(), Ct(commit=True), CtHardware(0, nat=False, resume=0), Output(2)
    ),
    "a packet that is tracked again after its copy has committed": _one(
        _ETHERNET + _IP, Ct(), Clone((Ct(commit=True),)), Ct(), CtHardware(0, nat=False, resume=0), Output(2)
    ),
}
