# SPDX-License-Identifier: Apache-2.0
"""Random keys of flower filters, most of them what some frame has."""

from __future__ import annotations

from random import Random
from typing import Any

from asap2.nic.silicon import packet
from tests.system.realkernel.frames import IPV4, IPV6, MACS, TPIDS

ETH_P_ALL = 3
_L4 = {6: "tcp", 17: "udp", 132: "sctp"}
_ICMP = {(0x0800, 1): "icmpv4", (0x86DD, 58): "icmpv6"}

Options = dict[str, Any]


def keys(random: Random, frame: bytes, protocol: int) -> Options:
    """The keys of a filter, most of them *frame*'s."""
    fields = packet.parse(frame)
    chosen: Options = {}
    _masked(random, chosen, "key_eth_dst", fields["eth_dst"].to_bytes(6, "big"), MACS, 0.3)
    _masked(random, chosen, "key_eth_src", fields.get("eth_src", 0).to_bytes(6, "big"), MACS, 0.3)
    ethertype = _types(random, chosen, fields, protocol)
    if ethertype in (0x0800, 0x86DD):
        _ip(random, chosen, fields, ethertype)
    if ethertype in (0x0806, 0x8035):
        _arp(random, chosen, fields)
    if random.random() < 0.15:
        bits = random.choice((1, 2, 3))
        value = fields.get("ip_frag", 0) if random.random() < 0.7 else random.randrange(4)
        chosen["key_flags"], chosen["key_flags_mask"] = value & bits, bits
    return chosen


def _types(random: Random, chosen: Options, fields: dict[str, int], protocol: int) -> int:
    """Ethertypes and tags; the type of what is behind them, 0 for unknown."""
    eth_type = fields.get("eth_type", 0)
    outer = fields.get("vlan_tpid") or eth_type
    if random.random() < 0.1 and protocol == ETH_P_ALL:
        return 0
    if random.random() < 0.05:
        outer = random.choice((0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, eth_type))
    chosen["key_eth_type"] = outer
    if outer not in TPIDS:
        return outer
    _tag(random, chosen, "vlan", fields.get("vlan_tci", 0))
    if random.random() < 0.3:
        return 0
    inner = eth_type
    if "cvlan_tci" in fields:
        its = next(tpid for tpid in TPIDS if tpid >> 8 == fields["cvlan_tpid"])
        inner = its if random.random() < 0.9 else random.choice(TPIDS)
    chosen["key_vlan_eth_type"] = inner
    if inner not in TPIDS:
        return inner
    _tag(random, chosen, "cvlan", fields.get("cvlan_tci", 0))
    if random.random() < 0.3:
        return 0
    chosen["key_cvlan_eth_type"] = eth_type
    return eth_type


def _tag(random: Random, chosen: Options, tag: str, tci: int) -> None:
    if random.random() < 0.6:
        chosen[f"key_{tag}_id"] = tci & 0xFFF if random.random() < 0.8 else random.choice((0, 57, 4095))
    if random.random() < 0.3:
        chosen[f"key_{tag}_prio"] = tci >> 13 if random.random() < 0.8 else random.randrange(8)


def _ip(random: Random, chosen: Options, fields: dict[str, int], ethertype: int) -> None:
    protocol = fields.get("ip_proto", 0) if random.random() < 0.9 else random.choice((1, 6, 17, 58, 132))
    if random.random() < 0.6:
        chosen["key_ip_proto"] = protocol
    _masked(random, chosen, "key_ip_tos", fields.get("ip_tos", 0), (0, 0xB8, 3), 0.2, bits=8)
    _masked(random, chosen, "key_ip_ttl", fields.get("ip_ttl", 0), (0, 1, 64, 255), 0.2, bits=8)
    version, size, pool = ("ipv4", 4, IPV4) if ethertype == 0x0800 else ("ipv6", 16, IPV6)
    for end in ("src", "dst"):
        name = f"key_{version}_{end}"
        _masked(random, chosen, name, fields.get(f"ip_{end}", 0).to_bytes(16, "big")[-size:], pool, 0.35)
        if not _asks_for_bits(chosen, name):
            chosen.pop(name, None)
            chosen.pop(f"{name}_mask", None)
    if "key_ip_proto" not in chosen and random.random() < 0.95:
        return
    if protocol in _L4:
        for end in ("src", "dst"):
            value = fields.get(f"l4_{end}", 0)
            _masked(random, chosen, f"key_{_L4[protocol]}_{end}", value, (0, 80, 0xFFFF), 0.4, bits=16)
    if protocol == 6:
        _masked(random, chosen, "key_tcp_flags", fields.get("tcp_flags", 0), (2, 0x12), 0.3, bits=16)
    icmp = _ICMP.get((ethertype, protocol))
    if icmp:
        _masked(random, chosen, f"key_{icmp}_type", fields.get("l4_src", 0), (8, 135), 0.4, bits=8)
        _masked(random, chosen, f"key_{icmp}_code", fields.get("l4_dst", 0), (0, 1), 0.4, bits=8)


def _asks_for_bits(chosen: Options, name: str) -> bool:
    """Whether a key for an address asks for a bit that is 1.

    A packet whose IP header is cut short has no addresses for the kernel; for the eSwitch they are 0, so a key that is
    content with an address of 0 is another there.
    """
    value, mask = chosen.get(name, b""), chosen.get(f"{name}_mask", b"\xff" * 16)
    return any(one & other for one, other in zip(value, mask, strict=False))


def _arp(random: Random, chosen: Options, fields: dict[str, int]) -> None:
    _masked(random, chosen, "key_arp_op", fields.get("ip_proto", 0), (1, 2), 0.4, bits=8)
    for end, field in (("sip", "ip_src"), ("tip", "ip_dst")):
        _masked(random, chosen, f"key_arp_{end}", fields.get(field, 0).to_bytes(16, "big")[-4:], IPV4, 0.3)
    for end in ("sha", "tha"):
        _masked(random, chosen, f"key_arp_{end}", fields.get(f"arp_{end}", 0).to_bytes(6, "big"), MACS, 0.3)


def _masked(
    random: Random, chosen: Options, name: str, value: Any, others: tuple[Any, ...], chance: float, *, bits: int = 0
) -> None:
    """Perhaps match *value*, or one of *others*, under some mask; a number of *bits*, or bytes."""
    if random.random() >= chance:
        return
    if random.random() < 0.15:
        value = random.choice(others)
    width = bits or 8 * len(value)
    full = (1 << width) - 1
    chosen[name] = value & full if bits else value
    masks = (None, None, full, full, full, full << width // 2 & full, full ^ 1, random.getrandbits(width))
    mask = random.choice(masks)
    if mask is not None:
        chosen[f"{name}_mask"] = mask if bits else mask.to_bytes(width // 8, "big")
