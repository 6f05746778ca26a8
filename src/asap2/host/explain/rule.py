# SPDX-License-Identifier: Apache-2.0
"""The flower rule that Open vSwitch makes of a flow, from the flow's text (lib/netdev-offload-tc.c and lib/tc.c, 3.1).

Keys and actions are those of :mod:`asap2.netlink.tables`; the destination MAC is nobody's, so that the rule matches no
packet when it is tried.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asap2.host import trial
from asap2.host.explain.flow import Call, Flow, masked, number
from asap2.netlink.tables.actions import (
    TC_ACT_GOTO_CHAIN,
    TC_ACT_PIPE,
    TC_ACT_SHOT,
    TC_ACT_STOLEN,
    TCA_EGRESS_MIRROR,
    TCA_EGRESS_REDIR,
    TCA_INGRESS_MIRROR,
    TCA_INGRESS_REDIR,
    TCA_TUNNEL_KEY_ACT_RELEASE,
    TCA_TUNNEL_KEY_ACT_SET,
    Csum,
    Generic,
    Mirred,
    Pedit,
    PeditKey,
    TunnelKey,
)
from asap2.netlink.tables.flower import TCA_FLOWER_KEY_FLAGS_FRAG_IS_FIRST, TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT

ETH, IP4, IP6, TCP, UDP = 1, 2, 3, 4, 5
"""TCA_PEDIT_KEY_EX_HDR_TYPE_* (include/uapi/linux/tc_act/tc_pedit.h)."""
PLACES = {
    ("eth", "dst"): (ETH, 0, 6),
    ("eth", "src"): (ETH, 6, 6),
    ("ipv4", "tos"): (IP4, 1, 1),
    ("ipv4", "ttl"): (IP4, 8, 1),
    ("ipv4", "src"): (IP4, 12, 4),
    ("ipv4", "dst"): (IP4, 16, 4),
    ("ipv6", "hlimit"): (IP6, 7, 1),
    ("ipv6", "src"): (IP6, 8, 16),
    ("ipv6", "dst"): (IP6, 24, 16),
    ("tcp", "src"): (TCP, 0, 2),
    ("tcp", "dst"): (TCP, 2, 2),
    ("udp", "src"): (UDP, 0, 2),
    ("udp", "dst"): (UDP, 2, 2),
}
"""Fields that are set: header, offset and octets in it."""
CSUM_IPV4, CSUM_ICMP, CSUM_TCP, CSUM_UDP = 1, 2, 8, 16
"""TCA_CSUM_UPDATE_FLAG_* (tc_csum.h)."""
CT_COMMIT, CT_FORCE, CT_CLEAR, CT_NAT = 1, 2, 4, 8
"""TCA_CT_ACT_* (tc_ct.h)."""
PACKET_HOST = 0
PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
FRAGMENT, FIRST = TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT, TCA_FLOWER_KEY_FLAGS_FRAG_IS_FIRST


class UnbuildableError(Exception):
    """No rule can be made of the flow; the text says of what of it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule to try: flower's options (without flags), its Ethernet protocol as a host integer, its chain."""

    options: Mapping[str, Any]
    protocol: int
    chain: int


@dataclass(frozen=True, slots=True)
class Device:
    """A port's network device: its interface index, and whether it is a bridge's own (an internal port)."""

    index: int
    internal: bool = False


def rule(flow: Flow, device: Callable[[str], Device | None]) -> Rule:
    """The rule of *flow*; *device* finds a port's. UnbuildableError when it has something that no rule has."""
    try:
        options = _match(flow)
        options["act"] = _actions(flow, device)
        protocol = number(flow.levels[0].get("eth_type", "0").partition("/")[0])
        return Rule(options, protocol, flow.recirc_id)
    except (ValueError, OverflowError) as error:
        raise UnbuildableError(str(error)) from None


# ---- match


def _match(flow: Flow) -> dict[str, Any]:
    ethertypes = [number(level["eth_type"].partition("/")[0]) for level in flow.levels if "eth_type" in level]
    options: dict[str, Any] = {"key_eth_dst": trial.NOBODY, "key_eth_dst_mask": b"\xff" * 6}
    value, mask = flow.part("eth", "src", 48)
    _put(options, "eth_src", value.to_bytes(6, "big"), mask.to_bytes(6, "big"))
    for name, ethertype in zip(("eth_type", "vlan_eth_type", "cvlan_eth_type"), ethertypes, strict=False):
        options[f"key_{name}"] = ethertype
    for name, level in zip(("vlan", "cvlan"), flow.levels, strict=False):
        parts = Call("vlan", level.get("vlan")).parts
        for key, part, width in (("id", "vid", 12), ("prio", "pcp", 3)):
            value, mask = masked(parts.get(part), width)
            if mask:
                options[f"key_{name}_{key}"] = value
    _network(flow, options)
    _tunnel(flow, options)
    for name, width, kind in (("ct_state", 16, int), ("ct_zone", 16, int), ("ct_mark", 32, int)):
        value, mask = flow.value(name, width)
        _put(options, name, kind(value), kind(mask))
    value, mask = flow.value("ct_label", 128)
    _put(options, "ct_labels", value.to_bytes(16, "little"), mask.to_bytes(16, "little"))
    return options


def _put(options: dict[str, Any], name: str, value: Any, mask: Any) -> None:
    if any(mask) if isinstance(mask, bytes) else mask:
        options[f"key_{name}"], options[f"key_{name}_mask"] = value, mask


def _network(flow: Flow, options: dict[str, Any]) -> None:
    ip = "ipv4" if "ipv4" in flow.inside else "ipv6" if "ipv6" in flow.inside else None
    if "mpls" in flow.inside:
        raise UnbuildableError("MPLS")
    if "arp" in flow.inside:
        for key, part, size in (("sip", "sip", 4), ("tip", "tip", 4), ("sha", "sha", 6), ("tha", "tha", 6)):
            value, mask = flow.part("arp", part, 8 * size)
            _put(options, f"arp_{key}", value.to_bytes(size, "big"), mask.to_bytes(size, "big"))
        value, mask = flow.part("arp", "op", 16)
        _put(options, "arp_op", value & 0xFF, mask & 0xFF)
    if ip is None:
        return
    size = 4 if ip == "ipv4" else 16
    for part in ("src", "dst"):
        value, mask = flow.part(ip, part, 8 * size)
        _put(options, f"{ip}_{part}", value.to_bytes(size, "big"), mask.to_bytes(size, "big"))
    for key, part in (("ip_tos", "tos" if size == 4 else "tclass"), ("ip_ttl", "ttl" if size == 4 else "hlimit")):
        _put(options, key, *flow.part(ip, part, 8))
    protocol, mask = flow.part(ip, "proto", 8)
    if mask:
        options["key_ip_proto"] = protocol
    frag = Call(ip, flow.inside[ip]).parts.get("frag")
    if frag:
        bits = {
            "no": (0, FRAGMENT),
            "first": (FRAGMENT | FIRST, FRAGMENT | FIRST),
            "later": (FRAGMENT, FRAGMENT | FIRST),
        }
        _put(options, "flags", *bits.get(frag, (0, 0)))
    name = PORTS.get(protocol)
    if name:
        for part in ("src", "dst"):
            _put(options, f"{name}_{part}", *flow.part(name, part, 16))
        if name == "tcp":
            _put(options, "tcp_flags", *_tcp_flags(flow.inside.get("tcp_flags")))
    elif protocol in (1, 58):
        name = "icmpv4" if protocol == 1 else "icmpv6"
        for part in ("type", "code"):
            _put(options, f"{name}_{part}", *flow.part("icmp" if protocol == 1 else "icmpv6", part, 8))


def _tcp_flags(text: str | None) -> tuple[int, int]:
    """``+syn-ack``, ``syn|ack`` or numbers as value and mask."""
    if not text:
        return 0, 0
    words = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns")
    if not any(word in text for word in words):
        return masked(text, 12)
    value = mask = 0
    signed = text[0] in "+-"
    for at, word in enumerate(words):
        if f"-{word}" in text:
            mask |= 1 << at
        elif word in text:
            value, mask = value | 1 << at, mask | 1 << at
    return value, mask if signed else 0xFFF


def _tunnel(flow: Flow, options: dict[str, Any]) -> None:
    text = flow.levels[0].get("tunnel")
    if not text:
        return
    if "geneve(" in text:
        raise UnbuildableError("Geneve options")
    for part, name, size in (
        ("src", "ipv4_src", 4),
        ("dst", "ipv4_dst", 4),
        ("ipv6_src", "ipv6_src", 16),
        ("ipv6_dst", "ipv6_dst", 16),
    ):
        value, mask = flow.part("tunnel", part, 8 * size)
        _put(options, f"enc_{name}", value.to_bytes(size, "big"), mask.to_bytes(size, "big"))
    value, mask = flow.part("tunnel", "tun_id", 64)
    if mask:
        options["key_enc_key_id"] = value
    for part, name in (("tos", "ip_tos"), ("ttl", "ip_ttl")):
        _put(options, f"enc_{name}", *flow.part("tunnel", part, 8))
    _put(options, "enc_udp_src_port", *flow.part("tunnel", "tp_src", 16))
    value, _ = flow.part("tunnel", "tp_dst", 16)
    _put(options, "enc_udp_dst_port", value, 0xFFFF if value else 0)


# ---- actions


def _actions(flow: Flow, device: Callable[[str], Device | None]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    released = "tunnel" not in flow.levels[0]
    for at, action in enumerate(flow.actions):
        last = at == len(flow.actions) - 1
        if action.text is None and action.name not in ("pop_vlan", "ct_clear", "drop"):
            found = device(action.name)
            if found is None:
                raise UnbuildableError(f"output to {action.name}")
            if not released:
                made.append(_tunnel_key(TCA_TUNNEL_KEY_ACT_RELEASE))
                released = True
            made += _output(found, last)
        elif action.name == "set":
            for field in action.inner:
                if field.name == "tunnel" and not released:
                    made.append(_tunnel_key(TCA_TUNNEL_KEY_ACT_RELEASE))
                    released = True
                made += [_encap(field)] if field.name == "tunnel" else _set(flow, field)
        else:
            made.append(_plain(action))
    return made or [trial.drop()]


def _plain(action: Call) -> dict[str, Any]:
    parts = action.parts
    if action.name == "pop_vlan":
        return trial.pop_vlan()
    if action.name == "push_vlan":
        pushed = trial.push_vlan(number(parts.get("vid", "0")))
        pushed["options"]["push_vlan_priority"] = number(parts.get("pcp", "0"))
        pushed["options"]["push_vlan_protocol"] = number(parts.get("tpid", "0x8100"))
        return pushed
    if action.name in ("recirc", "drop"):
        verdict = TC_ACT_GOTO_CHAIN | number(action.text) if action.text else TC_ACT_SHOT
        return {"kind": "gact", "options": {"parms": Generic(action=verdict)}}
    if action.name == "ct_clear":
        return {"kind": "ct", "options": {"parms": Generic(action=TC_ACT_PIPE), "action": CT_CLEAR}}
    if action.name == "ct":
        if "=" in parts.get("nat", "") or "label" in parts:
            raise UnbuildableError(str(action))
        flags = sum(bit for word, bit in (("commit", CT_COMMIT), ("nat", CT_NAT)) if word in parts)
        flags |= CT_COMMIT | CT_FORCE if "force_commit" in parts else 0
        options: dict[str, Any] = {"parms": Generic(action=TC_ACT_PIPE), "action": flags}
        if "zone" in parts:
            options["zone"] = number(parts["zone"])
        if "mark" in parts:
            options["mark"], options["mark_mask"] = masked(parts["mark"], 32)
        return {"kind": "ct", "options": options}
    raise UnbuildableError(str(action))


def _output(device: Device, last: bool) -> list[dict[str, Any]]:
    ways = (TCA_INGRESS_REDIR, TCA_INGRESS_MIRROR) if device.internal else (TCA_EGRESS_REDIR, TCA_EGRESS_MIRROR)
    parms = Mirred(action=TC_ACT_STOLEN if last else TC_ACT_PIPE, eaction=ways[0 if last else 1], ifindex=device.index)
    sent: dict[str, Any] = {"kind": "mirred", "options": {"parms": parms}}
    if not device.internal:
        return [sent]
    return [{"kind": "skbedit", "options": {"parms": Generic(action=TC_ACT_PIPE), "ptype": PACKET_HOST}}, sent]


def _tunnel_key(way: int, **options: Any) -> dict[str, Any]:
    return {"kind": "tunnel_key", "options": {"parms": TunnelKey(action=TC_ACT_PIPE, t_action=way), **options}}


def _encap(field: Call) -> dict[str, Any]:
    options: dict[str, Any] = {}
    parts = field.parts
    if "geneve" in parts:
        raise UnbuildableError("Geneve options")
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
    options["no_csum"] = 0 if "csum" in (field.text or "") else 1
    return _tunnel_key(TCA_TUNNEL_KEY_ACT_SET, **options)


def _set(flow: Flow, field: Call) -> list[dict[str, Any]]:
    keys: list[tuple[int, PeditKey]] = []
    for part, text in field.parts.items():
        place = PLACES.get((field.name, part))
        if place is None:
            if part in ("proto", "frag"):
                continue
            raise UnbuildableError(f"set({field.name}({part}))")
        header, offset, octets = place
        value, mask = masked(text, 8 * octets)
        keys += [(header, key) for key in _words(offset, value.to_bytes(octets, "big"), mask.to_bytes(octets, "big"))]
    if not keys:
        return []
    parms = Pedit(action=TC_ACT_PIPE, nkeys=len(keys), keys=tuple(key for _, key in keys))
    extended = {"key_ex": [{"htype": header, "cmd": 0} for header, _ in keys]}
    made: list[dict[str, Any]] = [{"kind": "pedit", "options": {"parms_ex": parms, "keys_ex": extended}}]
    protocol = flow.part("ipv6" if field.name == "ipv6" else "ipv4", "proto", 8)[0]
    sums = CSUM_IPV4 if field.name == "ipv4" else 0
    if field.name != "eth":
        sums |= {6: CSUM_TCP, 17: CSUM_UDP, 58: CSUM_ICMP}.get(protocol, 0)
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
