# SPDX-License-Identifier: Apache-2.0
"""Rule actions as the cells that eswitch.bpf.c runs, and what it cannot take."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from asap2.nic.rules import (
    FIELD_BITS,
    Action,
    AddTtl,
    Decap,
    Drop,
    Encap,
    Enter,
    Goto,
    Masked,
    Match,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)
from asap2.nic.silicon.maps import (
    HIDDEN_IN_TUNNEL,
    LAYER_ADDRESS_LOW,
    LAYER_ETH,
    LAYER_IPV4,
    LAYER_IPV6,
    LAYER_L4,
    MAX_ACTIONS,
    OP_ADD,
    OP_DECAP,
    OP_DROP,
    OP_ENCAP,
    OP_ENTER,
    OP_GOTO,
    OP_MODIFY_VLAN,
    OP_OUTPUT,
    OP_PASS,
    OP_POP_VLAN,
    OP_PUSH_VLAN,
    OP_SET,
    OP_SET_TUNNEL,
    OP_TRUNCATE,
    OP_UPCALL,
    UNSUPPORTED_FIELDS,
    in_tunnel,
    number,
    word,
)

Argument = int | Encap | SetTunnel


def _words(layer: int, offset: int, to: Masked, octets: int) -> list[tuple[int, Argument]]:
    """Cells that rewrite *octets* of a header at *offset*: one for each 32-bit word that is touched."""
    start, end = offset // 4 * 4, (offset + octets + 3) // 4 * 4
    shift = 8 * (end - offset - octets)
    value = (to.value << shift).to_bytes(end - start, "big")
    mask = (to.mask << shift).to_bytes(end - start, "big")
    cells: list[tuple[int, Argument]] = []
    for at in range(0, end - start, 4):
        bits = number(mask[at : at + 4])
        if bits:
            op = OP_SET | layer << 8 | (start + at) // 4 << 16
            cells.append((op, number(value[at : at + 4]) << 32 | bits))
    return cells


def _rewrite(name: str, to: Masked) -> list[tuple[int, Argument]]:
    match name:
        case "eth_dst":
            return _words(LAYER_ETH, 0, to, 6)
        case "eth_src":
            return _words(LAYER_ETH, 6, to, 6)
        case "ip_tos":
            shifted = Masked(to.value << 20, to.mask << 20)
            return _words(LAYER_IPV4, 1, to, 1) + _words(LAYER_IPV6, 0, shifted, 4)
        case "ip_ttl":
            return _words(LAYER_IPV4, 8, to, 1) + _words(LAYER_IPV6, 7, to, 1)
        case "ip_src" | "ip_dst":
            word = 0 if name == "ip_src" else 4
            low = Masked(to.value & 0xFFFF_FFFF, to.mask & 0xFFFF_FFFF)
            high = Masked(to.value >> 32, to.mask >> 32)
            return _words(LAYER_ADDRESS_LOW, word, low, 4) + _words(LAYER_IPV6, 8 + 4 * word, high, 12)
        case "l4_src":
            return _words(LAYER_L4, 0, to, 2)
        case "l4_dst":
            return _words(LAYER_L4, 2, to, 2)
        case _:
            raise ValueError(f"{name} cannot be rewritten")


def _add_ttl(amount: int) -> list[tuple[int, Argument]]:
    """Cells that add to the time to live of either version: as those that set it, but for the operation."""
    return [(op & ~0xFF | OP_ADD, arg) for op, arg in _rewrite("ip_ttl", Masked(amount, 0xFF))]


def _decode_rewrite(op: int, arg: int) -> list[SetField]:
    """What one cell rewrites, as fields of which some bits count. IPv6's twin of an IPv4 cell says nothing new."""
    layer, index = op >> 8 & 0xFF, op >> 16 & 0xFF
    value = int.from_bytes(word(arg >> 32), "big")
    mask = int.from_bytes(word(arg & 0xFFFF_FFFF), "big")
    fields: list[tuple[str, int, int]]
    match layer, index:
        case 0, 0:
            fields = [("eth_dst", 16, 48)]
        case 0, 1:
            fields = [("eth_dst", -16, 48), ("eth_src", 32, 48)]
        case 0, _:
            fields = [("eth_src", 0, 48)]
        case 1, 0:
            fields = [("ip_tos", -16, 8)]
        case 1, _:
            fields = [("ip_ttl", -24, 8)]
        case 2, (0 | 1):
            fields = []
        case 2, _:
            fields = [("ip_src" if index < 6 else "ip_dst", 32 * (3 - (index - 2) % 4), 128)]
        case 3, _:
            fields = [("l4_src", -16, 16), ("l4_dst", 0, 16)]
        case _:
            fields = [("ip_dst" if index else "ip_src", 0, 128)]
    out = []
    for name, shift, width in fields:
        bits = (mask << shift if shift >= 0 else mask >> -shift) & ((1 << width) - 1)
        if name == "eth_src" and index == 1:
            bits &= 0xFFFF_0000_0000
        if bits:
            out.append(SetField(name, Masked((value << shift if shift >= 0 else value >> -shift) & bits, bits)))
    return out


def encode_actions(actions: Sequence[Action]) -> list[tuple[int, Argument]]:
    """*actions* as (op, argument); an output's argument is still the port's id, a tunnel's the action itself."""
    cells: list[tuple[int, Argument]] = []
    for at, action in enumerate(actions):
        match action:
            case Output(port, resume):
                cells.append((OP_OUTPUT, resume << 32 | port))
            case PushVlan(vid, pcp, tpid):
                cells.append((OP_PUSH_VLAN, tpid << 16 | pcp << 13 | vid))
            case PopVlan():
                cells.append((OP_POP_VLAN, 0))
            case ModifyVlan(vid, pcp, tpid):
                cells.append((OP_MODIFY_VLAN, (pcp is None) << 32 | tpid << 16 | (pcp or 0) << 13 | vid))
            case Drop():
                cells.append((OP_DROP, 0))
            case Goto(table, resume):
                cells.append((OP_GOTO, resume << 32 | table))
            case Enter(port, resume):
                cells.append((OP_ENTER, resume << 32 | port))
            case Upcall(cookie):
                cells.append((OP_UPCALL, cookie))
            case Pass():
                cells.append((OP_PASS, 0))
            case Truncate(length):
                for_upcall = at + 1 < len(actions) and isinstance(actions[at + 1], Upcall)
                cells.append((OP_TRUNCATE, for_upcall << 32 | length))
            case SetField(name, to):
                cells += _rewrite(name, to)
            case AddTtl(amount):
                cells += _add_ttl(amount)
            case Encap():
                cells.append((OP_ENCAP, action))
            case SetTunnel():
                cells.append((OP_SET_TUNNEL, action))
            case Decap():
                cells.append((OP_DECAP, 0))
    return cells


def decode_action(op: int, arg: Argument) -> list[Action]:
    """The inverse of :func:`encode_actions` for one cell: a rewrite may be a part of the field's, or nothing new."""
    if not isinstance(arg, int):
        return [arg]
    if op & 0xFF == OP_SET:
        return list(_decode_rewrite(op, arg))
    if op & 0xFF == OP_ADD:
        return [AddTtl(action.to.value) for action in _decode_rewrite(op, arg)]
    if op == OP_DECAP:
        return [Decap()]
    return [_decode_simple(op, arg)]


def _decode_simple(op: int, arg: int) -> Action:
    tag = (arg & 0xFFF, arg >> 13 & 7, arg >> 16 & 0xFFFF)
    match op:
        case 1:
            return Output(arg & 0xFFFF_FFFF, arg >> 32)
        case 2:
            return PushVlan(*tag)
        case 3:
            return PopVlan()
        case 4:
            return ModifyVlan(tag[0], None if arg >> 32 else tag[1], tag[2])
        case 6:
            return Goto(arg & 0xFFFF_FFFF, arg >> 32)
        case 7:
            return Upcall(arg)
        case 8:
            return Pass()
        case 9:
            return Truncate(arg & 0xFFFF_FFFF)
        case 14:
            return Enter(arg & 0xFFFF_FFFF, arg >> 32)
        case _:
            return Drop()


REWRITABLE = ("eth_dst", "eth_src", "ip_src", "ip_dst", "ip_tos", "ip_ttl", "l4_src", "l4_dst")
"""Fields that :class:`asap2.nic.rules.SetField` can rewrite."""


def _encodable(actions: Sequence[Action]) -> bool:
    return all(action.field in REWRITABLE for action in actions if isinstance(action, SetField))


def _tunnel_reason(action: Encap | SetTunnel) -> str | None:
    if len(action.src) != len(action.dst) or len(action.dst) not in (4, 16):
        return "a tunnel has two IPv4 or two IPv6 addresses"
    if not (0 <= action.tos < 256 and 0 <= action.ttl < 256 and 0 <= action.tp_dst < 65536):
        return "a tunnel's tos, ttl or port is out of range"
    if isinstance(action, SetTunnel):
        return None if 0 <= action.tun_id < 1 << 32 else "a tunnel's id has 32 bits"
    if action.protocol != "vxlan":
        return f"{action.protocol} tunnels are not supported"
    if not 0 <= action.tun_id < 1 << 24:
        return "a VXLAN network identifier has 24 bits"
    if len(action.eth_src) != 6 or len(action.eth_dst) != 6:
        return "a tunnel's outer Ethernet header needs two addresses"
    return None


def unsupported(match: Match, actions: Sequence[Action]) -> str | None:
    """One sentence saying why the program cannot take such a rule, or ``None``."""
    used = match.used()
    if not UNSUPPORTED_FIELDS.isdisjoint(used):
        return f"matching on {next(name for name in used if name in UNSUPPORTED_FIELDS)} is not supported"
    if in_tunnel(match):
        if not HIDDEN_IN_TUNNEL.isdisjoint(used):
            return "hardware addresses in ARP and neighbour discovery cannot be matched inside a tunnel"
        if match.tun_id.mask >> 32:
            return "a tunnel's id has 32 bits"
    return _unsupported_actions(tuple(actions))


@lru_cache(maxsize=4096)
def _unsupported_actions(actions: tuple[Action, ...]) -> str | None:
    if len(encode_actions(actions)) > MAX_ACTIONS if _encodable(actions) else len(actions) > MAX_ACTIONS:
        return f"{len(actions)} actions are more than the {MAX_ACTIONS} that a rule can have"
    for at, action in enumerate(actions):
        last = at + 1 == len(actions)
        match action:
            case Output() | PopVlan() | Decap():
                pass
            case SetField(name, to):
                if name not in REWRITABLE or to.mask >> FIELD_BITS[name]:
                    return f"rewriting {name} is not supported"
            case AddTtl(amount):
                if not 0 < amount < 256:
                    return f"adding {amount} to the time to live is not supported"
            case Encap() | SetTunnel():
                reason = _tunnel_reason(action)
                if reason:
                    return reason
            case PushVlan(vid, pcp, tpid) | ModifyVlan(vid, pcp, tpid):
                if not (0 <= vid < 4096 and 0 <= (pcp or 0) < 8):
                    return f"VLAN id {vid} with priority {pcp} is out of range"
                if tpid not in (0x8100, 0x88A8):
                    return f"VLAN ethertype {tpid:#06x} is not supported"
            case Drop() | Pass() | Goto() | Enter():
                if not last:
                    return f"{type(action).__name__.lower()} must be the last action"
            case Upcall(cookie):
                if cookie >> 64:
                    return "an upcall's cookie has at most 64 bits"
            case Truncate(length):
                if length < 14:
                    return "a packet cannot be cut inside its Ethernet header"
                following = actions[at + 1] if not last else None
                if not isinstance(following, Upcall) and not (isinstance(following, Output) and at + 2 == len(actions)):
                    return "only the last output, or a copy for user space, can be cut short"
    return None
