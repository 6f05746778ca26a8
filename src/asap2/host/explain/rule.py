# SPDX-License-Identifier: Apache-2.0
"""The flower rule that Open vSwitch makes of a flow, from the flow's text (lib/netdev-offload-tc.c and lib/tc.c).

Keys and actions are those of :mod:`asap2.netlink.tables`; the destination MAC is nobody's, so that the rule matches no
packet when it is tried. Of a flow that matches what no rule can, none is made: a rule says as much as its flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asap2.host import trial
from asap2.host.explain.flow import Call, Flow, masked, matched, number
from asap2.host.explain.rule_actions import Device, UnbuildableError, actions, gbp, geneve
from asap2.netlink.tables.flower import TCA_FLOWER_KEY_FLAGS_FRAG_IS_FIRST, TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT

MPLS = (0x8847, 0x8848)
PORTS = {6: "tcp", 17: "udp", 132: "sctp"}
MATCHED = frozenset(
    {"recirc_id", "in_port", "tunnel", "ct_state", "ct_zone", "ct_mark", "ct_label", "eth", "eth_type", "vlan"}
    | {"mpls", "arp", "ipv4", "ipv6", "tcp", "tcp_flags", "udp", "sctp", "icmp", "icmpv6", "skb_mark", "packet_type"}
)
"""Attributes of a flow that a rule can match, or that Open vSwitch leaves out (the last two, when they are 0)."""
TUNNEL_MATCHED = frozenset(
    {"tun_id", "src", "dst", "ipv6_src", "ipv6_dst", "tos", "ttl", "tp_src", "tp_dst", "geneve", "vxlan", "flags"}
)
"""Parts of a flow's tunnel that a rule can match, or that Open vSwitch leaves out (the flags)."""
FRAGMENT, FIRST = TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT, TCA_FLOWER_KEY_FLAGS_FRAG_IS_FIRST


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule to try: flower's options (without flags), its Ethernet protocol as a host integer, its chain."""

    options: Mapping[str, Any]
    protocol: int
    chain: int


def rule(flow: Flow, device: Callable[[str], Device | None]) -> Rule:
    """The rule of *flow*; *device* finds a port's. UnbuildableError when it has something that no rule has."""
    try:
        options = _match(flow)
        options["act"] = actions(flow, device)
        protocol = number(flow.levels[0].get("eth_type", "0").partition("/")[0])
        return Rule(options, protocol, flow.recirc_id)
    except (ValueError, OverflowError) as error:
        raise UnbuildableError(str(error)) from None


# ---- match


def _match(flow: Flow) -> dict[str, Any]:
    for level in flow.levels:
        for name, text in level.items():
            if name not in MATCHED and matched(name, text):
                raise UnbuildableError(f"match on {name}({text})")
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
    if "mpls" in flow.levels[0] and flow.eth_type in MPLS:  # behind a tag the switch leaves it out
        for part, width in (("ttl", 8), ("tc", 3), ("bos", 1), ("label", 20)):
            value, mask = flow.part("mpls", part, width)
            if mask:
                options[f"key_mpls_{part}"] = value
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
    parts = Call("tunnel", text).parts
    beyond = [name for name in parts if name not in TUNNEL_MATCHED and not name.startswith("flags")]
    if beyond:
        raise UnbuildableError(f"match on {beyond[0]} of a tunnel")
    if parts.get("geneve"):
        found, masks = geneve(parts["geneve"])
        options["key_enc_opts"], options["key_enc_opts_mask"] = {"geneve": found}, {"geneve": masks}
    if parts.get("vxlan"):
        policy, mask = gbp(parts["vxlan"])
        if mask:
            options["key_enc_opts"] = {"vxlan": {"gbp": policy}}
            options["key_enc_opts_mask"] = {"vxlan": {"gbp": mask}}
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
