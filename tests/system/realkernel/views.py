# SPDX-License-Identifier: Apache-2.0
"""How the kernel's flow dissector sees a frame where the eSwitch sees it otherwise, on purpose.

Where the flow dissector (net/core/flow_dissector.c of Linux 6.1), Open vSwitch and the hardware differ, the eSwitch
has chosen. Each difference has a name and a reason here, and applies to no other frame. For a comparison the reference
eSwitch looks at frames through :func:`parse`: then every rule must do what it does in the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from asap2.nic.rules import VLAN_PRESENT, Frag, Masked, Match, ModifyVlan, PopVlan, PushVlan
from asap2.nic.silicon import packet
from asap2.nic.silicon.abi import EXTENSIONS
from asap2.nic.silicon.packet import Fields

_TPIDS = (b"\x81\x00", b"\x88\xa8")
_ARP = (0x0806, 0x8035)
_ETH_P_802_3 = 0x0001
_TCP, _UDP, _SCTP, _FRAGMENT = 6, 17, 132, 44
_EXTENSIONS = (0, 43, 60)
_L4 = ("l4_src", "l4_dst", "tcp_flags", "nd_target")

_Look = Callable[[bytes], Fields]


class SetAsideError(Exception):
    """A case that is not compared, and why."""


class View:
    """What the kernel sees of one packet, while the reference eSwitch deals with it.

    A tag that is pushed on another displaces the kernel's network header: the other is then in front of it, with its
    TPID known but what follows it not looked at (skb_vlan_push(), act_vlan.c). The dissector takes what is behind all
    tags for that tag's contents. So in the kernel a rule does not find the inner tag after such a push. Here does it.
    """

    def __init__(self) -> None:
        self._hidden = 0

    def retagged(self, frame: bytes, action: PushVlan | PopVlan | ModifyVlan) -> None:
        """A tag of *frame* is about to come or go."""
        if isinstance(action, PushVlan):
            self._hidden += 4 * packet.tagged(frame)
        elif isinstance(action, PopVlan):
            self._hidden = max(0, self._hidden - 4)

    def look(self, frame: bytes) -> Fields:
        """A rule is looked for: what the kernel sees of *frame*, however far behind a header is."""
        return parse(frame[:18] + frame[18 + self._hidden :], partial(packet.parse, window=1 << 16))


def parse(frame: bytes, look: _Look) -> Fields:
    """The fields of *frame* as the kernel has them; *look* is the eSwitch's parser."""
    later = _later_tags(frame)
    frame = frame[:20] + frame[20 + 4 * later :]
    fields = look(frame)
    fields = lengths(frame, fields)
    fields = arp_operations(fields)
    fields = cut_extensions(frame, fields)
    fields = cut_headers(frame, fields)
    fields = first_fragments(frame, fields, look)
    return fields | {_LATER_TAGS: later}


_LATER_TAGS = "ipv6_label"
"""A field that flower has no key for, so that no rule matches it: it stands for what the eSwitch does not see."""


def tags(match: Match) -> Match:
    """What a key says of tags beyond what the eSwitch matches on.

    The dissector steps over every tag after the second to find what is in the packet, while a key for two tags names
    the type right behind them; the eSwitch, as ConnectX, looks no deeper than two tags in any case.
    """
    if not match.cvlan_tci.value & VLAN_PRESENT or not match.cvlan_tci.mask & VLAN_PRESENT:
        return match
    return match.but(**{_LATER_TAGS: Masked(0, 0xFF)}) if match.eth_type.mask else match


def lengths(frame: bytes, fields: Fields) -> Fields:
    """A length in place of an ethertype: the eSwitch says LLC. So does the kernel, but raw 802.3 (Novell's) has a
    number of its own, and behind two tags the length stands as it is."""
    if fields.get("eth_type") != packet.LLC:
        return fields
    at = 12 + 4 * _tags(frame)
    if _tags(frame) == 2:
        return fields | {"eth_type": int.from_bytes(frame[at : at + 2], "big")}
    return fields | {"eth_type": _ETH_P_802_3} if frame[at + 2 : at + 4] == b"\xff\xff" else fields


def arp_operations(fields: Fields) -> Fields:
    """The dissector knows ARP requests and replies only. The eSwitch matches every operation, as Open vSwitch does."""
    if fields.get("eth_type") not in _ARP or fields.get("ip_proto") in (1, 2):
        return fields
    return _without(fields, ("ip_proto", "ip_src", "ip_dst", "arp_sha", "arp_tha"))


def cut_extensions(frame: bytes, fields: Fields) -> Fields:
    """The dissector needs two bytes of an IPv6 extension header, the eSwitch the eight that each has at least."""
    at, _ = _headers(frame)
    if at is None or fields["eth_type"] != 0x86DD or fields.get("ip_proto", 0) not in _EXTENSIONS:
        return fields
    rest = frame[at:]
    return fields | {"ip_proto": rest[0]} if 2 <= len(rest) < 8 else fields


def cut_headers(frame: bytes, fields: Fields) -> Fields:
    """Of a TCP, UDP or SCTP header that is cut short the dissector has the ports, if they are there. The eSwitch has
    nothing, as Open vSwitch. And a TCP header that says to be too short has no flags for the dissector."""
    at, _ = _headers(frame)
    segment = frame[at:] if at is not None else b""
    if fields.get("ip_frag", 0) == Frag.IS_FRAGMENT or len(segment) < 4:
        return fields
    if fields.get("ip_proto") not in (_TCP, _UDP, _SCTP):
        return fields
    fields = fields | {"l4_src": int.from_bytes(segment[0:2], "big"), "l4_dst": int.from_bytes(segment[2:4], "big")}
    if fields["ip_proto"] == _TCP and len(segment) >= 20 and segment[12] >> 4 < 5:
        return _without(fields, ("tcp_flags",))
    return fields


def first_fragments(frame: bytes, fields: Fields, look: _Look) -> Fields:
    """Flower does not ask for what is in a first fragment, or behind the fragment header of IPv6: the dissector stops
    there. The eSwitch goes on, as Open vSwitch and ConnectX."""
    _, at = _headers(frame)
    if at is None:
        return _without(fields, _L4) if fields.get("ip_frag", 0) & Frag.FIRST else fields
    first = not int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF8
    later = look(frame[: at + 2] + b"\0\x08" + frame[at + 4 :])
    return later | {"ip_frag": Frag.IS_FRAGMENT | Frag.FIRST * first}


def _later_tags(frame: bytes) -> int:
    """How many tags there are after the second."""
    at = 20
    while _tags(frame) == 2 and frame[at : at + 2] in _TPIDS and len(frame) >= at + 6:
        at += 4
    return (at - 20) // 4


def _tags(frame: bytes) -> int:
    """How many tags, of at most two, the eSwitch sees."""
    if frame[12:14] not in _TPIDS or len(frame) < 18:
        return 0
    return 2 if frame[16:18] in _TPIDS and len(frame) >= 22 else 1


def _headers(frame: bytes) -> tuple[int | None, int | None]:
    """Where an IP packet's transport header starts (None: it is none, or its own header is cut short), and its first
    IPv6 fragment header, if it has a whole one."""
    at = 14 + 4 * _tags(frame)
    rest = frame[at:]
    if frame[at - 2 : at] == b"\x08\x00" and len(rest) >= 20 and rest[0] & 15 >= 5:
        return at + 4 * (rest[0] & 15), None
    if frame[at - 2 : at] != b"\x86\xdd" or len(rest) < 40:
        return None, None
    following, at = rest[6], at + 40
    for _ in range(EXTENSIONS):
        if following == _FRAGMENT and len(frame) >= at + 8:
            return at + 8, at
        if following not in _EXTENSIONS or len(frame) < at + 8:
            break
        following, at = frame[at], at + 8 * (frame[at + 1] + 1)
    return at, None


def _without(fields: Fields, names: tuple[str, ...]) -> Fields:
    return {name: value for name, value in fields.items() if name not in names}
