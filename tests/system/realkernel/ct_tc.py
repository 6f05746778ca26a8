# SPDX-License-Identifier: Apache-2.0
"""Random conversations through TC's action ct, for a real kernel and for ours.

Each packet meets a filter in chain 0 whose action is ``ct``, another one than the packet before had, and then filters
that write what they find into the packet's Ethernet addresses: its state, mark and labels. So the frames that come out
have all that the action has done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc
from asap2.netlink.wire import NLA_F_NESTED, attribute
from asap2.nic.faces.tc.pedit import HTYPE_ETH
from asap2.nic.nat import NatKind
from asap2.nic.rules import Ct, CtState, Masked
from tests.system.realkernel import ct_cases, flows, guest, ours
from tests.system.realkernel.actions import Action, gact, mirred
from tests.system.realkernel.ct_cases import Packet
from tests.system.realkernel.ct_compare import WITH_PORTS
from tests.system.realkernel.machine import Ask, Case, Result, Step, ask, command, send
from tests.system.realkernel.rewrites import pedit

LABELS = 1, 1 << 127
"""Labels that actions set: filters tell them apart."""
_STATES = (
    CtState.TRK | CtState.NEW,
    CtState.TRK | CtState.EST,
    CtState.TRK | CtState.EST | CtState.RPL,
    CtState.TRK | CtState.REL,
    CtState.TRK | CtState.REL | CtState.RPL,
    CtState.TRK | CtState.INV,
)
"""The states that act_ct gives a packet."""
_TC_BITS = {CtState.NEW: 1, CtState.EST: 2, CtState.REL: 4, CtState.TRK: 8, CtState.INV: 16, CtState.RPL: 32}
"""TCA_FLOWER_KEY_CT_FLAGS_* (include/uapi/linux/pkt_cls.h)."""
_MARKS = range(8)
_PORT, _OUT = 0, 1
_CHAIN_OF_STATES, _CHAIN_OF_MARKS, _CHAIN_OF_LABELS = 1, 2, 3
_FAMILIES = {4: 0x0800, 6: 0x86DD}
_ETH_P_ALL = 3
_ENTROPY = 0, 0x2A2A
_QUERIES = frozenset((0, 8, 13, 14, 128, 129, 139, 140))
"""Types of ICMP and ICMPv6 that ask and answer."""
_KIND_CT = attribute(1, b"ct\0")
_FLUSH = "conntrack -F"


def case(random: Random, packets: int) -> list[Step]:
    """One conversation, without connections of an earlier one."""
    steps = [step for step in ct_cases.conversation(random, packets) if isinstance(step, Packet)]
    return case_of([_labelled(random, step) for step in steps if not _set_aside(step)])


def _labelled(random: Random, packet: Packet) -> Packet:
    """The same with one of the labels that filters tell apart, if it sets one."""
    if packet.action.labels is None:
        return packet
    label = random.choice(LABELS)
    return replace(packet, action=replace(packet.action, labels=Masked(label, label)))


def _set_aside(packet: Packet) -> bool:
    """Whether NAT does something else with it: the kernel of user-mode-linux, which is older, gives it another tuple
    where NAT makes two connections of one (protocols without ports, and identifiers of ICMP when the destination
    changes), and of SCTP that is quoted in an error it makes the checksum right, though the rest is missing."""
    if packet.action.nat is None:
        return False
    at = 34 if packet.family == 4 else 54
    query = packet.proto in (1, 58) and packet.frame[at] in _QUERIES
    return packet.proto not in WITH_PORTS or query or packet.about_sctp


def case_of(packets: Sequence[Packet]) -> list[Step]:
    """The *packets* through filters; one in five forgets then what ct has found."""
    steps: list[Step] = [command(_FLUSH), flows.add_qdisc(_PORT), *_revealing()]
    for number, packet in enumerate(packets):
        acts = [ct_action(packet.action)]
        if number % 5 == 4:
            acts.append({"kind": "ct", "options": {"parms": ta.Generic(action=ta.TC_ACT_PIPE), "action": 4}})
        steps.append(_filter(0, packet.family, {}, [*acts, _goto(_CHAIN_OF_STATES)], _FAMILIES[packet.family]))
        steps.append(send(_PORT, packet.frame))
    return [*steps, flows.remove_qdisc(_PORT)]


def _filter(chain: int, prio: int, options: dict[str, Any], acts: list[Action], protocol: int = _ETH_P_ALL) -> Ask:
    """Filter 1 of its priority, which takes the place of the one that there is."""
    header = tc.Tcmsg(0, guest.NEAR + _PORT, 1, tc.TC_H_MIN_INGRESS, tc.info(prio, protocol))
    attrs = {"kind": "flower", "chain": chain, "options": {**options, "act": acts, "flags": 1}}
    return ask(tc.RTM_NEWTFILTER, flows.NLM_F_CREATE, _flagged(tc.TC.encode(header, attrs)))


def _flagged(message: bytes) -> bytes:
    """*message* with NLA_F_NESTED at the options of ct, without which the kernel refuses them (and only them)."""
    at = message.find(_KIND_CT)
    while at >= 0:
        at += len(_KIND_CT) + 2
        kind = int.from_bytes(message[at : at + 2], "little") | NLA_F_NESTED
        message = message[:at] + kind.to_bytes(2, "little") + message[at + 2 :]
        at = message.find(_KIND_CT, at)
    return message


def _goto(chain: int) -> Action:
    return gact(ta.TC_ACT_GOTO_CHAIN | chain)


def _revealing() -> list[Ask]:
    """Filters that write into the addresses of a packet what they find: chain by chain its state, mark and labels."""
    bits = sum(_TC_BITS.values())
    states: list[dict[str, Any]] = [
        {"key_ct_state": _tc_state(state), "key_ct_state_mask": bits} for state in (*_STATES, CtState(0))
    ]
    marks: list[dict[str, Any]] = [{"key_ct_mark": mark, "key_ct_mark_mask": 0xFFFFFFFF} for mark in _MARKS]
    labels: list[dict[str, Any]] = [
        {"key_ct_labels": sum(some).to_bytes(16, "big"), "key_ct_labels_mask": b"\xff" * 16}
        for some in ((), LABELS[:1], LABELS[1:], LABELS)
    ]
    out = mirred(_OUT, ta.TCA_EGRESS_REDIR, ta.TC_ACT_STOLEN)
    asks = []
    for chain, keys, place in (
        (_CHAIN_OF_STATES, states, 0),
        (_CHAIN_OF_MARKS, marks, 4),
        (_CHAIN_OF_LABELS, labels, 8),
    ):
        onward = out if chain == _CHAIN_OF_LABELS else _goto(chain + 1)
        for number, key in enumerate(keys, 1):
            asks.append(_filter(chain, number, key, [_write(place, number), onward]))
        asks.append(_filter(chain, len(keys) + 1, {}, [_write(place, 0xEE), onward]))
    return asks


def _tc_state(state: CtState) -> int:
    return sum(bit for flag, bit in _TC_BITS.items() if state & flag)


def _write(at: int, number: int) -> Action:
    """Set four octets of the Ethernet header from *at* on: an even *number*, so the address is nobody's group."""
    value = int.from_bytes(bytes((0, 0, 0, number)), "little")
    return pedit([(HTYPE_ETH, ta.PeditKey(0, value, at))])


def ct_action(action: Ct) -> Action:
    """An action as netlink has it; without its zone, which the kernel of user-mode-linux has not."""
    what = ta.TCA_CT_ACT_COMMIT * action.commit | ta.TCA_CT_ACT_FORCE * action.force
    options: dict[str, Any] = {}
    if action.mark:
        options |= {"mark": action.mark.value, "mark_mask": action.mark.mask}
    if action.labels:
        options |= {"labels": action.labels.value.to_bytes(16, "big")}
        options |= {"labels_mask": action.labels.mask.to_bytes(16, "big")}
    if action.nat is not None:
        what |= ta.TCA_CT_ACT_NAT
        if action.nat.kind is not None:
            what |= ta.TCA_CT_ACT_NAT_SRC if action.nat.kind is NatKind.SRC else ta.TCA_CT_ACT_NAT_DST
            version = "ipv4" if len(action.nat.ip_min) == 4 else "ipv6"
            options |= {f"nat_{version}_min": action.nat.ip_min, f"nat_{version}_max": action.nat.ip_max}
    return {"kind": "ct", "options": {"parms": ta.Generic(action=ta.TC_ACT_PIPE), "action": what, **options}}


def difference(case: Case, result: Result) -> tuple[str | None, int]:
    """Where the kernel's *result* first differs from what ours does, if it does, and how many frames agree.

    From where ours depends on random numbers, nothing is compared.
    """
    one, other = (ours.run(case, entropy=entropy).captures for entropy in _ENTROPY)
    sure = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    certain = sure is None and len(one) == len(other)
    mine = one if certain else one[: min(len(one), len(other)) if sure is None else sure]
    for number, ask_answer in enumerate(result.answers):
        code = ask_answer[-1]
        if code[0] == 2 and code[2][:4] != bytes(4):
            return f"the kernel refuses request {number}: {code[2].hex()}", 0
    theirs = result.captures if certain else result.captures[: len(mine)]
    for number, (ours_, kernels) in enumerate(zip(mine, theirs, strict=False)):
        if ours_ != kernels:
            return f"frame {number}:\n  kernel: {kernels}\n  ours:   {ours_}", number
    if len(mine) != len(theirs):
        return f"the kernel lets {len(theirs)} frames out, ours {len(mine)}", min(len(mine), len(theirs))
    return None, len(mine)
