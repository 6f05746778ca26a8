# SPDX-License-Identifier: Apache-2.0
"""TC actions: attributes to rule actions, and to what the kernel gives back.

Sources: net/sched/act_api.c, tcf_action_dump_1() for order and contents; act_{gact,mirred,vlan,skbedit}.c for each.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.kernel import tc_pedit
from asap2.nic.rules import Action, Counters, Decap, Drop, Goto, ModifyVlan, Output, Pass, PopVlan, PushVlan, SetTunnel

USER_HZ: Final = 100
PACKET_HOST: Final = 0
HW_STATS_ANY: Final = 7
USED_HW_STATS_DELAYED: Final = ta.Bitfield32(2, 7)
FLAG_SKIP_HW: Final = 2
_FINAL: Final[dict[int, Action]] = {ta.TC_ACT_OK: Pass(), ta.TC_ACT_SHOT: Drop()}
_TAKEN: Final = (ta.TC_ACT_STOLEN, ta.TC_ACT_QUEUED, ta.TC_ACT_REDIRECT)


@dataclass(frozen=True, slots=True)
class Mirred:
    """Send to device ``ifindex``, into its receive path when ``ingress``; ``final`` for a redirect."""

    ifindex: int
    ingress: bool
    final: bool


@dataclass(frozen=True, slots=True)
class Trap:
    """Give the packet to the host by the representor."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """The list ends without a verdict: the packet goes on to the network stack."""


Step = Action | Mirred | Trap | GoOn


_Parsed = tuple[list[Step], int, tuple[tuple[str, Any], ...]]
"""Steps, verdict, and the options given back, of one action."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One action of a filter as it is given back: ``kind``, cookie, flags, and options with the index filled in."""

    kind: str
    cookie: bytes | None
    flags: ta.Bitfield32 | None
    options: tuple[tuple[str, Any], ...]
    reached: bool = True
    """Whether no action before it ends the list."""
    drops: bool = False
    """Whether it is a gact that counts its packets as dropped."""


def _unsupported(text: str) -> NetlinkError:
    return NetlinkError(errno.EOPNOTSUPP, text)


def parse(actions: Attrs, next_index: Callable[[str, int], int]) -> tuple[tuple[Step, ...], tuple[Listed, ...]]:
    """What a filter's actions do, and how they are given back.

    *next_index* gives an action of a kind its index (0: choose one). EINVAL for what the kernel refuses, ENOENT for an
    unknown kind, EOPNOTSUPP for what the pipeline cannot do.
    """
    steps: list[Step] = []
    listed: list[Listed] = []
    done = False
    for _, action in sorted((number, action) for number, action in actions.items() if isinstance(number, int)):
        kind = action.get("kind")
        options = action.get("options")
        if not kind:
            raise NetlinkError(errno.EINVAL, "TC action kind must be specified")
        if not isinstance(options, Attrs):
            raise _unsupported(f"TC action {kind} is not supported")
        translated, verdict, kept = _one(kind, options, next_index)
        flags = action.get("flags")
        flags = flags if flags and flags.value else None
        drops = kind == "gact" and verdict == ta.TC_ACT_SHOT
        listed.append(Listed(kind, action.get("cookie"), flags, kept, not done, drops))
        if done:
            continue
        steps += translated
        if verdict == ta.TC_ACT_PIPE:
            continue
        done = True
        steps += _verdict(verdict, any(isinstance(step, Mirred) for step in steps))
    if not done:
        steps.append(GoOn())
    return tuple(steps), tuple(listed)


def indices(listed: tuple[Listed, ...]) -> tuple[int, ...]:
    """The actions' indices."""
    return tuple(value.index for action in listed for name, value in action.options if name in ("parms", "parms_ex"))


def _verdict(verdict: int, sent: bool) -> list[Step]:
    """What *verdict* does with the packet, of which a copy was *sent* already, or not."""
    if verdict in _FINAL:
        return [_FINAL[verdict]]
    if verdict in _TAKEN:
        return [] if sent else [Drop()]
    if verdict & ~ta.TC_ACT_EXT_VAL_MASK == ta.TC_ACT_GOTO_CHAIN:
        return [Goto(verdict & ta.TC_ACT_EXT_VAL_MASK)]
    if verdict == ta.TC_ACT_TRAP:
        return [Trap()]
    raise _unsupported(f"TC verdict {verdict:#x} is not supported")


def _parms(options: Attrs, kind: str, next_index: Callable[[str, int], int]) -> tuple[Any, Any]:
    """The action's parameters as given, and as given back (index, one reference, one binding)."""
    parms = options.get("parms")
    if parms is None:
        raise NetlinkError(errno.EINVAL, f"{kind}: missing parameters")
    return parms, parms._replace(index=next_index(kind, parms.index), capab=0, refcnt=1, bindcnt=1)


def _one(kind: str, options: Attrs, next_index: Callable[[str, int], int]) -> _Parsed:
    """(steps, verdict, options given back) of one action."""
    if kind == "gact":
        parms, kept = _parms(options, kind, next_index)
        if "prob" in options:
            raise _unsupported("TC action gact with a probability is not supported")
        return [], parms.action, (("parms", kept),)
    if kind == "mirred":
        parms, kept = _parms(options, kind, next_index)
        if parms.eaction not in (1, 2, 3, 4):
            raise NetlinkError(errno.EINVAL, "Unknown mirred option")
        final = parms.eaction in (ta.TCA_EGRESS_REDIR, ta.TCA_INGRESS_REDIR)
        step = Mirred(parms.ifindex, parms.eaction in (ta.TCA_INGRESS_REDIR, ta.TCA_INGRESS_MIRROR), final)
        return [step], parms.action, (("parms", kept),)
    if kind == "vlan":
        return _vlan(options, next_index)
    if kind == "tunnel_key":
        return _tunnel_key(options, next_index)
    if kind == "pedit":
        return _pedit(options, next_index)
    if kind == "csum":
        parms, kept = _parms(options, kind, next_index)
        return [], parms.action, (("parms", kept),)
    if kind == "skbedit":
        parms, kept = _parms(options, kind, next_index)
        if set(options) - {"parms", "ptype"} or options.get("ptype", PACKET_HOST) != PACKET_HOST:
            raise _unsupported('TC action skbedit does more than "ptype host", which is not supported')
        return [], parms.action, (("parms", kept), *((("ptype", options["ptype"]),) if "ptype" in options else ()))
    raise _unsupported(f"TC action {kind} is not supported")


def _tunnel_key(options: Attrs, next_index: Callable[[str, int], int]) -> _Parsed:
    parms, kept = _parms(options, "tunnel_key", next_index)
    if parms.t_action == ta.TCA_TUNNEL_KEY_ACT_RELEASE:
        return [Decap()], parms.action, (("parms", kept),)
    if parms.t_action != ta.TCA_TUNNEL_KEY_ACT_SET:
        raise NetlinkError(errno.EINVAL, "Unknown tunnel key action")
    version = "ipv4" if "enc_ipv4_dst" in options else "ipv6"
    source, destination = options.get(f"enc_{version}_src"), options.get(f"enc_{version}_dst")
    if source is None or destination is None:
        raise NetlinkError(errno.EINVAL, "Missing either ip saddr or daddr")
    if "enc_opts" in options or "enc_key_id" not in options:
        raise _unsupported("tunnel_key without an id, or with options, is not supported")
    tos, ttl, port = options.get("enc_tos", 0), options.get("enc_ttl", 0), options.get("enc_dst_port", 0)
    no_csum, no_frag = bool(options.get("no_csum")), bool(options.get("no_frag"))
    step = SetTunnel(options["enc_key_id"], source, destination, tos, ttl, port, not no_csum, no_frag)
    back: list[tuple[str, Any]] = [
        ("parms", kept),
        ("enc_key_id", options["enc_key_id"]),
        (f"enc_{version}_src", source),
        (f"enc_{version}_dst", destination),
    ]
    back += [("enc_dst_port", port)] if port else []
    back.append(("no_csum", int(no_csum)))
    back += [("no_frag", True)] if no_frag else []
    back += [("enc_tos", tos)] if tos else []
    back += [("enc_ttl", ttl)] if ttl else []
    return [step], parms.action, tuple(back)


def _pedit(options: Attrs, next_index: Callable[[str, int], int]) -> _Parsed:
    parms = options.get("parms_ex")
    extended = options.get("keys_ex")
    if parms is None or extended is None:
        raise _unsupported("pedit without extended keys is not supported")
    kinds = [(key.get("htype", 0), key.get("cmd", 0)) for key in extended.get("key_ex", [])]
    if not parms.keys or parms.nkeys != len(parms.keys) or len(kinds) != len(parms.keys):
        raise NetlinkError(errno.EINVAL, "Pedit requires keys to be passed")
    kept = parms._replace(index=next_index("pedit", parms.index), capab=0, refcnt=1, bindcnt=1)
    steps: list[Step] = list(tc_pedit.parse(parms.keys, kinds))
    return steps, parms.action, (("keys_ex", extended), ("parms_ex", kept))


def _vlan(options: Attrs, next_index: Callable[[str, int], int]) -> _Parsed:
    parms, kept = _parms(options, "vlan", next_index)
    if parms.v_action == ta.TCA_VLAN_ACT_POP:
        return [PopVlan()], parms.action, (("parms", kept),)
    if parms.v_action not in (ta.TCA_VLAN_ACT_PUSH, ta.TCA_VLAN_ACT_MODIFY):
        raise _unsupported(f"TC vlan action {parms.v_action} is not supported")
    vid = options.get("push_vlan_id")
    if vid is None:
        raise NetlinkError(errno.EINVAL)
    if vid >= 0xFFF:
        raise NetlinkError(errno.ERANGE)
    protocol = options.get("push_vlan_protocol", 0x8100)
    if protocol not in (0x8100, 0x88A8):
        raise NetlinkError(errno.EPROTONOSUPPORT)
    priority = options.get("push_vlan_priority", 0) & 7
    push = parms.v_action == ta.TCA_VLAN_ACT_PUSH
    kept_priority = None if "push_vlan_priority" not in options else priority
    back: list[tuple[str, Any]] = [("parms", kept), ("push_vlan_id", vid), ("push_vlan_protocol", protocol)]
    if push or kept_priority is not None:
        back.append(("push_vlan_priority", priority))
    step = PushVlan(vid, priority, protocol) if push else ModifyVlan(vid, kept_priority, protocol)
    return [step], parms.action, tuple(back)


def to_rule(
    steps: tuple[Step, ...], output: Callable[[Mirred], int], trap: Callable[[], Action], *, stack: bool = True
) -> tuple[Action, ...]:
    """Rule actions; *output* gives a destination's port (NetlinkError when it cannot), *trap* what Trap becomes.

    Without *stack* nothing goes on behind a last output, as in a NIC: there the packet is the copy.
    """
    actions: list[Action] = []
    for step in steps:
        if isinstance(step, Mirred):
            actions.append(Output(output(step)))
        elif isinstance(step, Trap):
            actions.append(trap())
        elif isinstance(step, GoOn):
            if stack or not actions or not isinstance(actions[-1], Output):
                actions.append(Pass())
        else:
            actions.append(step)
    return tuple(actions) or (Pass(),)


def dump(listed: tuple[Listed, ...], state: ActionState, *, terse: bool) -> list[dict[str, Any]]:
    """The actions as the kernel gives them back, with counters and times."""
    none = ta.Basic(0, 0)
    counted = ta.Basic(state.counters.bytes, state.counters.packets & 0xFFFFFFFF)
    out = []
    for action in listed:
        basic = counted if action.reached else none
        queue = ta.Queue(drops=basic.packets if action.drops else 0)
        stats = {"basic": basic, "basic_hw": basic if state.in_hw else none, "queue": queue}
        entry: dict[str, Any] = {"kind": action.kind, "stats": stats}
        if action.cookie is not None:
            entry["cookie"] = action.cookie
        if not terse:
            if state.in_hw:
                entry["used_hw_stats"] = USED_HW_STATS_DELAYED
            flags = action.flags
            if state.skip_hw:
                value = (flags.value if flags else 0) | FLAG_SKIP_HW
                flags = ta.Bitfield32(value, value)
            if flags:
                entry["flags"] = flags
            entry["in_hw_count"] = 0
            entry["options"] = {**dict(action.options), "tm": state.times()}
        out.append(entry)
    return out


@dataclass(frozen=True, slots=True)
class ActionState:
    """What the actions of a filter share: counters, when it was made and first used (ns, CLOCK_MONOTONIC)."""

    counters: Counters
    made_ns: int
    first_ns: int
    in_hw: bool
    skip_hw: bool

    def times(self) -> ta.Tcf:
        """struct tcf_t: clock ticks since installation, last and first use (never used: since installation)."""
        now = time.monotonic_ns()

        def ticks(since: int) -> int:
            return max(0, now - since) * USER_HZ // 1_000_000_000

        used = self.counters.used_ns or self.made_ns
        return ta.Tcf(ticks(self.made_ns), ticks(used), 0, ticks(self.first_ns) if self.first_ns else 0)
