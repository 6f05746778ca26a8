# SPDX-License-Identifier: Apache-2.0
"""Random header rewrites: the actions pedit and csum, and the keys that a filter needs for them to make sense.

pedit writes where it is told, whatever is there; the eSwitch rewrites fields that the packet has, and keeps checksums
right by itself. So a filter here rewrites only what its key says is there, in whole packets, and asks for checksums:

* no fragments: csum would compute the checksum of a first fragment over that fragment alone;
* no IPv6 extension headers: of some, csum leaves the checksum behind them as it is;
* one tag at most: pedit finds network and transport header in no packet with two;
* no ports of SCTP: its checksum is no sum, and the eSwitch does not touch it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from asap2.netlink.tables import actions as ta
from asap2.nic.faces.tc.pedit import CMD_ADD, CMD_SET, HTYPE_ETH, HTYPE_IP4, HTYPE_IP6, HTYPE_TCP, HTYPE_UDP
from asap2.nic.silicon import packet
from tests.system.realkernel.actions import Action
from tests.system.realkernel.frames import IPV4, IPV6, MACS, TPIDS

_UPDATE_ALL = 1 | 2 | 8 | 16
"""TCA_CSUM_UPDATE_FLAG_ of the IPv4 header, ICMP, TCP and UDP (include/uapi/linux/tc_act/tc_csum.h)."""
_IS_FRAGMENT = 1
_TTL = {(HTYPE_IP4, 8), (HTYPE_IP6, 7)}

Edit = tuple[int, int, bytes, bytes]
"""Header type, offset of a field in it, the field's new octets, and the bits of them that are set."""


def rewritable(frame: bytes) -> bool:
    """Whether it is a whole IP packet with a tag at most, its transport header right behind IPv6's own."""
    fields = packet.parse(frame)
    ethertype = fields.get("eth_type")
    if ethertype not in (0x0800, 0x86DD) or "cvlan_tci" in fields or "ip_frag" in fields:
        return False
    ip = 18 if "vlan_tpid" in fields else 14
    return ethertype == 0x0800 or frame[ip + 6 : ip + 7] == bytes((fields.get("ip_proto", 0),))


def keys(random: Random, frame: bytes) -> dict[str, Any]:
    """A key that says what the rewritable *frame* is."""
    fields = packet.parse(frame)
    ethertype = fields["eth_type"]
    chosen: dict[str, Any] = {"key_eth_type": ethertype}
    if "vlan_tpid" in fields:
        chosen = {"key_eth_type": fields["vlan_tpid"], "key_vlan_eth_type": ethertype}
    chosen["key_ip_proto"] = fields.get("ip_proto", 0)
    if random.random() < 0.5:
        name = "key_ipv4_dst" if ethertype == 0x0800 else "key_ipv6_dst"
        chosen[name] = fields["ip_dst"].to_bytes(4 if ethertype == 0x0800 else 16, "big")
    return chosen | {"key_flags": 0, "key_flags_mask": _IS_FRAGMENT}


def actions(random: Random, chosen: dict[str, Any]) -> list[Action]:
    """pedit, and csum, for packets that a filter with the key *chosen* finds."""
    found = [_edit(random, chosen) for _ in range(random.randint(1, 3))]
    fields = {(header, offset): (header, offset, value, mask) for header, offset, value, mask in found}
    words = [word for edit in fields.values() for word in _words(edit)]
    adding = random.random() < 0.5
    added = {place for place, (_, _, value, _) in fields.items() if adding and place in _TTL and any(value)}
    made = [pedit(words, {(header, offset & ~3) for header, offset in added})]
    if any(header != HTYPE_ETH for header, _ in fields):
        made.append({"kind": "csum", "options": {"parms": ta.Csum(action=ta.TC_ACT_PIPE, update_flags=_UPDATE_ALL)}})
    return made


def _edit(random: Random, chosen: dict[str, Any]) -> Edit:
    ethertype = chosen["key_eth_type"]
    if ethertype in TPIDS:
        ethertype = chosen["key_vlan_eth_type"]
    kinds = ["eth", "eth", "address", "address", "ttl"]
    kinds += ["tos"] if ethertype == 0x0800 else []
    kinds += ["port", "port"] if chosen["key_ip_proto"] in (6, 17) else []
    match random.choice(kinds):
        case "eth":
            return HTYPE_ETH, random.choice((0, 6)), random.choice(MACS), b"\xff" * 6
        case "address" if ethertype == 0x0800:
            return HTYPE_IP4, random.choice((12, 16)), random.choice(IPV4), b"\xff" * 4
        case "address":
            return HTYPE_IP6, random.choice((8, 24)), random.choice(IPV6), b"\xff" * 16
        case "ttl":
            place = (HTYPE_IP4, 8) if ethertype == 0x0800 else (HTYPE_IP6, 7)
            return *place, random.randbytes(1), b"\xff"
        case "tos":
            return HTYPE_IP4, 1, random.randbytes(1), random.choice((b"\xff", b"\xfc"))
    header = HTYPE_TCP if chosen["key_ip_proto"] == 6 else HTYPE_UDP
    return header, random.choice((0, 2)), random.randbytes(2), b"\xff\xff"


def _words(edit: Edit) -> list[tuple[int, ta.PeditKey]]:
    """The 32-bit words that hold a field: header type, and the key that edits the word."""
    header, start, value, mask = edit
    first, last = start & ~3, (start + len(value) + 3) & ~3
    octets = bytes(start - first) + bytes(v & m for v, m in zip(value, mask, strict=True))
    changed = bytes(start - first) + mask
    octets, changed = octets.ljust(last - first, b"\0"), changed.ljust(last - first, b"\0")
    return [
        (
            header,
            ta.PeditKey(
                ~int.from_bytes(changed[at : at + 4], "little") & 0xFFFFFFFF,
                int.from_bytes(octets[at : at + 4], "little"),
                first + at,
            ),
        )
        for at in range(0, last - first, 4)
    ]


def pedit(words: list[tuple[int, ta.PeditKey]], added: set[tuple[int, int]] | None = None) -> Action:
    """The action with these keys, which set, but for those of words that are *added* to."""
    parms = ta.Pedit(action=ta.TC_ACT_PIPE, nkeys=len(words), keys=tuple(key for _, key in words))
    extended = {
        "key_ex": [
            {"htype": header, "cmd": CMD_ADD if (header, key.off) in (added or ()) else CMD_SET}
            for header, key in words
        ]
    }
    return {"kind": "pedit", "options": {"parms_ex": parms, "keys_ex": extended}}
