# SPDX-License-Identifier: Apache-2.0
"""Random flower filters, with a chance to match frames that were seen, as the rtnetlink requests of a case."""

from __future__ import annotations

from random import Random
from typing import Any

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc
from asap2.nic.silicon import packet
from tests.system.realkernel import guest
from tests.system.realkernel.frames import IPV4, IPV6, MACS, TPIDS
from tests.system.realkernel.machine import Ask, ask

NLM_F_CREATE, NLM_F_EXCL, NLM_F_ECHO, NLM_F_DUMP = 0x400, 0x200, 0x8, 0x300
CHAINS = (0, 0, 0, 1, 7)
PRIORITIES = (1, 2, 3)
ETH_P_ALL = 3
_L4 = {6: "tcp", 17: "udp", 132: "sctp"}
_ICMP = {(0x0800, 1): "icmpv4", (0x86DD, 58): "icmpv6"}

Options = dict[str, Any]


def add_qdisc(port: int) -> Ask:
    """A clsact on *port*."""
    header = tc.Tcmsg(0, guest.NEAR + port, tc.TC_INGRESS_PARENT, tc.TC_H_CLSACT, 0)
    return ask(tc.RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, tc.TC.encode(header, {"kind": "clsact"}))


def remove_qdisc(port: int) -> Ask:
    """Its removal, with all filters."""
    header = tc.Tcmsg(0, guest.NEAR + port, tc.TC_INGRESS_PARENT, tc.TC_H_CLSACT, 0)
    return ask(tc.RTM_DELQDISC, 0, tc.TC.encode(header, {"kind": "clsact"}))


def dump(port: int) -> Ask:
    """All filters of *port*."""
    header = tc.Tcmsg(0, guest.NEAR + port, 0, tc.TC_H_MIN_INGRESS, 0)
    return ask(tc.RTM_GETTFILTER, NLM_F_DUMP, tc.TC.encode(header, {}))


def remove(request: Ask, handle: int = 0) -> Ask:
    """The removal of the filter (with *handle* 0: of the priority) that *request* adds."""
    header, attrs = tc.TC.decode(request[3])
    kept = {name: attrs[name] for name in ("kind", "chain") if name in attrs}
    return ask(tc.RTM_DELTFILTER, 0, tc.TC.encode(header._replace(handle=handle), kept))


def rewrite(request: Ask, handle: int, options: Options) -> Ask:
    """*request* again, for filter *handle*, with *options* changed."""
    header, attrs = tc.TC.decode(request[3])
    attrs["options"] = {**attrs["options"], **options}
    return ask(tc.RTM_NEWTFILTER, NLM_F_CREATE, tc.TC.encode(header._replace(handle=handle), attrs))


def add_filter(random: Random, port: int, seen: list[bytes], protocols: dict[tuple[int, int, int], int]) -> Ask:
    """A filter on *port*. *protocols* has the protocol of each (port, chain, priority), which all its filters share."""
    frame = random.choice(seen)
    chain, priority = random.choice(CHAINS), random.choice(PRIORITIES)
    place = port, chain, priority
    if place not in protocols or random.random() < 0.02:
        protocols[place] = random.choice((_outer(frame), _outer(frame), _outer(frame), ETH_P_ALL, 0x0800))
    protocol = protocols[place]
    frame = _like(random, seen, protocol) or frame
    options: Options = {}
    if random.random() < 0.95:
        options = keys(random, frame, protocol)
    options["act"] = actions(random, port, chain)
    options["flags"] = ta_skip_hw(random)
    header = tc.Tcmsg(0, guest.NEAR + port, 0, tc.TC_H_MIN_INGRESS, tc.info(priority, protocol))
    attrs: dict[str, Any] = {"kind": "flower", "options": options}
    if chain or random.random() < 0.5:
        attrs["chain"] = chain
    flags = NLM_F_CREATE | (NLM_F_EXCL if random.random() < 0.8 else 0) | (NLM_F_ECHO if random.random() < 0.2 else 0)
    return ask(tc.RTM_NEWTFILTER, flags, tc.TC.encode(header, attrs))


def ta_skip_hw(random: Random) -> int:
    """TCA_CLS_FLAGS_SKIP_HW, or nothing."""
    return random.choice((0, 1))


def _outer(frame: bytes) -> int:
    """The protocol that a frame has for TC: that of its outer tag, or its type."""
    fields = packet.parse(frame)
    return fields.get("vlan_tpid") or fields.get("eth_type", 0)


def _like(random: Random, seen: list[bytes], protocol: int) -> bytes | None:
    """A frame that a filter of *protocol* sees."""
    found = [frame for frame in seen if protocol in (ETH_P_ALL, _outer(frame))]
    return random.choice(found) if found else None


# ---- keys


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
    inner = 0x8100 if "cvlan_tci" in fields else eth_type  # see views.inner_tpids()
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
        value = fields.get(f"ip_{end}", 0).to_bytes(16, "big")[-size:]
        _masked(random, chosen, name, value, pool, 0.35)
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
        _masked(random, chosen, "key_tcp_flags", fields.get("tcp_flags", 0), (2, 0x12), 0.3, bits=12)
    name = _ICMP.get((ethertype, protocol))
    if name:
        _masked(random, chosen, f"key_{name}_type", fields.get("l4_src", 0), (8, 135), 0.4, bits=8)
        _masked(random, chosen, f"key_{name}_code", fields.get("l4_dst", 0), (0, 1), 0.4, bits=8)


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
    mask = random.choice((None, full, full, full << width // 2 & full, random.getrandbits(width), full ^ 1))
    if mask is not None:
        chosen[f"{name}_mask"] = mask if bits else mask.to_bytes(width // 8, "big")


# ---- actions


def actions(random: Random, port: int, chain: int) -> list[dict[str, Any]]:
    """An action list as a filter has it: changes and mirrors, then where the packet goes."""
    chosen = [_middle(random, port) for _ in range(random.choice((0, 0, 1, 1, 2, 3)))]
    match random.choice(("redirect", "redirect", "redirect", "goto", "drop", "pass", "pipe", "mirror", "trap")):
        case "redirect":
            chosen.append(mirred(_other(random, port), ta.TCA_EGRESS_REDIR, ta.TC_ACT_STOLEN))
        case "mirror":
            chosen.append(mirred(_other(random, port), ta.TCA_EGRESS_MIRROR, random.choice((0, 2, 3, 4))))
        case "goto":
            following = [other for other in (1, 7, 9) if other > chain]
            chosen.append(gact(ta.TC_ACT_GOTO_CHAIN | random.choice(following or [11])))
        case "drop":
            chosen.append(gact(ta.TC_ACT_SHOT))
        case "pass":
            chosen.append(gact(ta.TC_ACT_OK))
        case "trap":
            chosen.append(gact(ta.TC_ACT_TRAP))
    if random.random() < 0.05:
        chosen.append(_middle(random, port))
    return chosen


def _other(random: Random, port: int) -> int:
    return random.choice([other for other in range(guest.PORTS) if other != port])


def _middle(random: Random, port: int) -> dict[str, Any]:
    verdict = ta.TC_ACT_PIPE if random.random() < 0.93 else random.choice((0, 2, 4, ta.TC_ACT_GOTO_CHAIN | 9))
    match random.choice(("mirror", "push", "push", "pop", "pop", "modify", "skbedit", "gact")):
        case "mirror":
            return mirred(_other(random, port), ta.TCA_EGRESS_MIRROR, verdict)
        case "pop":
            return vlan(ta.TCA_VLAN_ACT_POP, verdict)
        case "skbedit":
            return {"kind": "skbedit", "options": {"parms": ta.Generic(action=verdict), "ptype": 0}}
        case "gact":
            return gact(verdict)
        case "push":
            return vlan(ta.TCA_VLAN_ACT_PUSH, verdict, **_new_tag(random))
    return vlan(ta.TCA_VLAN_ACT_MODIFY, verdict, **{"push_vlan_priority": 1} | _new_tag(random))


def _new_tag(random: Random) -> Options:
    made: Options = {"push_vlan_id": random.choice((0, 57, 4095, 4095, 4096) if random.random() < 0.1 else (0, 57))}
    if random.random() < 0.7:
        made["push_vlan_protocol"] = random.choice(TPIDS)
    if random.random() < 0.6:
        made["push_vlan_priority"] = random.randrange(8)
    return made


def gact(verdict: int) -> dict[str, Any]:
    """A verdict."""
    return {"kind": "gact", "options": {"parms": ta.Generic(action=verdict)}}


def mirred(port: int, what: int, verdict: int) -> dict[str, Any]:
    """A copy, or all, to *port*."""
    parms = ta.Mirred(action=verdict, eaction=what, ifindex=guest.NEAR + port)
    return {"kind": "mirred", "options": {"parms": parms}}


def vlan(what: int, verdict: int, **options: Any) -> dict[str, Any]:
    """A change of tags."""
    return {"kind": "vlan", "options": {"parms": ta.Vlan(action=verdict, v_action=what), **options}}
