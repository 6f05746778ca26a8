# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch datapath actions: netlink attributes to rule actions, checked as Linux checks them, and back.

Numbers and layouts: enum ovs_action_attr, include/uapi/linux/openvswitch.h; checks: net/openvswitch/flow_netlink.c,
__ovs_nla_copy_actions. Connection tracking, meters and psample are not served.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attribute, attributes
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.key import Fields, invalid, numbers, walk
from asap2.nic.fields import ETH_P_MPLS
from asap2.nic.rules import (
    OVS_TABLE,
    TUN_CSUM,
    TUN_DONT_FRAGMENT,
    VLAN_PRESENT,
    Action,
    CheckLength,
    Clone,
    DecTtl,
    Drop,
    Goto,
    Hash,
    HashAlgorithm,
    Masked,
    Output,
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

OUTPUT, USERSPACE, SET, PUSH_VLAN, POP_VLAN, SAMPLE, RECIRC, HASH, PUSH_MPLS, POP_MPLS, SET_MASKED = range(1, 12)
TRUNC, PUSH_ETH, POP_ETH = 13, 14, 15
PUSH_NSH, POP_NSH = 17, 18
CLONE, CHECK_PKT_LEN, ADD_MPLS, DEC_TTL, DROP = 20, 21, 22, 23, 24
_VARIABLE: Final = -1
_LENGTHS: Final = {
    OUTPUT: 4,
    USERSPACE: _VARIABLE,
    SET: _VARIABLE,
    PUSH_VLAN: 4,
    POP_VLAN: 0,
    SAMPLE: _VARIABLE,
    RECIRC: 4,
    HASH: 8,
    PUSH_MPLS: 8,
    POP_MPLS: 2,
    SET_MASKED: _VARIABLE,
    TRUNC: 4,
    PUSH_ETH: 12,
    POP_ETH: 0,
    PUSH_NSH: _VARIABLE,
    POP_NSH: 0,
    CLONE: _VARIABLE,
    CHECK_PKT_LEN: _VARIABLE,
    ADD_MPLS: 8,
    DEC_TTL: _VARIABLE,
    DROP: 4,
}
"""The actions there are, and the length in bytes of each one's argument."""

USERSPACE_PID: Final = 1
USERSPACE_USERDATA: Final = 2
USERSPACE_EGRESS_TUN_PORT: Final = 3
USERSPACE_ACTIONS: Final = 4
_SAMPLE_PROBABILITY, _SAMPLE_ACTIONS = 1, 2
_LENGTH, _IF_GREATER, _IF_LESS_EQUAL = 1, 2, 3
_DEC_TTL_ACTION: Final = 1
_TUNNEL_KEY: Final = numbers.TUNNEL.to_bytes(2, "little")
_MPLS_L3: Final = 1
"""OVS_MPLS_L3_TUNNEL_FLAG_MASK: the label goes behind the Ethernet header."""

_ETH_HLEN: Final = 14
_DEPTH: Final = 16
"""OVS_COPY_ACTIONS_MAX_DEPTH."""
_MPLS_PUSHABLE: Final = (0x0800, 0x86DD, 0x0806, 0x8035, *ETH_P_MPLS)
_NSH_TYPE, _TEB = 0x894F, 0x6558
_NSH_NEXT: Final = {1: 0x0800, 2: 0x86DD, 3: _TEB, 4: _NSH_TYPE, 5: 0x8847}
_NSH_LONGEST: Final = 248
"""Bytes of metadata in a network service header at most (NSH_CTX_HDRS_MAX_LEN)."""
NO_PORT: Final = 0xFFFF_FFFF
"""A port of the pipeline that there never is."""


@dataclass(frozen=True, slots=True)
class PortOutput:
    """Send to datapath port ``port``."""

    port: int


@dataclass(frozen=True, slots=True)
class Userspace:
    """Give the packet to the netlink port id ``pid`` with ``userdata``, and with ``actions``: the list that this is in,
    where it asks for that. ``egress``: tell also of the tunnel that it would leave by, out of that port, and ``tunnel``
    is the attribute of the action that has set it, empty where none has."""

    pid: int
    userdata: bytes | None
    actions: bytes | None
    egress: int | None = None
    tunnel: bytes = b""


@dataclass(frozen=True, slots=True)
class Recirc:
    """Look up again with recirculation id ``id``."""

    id: int


@dataclass(frozen=True, slots=True)
class Nested:
    """An action with lists of steps in it, in the order of the lists of *action*, which stand empty there."""

    action: Clone | Sample | CheckLength | DecTtl
    lists: tuple[tuple[Step, ...], ...]


Step = PortOutput | Userspace | Recirc | Nested | Action


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of the packet before an action."""

    eth_type: int
    vlan_tci: int
    labels: int
    ethernet: bool


def parse(payload: bytes, key: Fields) -> tuple[Step, ...]:
    """The steps of an action list for packets with the masked *key*.

    EINVAL for one that is malformed, or not safe for such packets, or that this datapath does not have.
    """
    labels = key.get("mpls_labels", 0).bit_count() if key.get("eth_type") in ETH_P_MPLS else 0
    state = _State(key.get("eth_type", 0), key.get("vlan_tci", 0), labels, bool(key.get("mac_proto", 1)))
    return tuple(_steps(payload, key, state, 1))


def _steps(payload: bytes, key: Fields, state: _State, depth: int, tunnel: bytes = b"") -> Iterator[Step]:
    if depth > _DEPTH:
        raise NetlinkError(errno.EOVERFLOW)
    found = walk(payload, padded=False)
    for at, (kind, value) in enumerate(found):
        if _LENGTHS.get(kind) not in (_VARIABLE, len(value)):
            raise invalid()
        if kind in (SET, SET_MASKED):
            yield from _set(value, key, state, masked=kind == SET_MASKED)
            if kind == SET and value[2:4] == _TUNNEL_KEY:
                tunnel = value[4:]
        elif kind in (SAMPLE, CLONE, CHECK_PKT_LEN, DEC_TTL):
            # In a list within, the packet has the link layer that it came with (ovs_key_mac_proto).
            inner = replace(state, ethernet=bool(key.get("mac_proto", 1)))
            yield _nested(kind, value, partial(_list_within, key=key, state=inner, depth=depth + 1, tunnel=tunnel))
        elif kind == USERSPACE:
            yield _userspace(value, payload, tunnel)
        elif kind in _HEADERS:
            step, state = _HEADERS[kind](value, state, key)
            yield step
        else:
            if kind == DROP and at + 1 < len(found):
                raise invalid()
            yield _simple(kind, value)


def _list_within(payload: bytes, *, key: Fields, state: _State, depth: int, tunnel: bytes) -> tuple[Step, ...]:
    return tuple(_steps(payload, key, state, depth, tunnel))


def _simple(kind: int, value: bytes) -> Step:
    number = int.from_bytes(value[:4], "little")
    if kind == OUTPUT and number < numbers.MAX_PORTS:
        return PortOutput(number)
    if kind == RECIRC:
        return Recirc(number)
    if kind == TRUNC and number >= _ETH_HLEN:
        return Truncate(number)
    if kind == HASH and number in list(HashAlgorithm):
        return Hash(HashAlgorithm(number), int.from_bytes(value[4:], "little"))
    if kind == DROP:
        return Drop()
    raise invalid()


def _nested(kind: int, value: bytes, steps: Callable[[bytes], tuple[Step, ...]]) -> Nested:
    if kind == CLONE:
        return Nested(Clone(()), (steps(value),))
    inner: dict[int, bytes] = {}
    for number, data in walk(value, padded=kind != CHECK_PKT_LEN):
        if kind == DEC_TTL and number > _DEC_TTL_ACTION:
            continue
        if not number or number in inner or number > (_IF_LESS_EQUAL if kind == CHECK_PKT_LEN else _SAMPLE_ACTIONS):
            raise invalid()
        inner[number] = data
    if kind == SAMPLE:
        probability = inner.get(_SAMPLE_PROBABILITY, b"")
        if len(probability) != 4 or _SAMPLE_ACTIONS not in inner:
            raise invalid()
        return Nested(Sample(int.from_bytes(probability, "little"), ()), (steps(inner[_SAMPLE_ACTIONS]),))
    if kind == CHECK_PKT_LEN:
        length = int.from_bytes(inner.get(_LENGTH, b"")[:2], "little")
        if len(inner) != 3 or not length:
            raise invalid()
        # As the kernel: the shorter ones' list first.
        others = steps(inner[_IF_LESS_EQUAL])
        return Nested(CheckLength(length, (), ()), (steps(inner[_IF_GREATER]), others))
    if _DEC_TTL_ACTION not in inner:
        raise invalid()
    return Nested(DecTtl(()), (steps(inner[_DEC_TTL_ACTION]),))


# ---- headers that come and go: what they need, and what the packet then is

_Change = tuple[Step, _State]


def _push_vlan(value: bytes, state: _State, _key: Fields) -> _Change:
    tpid, tci = struct.unpack("!HH", value)
    if not state.ethernet or tpid not in (0x8100, 0x88A8) or not tci & VLAN_PRESENT:
        raise invalid()
    return PushVlan(tci & 0xFFF, tci >> 13, tpid), replace(state, vlan_tci=tci)


def _pop_vlan(_value: bytes, state: _State, _key: Fields) -> _Change:
    if not state.ethernet:
        raise invalid()
    return PopVlan(), replace(state, vlan_tci=0)


def _push_mpls(value: bytes, state: _State, _key: Fields) -> _Change:
    entry, ethertype = struct.unpack_from("!IH", value)
    if ethertype not in ETH_P_MPLS or state.vlan_tci & VLAN_PRESENT or state.eth_type not in _MPLS_PUSHABLE:
        raise invalid()
    return PushMpls(entry, ethertype), replace(state, eth_type=ethertype, labels=state.labels + 1)


def _add_mpls(value: bytes, state: _State, key: Fields) -> _Change:
    entry, ethertype = struct.unpack_from("!IH", value)
    if int.from_bytes(value[6:8], "little") & _MPLS_L3:
        return _push_mpls(value, state, key)
    if ethertype not in ETH_P_MPLS:
        raise invalid()
    labels = 1 if state.ethernet else state.labels + 1
    step = PushMpls(entry, ethertype, outside=state.ethernet)
    return step, replace(state, eth_type=ethertype, labels=labels, ethernet=False)


def _pop_mpls(value: bytes, state: _State, _key: Fields) -> _Change:
    ethertype = int.from_bytes(value, "big")
    if state.vlan_tci & VLAN_PRESENT or state.eth_type not in ETH_P_MPLS or (ethertype == _TEB and state.ethernet):
        raise invalid()
    labels = state.labels - 1
    known = ethertype in ETH_P_MPLS and labels
    return PopMpls(ethertype), replace(state, labels=labels, eth_type=ethertype if known else 0)


def _push_eth(value: bytes, state: _State, _key: Fields) -> _Change:
    if state.ethernet:
        raise invalid()
    return PushEthernet(value[6:], value[:6]), replace(state, ethernet=True)


def _pop_eth(_value: bytes, state: _State, _key: Fields) -> _Change:
    if not state.ethernet or state.vlan_tci & VLAN_PRESENT:
        raise invalid()
    return PopEthernet(), replace(state, ethernet=False)


def _push_nsh(value: bytes, state: _State, _key: Fields) -> _Change:
    if not state.ethernet and state.eth_type not in _NSH_NEXT.values():
        raise invalid()
    return PushNsh(_service_header(value)), replace(state, ethernet=False)


def _pop_nsh(_value: bytes, state: _State, key: Fields) -> _Change:
    following = key.get("nsh_np", 0)
    if state.eth_type != _NSH_TYPE or following not in _NSH_NEXT:
        raise invalid()
    return PopNsh(), replace(state, ethernet=_NSH_NEXT[following] == _TEB)


_HEADERS: Final[dict[int, Callable[[bytes, _State, Fields], _Change]]] = {
    PUSH_VLAN: _push_vlan,
    POP_VLAN: _pop_vlan,
    PUSH_MPLS: _push_mpls,
    ADD_MPLS: _add_mpls,
    POP_MPLS: _pop_mpls,
    PUSH_ETH: _push_eth,
    POP_ETH: _pop_eth,
    PUSH_NSH: _push_nsh,
    POP_NSH: _pop_nsh,
}


def _service_header(value: bytes) -> bytes:
    """The header that push_nsh pushes (RFC 8300); its next protocol is the packet's."""
    found = walk(value)
    if [number for number, _ in found] != [numbers.NSH]:
        raise invalid()
    inner = dict(walk(found[0][1], padded=False))
    if len(inner) != 2 or numbers.NSH_BASE not in inner or len(inner[numbers.NSH_BASE]) != 8:
        raise invalid()
    flags, ttl, kind, following, path = struct.unpack("!BBBBI", inner[numbers.NSH_BASE])
    number = numbers.NSH_MD1 if numbers.NSH_MD1 in inner else numbers.NSH_MD2
    context = inner.get(number, b"")
    fits = len(context) == 16 if number == numbers.NSH_MD1 else 0 < len(context) <= _NSH_LONGEST
    if not fits or kind != (1 if number == numbers.NSH_MD1 else 2):
        raise invalid()
    head = (flags & 3) << 12 | (ttl & 0x3F) << 6 | (8 + len(context) >> 2) & 0x3F
    return struct.pack("!HBBI", head, kind, following, path) + context


# ---- set

_REWRITES: Final[dict[int, tuple[tuple[str, int, int], ...]]] = {
    numbers.ETHERNET: (("eth_src", 0, 6), ("eth_dst", 6, 6)),
    numbers.IPV4: (("ip_src", 0, 4), ("ip_dst", 4, 4), ("ip_tos", 9, 1), ("ip_ttl", 10, 1)),
    numbers.IPV6: (("ip_src", 0, 16), ("ip_dst", 16, 16), ("ip_tos", 37, 1), ("ipv6_label", 32, 4), ("ip_ttl", 38, 1)),
    numbers.TCP: (("l4_src", 0, 2), ("l4_dst", 2, 2)),
    numbers.UDP: (("l4_src", 0, 2), ("l4_dst", 2, 2)),
    numbers.SCTP: (("sctp_src", 0, 2), ("sctp_dst", 2, 2)),
    numbers.MPLS: (("mpls_lse1", 0, 4),),
}
"""Key attribute to (field, offset, octets) that a set action may rewrite, in the kernel's order."""
_META: Final = {numbers.PRIORITY: "skb_priority", numbers.SKB_MARK: "skb_mark"}
_PROTOCOLS: Final = {numbers.TCP: 6, numbers.UDP: 17, numbers.SCTP: 132}
_LABEL: Final = 0xFFFFF


def _set(value: bytes, key: Fields, state: _State, *, masked: bool) -> Iterator[SetField | SetTunnel]:
    """A set action: one key attribute, followed by its mask when *masked* (validate_set)."""
    inner = walk(value)
    if len(inner) != 1:
        raise invalid()
    kind, data = inner[0]
    if kind == numbers.TUNNEL and not masked:
        yield _set_tunnel(data)
        return
    length = 4 if kind == numbers.MPLS else numbers.LENGTHS.get(kind, 0)
    if (kind not in _REWRITES and kind not in _META) or len(data) != length * (2 if masked else 1):
        raise invalid()
    values, mask = data[:length], data[length:] if masked else b"\xff" * length
    if any(octet & ~bits for octet, bits in zip(values, mask, strict=True)):
        raise invalid()
    _check_set(kind, values, mask if masked else None, key, state)
    if kind in _META:
        number, bits = int.from_bytes(values, "little"), int.from_bytes(mask, "little")
        if bits:
            yield SetField(_META[kind], Masked(number, bits))
        return
    for name, offset, octets in _REWRITES[kind]:
        bits = int.from_bytes(mask[offset : offset + octets], "big") & (_LABEL if name == "ipv6_label" else -1)
        if bits:
            yield SetField(name, Masked(int.from_bytes(values[offset : offset + octets], "big") & bits, bits))


def _check_set(kind: int, values: bytes, mask: bytes | None, key: Fields, state: _State) -> None:
    """Whether packets have what is to be set, and whether it may be: not the protocol, nor what fragment it is."""
    ok = True
    if kind == numbers.ETHERNET:
        ok = state.ethernet
    elif kind in (numbers.IPV4, numbers.IPV6):
        version4 = kind == numbers.IPV4
        fixed = (8, 11) if version4 else (36, 39)
        current = key.get("ip_proto", 0), key.get("ip_frag", 0)
        ok = state.eth_type == (0x0800 if version4 else 0x86DD)
        if mask is not None:
            ok = ok and not any(mask[at] for at in fixed)
        else:
            ok = ok and tuple(values[at] for at in fixed) == current
        if not version4:
            labels = (values, mask) if mask is not None else (values,)
            ok = ok and all(int.from_bytes(label[32:36], "big") <= _LABEL for label in labels)
    elif kind in _PROTOCOLS:
        ok = state.eth_type in (0x0800, 0x86DD) and key.get("ip_proto") == _PROTOCOLS[kind]
    elif kind == numbers.MPLS:
        ok = state.eth_type in ETH_P_MPLS
    if not ok:
        raise invalid()


def _set_tunnel(data: bytes) -> SetTunnel:
    fields: Fields = {}
    ovs_key.read_tunnel(data, fields)
    return tunnel_of(fields)


def tunnel_of(fields: Fields) -> SetTunnel:
    """A tunnel from its fields in a key."""
    size = 4 if fields["tun_proto"] == ovs_key.INET else 16
    flags = fields.get("tun_flags", 0)
    return SetTunnel(
        fields.get("tun_id", 0) & 0xFFFF_FFFF,
        fields.get("tun_src", 0).to_bytes(size, "big"),
        fields.get("tun_dst", 0).to_bytes(size, "big"),
        fields.get("tun_tos", 0),
        fields.get("tun_ttl", 0),
        fields.get("tun_tp_dst", 0),
        bool(flags & TUN_CSUM),
        bool(flags & TUN_DONT_FRAGMENT),
    )


def _userspace(value: bytes, payload: bytes, tunnel: bytes) -> Userspace:
    inner = {kind & NLA_TYPE_MASK: bytes(data) for kind, data in attributes(value)}
    if any(len(inner[kind]) < 4 for kind in (USERSPACE_PID, USERSPACE_EGRESS_TUN_PORT) if kind in inner):
        raise NetlinkError(errno.ERANGE)
    pid = int.from_bytes(inner.get(USERSPACE_PID, b"")[:4], "little")
    if not pid:
        raise invalid()
    egress = inner.get(USERSPACE_EGRESS_TUN_PORT)
    return Userspace(
        pid,
        inner.get(USERSPACE_USERDATA),
        payload if USERSPACE_ACTIONS in inner else None,
        None if egress is None else int.from_bytes(egress[:4], "little"),
        tunnel,
    )


# ---- to the pipeline, and back to user space


def userspaces(steps: tuple[Step, ...]) -> Iterator[Userspace]:
    """Every step that goes to user space, in the order of :func:`to_rule`."""
    for step in steps:
        if isinstance(step, Userspace):
            yield step
        elif isinstance(step, Nested):
            for nested in step.lists:
                yield from userspaces(nested)


def outputs(steps: tuple[Step, ...]) -> Iterator[int]:
    """Every port that something may be sent to."""
    for step in steps:
        if isinstance(step, PortOutput):
            yield step.port
        elif isinstance(step, Nested):
            for nested in step.lists:
                yield from outputs(nested)


def to_rule(
    steps: tuple[Step, ...], ifindex_of: Callable[[int], int | None], cookie_of: Callable[[Userspace], int]
) -> tuple[Action, ...]:
    """The rule actions of *steps*. What is sent to a port that does not exist is dropped, as in the kernel."""
    return _to_rule(steps, ifindex_of, cookie_of) or (Drop(),)


def _to_rule(
    steps: tuple[Step, ...], ifindex_of: Callable[[int], int | None], cookie_of: Callable[[Userspace], int]
) -> tuple[Action, ...]:
    actions: list[Action] = []
    for at, step in enumerate(steps):
        match step:
            case PortOutput(port):
                ifindex = ifindex_of(port)
                if ifindex is not None:
                    actions.append(Output(ifindex))
                elif any(isinstance(before, Truncate) for before in steps[:at]):
                    actions.append(Output(NO_PORT))  # else what follows would be cut
            case Userspace():
                actions.append(Upcall(cookie_of(step)))
            case Recirc(number):
                to = Goto(OVS_TABLE | number)
                actions.append(to if at + 1 == len(steps) else Clone((to,)))
            case Nested(action, lists):
                made = [_to_rule(nested, ifindex_of, cookie_of) for nested in lists]
                match action:
                    case Clone():
                        actions.append(Clone(made[0]))
                    case Sample(probability):
                        actions.append(Sample(probability, made[0]))
                    case CheckLength(length):
                        actions.append(CheckLength(length, made[0], made[1]))
                    case DecTtl():
                        actions.append(DecTtl(made[0]))
            case _:
                actions.append(step)
    return tuple(actions)


def echoed(payload: bytes) -> bytes:
    """A checked action list as the kernel gives it back: some attributes it writes anew (ovs_nla_put_actions)."""
    out = bytearray()
    for number, value in attributes(payload):
        kind, value = number & NLA_TYPE_MASK, bytes(value)
        if kind == CLONE:
            out += attribute(kind, echoed(value))
        elif kind in (SAMPLE, CHECK_PKT_LEN, DEC_TTL):
            out += attribute(kind, _echoed_nested(kind, dict(walk(value, padded=False))))
        elif kind == SET and walk(value)[0][0] == numbers.TUNNEL:
            fields: Fields = {}
            ovs_key.read_tunnel(walk(value)[0][1], fields)
            tunnel = ovs_key.emit_tunnel(fields, fields["tun_proto"])
            out += attribute(kind, attribute(numbers.TUNNEL, tunnel))
        else:
            out += attribute(number, value)
    return bytes(out)


def _echoed_nested(kind: int, inner: dict[int, bytes]) -> bytes:
    if kind == SAMPLE:
        probability = attribute(_SAMPLE_PROBABILITY, inner[_SAMPLE_PROBABILITY])
        return probability + attribute(_SAMPLE_ACTIONS, echoed(inner[_SAMPLE_ACTIONS]))
    if kind == DEC_TTL:
        return attribute(_DEC_TTL_ACTION, echoed(inner[_DEC_TTL_ACTION]))
    lists = b"".join(attribute(which, echoed(inner[which])) for which in (_IF_LESS_EQUAL, _IF_GREATER))
    return attribute(_LENGTH, inner[_LENGTH][:2]) + lists
