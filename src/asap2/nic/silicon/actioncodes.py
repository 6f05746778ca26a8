# SPDX-License-Identifier: Apache-2.0
"""Rule actions as the entries that eswitch.bpf.c runs, and what it cannot take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from asap2.nic.fields import FIELD_BITS, REWRITABLE, Field, Header, Location
from asap2.nic.layer_actions import (
    Congest,
    PopEthernet,
    PopMpls,
    PopNsh,
    PushEthernet,
    PushMpls,
    PushNsh,
    SetEthertype,
    SwapEthernet,
)
from asap2.nic.rules import (
    Action,
    AddTtl,
    Chance,
    CheckLength,
    Clone,
    Ct,
    CtClear,
    CtHardware,
    Decap,
    DecTtl,
    Drop,
    Encap,
    Enter,
    Goto,
    Hash,
    HashAlgorithm,
    LookOn,
    Masked,
    Match,
    Meter,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    Psample,
    PushVlan,
    Sample,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)
from asap2.nic.silicon import trackings
from asap2.nic.silicon.abi import ACTIONS, METERS, OUTER_MAX, SAMPLE_COOKIE, SET_OPTIONS_MAX, Op
from asap2.nic.silicon.maps import HIDDEN_IN_TUNNEL, OVERLAID, OVERLAYS, in_tunnel, number, word
from asap2.nic.tunnels import PROTOCOLS

Code = tuple[int, "Argument"]
"""What an entry does, and its argument."""


@dataclass(frozen=True, slots=True)
class Nested:
    """An argument that names an action list, in the lower half, and a *parameter*, in the upper."""

    codes: tuple[Code, ...]
    parameter: int = 0


Argument = int | Encap | SetTunnel | PushNsh | Ct | CtHardware | Psample | Nested

_META = {field.meta: name for name, field in REWRITABLE.items() if field.meta is not None}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a field, from bit *low* on, that entries write at *location*. Where *again*, another has written it."""

    location: Location
    low: int = 0
    again: bool = False


def _pieces(field: Field) -> tuple[_Piece, ...]:
    """What entries write when a field is rewritten. Of an address, the last 32 bits are in the same place of both IP
    versions' entries: in the header that the packet has."""
    by_header = {location.header: location for location in field.found}
    if field.bits == 128:
        ipv4, ipv6 = by_header[Header.IPV4], by_header[Header.IPV6]
        low = Location(Header.ADDRESS_LOW, ipv4.offset - _IPV4_ADDRESSES, ipv4.octets)
        return _Piece(low), _Piece(Location(Header.IPV6, ipv6.offset, ipv6.octets - low.octets), 8 * low.octets)
    return tuple(_Piece(location, again=at > 0) for at, location in enumerate(field.found))


_IPV4_ADDRESSES = 12
"""Where an IPv4 header's addresses begin."""
_PIECES = {name: _pieces(field) for name, field in REWRITABLE.items()}
_PIECES_IN = {
    header: [
        (REWRITABLE[name], piece)
        for name, pieces in _PIECES.items()
        for piece in pieces
        if piece.location.header is header and not piece.again
    ]
    for header in Header
}


def _words(at: Location, value: int, mask: int) -> list[tuple[int, Argument]]:
    """Entries that rewrite what lies there: one for each 32-bit word that is touched."""
    start, end = at.offset // 4 * 4, (at.offset + at.octets + 3) // 4 * 4
    shift = 8 * (end - at.offset - at.octets) + at.shift
    values, masks = ((bits << shift).to_bytes(end - start, "big") for bits in (value, mask))
    entries: list[tuple[int, Argument]] = []
    for offset in range(0, end - start, 4):
        bits = number(masks[offset : offset + 4])
        if bits:
            op = Op.SET | at.header << 8 | (start + offset) // 4 << 16
            entries.append((op, number(values[offset : offset + 4]) << 32 | bits))
    return entries


def _rewrite(name: str, to: Masked) -> list[tuple[int, Argument]]:
    field = REWRITABLE.get(name)
    if field is None:
        raise ValueError(f"{name} cannot be rewritten")
    if field.meta is not None:
        return [(Op.SET_META | field.meta << 8, to.value << 32 | to.mask)]
    entries = []
    for piece in _PIECES[name]:
        at, all_bits = piece.location, (1 << 8 * piece.location.octets) - 1
        entries += _words(at, to.value >> piece.low & all_bits, to.mask >> piece.low & all_bits)
    return entries


def _add_ttl(amount: int) -> list[tuple[int, Argument]]:
    """Entries that add to the time to live of either version: as those that set it, but for the operation."""
    return [(op & ~0xFF | Op.ADD, arg) for op, arg in _rewrite("ip_ttl", Masked(amount, 0xFF))]


def _decode_rewrite(op: int, arg: int) -> list[SetField]:
    """What one entry rewrites, as fields of which some bits count."""
    header, end = Header(op >> 8 & 0xFF), 4 * (op >> 16 & 0xFF) + 4
    value = int.from_bytes(word(arg >> 32), "big")
    mask = int.from_bytes(word(arg & 0xFFFF_FFFF), "big")
    out = []
    for field, piece in _PIECES_IN[header]:
        at = piece.location
        shift = 8 * (at.offset + at.octets - end)
        all_bits = (1 << 8 * at.octets) - 1
        masked, found = (
            ((bits << shift if shift >= 0 else bits >> -shift) & all_bits) >> at.shift << piece.low
            for bits in (mask, value)
        )
        masked &= (1 << field.bits) - 1
        if masked:
            out.append(SetField(field.name, Masked(found & masked, masked)))
    return out


def _encode_list(actions: Sequence[Action]) -> tuple[Code, ...]:
    return tuple(encode_actions(actions))


def _encode_check(action: CheckLength) -> list[Code]:
    return [(Op.CHECK_LENGTH, Nested(_encode_list(action.greater), action.length)), *encode_actions(action.others)]


def _encode_push_ethernet(action: PushEthernet) -> list[Code]:
    addresses = int.from_bytes(action.dst + action.src, "big")
    return [(Op.PUSH_ETHERNET, 0), *_words(Location(Header.ETHERNET, 0, 12), addresses, (1 << 96) - 1)]


def _tag(action: PushVlan | ModifyVlan) -> int:
    return action.tpid << 16 | (action.pcp or 0) << 13 | action.vid


def _tag_of(arg: int) -> tuple[int, int, int]:
    """vid, pcp and TPID."""
    return arg & 0xFFF, arg >> 13 & 7, arg >> 16 & 0xFFFF


def _modify_vlan_of(arg: int) -> ModifyVlan:
    vid, pcp, tpid = _tag_of(arg)
    return ModifyVlan(vid, None if arg >> 32 else pcp, tpid)


ENCODERS: Final[dict[type, Callable[[Any], list[Code]]]] = {
    Output: lambda a: [(Op.OUTPUT, a.resume << 32 | a.port)],
    PushVlan: lambda a: [(Op.PUSH_VLAN, _tag(a))],
    PopVlan: lambda _: [(Op.POP_VLAN, 0)],
    ModifyVlan: lambda a: [(Op.MODIFY_VLAN, (a.pcp is None) << 32 | _tag(a))],
    Drop: lambda _: [(Op.DROP, 0)],
    Goto: lambda a: [(Op.GOTO, a.resume << 32 | a.table)],
    Enter: lambda a: [(Op.ENTER, a.resume << 32 | a.port)],
    Upcall: lambda a: [(Op.UPCALL, a.cookie)],
    Psample: lambda a: [(Op.PSAMPLE, a)],
    Pass: lambda _: [(Op.PASS, 0)],
    Truncate: lambda a: [(Op.TRUNCATE, a.length)],
    SetField: lambda a: _rewrite(a.field, a.to),
    AddTtl: lambda a: _add_ttl(a.amount),
    Encap: lambda a: [(Op.ENCAP, a)],
    Decap: lambda _: [(Op.DECAP, 0)],
    SetTunnel: lambda a: [(Op.SET_TUNNEL, a)],
    Clone: lambda a: [(Op.CLONE, Nested(_encode_list(a.actions)))],
    Sample: lambda a: [(Op.SAMPLE, Nested(_encode_list(a.actions), a.probability))],
    CheckLength: _encode_check,
    DecTtl: lambda a: [(Op.DEC_TTL, Nested(_encode_list(a.exhausted)))],
    Hash: lambda a: [(Op.HASH, a.algorithm << 32 | a.basis)],
    PushMpls: lambda a: [(Op.PUSH_MPLS | a.outside << 8, a.lse << 32 | a.ethertype)],
    PopMpls: lambda a: [(Op.POP_MPLS, a.ethertype)],
    PushNsh: lambda a: [(Op.PUSH_NSH, a)],
    PopNsh: lambda _: [(Op.POP_NSH, 0)],
    PushEthernet: _encode_push_ethernet,
    PopEthernet: lambda _: [(Op.POP_ETHERNET, 0)],
    SwapEthernet: lambda _: [(Op.SWAP_ETHERNET, 0)],
    SetEthertype: lambda a: [(Op.SET_ETHERTYPE, a.ethertype)],
    Congest: lambda _: [(Op.CONGEST, 0)],
    Chance: lambda a: [(Op.CHANCE, Nested(_encode_list(a.instead), a.probability))],
    LookOn: lambda a: [(Op.LOOK_ON, a.first)],
    Ct: lambda a: [(Op.CT, a)],
    CtClear: lambda _: [(Op.CT_CLEAR, 0)],
    CtHardware: lambda a: [(Op.CT_HARDWARE, a)],
    Meter: lambda a: [(Op.METER, Nested(_encode_list(a.exceeded), a.meter))],
}
"""How each action is written; one that takes several entries is read back as several actions that do the same."""

_LOW: Final = 0xFFFF_FFFF
DECODERS: Final[dict[int, Callable[[int, int], Sequence[Action]]]] = {
    Op.OUTPUT: lambda _, arg: [Output(arg & _LOW, arg >> 32)],
    Op.PUSH_VLAN: lambda _, arg: [PushVlan(*_tag_of(arg))],
    Op.POP_VLAN: lambda *_: [PopVlan()],
    Op.MODIFY_VLAN: lambda _, arg: [_modify_vlan_of(arg)],
    Op.DROP: lambda *_: [Drop()],
    Op.GOTO: lambda _, arg: [Goto(arg & _LOW, arg >> 32)],
    Op.ENTER: lambda _, arg: [Enter(arg & _LOW, arg >> 32)],
    Op.UPCALL: lambda _, arg: [Upcall(arg)],
    Op.PASS: lambda *_: [Pass()],
    Op.TRUNCATE: lambda _, arg: [Truncate(arg)],
    Op.SET: lambda op, arg: _decode_rewrite(op, arg),
    Op.ADD: lambda op, arg: [AddTtl(action.to.value) for action in _decode_rewrite(op, arg)],
    Op.DECAP: lambda *_: [Decap()],
    Op.HASH: lambda _, arg: [Hash(HashAlgorithm(arg >> 32), arg & _LOW)],
    Op.SET_META: lambda op, arg: [SetField(_META[op >> 8], Masked(arg >> 32, arg & _LOW))],
    Op.PUSH_MPLS: lambda op, arg: [PushMpls(arg >> 32, arg & 0xFFFF, bool(op >> 8))],
    Op.POP_MPLS: lambda _, arg: [PopMpls(arg)],
    Op.PUSH_ETHERNET: lambda *_: [PushEthernet(bytes(6), bytes(6))],
    Op.POP_ETHERNET: lambda *_: [PopEthernet()],
    Op.POP_NSH: lambda *_: [PopNsh()],
    Op.CT_CLEAR: lambda *_: [CtClear()],
    Op.SWAP_ETHERNET: lambda *_: [SwapEthernet()],
    Op.SET_ETHERTYPE: lambda _, arg: [SetEthertype(arg)],
    Op.CONGEST: lambda *_: [Congest()],
    Op.LOOK_ON: lambda _, arg: [LookOn(arg)],
}
"""What an entry means whose argument is a number."""


def encode_actions(actions: Sequence[Action]) -> list[Code]:
    """*actions* as (op, argument); an output's argument is still the port's id, a tunnel's the action itself."""
    entries: list[Code] = []
    for at, action in enumerate(actions):
        if type(action) is CheckLength and at + 1 < len(actions):
            action = Clone((action,))
        entries += ENCODERS[type(action)](action)
    return entries


def decode_actions(codes: Sequence[Code]) -> tuple[Action, ...]:
    """The inverse of :func:`encode_actions`: actions that do the same, perhaps in other words. A rewrite may be a part
    of the field's, or nothing new."""
    actions: list[Action] = []
    for at, (op, arg) in enumerate(codes):
        if isinstance(arg, Nested):
            nested = decode_actions(arg.codes)
            match op:
                case Op.CLONE:
                    actions.append(Clone(nested))
                case Op.SAMPLE:
                    actions.append(Sample(arg.parameter, nested))
                case Op.CHECK_LENGTH:
                    actions.append(CheckLength(arg.parameter, nested, decode_actions(codes[at + 1 :])))
                    break
                case Op.DEC_TTL:
                    actions.append(DecTtl(nested))
                case Op.CHANCE:
                    actions.append(Chance(arg.parameter, nested))
                case Op.METER:
                    actions.append(Meter(arg.parameter, nested))
                case _:
                    raise ValueError(f"there is no operation {op} on a list")
        else:
            actions += decode_action(op, arg)
    return tuple(actions)


def decode_action(op: int, arg: Argument) -> list[Action]:
    """The actions of one entry.

    Raises:
        ValueError: there is no such operation.
    """
    if isinstance(arg, Nested):
        return list(decode_actions([(op, arg)]))
    if not isinstance(arg, int):
        return [arg]
    decode = DECODERS.get(op & 0xFF)
    if decode is None:
        raise ValueError(f"there is no operation {op}")
    return list(decode(op, arg))


def lists_in(action: Action) -> tuple[tuple[Action, ...], ...]:
    """The action lists in an action."""
    match action:
        case Clone(nested) | Sample(_, nested) | DecTtl(nested) | Meter(_, nested) | Chance(_, nested):
            return (nested,)
        case CheckLength(_, greater, others):
            return greater, others
    return ()


def _encodable(actions: Sequence[Action]) -> bool:
    return all(action.field in REWRITABLE for action in actions if isinstance(action, SetField)) and all(
        _encodable(nested) for action in actions for nested in lists_in(action)
    )


def _tunnel_reason(action: Encap | SetTunnel) -> str | None:
    if len(action.src) != len(action.dst) or len(action.dst) not in (4, 16):
        return "a tunnel has two IPv4 or two IPv6 addresses"
    if not (0 <= action.tos < 256 and 0 <= action.ttl < 256 and 0 <= action.tp_dst < 65536):
        return "a tunnel's tos, ttl or port is out of range"
    if isinstance(action, SetTunnel):
        if len(action.options) > SET_OPTIONS_MAX or len(action.options) % 4:
            return f"{len(action.options)} octets of options in a tunnel are not supported"
        return None if 0 <= action.tun_id < 1 << 32 else "a tunnel's id has 32 bits"
    protocol = PROTOCOLS.get(action.protocol)
    if protocol is None:
        return f"{action.protocol} tunnels are not supported"
    if not 0 <= action.tun_id < 1 << protocol.id.bits:
        return f"a {protocol.id.name} has {protocol.id.bits} bits"
    if not action.keyed and (action.tun_id or not protocol.id.optional):
        return f"a header of {protocol.name} without an id is not supported"
    most = protocol.options.octets if protocol.options is not None else 0
    if len(action.options) > most or len(action.options) % 4:
        return f"{len(action.options)} octets of options in {protocol.name} are not supported"
    if len(action.eth_src) != 6 or len(action.eth_dst) != 6:
        return "a tunnel's outer Ethernet header needs two addresses"
    return None


def unsupported(match: Match, actions: Sequence[Action]) -> str | None:
    """One sentence saying why the program cannot take such a rule, or ``None``."""
    used = match.used()
    for name in OVERLAID.keys() & used.keys():
        eth_type = match.eth_type
        if eth_type.mask != 0xFFFF or eth_type.value not in OVERLAID[name]:
            return f"matching on {name} takes a match on the ethertype that has it"
    for name, (octets, ethertypes) in OVERLAYS.items():
        known = match.eth_type.mask == 0xFFFF and match.eth_type.value not in ethertypes
        if not known and name in used and used[name].mask >> FIELD_BITS[name] - 8 * octets:
            return f"matching on all of {name} takes a match on an ethertype that has it"
    if in_tunnel(match):
        if not HIDDEN_IN_TUNNEL.isdisjoint(used):
            return "addresses in neighbour discovery, MPLS and NSH cannot be matched inside a tunnel"
        if match.tun_id.mask >> 32:
            return "a tunnel's id has 32 bits"
    return _unsupported_actions(tuple(actions))


@lru_cache(maxsize=1024)
def _unsupported_actions(actions: tuple[Action, ...]) -> str | None:
    if len(encode_actions(actions)) > ACTIONS if _encodable(actions) else len(actions) > ACTIONS:
        return f"{len(actions)} actions are more than the {ACTIONS} that a rule can have"
    for at, action in enumerate(actions):
        reason = _unsupported_action(action, last=at + 1 == len(actions))
        if reason:
            return reason
    return None


def _unsupported_action(action: Action, *, last: bool) -> str | None:
    match action:
        case SetField(name, to):
            if name not in REWRITABLE or to.mask >> REWRITABLE[name].bits:
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
        case Drop() | Pass() | Goto() | LookOn() | Enter():
            if not last:
                return f"{type(action).__name__.lower()} must be the last action"
        case Upcall(cookie):
            if cookie >> 64:
                return "an upcall's cookie has at most 64 bits"
        case Psample():
            if not 0 < action.every < 1 << 32:
                return f"one of {action.every} packets cannot be sampled"
            if len(action.cookie) > SAMPLE_COOKIE:
                return f"a sample's cookie has at most {SAMPLE_COOKIE} octets"
        case Truncate(length):
            if length < 14:
                return "a packet cannot be cut inside its Ethernet header"
        case Ct() | CtHardware():
            return trackings.unsupported(action)
        case Meter(number):
            if not 0 < number < METERS:
                return f"there is no meter {number}"
        case PushNsh(header):
            if not 8 <= len(header) <= OUTER_MAX - 14:
                return f"a network service header of {len(header)} bytes is not supported"
    for nested in lists_in(action):
        reason = _unsupported_actions(nested)
        if reason:
            return reason
    return None
