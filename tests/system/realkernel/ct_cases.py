# SPDX-License-Identifier: Apache-2.0
"""Random conversations through a tracker of connections, for a real kernel and for ours."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from asap2.netlink.wire import attribute
from asap2.nic.conntrack.tuples import transport, trimmed, word
from asap2.nic.faces.ovs.actions import conntrack as ct
from asap2.nic.faces.ovs.actions import numbers as action
from asap2.nic.faces.ovs.key import numbers
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, Masked
from tests.system.nic.silicon import conversations
from tests.system.nic.silicon.conversations import Conversations, unfinished
from tests.unit.nic.conntrack.packets import right

LEAST = 60
"""Octets of a frame, so that nothing pads it."""
_RECIRC = 7
_ANY_FRAGMENT, _DCCP, _LEAST_IHL = 0x3FFF, 33, 5
_AGES = (5, 25, 45, 70, 125, 400, 500_000)
"""Seconds, each far from any time that a connection may have left after the others."""


@dataclass(frozen=True)
class Packet:
    """A frame, and what is done with it."""

    frame: bytes
    action: Ct

    @property
    def family(self) -> int:
        return 4 if self.frame[12:14] == b"\x08\0" else 6

    @property
    def proto(self) -> int:
        return self.frame[23 if self.family == 4 else 20]

    @property
    def about_sctp(self) -> bool:
        """Whether it is, perhaps, an ICMP error about a packet of SCTP."""
        inner = self.frame[42:] if self.family == 4 else self.frame[62:]
        return self.proto in (1, 58) and 132 in inner[6:10]


@dataclass(frozen=True)
class Age:
    """So much of the time that each connection has left goes by."""

    seconds: int


Step = Packet | Age


def conversation(random: Random, packets: int) -> list[Step]:
    """Some packets of a firewall that knows connections, and perhaps translates them; a few are treated otherwise. Some
    firewalls contradict themselves: they translate now the source, now the destination, of one connection."""
    translated = random.choice((None, NatKind.SRC, NatKind.DST))
    kinds = [translated] if random.random() < 0.7 else [None, NatKind.SRC, NatKind.DST]
    talk = Conversations(random, translated, calm=random.random() < 0.6)
    made: list[Step] = []
    while len(made) < packets:
        if random.random() < 0.05:
            made.append(Age(random.choice(_AGES)))
        frame = talk.frame()
        if frame[12:14] not in (b"\x08\0", b"\x86\xdd") or _set_aside(frame):
            continue
        family = 4 if frame[12:14] == b"\x08\0" else 6
        made.append(Packet(frame.ljust(LEAST, b"\0"), _action(random, family, random.choice(kinds))))
    return made


def _set_aside(frame: bytes) -> bool:
    """Whether the two trackers do not look at the same of it: fragments, which ours does not get to see, checksums of
    SCTP, which it does not look at, those of a packet that a NIC has not finished, DCCP, and an IPv4 header that says
    to be shorter than any: Linux takes what is within it for the next one."""
    family = 4 if frame[12:14] == b"\x08\0" else 6
    if family == 4 and frame[14] & 15 < _LEAST_IHL:
        return True
    data = trimmed(frame[14:], family)
    fragment = word(data, 6) & _ANY_FRAGMENT if family == 4 else data[6:7] == b"\x2c"
    found = transport(data, family)
    if fragment or found is None:
        return bool(fragment)
    return (
        (found.proto == 132 and not right(data))
        or found.proto == _DCCP
        or (found.proto in (6, 17) and unfinished(data) == data)
    )


def _action(random: Random, family: int, translated: NatKind | None) -> Ct:
    nat = conversations.translation(family, translated) if translated else None
    commit = random.random() < 0.75
    if not commit:
        return Ct(nat=Nat(None) if nat and random.random() < 0.9 else None)
    mark = Masked(random.choice((1, 6)), random.choice((7, 0xFFFFFFFF))) if random.random() < 0.3 else None
    label = 1 << random.randrange(128)
    labels = Masked(label, label) if random.random() < 0.2 else None
    if random.random() < 0.1:
        nat = None
    return Ct(commit=True, force=random.random() < 0.05, mark=mark, labels=labels, nat=nat)


def request(step: Step) -> tuple[Any, ...]:
    """The step as the guest does it."""
    return ("age", step.seconds) if isinstance(step, Age) else ("packet", *_request(step))


def _request(packet: Packet) -> tuple[bytes, bytes, bytes, bytes]:
    """Key, mask and actions of the flow, and the frame."""
    ethertype = attribute(numbers.ETHERTYPE, packet.frame[12:14])
    ip, octets, at = (numbers.IPV4, 12, 8) if packet.family == 4 else (numbers.IPV6, 40, 36)
    anything = exact = attribute(ip, bytes(octets))
    if packet.action.helper:  # of TCP, which the key has to tell
        anything = attribute(ip, bytes(at) + bytes((packet.proto,)) + bytes(octets - at - 1))
        anything += attribute(numbers.TCP, bytes(4)) + attribute(numbers.TCP_FLAGS, bytes(2))
        exact = attribute(ip, bytes(at) + b"\xff" + bytes(octets - at - 1))
    key = attribute(numbers.IN_PORT, b"\1\0\0\0") + attribute(numbers.RECIRC_ID, bytes(4))
    key += attribute(numbers.ETHERNET, packet.frame[6:12] + packet.frame[:6])
    mask = attribute(numbers.IN_PORT, b"\xff" * 4) + attribute(numbers.RECIRC_ID, b"\xff" * 4)
    mask += attribute(numbers.ETHERNET, bytes(12))
    actions = attribute(action.CT, written(packet.action)) + attribute(action.RECIRC, struct.pack("=I", _RECIRC))
    mask += attribute(numbers.ETHERTYPE, b"\xff\xff") + exact
    return key + ethertype + anything, mask, actions, packet.frame


def written(action: Ct) -> bytes:
    """An action as attributes; without its zone, which the kernel of user-mode-linux has not."""
    out = attribute(ct.FORCE_COMMIT if action.force else ct.COMMIT, b"") if action.commit else b""
    if action.mark:
        out += attribute(ct.MARK, struct.pack("=II", action.mark.value, action.mark.mask))
    if action.labels:
        out += attribute(ct.LABELS, b"".join(part.to_bytes(16, "big") for part in action.labels))
    if action.helper:
        out += attribute(ct.HELPER, action.helper.encode() + b"\0")
    return out if action.nat is None else out + attribute(ct.NAT, _translation(action.nat))


def _translation(nat: Nat) -> bytes:
    if nat.kind is None:
        return b""
    out = attribute(ct.NAT_SRC if nat.kind is NatKind.SRC else ct.NAT_DST, b"")
    return out + attribute(ct.NAT_IP_MIN, nat.ip_min) + attribute(ct.NAT_IP_MAX, nat.ip_max)


def as_read(packet: Packet) -> Ct:
    """The action as our datapath reads it, without its family."""
    key = {"eth_type": 0x0800 if packet.family == 4 else 0x86DD, "ip_proto": packet.proto}
    return replace(ct.read_ct(written(packet.action), key), family=0)
