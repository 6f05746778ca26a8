# SPDX-License-Identifier: Apache-2.0
"""Rule actions as the cells that eswitch.bpf.c runs, and what it cannot take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from asap2.nic.rules import (
    FIELD_BITS,
    Action,
    AddTtl,
    CheckLength,
    Clone,
    Decap,
    DecTtl,
    Drop,
    Encap,
    Enter,
    Goto,
    Hash,
    HashAlgorithm,
    Masked,
    Match,
    ModifyVlan,
    Output,
    Pass,
    PopEthernet,
    PopMpls,
    PopNsh,
    PopVlan,
    PushEthernet,
    PushMpls,
    PushNsh,
    PushVlan,
    Sample,
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
    LAYER_MPLS,
    LAYER_SCTP,
    MAX_ACTIONS,
    OP_ADD,
    OP_CHECK_LENGTH,
    OP_CLONE,
    OP_DEC_TTL,
    OP_DECAP,
    OP_DROP,
    OP_ENCAP,
    OP_ENTER,
    OP_GOTO,
    OP_HASH,
    OP_MODIFY_VLAN,
    OP_OUTPUT,
    OP_PASS,
    OP_POP_ETHERNET,
    OP_POP_MPLS,
    OP_POP_NSH,
    OP_POP_VLAN,
    OP_PUSH_ETHERNET,
    OP_PUSH_MPLS,
    OP_PUSH_NSH,
    OP_PUSH_VLAN,
    OP_SAMPLE,
    OP_SET,
    OP_SET_META,
    OP_SET_TUNNEL,
    OP_TRUNCATE,
    OP_UPCALL,
    OUTER_MAX,
    OVERLAID,
    UNSUPPORTED_FIELDS,
    in_tunnel,
    number,
    word,
)

Code = tuple[int, "Argument"]
"""What a cell does, and its argument."""


@dataclass(frozen=True, slots=True)
class Nested:
    """An argument that names an action list, in the lower half, and a *parameter*, in the upper."""

    codes: tuple[Code, ...]
    parameter: int = 0


Argument = int | Encap | SetTunnel | PushNsh | Nested

_META = {"skb_mark": 0, "skb_priority": 1}


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
        case "sctp_src":
            return _words(LAYER_SCTP, 0, to, 2)
        case "sctp_dst":
            return _words(LAYER_SCTP, 2, to, 2)
        case "ipv6_label":
            return _words(LAYER_IPV6, 0, to, 4)
        case "mpls_lse1":
            return _words(LAYER_MPLS, 0, to, 4)
        case "skb_mark" | "skb_priority":
            return [(OP_SET_META | _META[name] << 8, to.value << 32 | to.mask)]
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
        case 2, 0:
            fields = [("ipv6_label", 0, 20)]
        case 2, 1:
            fields = []
        case 2, _:
            fields = [("ip_src" if index < 6 else "ip_dst", 32 * (3 - (index - 2) % 4), 128)]
        case 3, _:
            fields = [("l4_src", -16, 16), ("l4_dst", 0, 16)]
        case 5, _:
            fields = [("mpls_lse1", 0, 32)]
        case 6, _:
            fields = [("sctp_src", -16, 16), ("sctp_dst", 0, 16)]
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


def encode_actions(actions: Sequence[Action]) -> list[Code]:
    """*actions* as (op, argument); an output's argument is still the port's id, a tunnel's the action itself."""
    cells: list[Code] = []
    for at, action in enumerate(actions):
        last = at + 1 == len(actions)
        match action:
            case Output(port, resume):
                cells.append((OP_OUTPUT, resume << 32 | port))
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
                cells.append((OP_TRUNCATE, length))
            case CheckLength() if not last:
                cells.append((OP_CLONE, Nested(tuple(encode_actions([action])))))
            case CheckLength(length, greater, others):
                cells.append((OP_CHECK_LENGTH, Nested(tuple(encode_actions(greater)), length)))
                cells += encode_actions(others)
            case Clone(nested):
                cells.append((OP_CLONE, Nested(tuple(encode_actions(nested)))))
            case Sample(probability, nested):
                cells.append((OP_SAMPLE, Nested(tuple(encode_actions(nested)), probability)))
            case DecTtl(nested):
                cells.append((OP_DEC_TTL, Nested(tuple(encode_actions(nested)))))
            case _:
                cells += _encode_change(action)
    return cells


def _encode_change(action: Action) -> list[Code]:
    """An action that changes the packet and leads nowhere."""
    match action:
        case PushVlan(vid, pcp, tpid):
            return [(OP_PUSH_VLAN, tpid << 16 | pcp << 13 | vid)]
        case PopVlan():
            return [(OP_POP_VLAN, 0)]
        case ModifyVlan(vid, pcp, tpid):
            return [(OP_MODIFY_VLAN, (pcp is None) << 32 | tpid << 16 | (pcp or 0) << 13 | vid)]
        case SetField(name, to):
            return _rewrite(name, to)
        case AddTtl(amount):
            return _add_ttl(amount)
        case Encap():
            return [(OP_ENCAP, action)]
        case SetTunnel():
            return [(OP_SET_TUNNEL, action)]
        case Decap():
            return [(OP_DECAP, 0)]
        case Hash(algorithm, basis):
            return [(OP_HASH, algorithm << 32 | basis)]
        case PushMpls(lse, ethertype, outside):
            return [(OP_PUSH_MPLS | outside << 8, lse << 32 | ethertype)]
        case PopMpls(ethertype):
            return [(OP_POP_MPLS, ethertype)]
        case PushNsh():
            return [(OP_PUSH_NSH, action)]
        case PopNsh():
            return [(OP_POP_NSH, 0)]
        case PushEthernet(dst, src):
            addresses = Masked(int.from_bytes(dst + src, "big"), (1 << 96) - 1)
            return [(OP_PUSH_ETHERNET, 0), *_words(LAYER_ETH, 0, addresses, 12)]
        case PopEthernet():
            return [(OP_POP_ETHERNET, 0)]
        case _:
            raise ValueError(f"{action} changes nothing")


def decode_actions(codes: Sequence[Code]) -> tuple[Action, ...]:
    """The inverse of :func:`encode_actions`: actions that do the same, perhaps in other words. A rewrite may be a part
    of the field's, or nothing new."""
    actions: list[Action] = []
    for at, (op, arg) in enumerate(codes):
        kind = op & 0xFF
        if isinstance(arg, Nested):
            nested = decode_actions(arg.codes)
            match kind:
                case 15:
                    actions.append(Clone(nested))
                case 16:
                    actions.append(Sample(arg.parameter, nested))
                case 17:
                    actions.append(CheckLength(arg.parameter, nested, decode_actions(codes[at + 1 :])))
                    break
                case _:
                    actions.append(DecTtl(nested))
        else:
            actions += decode_action(op, arg)
    return tuple(actions)


def decode_action(op: int, arg: Argument) -> list[Action]:
    """The action of one cell that names no list."""
    if isinstance(arg, Nested):
        return list(decode_actions([(op, arg)]))
    if not isinstance(arg, int):
        return [arg]
    match op & 0xFF:
        case 10:
            return list(_decode_rewrite(op, arg))
        case 12:
            return [Decap()]
        case 19:
            return [Hash(HashAlgorithm(arg >> 32), arg & 0xFFFF_FFFF)]
        case 20:
            name = next(name for name, which in _META.items() if which == op >> 8)
            return [SetField(name, Masked(arg >> 32, arg & 0xFFFF_FFFF))]
        case 21:
            return [PushMpls(arg >> 32, arg & 0xFFFF, bool(op >> 8))]
        case 22:
            return [PopMpls(arg)]
        case 23:
            return [PushEthernet(bytes(6), bytes(6))]
        case 24:
            return [PopEthernet()]
        case 26:
            return [PopNsh()]
        case 27:
            return [AddTtl(action.to.value) for action in _decode_rewrite(op, arg)]
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
            return Truncate(arg)
        case 14:
            return Enter(arg & 0xFFFF_FFFF, arg >> 32)
        case _:
            return Drop()


REWRITABLE = ("eth_dst", "eth_src", "ip_src", "ip_dst", "ip_tos", "ip_ttl", "l4_src", "l4_dst")
"""Fields that :class:`asap2.nic.rules.SetField` can rewrite."""

WIDTHS = {name: FIELD_BITS[name] for name in (*REWRITABLE, "ipv6_label", "mpls_lse1")}
WIDTHS |= {"skb_mark": 32, "skb_priority": 32, "sctp_src": 16, "sctp_dst": 16}
"""All of them, those of Open vSwitch's datapath alone too, and their width in bits."""


def _nested(action: Action) -> tuple[tuple[Action, ...], ...]:
    """The action lists in an action."""
    match action:
        case Clone(nested) | Sample(_, nested) | DecTtl(nested):
            return (nested,)
        case CheckLength(_, greater, others):
            return greater, others
    return ()


def _encodable(actions: Sequence[Action]) -> bool:
    return all(action.field in WIDTHS for action in actions if isinstance(action, SetField)) and all(
        _encodable(nested) for action in actions for nested in _nested(action)
    )


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
    for name in OVERLAID.keys() & used.keys():
        eth_type = match.eth_type
        if eth_type.mask != 0xFFFF or eth_type.value not in OVERLAID[name]:
            return f"matching on {name} takes a match on the ethertype that has it"
    if in_tunnel(match):
        if not HIDDEN_IN_TUNNEL.isdisjoint(used):
            return "hardware addresses in ARP and neighbour discovery cannot be matched inside a tunnel"
        if match.tun_id.mask >> 32:
            return "a tunnel's id has 32 bits"
    return _unsupported_actions(tuple(actions))


@lru_cache(maxsize=1024)
def _unsupported_actions(actions: tuple[Action, ...]) -> str | None:
    if len(encode_actions(actions)) > MAX_ACTIONS if _encodable(actions) else len(actions) > MAX_ACTIONS:
        return f"{len(actions)} actions are more than the {MAX_ACTIONS} that a rule can have"
    for at, action in enumerate(actions):
        reason = _unsupported_action(action, last=at + 1 == len(actions))
        if reason:
            return reason
    return None


def _unsupported_action(action: Action, *, last: bool) -> str | None:
    match action:
        case SetField(name, to):
            if name not in WIDTHS or to.mask >> WIDTHS[name]:
                return f"rewriting {name} is not supported"
        case AddTtl(amount):
            if not 0 < amount < 256:
                return f"adding {amount} to the time to live is not supported"
        case Encap() | SetTunnel():
            return _tunnel_reason(action)
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
        case PushNsh(header):
            if not 8 <= len(header) <= OUTER_MAX - 14:
                return f"a network service header of {len(header)} bytes is not supported"
    for nested in _nested(action):
        reason = _unsupported_actions(nested)
        if reason:
            return reason
    return None
