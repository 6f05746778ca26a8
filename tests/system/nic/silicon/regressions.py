# SPDX-License-Identifier: Apache-2.0
"""Programs in which the eBPF program and the reference eSwitch once differed, each as small as it can be, and some that
are seldom written at random."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from asap2.nic.conntrack.states import SECOND
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import (
    OVS_TABLE,
    Action,
    Clone,
    Ct,
    CtHardware,
    CtState,
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
    Upcall,
)
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.tunnel import encapsulate
from tests.system.nic.silicon.conversations import SHORT_UDP
from tests.system.nic.silicon.frames import IPV4, IPV6, MACS
from tests.system.nic.silicon.packets import ipv4, udp
from tests.system.nic.silicon.steps import Add, Expect, Forget, LimitZone, Send, SetPorts, Step, Verify
from tests.unit.nic.conntrack.packets import ACK, RST, SYN

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


def _tracked(*sent: Send | Step, zone: int = 7, timeout: str = "") -> Sequence[Step]:
    """Packets whose connections the datapath of Open vSwitch commits, after it has looked them up."""
    ports = SetPorts((Port(1, 101, PortKind.NODE, tables=(OVS_TABLE,), resumes=True), Port(2, 102, PortKind.NODE)))
    rules = (
        Rule(OVS_TABLE, 1, 1, Match(), (Ct(zone), Goto(OVS_TABLE | 1))),
        Rule(OVS_TABLE | 1, 1, 1, Match(), (Ct(zone, commit=True, timeout=timeout), Output(2))),
    )
    return [ports, *(Add(number, rule) for number, rule in enumerate(rules)), *sent]


def _udp(sport: int, dport: int = 2000, later: int = 0, *, back: bool = False) -> Send:
    ends = ("10.0.0.2", "10.0.0.1") if back else ("10.0.0.1", "10.0.0.2")
    return Send(_ETHERNET + b"\x08\x00" + ipv4(*ends, 17, udp(sport, dport, b"12345678")), later=later)


def _tcp(flags: int, seq: int, ack: int, *, back: bool = False, client: str = "10.0.0.1", sport: int = 1000) -> Send:
    ends = ("10.0.0.2", client) if back else (client, "10.0.0.2")
    named = (80, sport) if back else (sport, 80)
    header = struct.pack(">HHIIBBHHH", *named, seq, ack, 0x50, flags, 1000, 0, 0)
    return Send(_ETHERNET + b"\x08\x00" + ipv4(*ends, 6, header))


def _translated(*sent: Send | Step) -> Sequence[Step]:
    """Packets whose connections the datapath of Open vSwitch translates to two ports of one source."""
    nat = Nat(NatKind.SRC, IPV4[2], IPV4[2], 600, 601)
    ports = SetPorts((Port(1, 101, PortKind.NODE, tables=(OVS_TABLE,), resumes=True), Port(2, 102, PortKind.NODE)))
    rule = Rule(OVS_TABLE, 1, 1, Match(), (Ct(7, commit=True, nat=nat), Output(2)))
    return [ports, Verify(False), Add(1, rule), *sent]


def _error_about(src: str) -> bytes:
    """An ICMP error about what :data:`_IP` is when *src* has sent it; its checksum is wrong."""
    quoted = ipv4(src, "10.0.0.2", 17, udp(1000, 2000, b"12345678"))
    return ipv4("10.0.0.2", src, 1, b"\3\3\1\1\0\0\0\0" + quoted)


_RESET = (_tcp(SYN, 1, 0), _tcp(SYN | ACK, 9, 2, back=True), _tcp(ACK, 2, 10), _tcp(RST | ACK, 2, 10))
"""A connection of TCP that is closed, but not yet forgotten."""
_RESET_BEHIND_NAT = (
    _tcp(SYN, 5000, 0),
    _tcp(SYN | ACK, 9, 5001, back=True, client="192.168.255.7", sport=600),
    _tcp(ACK, 5001, 10),
    _tcp(RST | ACK, 5001, 10),
)
_LIMIT = LimitZone(7, 1)

_NO_PAYLOAD, _ADDRESSES = bytes.fromhex("6000000000000040"), IPV6[0] + IPV6[1]
_CUT = {
    "ends within its extension headers": _NO_PAYLOAD + _ADDRESSES + bytes(6),
    "has extension headers behind its end": _NO_PAYLOAD + _ADDRESSES + bytes((59, *bytes(7))),
    "ends within a routing header": _NO_PAYLOAD[:6] + b"\x2b\x40" + _ADDRESSES + b"\x3b\0\0",
    "says to be one of IPv4": b"\x45" + _NO_PAYLOAD[1:6] + b"\x11\x40" + _ADDRESSES + udp(1, 2, b"12345678"),
}

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
    "a zone at its limit counts no connection that has expired": _tracked(
        _LIMIT, _udp(1), _udp(2), _udp(3, later=31 * SECOND)
    ),
    "a zone at its limit counts no connection that is closed": _tracked(
        Verify(False), _LIMIT, *_RESET, _udp(1), _udp(2)
    ),
    "a zone whose limit is lowered": _tracked(
        _udp(1), _udp(2), _udp(3), LimitZone(7, 2), _udp(4), _udp(5, later=31 * SECOND)
    ),
    "a closed connection that is forgotten is not taken off the count twice": _tracked(
        Verify(False), _LIMIT, *_RESET, _udp(1), Forget(0), _udp(2), _udp(3)
    ),
    "a connection that is expected knows its master's addresses when that has ended": _tracked(
        _udp(1), Expect(0, 7), _udp(9, 7, back=True), Forget(0), *map(_udp, (11, 12, 13)), _udp(9, 7, back=True)
    ),
    "what is expected comes after its master has expired": _tracked(
        _udp(1), Expect(0, 7), _udp(1), _LIMIT, *map(_udp, (2, 3)), _udp(9, 7, later=31 * SECOND, back=True)
    ),
    "an action that names a timeout policy looks again for what user space has seen": [
        *_tracked(_udp(1), timeout=""),
        Add(3, Rule(OVS_TABLE | 1, 1, 0, Match(), (Ct(7, commit=True, timeout=SHORT_UDP), Output(2)))),
        Add(4, Rule(OVS_TABLE, 1, 0, Match(), (Ct(7, commit=True, timeout=SHORT_UDP), Output(2)))),
        replace(_udp(1), tracked=(("ct_state", int(CtState.TRK | CtState.NEW)), ("ct_zone", 7))),
    ],
    "what a NIC has told of a connection that is expected": _tracked(
        _udp(1),
        Expect(0, 7),
        _udp(9, 7, back=True),
        Add(3, Rule(1, 1, 0, Match(), (Upcall(1),))),
        replace(_udp(7, 9), carried=(7, 0), resume=1),
    ),
    "a source is translated as before": _translated(
        *(replace(_udp(1, server), flow_hash=server & 1) for server in (2001, 2000, 2003)),
        Forget(0),
        replace(_udp(1, 2004), flow_hash=0),
        *(Forget(0), Forget(0), Forget(0)),
        replace(_udp(1, 2004), flow_hash=0),
    ),
    "a source is translated as a connection that has expired, but is not yet removed": _translated(
        LimitZone(7, 1),
        replace(_udp(1), flow_hash=1),
        _udp(2, later=31 * SECOND),
        LimitZone(7, 9),
        replace(_udp(1, 2001), flow_hash=0),
    ),
    "the port of a closed connection is used again": _translated(
        *_RESET_BEHIND_NAT,
        _tcp(SYN, 6000, 0, sport=1001),
        _tcp(SYN, 4000, 0, sport=1002),
        _tcp(SYN, 9000, 0, sport=1003),
    ),
    "the port of a closed connection is not used again by old numbers": _translated(
        *_RESET_BEHIND_NAT, _tcp(SYN, 4000, 0, sport=1001), _tcp(SYN, 6000, 0, sport=1002)
    ),
    "NAT of an ICMP error whose version is another and whose checksum is wrong": [
        *_one(_ETHERNET + _IP, Ct(commit=True, nat=Nat(NatKind.SRC, IPV4[2], IPV4[2])), Output(2)),
        Verify(False),
        Send(_ETHERNET + b"\x08\x00\xc5" + _error_about("192.168.255.7")[1:]),
    ],
    **{
        f"TC's ct and an IPv6 packet that {what}": _one(_ETHERNET + b"\x86\xdd" + data, Ct(), Output(2))
        for what, data in _CUT.items()
    },
    "what is expected comes too late": _tracked(
        _udp(1), Expect(0, 7, seconds=5), _udp(1, later=6 * SECOND), _udp(9, 7, back=True)
    ),
    "an action that names a timeout policy looks again": _tracked(
        *map(_udp, (1, 1)), _udp(1, later=2 * SECOND), timeout=SHORT_UDP
    ),
}
