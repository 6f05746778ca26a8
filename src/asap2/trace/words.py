# SPDX-License-Identifier: Apache-2.0
"""Packets, rules and connections in words, one line each."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from asap2.nic import rules
from asap2.nic.ethertypes import ETH_P_ARP, ETH_P_IP, ETH_P_IPV6
from asap2.nic.fields import FIELD_BITS
from asap2.nic.rules import VLAN_PRESENT, Action, CtState, Masked, Rule
from asap2.nic.silicon import packet
from asap2.trace.identity import transport_at

Port = Callable[[int], str]
"""What people call the port with an id."""

_ETHERTYPES: Final = {ETH_P_IP: "IPv4", ETH_P_IPV6: "IPv6", ETH_P_ARP: "ARP", 0x8847: "MPLS", 0x88CC: "LLDP"}
_ICMP, _TCP, _UDP, _ICMPV6 = 1, 6, 17, 58
_PROTOCOLS: Final = {_ICMP: "ICMP", _TCP: "TCP", _UDP: "UDP", _ICMPV6: "ICMPv6", 132: "SCTP", 47: "GRE"}
_TYPES: Final = {
    (_ICMP, 8): "echo request",
    (_ICMP, 0): "echo reply",
    (_ICMP, 3): "unreachable",
    (_ICMPV6, 128): "echo request",
    (_ICMPV6, 129): "echo reply",
    (_ICMPV6, 133): "router solicitation",
    (_ICMPV6, 135): "neighbour solicitation",
    (_ICMPV6, 136): "neighbour advertisement",
}
_TCP_FLAGS: Final = ((0x02, "SYN"), (0x10, "ACK"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"))
_ADDRESSES: Final = ("ip_src", "ip_dst", "tun_src", "tun_dst", "ct_src", "ct_dst", "nd_target")
_TAGS: Final = {"vlan_tci": "vlan", "cvlan_tci": "inner vlan"}
"""What people call them."""
_MACS: Final = ("eth_src", "eth_dst", "arp_sha", "arp_tha", "nd_sll", "nd_tll")


def mac(number: int) -> str:
    """A MAC address."""
    return number.to_bytes(6, "big").hex(":")


def address(number: int) -> str:
    """An IP address; one that fits 32 bits is IPv4's."""
    return str(ipaddress.IPv4Address(number) if number < 1 << 32 else ipaddress.IPv6Address(number))


def value(name: str, number: int) -> str:
    """The *number* that a field called *name* has."""
    if name in _MACS:
        return mac(number)
    if name in _ADDRESSES:
        return address(number)
    if name in _TAGS:
        return "none" if not number else f"{number & 0xFFF}" + (f" priority {number >> 13}" if number >> 13 else "")
    if name == "eth_type":
        return _ETHERTYPES.get(number, f"{number:#06x}")
    if name == "ip_proto":
        return _PROTOCOLS.get(number, str(number))
    if name in ("vlan_tpid", "tcp_flags", "ct_mark", "ct_labels", "skb_mark"):
        return f"{number:#x}"
    if name == "ct_state":
        return state(number)
    return str(number)


def state(bits: int) -> str:
    """``ct_state``, as ovs-ofctl writes it."""
    return "|".join(flag.name.lower() for flag in CtState if bits & flag and flag.name) or "none"


def masked(name: str, wanted: Masked, width: int) -> str:
    """What a rule wants of a field that has *width* bits."""
    title = _TAGS.get(name, name)
    if name in _TAGS:
        if wanted.mask & VLAN_PRESENT and not wanted.value & VLAN_PRESENT:
            return f"{title} none"
        return f"{title} {value(name, wanted.value & ~VLAN_PRESENT) if wanted.mask & 0xFFF else 'any'}"
    if name == "ct_state":
        signs = [
            f"{'+' if wanted.value & flag else '-'}{flag.name.lower()}"
            for flag in CtState
            if wanted.mask & flag and flag.name
        ]
        return f"{title} {''.join(signs)}"
    whole = (1 << width) - 1
    shown = value(name, wanted.value)
    if name in _ADDRESSES:
        if wanted.mask in (whole, 0xFFFF_FFFF):
            return f"{title} {shown}"
        size = 32 if wanted.mask < 1 << 32 else 128
        ones = wanted.mask.bit_count()
        if wanted.mask == ((1 << ones) - 1) << (size - ones):
            return f"{title} {shown}/{ones}"
        return f"{title} {shown}/{address(wanted.mask)}"
    return f"{title} {shown}" + ("" if wanted.mask == whole else f"/{wanted.mask:#x}")


def match(rule: Rule) -> tuple[str, ...]:
    """What *rule* matches on, a field each."""
    return tuple(masked(name, wanted, FIELD_BITS[name]) for name, wanted in rule.match.used().items())


def action(one: Action, port: Port) -> str:
    """What an action does."""
    match one:
        case rules.Output():
            return f"output {port(one.port)}"
        case rules.PushVlan():
            return f"push VLAN {one.vid}"
        case rules.PopVlan():
            return "pop VLAN"
        case rules.ModifyVlan():
            return f"change VLAN to {one.vid}"
        case rules.Drop():
            return "drop"
        case rules.Goto():
            return f"go to chain {one.table & 0x0FFF_FFFF}"
        case rules.Enter():
            return f"enter by {port(one.port)}"
        case rules.Upcall():
            return "give it to user space"
        case rules.Pass():
            return "pass"
        case rules.SetField():
            return f"set {one.field} to {value(one.field, one.to.value)}"
        case rules.AddTtl():
            return "decrement TTL" if one.amount == 255 else f"add {one.amount} to TTL"
        case rules.Encap():
            return f"encapsulate in {one.protocol} {one.tun_id} to {_octets(one.dst)}"
        case rules.Decap():
            return "decapsulate"
        case rules.SetTunnel():
            return f"tunnel {one.tun_id} to {_octets(one.dst)}"
        case rules.Ct() | rules.CtHardware():
            return f"look for its connection in zone {one.zone}" + (", NAT" if one.nat else "")
        case rules.CtClear():
            return "forget its connection"
        case rules.Meter():
            return f"meter {one.meter}"
        case rules.Psample():
            return f"sample one of {one.every} for group {one.group}"
        case rules.Clone():
            return f"with a copy: {', '.join(action(each, port) for each in one.actions)}"
        case _:
            return type(one).__name__.lower()


def actions(rule: Rule, port: Port) -> tuple[str, ...]:
    """What *rule* does, in order."""
    return tuple(action(one, port) for one in rule.actions) or ("drop",)


def _octets(data: bytes) -> str:
    return str(ipaddress.ip_address(data)) if len(data) in (4, 16) else data.hex()


def frame(data: bytes, length: int) -> str:
    """A packet of *length* octets that begins with *data*: who talks to whom about what."""
    if len(data) < packet.HEADER:
        return f"{length} octets"
    fields = packet.parse(data)
    tag = fields.get("vlan_tci", 0)
    tail = f"{f', VLAN {tag & 0xFFF}' if tag else ''}, {length} octets"
    eth_type = fields["eth_type"]
    if eth_type == ETH_P_ARP:
        ends = address(fields.get("ip_src", 0)), address(fields.get("ip_dst", 0))
        asks = fields.get("ip_proto") == 1
        return (f"ARP who has {ends[1]}, tell {ends[0]}" if asks else f"ARP {ends[0]} is here") + tail
    if eth_type not in (ETH_P_IP, ETH_P_IPV6):
        return f"{mac(fields['eth_src'])} > {mac(fields['eth_dst'])}, {value('eth_type', eth_type)}{tail}"
    ends = address(fields.get("ip_src", 0)), address(fields.get("ip_dst", 0))
    protocol = fields.get("ip_proto", 0)
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    if protocol in (_ICMP, _ICMPV6):
        number = fields.get("l4_src", 0)
        kind = _TYPES.get((protocol, number), f"type {number}") if number or echo_of(data) else ""
        return f"{name} {f'{kind} ' if kind else ''}{ends[0]} > {ends[1]}{_sequence(data, kind)}{tail}"
    if protocol in (_TCP, _UDP, 132):
        flags = fields.get("tcp_flags", 0) if protocol == _TCP else 0
        shown = " ".join(word for bit, word in _TCP_FLAGS if flags & bit)
        ports = fields.get("l4_src", 0), fields.get("l4_dst", 0)
        return f"{name} {ends[0]}:{ports[0]} > {ends[1]}:{ports[1]}{f' {shown}' if shown else ''}{tail}"
    return f"{name} {ends[0]} > {ends[1]}{tail}"


def _sequence(data: bytes, kind: str) -> str:
    """Of an echo, the number that ping counts by."""
    found = echo_of(data)
    return f" seq {found[1]}" if found is not None and kind.startswith("echo") else ""


def echo_of(data: bytes) -> tuple[int, int] | None:
    """The id and sequence number of an ICMP or ICMPv6 echo; None for another packet."""
    fields = packet.parse(data)
    kind = fields.get("ip_proto"), fields.get("l4_src", 0)
    if not _TYPES.get(kind, "").startswith("echo"):  # type: ignore[arg-type]
        return None
    at = transport_at(data, fields)
    if at is None or len(data) < at + 8:
        return None
    return int.from_bytes(data[at + 4 : at + 6], "big"), int.from_bytes(data[at + 6 : at + 8], "big")


def changes(before: bytes, after: bytes) -> tuple[tuple[str, str, str], ...]:
    """The fields that differ between two frames: name, before, after."""
    if min(len(before), len(after)) < packet.HEADER:
        return ()
    old, new = packet.parse(before), packet.parse(after)
    names = [name for name in (*old, *(set(new) - set(old))) if name != "vlan_tpid" or not {"vlan_tci"} & {*old, *new}]
    return tuple(
        (_TAGS.get(name, name), value(name, _bare(name, old.get(name, 0))), value(name, _bare(name, new.get(name, 0))))
        for name in names
        if old.get(name, 0) != new.get(name, 0)
    )


def _bare(name: str, number: int) -> int:
    return number & ~VLAN_PRESENT if name in _TAGS else number
