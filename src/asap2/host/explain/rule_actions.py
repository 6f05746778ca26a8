# SPDX-License-Identifier: Apache-2.0
"""The actions of the flower rule that Open vSwitch makes of a flow (lib/netdev-offload-tc.c and lib/tc.c)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asap2.host import trial
from asap2.host.explain.flow import Call, Flow, masked, number
from asap2.netlink.tables.actions import (
    TC_ACT_GOTO_CHAIN,
    TC_ACT_JUMP,
    TC_ACT_PIPE,
    TC_ACT_SHOT,
    TC_ACT_STOLEN,
    TCA_EGRESS_MIRROR,
    TCA_EGRESS_REDIR,
    TCA_INGRESS_MIRROR,
    TCA_INGRESS_REDIR,
    TCA_MPLS_ACT_MODIFY,
    TCA_MPLS_ACT_POP,
    TCA_MPLS_ACT_PUSH,
    TCA_TUNNEL_KEY_ACT_RELEASE,
    TCA_TUNNEL_KEY_ACT_SET,
    Csum,
    Generic,
    Mirred,
    Mpls,
    Pedit,
    PeditKey,
    Police,
    TunnelKey,
)

Action = dict[str, Any]
"""One action, of :data:`asap2.netlink.tables.actions.ACTION`."""
ETH, IP4, IP6, TCP, UDP = 1, 2, 3, 4, 5
"""TCA_PEDIT_KEY_EX_HDR_TYPE_* (include/uapi/linux/tc_act/tc_pedit.h)."""
PLACES = {
    ("eth", "dst"): (ETH, 0, 6),
    ("eth", "src"): (ETH, 6, 6),
    ("ipv4", "tos"): (IP4, 1, 1),
    ("ipv4", "ttl"): (IP4, 8, 1),
    ("ipv4", "src"): (IP4, 12, 4),
    ("ipv4", "dst"): (IP4, 16, 4),
    ("ipv6", "tclass"): (IP6, 0, 1),
    ("ipv6", "hlimit"): (IP6, 7, 1),
    ("ipv6", "src"): (IP6, 8, 16),
    ("ipv6", "dst"): (IP6, 24, 16),
    ("tcp", "src"): (TCP, 0, 2),
    ("tcp", "dst"): (TCP, 2, 2),
    ("udp", "src"): (UDP, 0, 2),
    ("udp", "dst"): (UDP, 2, 2),
}
"""Fields that are set: header, offset and octets in it."""
SHIFTS = {("ipv6", "tclass"): 4}
"""By how many bits a field lies further into its header than its octets say (flower_pedit_map's boundary_shift)."""
CSUM_IPV4, CSUM_ICMP, CSUM_TCP, CSUM_UDP = 1, 2, 8, 16
"""TCA_CSUM_UPDATE_FLAG_* (tc_csum.h)."""
CT_COMMIT, CT_FORCE, CT_CLEAR, CT_NAT, CT_NAT_SRC, CT_NAT_DST = 1, 2, 4, 8, 16, 32
"""TCA_CT_ACT_* (tc_ct.h)."""
PACKET_HOST = 0
CT_PARTS = frozenset({"commit", "force_commit", "zone", "mark", "label", "timeout", "nat"})
TUNNEL_PARTS = frozenset(
    {"tun_id", "src", "dst", "ipv6_src", "ipv6_dst", "tos", "ttl", "tp_src", "tp_dst", "geneve", "vxlan", "flags"}
)
_RANGE = re.compile(
    r"\[([^\]]+)\](?:-\[([^\]]+)\])?(?::(\d+)(?:-(\d+))?)?"
    r"|([\d.]+)(?:-([\d.]+))?(?::(\d+)(?:-(\d+))?)?"
    r"|([\da-fA-F:.]+)(?:-([\da-fA-F:.]+))?"
)
"""Addresses and ports of nat(): IPv6 in brackets where there are ports, IPv4, IPv6 (format_odp_ct_nat)."""
_GENEVE = re.compile(r"\{class=([^,}]*),type=([^,}]*),len=([^,}]*)(?:,([^}]*))?\}")


class UnbuildableError(Exception):
    """No rule can be made of the flow; the text says of what of it."""


@dataclass(frozen=True, slots=True)
class Device:
    """A port's network device: its interface index, and whether it is a bridge's own (an internal port)."""

    index: int
    internal: bool = False


def actions(flow: Flow, device: Callable[[str], Device | None]) -> list[Action]:
    """The actions of *flow*'s rule; *device* finds a port's. UnbuildableError (or ValueError for a number that is none)
    when it has something that no rule has."""
    made = _Actions(flow, device)
    made.add(flow.actions, last=True)
    return made.made or [{"kind": "gact", "options": {"parms": Generic(action=TC_ACT_SHOT)}}]


class _Actions:
    """A list of actions as it grows."""

    def __init__(self, flow: Flow, device: Callable[[str], Device | None]) -> None:
        self.flow, self.device = flow, device
        self.made: list[Action] = []
        self.released = "tunnel" not in flow.levels[0]

    def add(self, every: tuple[Call, ...], *, last: bool) -> None:
        """Add *every* action; *last* when none comes behind them."""
        for at, action in enumerate(every):
            final = last and at == len(every) - 1
            if action.is_port:
                self._release()
                self.made += _output(self._found(action.name), final)
            elif action.name == "set":
                for field in action.inner:
                    self._set(field)
            elif action.name == "check_pkt_len":
                self._check_length(action, final)
            elif action != Call("drop"):
                self.made.append(_plain(action))

    def _found(self, port: str) -> Device:
        found = self.device(port)
        if found is None:
            raise UnbuildableError(f"output to {port}")
        return found

    def _release(self) -> None:
        """Take the tunnel's header off, once, before the packet goes out."""
        if not self.released:
            self.made.append(_tunnel_key(TCA_TUNNEL_KEY_ACT_RELEASE))
            self.released = True

    def _set(self, field: Call) -> None:
        if field.name == "tunnel":
            self._release()
            self.made.append(_encap(field))
        elif field.name == "mpls":
            self.made.append(_mpls(TCA_MPLS_ACT_MODIFY, field.parts))
        else:
            self.made += _rewrite(self.flow, field)

    def _check_length(self, action: Call, last: bool) -> None:
        """A policer that packets of no more than the size conform to: they jump over what is for the longer ones."""
        parts = {one.name: one for one in action.inner}
        size = action.parts.get("size", "")
        police: Action = {"kind": "police", "options": {"tbf": Police(action=TC_ACT_PIPE, mtu=number(size))}}
        self.made.append(police)
        self.add(parts.get("gt", Call("gt")).inner, last=False)
        longer = len(self.made)
        self.add(parts.get("le", Call("le")).inner, last=False)
        end = TC_ACT_STOLEN if last else TC_ACT_JUMP | len(self.made)
        police["options"]["result"] = end if longer == len(self.made) and last else TC_ACT_JUMP | longer
        for at in {longer, len(self.made)}:
            _end(self.made[at - 1], end if at == longer or last else TC_ACT_PIPE)


def _end(action: Action, verdict: int) -> None:
    """Have the list go on at *verdict* behind an action that is no verdict itself."""
    options = action["options"]
    for name in ("parms", "parms_ex"):
        if name in options and action["kind"] != "gact":
            options[name] = options[name]._replace(action=verdict)


def _plain(action: Call) -> Action:
    parts = action.parts
    if action.name == "pop_vlan":
        return trial.pop_vlan()
    if action.name == "push_vlan":
        pushed = trial.push_vlan(number(parts.get("vid", "0")))
        pushed["options"]["push_vlan_priority"] = number(parts.get("pcp", "0"))
        pushed["options"]["push_vlan_protocol"] = number(parts.get("tpid", "0x8100"))
        return pushed
    if action.name == "push_mpls":
        return _mpls(TCA_MPLS_ACT_PUSH, parts)
    if action.name == "pop_mpls":
        return _mpls(TCA_MPLS_ACT_POP, parts)
    if action.name == "recirc" and action.text:
        return {"kind": "gact", "options": {"parms": Generic(action=TC_ACT_GOTO_CHAIN | number(action.text))}}
    if action.name == "ct_clear":
        return {"kind": "ct", "options": {"parms": Generic(action=TC_ACT_PIPE), "action": CT_CLEAR}}
    if action.name == "ct":
        return _connection(action)
    raise UnbuildableError(str(action))


def _mpls(way: int, parts: dict[str, str]) -> Action:
    options: dict[str, Any] = {"parms": Mpls(action=TC_ACT_PIPE, m_action=way)}
    if "eth_type" in parts:
        options["proto"] = number(parts["eth_type"])
    if way != TCA_MPLS_ACT_POP:
        options |= {part: number(parts[part]) for part in ("label", "tc", "ttl", "bos") if part in parts}
    return {"kind": "mpls", "options": options}


def _connection(action: Call) -> Action:
    parts = action.parts
    beyond = parts.keys() - CT_PARTS
    if beyond:
        raise UnbuildableError(f"ct({', '.join(sorted(beyond))})")
    way = CT_COMMIT if "commit" in parts else 0
    way |= CT_COMMIT | CT_FORCE if "force_commit" in parts else 0
    options: dict[str, Any] = {"parms": Generic(action=TC_ACT_PIPE)}
    if "zone" in parts:
        options["zone"] = number(parts["zone"])
    if "mark" in parts:
        options["mark"], options["mark_mask"] = masked(parts["mark"], 32)
    if "label" in parts:
        for name, value in zip(("labels", "labels_mask"), masked(parts["label"], 128), strict=True):
            options[name] = value.to_bytes(16, "little")
    if "nat" in parts:
        way |= CT_NAT | _translation(parts["nat"], options)
    return {"kind": "ct", "options": {**options, "action": way}}


def _translation(text: str, options: dict[str, Any]) -> int:
    """Put what addresses are translated to into *options*; the way as a bit of the action."""
    if not text:
        return 0
    way, _, where = text.partition(",")[0].partition("=")
    found = _RANGE.fullmatch(where)
    if way not in ("src", "dst") or (where and not found):
        raise UnbuildableError(f"nat({text})")
    addresses = [one for one in (found.group(1, 2, 5, 6, 9, 10) if found else ()) if one]
    for name, address in zip(("min", "max"), addresses, strict=False):
        packed = ipaddress.ip_address(address).packed
        options[f"nat_{'ipv4' if len(packed) == 4 else 'ipv6'}_{name}"] = packed
    ports = [one for one in (found.group(3, 4, 7, 8) if found else ()) if one]
    options |= {f"nat_port_{name}": number(port) for name, port in zip(("min", "max"), ports, strict=False)}
    return CT_NAT_SRC if way == "src" else CT_NAT_DST


def _output(device: Device, last: bool) -> list[Action]:
    ways = (TCA_INGRESS_REDIR, TCA_INGRESS_MIRROR) if device.internal else (TCA_EGRESS_REDIR, TCA_EGRESS_MIRROR)
    parms = Mirred(action=TC_ACT_STOLEN if last else TC_ACT_PIPE, eaction=ways[0 if last else 1], ifindex=device.index)
    sent: Action = {"kind": "mirred", "options": {"parms": parms}}
    if not device.internal:
        return [sent]
    return [{"kind": "skbedit", "options": {"parms": Generic(action=TC_ACT_PIPE), "ptype": PACKET_HOST}}, sent]


def _tunnel_key(way: int, **options: Any) -> Action:
    return {"kind": "tunnel_key", "options": {"parms": TunnelKey(action=TC_ACT_PIPE, t_action=way), **options}}


def _encap(field: Call) -> Action:
    options: dict[str, Any] = {}
    parts = field.parts
    beyond = parts.keys() - TUNNEL_PARTS
    if beyond:
        raise UnbuildableError(f"set(tunnel({', '.join(sorted(beyond))}))")
    for part, name in (
        ("src", "enc_ipv4_src"),
        ("dst", "enc_ipv4_dst"),
        ("ipv6_src", "enc_ipv6_src"),
        ("ipv6_dst", "enc_ipv6_dst"),
    ):
        if part in parts:
            options[name] = ipaddress.ip_address(parts[part]).packed
    if "enc_ipv4_dst" in options:
        options.setdefault("enc_ipv4_src", bytes(4))
    if "enc_ipv6_dst" in options:
        options.setdefault("enc_ipv6_src", bytes(16))
    for part, name in (("tun_id", "enc_key_id"), ("tp_dst", "enc_dst_port"), ("tos", "enc_tos"), ("ttl", "enc_ttl")):
        if part in parts:
            options[name] = number(parts[part])
    if "geneve" in parts:
        options["enc_opts"] = {"geneve": geneve(parts["geneve"])[0]}
    if "vxlan" in parts:
        options["enc_opts"] = {"vxlan": {"gbp": gbp(parts["vxlan"])[0]}}
    options["no_csum"] = 0 if "csum" in (field.text or "") else 1
    return _tunnel_key(TCA_TUNNEL_KEY_ACT_SET, **options)


def gbp(text: str) -> tuple[int, int]:
    """VXLAN's group-based policy as TC has it, and its mask: ``gbp(id=3,flags=0x8)``; ValueError for what is none."""
    parts = Call("vxlan", Call("vxlan", text).parts.get("gbp")).parts
    (number_, number_mask), (flags, flags_mask) = masked(parts.get("id"), 16), masked(parts.get("flags"), 8)
    return flags << 16 | number_, flags_mask << 16 | number_mask


def geneve(text: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Geneve's options, and their masks: ``{class=0x102,type=0x80,len=4,0xa/0xf}``; ValueError for what is none."""
    options: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    rest = _GENEVE.sub("", text).strip()
    if rest:
        raise UnbuildableError(f"geneve({text})")
    for found in _GENEVE.finditer(text):
        octets = number(found[3].partition("/")[0])
        (kind, kind_mask), (type_, type_mask) = masked(found[1], 16), masked(found[2], 8)
        value, mask = masked(found[4], 8 * octets)
        options.append({"class": kind, "type": type_, "data": value.to_bytes(octets, "big")})
        masks.append({"class": kind_mask, "type": type_mask, "data": mask.to_bytes(octets, "big")})
    return options, masks


def _rewrite(flow: Flow, field: Call) -> list[Action]:
    keys: list[tuple[int, PeditKey]] = []
    for part, text in field.parts.items():
        place = PLACES.get((field.name, part))
        if place is None:
            if part in ("proto", "frag") or not masked(text, 128)[1]:
                continue
            raise UnbuildableError(f"set({field.name}({part}))")
        header, offset, octets = place
        value, mask = masked(text, 8 * octets)
        shift = SHIFTS.get((field.name, part), 0)
        if shift:
            octets, value, mask = octets + 1, value << shift, mask << shift
        keys += [(header, key) for key in _words(offset, value.to_bytes(octets, "big"), mask.to_bytes(octets, "big"))]
    if not keys:
        return []
    parms = Pedit(action=TC_ACT_PIPE, nkeys=len(keys), keys=tuple(key for _, key in keys))
    extended = {"key_ex": [{"htype": header, "cmd": 0} for header, _ in keys]}
    made: list[Action] = [{"kind": "pedit", "options": {"parms_ex": parms, "keys_ex": extended}}]
    protocol = flow.part("ipv6" if "ipv6" in flow.inside else "ipv4", "proto", 8)[0]
    sums = CSUM_IPV4 if field.name == "ipv4" else 0
    if field.name != "eth":
        sums |= {6: CSUM_TCP, 17: CSUM_UDP, 58: CSUM_ICMP}.get(protocol, 0)
    if sums:
        made.append({"kind": "csum", "options": {"parms": Csum(action=TC_ACT_PIPE, update_flags=sums)}})
    return made


def _words(offset: int, value: bytes, mask: bytes) -> list[PeditKey]:
    """The 32-bit words that set *mask* of *value* at *offset*; what stays is in a key's mask, as it lies in memory."""
    before = offset % 4
    after = -(before + len(value)) % 4
    value, mask = bytes(before) + value + bytes(after), bytes(before) + mask + bytes(after)
    words = []
    for at in range(0, len(mask), 4):
        bits = int.from_bytes(mask[at : at + 4], "little")
        if bits:
            now = int.from_bytes(value[at : at + 4], "little") & bits
            words.append(PeditKey(mask=bits ^ 0xFFFFFFFF, val=now, off=offset - before + at))
    return words
