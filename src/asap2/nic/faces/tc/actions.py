# SPDX-License-Identifier: Apache-2.0
"""TC actions: attributes to steps, steps to a rule's actions, and actions to what the kernel gives back.

Sources: net/sched/act_api.c of Linux 6.1: tcf_action_init() for what is refused, tcf_action_dump_1() for order and
contents. :mod:`asap2.nic.faces.tc.action_kinds` has what is one kind's.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NLA_F_NESTED, NetlinkError
from asap2.nic.faces.tc.action_kinds import FLAGGED, NO_OPTIONS, NO_PARMS, PARMS, PARSERS, Options, parms_of
from asap2.nic.faces.tc.counted import NOTHING, Counted
from asap2.nic.faces.tc.steps import (
    AtRandom,
    Beyond,
    Continue,
    Csum,
    GoOn,
    Mirred,
    PacketType,
    Police,
    PushLabel,
    Step,
    Trap,
    flat,
)
from asap2.nic.rules import Action, Chance, Counters, Drop, Goto, LookOn, Meter, Output, Pass
from asap2.nic.silicon.metering import Metered

__all__ = ["Beyond", "Continue", "Csum", "GoOn", "Mirred", "PacketType", "Police", "Step", "Trap", "flat"]

USER_HZ: Final = 100
LAST_PRIO: Final = 0xFFFF
HW_STATS_DELAYED, HW_STATS_ANY = 2, 3
"""TCA_ACT_HW_STATS_*: a driver may count late; as it likes (the default)."""
USED_HW_STATS_DELAYED: Final = ta.Bitfield32(HW_STATS_DELAYED, HW_STATS_ANY)
FLAG_SKIP_HW, FLAG_SKIP_SW = 2, 4
"""TCA_ACT_FLAGS_*."""
_MOST_COOKIE: Final = 16
_LONGEST: Final = 256
"""Actions on all ways through a list together."""
_FINAL: Final[dict[int, Action]] = {ta.TC_ACT_OK: Pass(), ta.TC_ACT_SHOT: Drop()}
_TAKEN: Final = (ta.TC_ACT_STOLEN, ta.TC_ACT_QUEUED, ta.TC_ACT_REDIRECT)


@dataclass(frozen=True, slots=True)
class Parsed:
    """One action: what it does, its verdict, and its options as they are given back but for the index.

    *flags* are the TCA_ACT_FLAGS_* and *hw_stats* the TCA_ACT_HW_STATS_* that were given.
    """

    kind: str
    steps: tuple[Step, ...]
    verdict: int
    options: Options
    cookie: bytes | None = None
    flags: int = 0
    hw_stats: int = HW_STATS_ANY

    def listed(self, index: int, reached: bool, instance: Instance | None = None) -> Listed:
        """The action as one of a filter."""
        drops = self.kind == "gact" and self.verdict == ta.TC_ACT_SHOT
        options = _indexed(self.options, index)
        return Listed(self.kind, self.cookie, self.flags, options, index, reached, drops, self.hw_stats, instance)


@dataclass(slots=True, eq=False)
class Instance:
    """An action that may be shared (struct tc_action): by filters, which bind it, and by whoever made it by itself.

    *references* counts both, ``bindings`` the filters' uses; *request* is its attributes as they were given.
    """

    index: int
    parsed: Parsed
    request: bytes
    made_ns: int
    references: int = 1
    filters: list[Any] = field(default_factory=list)
    """The filters that use it, one for each use."""
    past: Counted = NOTHING
    """What it has done for filters that are no more."""
    first_ns: int = 0
    by_filter: bool = False
    """Whether a filter made it."""
    held: bool = False
    """Whether a request that changes it has a reference."""

    @property
    def bindings(self) -> int:
        """How often filters use it."""
        return len(self.filters)

    @property
    def skips(self) -> int:
        """Which of TCA_ACT_FLAGS_SKIP_* it has."""
        return self.parsed.flags & (FLAG_SKIP_HW | FLAG_SKIP_SW)

    def clashes(self, skips: int) -> bool:
        """Whether no filter with these *skips* may have it: each needs those of the filter that made it, or just those
        of an action that was made by itself (tcf_action_init)."""
        if not self.by_filter:
            return self.skips != skips
        given = self.skips
        for one in self.filters:
            given |= one.flags << 1 & (FLAG_SKIP_HW | FLAG_SKIP_SW)  # TCA_CLS_FLAGS_SKIP_*
        return bool(given & ~skips)


class Indices(Protocol):
    """Where the actions of each kind have their indices."""

    def bound(self, kind: str, index: int) -> Instance | None:
        """The action with this index, where there is one already, for one filter more."""

    def take(self, kind: str, index: int) -> int:
        """The index of a new action: *index*, or where that is 0 the lowest that is free."""

    def give(self, kind: str, index: int) -> None:
        """Undo :meth:`take`."""


class Given:
    """The indices that a filter's actions have already; *instance* says which are shared."""

    def __init__(
        self, indices: Iterable[int], instance: Callable[[str, int], Instance | None] = lambda _kind, _index: None
    ) -> None:
        self._indices = iter(indices)
        self._instance = instance
        self._index = 0

    def bound(self, kind: str, _index: int) -> Instance | None:
        """The next action, where it is shared."""
        self._index = next(self._indices)
        return self._instance(kind, self._index)

    def take(self, _kind: str, _index: int) -> int:
        """Its index."""
        return self._index

    def give(self, kind: str, index: int) -> None:
        """It stays the filter's."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One action of a filter as it is given back: ``kind``, cookie, flags, and options with the index filled in."""

    kind: str
    cookie: bytes | None
    flags: int
    options: Options
    index: int
    reached: bool = True
    """Whether no action before it ends the list."""
    drops: bool = False
    """Whether it is a gact that counts its packets as dropped."""
    hw_stats: int = HW_STATS_ANY
    instance: Instance | None = None
    """What it is where others may share it."""


def _indexed(options: Options, index: int, references: int = 1, bindings: int = 1) -> Options:
    """*options* of the action with this index, so often referred to and bound."""
    return tuple(
        (name, value._replace(index=index, capab=0, refcnt=references, bindcnt=bindings))
        if name in PARMS
        else (name, value)
        for name, value in options
    )


def parse(actions: Attrs, indices: Indices, skips: int | None = None) -> tuple[tuple[Step, ...], tuple[Listed, ...]]:
    """What a filter's actions do, and how they are given back; *skips* are the filter's own FLAG_SKIP_*, as those of an
    action must be that was made by itself.

    Raises, with every index given back: EINVAL for what the kernel refuses, ENOENT for an unknown kind, EOPNOTSUPP for
    what is not supported.
    """
    made: list[tuple[Parsed, int, Instance | None]] = []
    try:
        for action in in_order(actions):
            kind, parms = action["kind"], parms_of(action.get("options"))
            wanted = parms.index if parms is not None else 0
            instance = indices.bound(kind, wanted)
            if instance is None:
                parsed = parse_one(action)
                index = indices.take(kind, wanted)
            elif skips is not None and instance.clashes(skips):
                raise NetlinkError(errno.EINVAL, "Mismatch between action and filter offload flags")
            else:
                parsed, index = instance.parsed, instance.index
            made.append((parsed, index, instance))
        flow = _Flow([(parsed, index) for parsed, index, _ in made])
        steps = flow.walk(0, sent=False)
    except Exception:
        for parsed, index, instance in made:
            if instance is None:
                indices.give(parsed.kind, index)
        raise
    listed = [parsed.listed(index, at in flow.met, instance) for at, (parsed, index, instance) in enumerate(made)]
    for at, (parsed, _, _) in enumerate(made):
        if at not in flow.met:
            steps += _behind(parsed, steps)
    counted = {one.hw_stats for one in listed}
    if len(counted) > 1 or not all(one & HW_STATS_DELAYED for one in counted):
        steps.insert(0, Beyond("mlx5_core: Flow action HW stats type is not supported"))
    return tuple(steps), tuple(listed)


class _Flow:
    """The way of packets through a list of actions, each with its index (tcf_action_exec)."""

    def __init__(self, actions: list[tuple[Parsed, int]]) -> None:
        self._actions = actions
        self._length = 0
        self.met: set[int] = set()
        """The actions that packets meet."""

    def walk(self, at: int, *, sent: bool) -> list[Step]:
        """What becomes of a packet from action *at* on, of which a copy was *sent* before, or not."""
        steps: list[Step] = []
        for place in range(at, len(self._actions)):
            parsed, index = self._actions[place]
            self.met.add(place)
            steps += parsed.steps
            sent = sent or any(isinstance(step, Mirred) for step in parsed.steps)
            self._length += 1
            if self._length > _LONGEST:
                raise NetlinkError(errno.EOPNOTSUPP, "TC actions with so many ways through them are not supported")
            last = steps[-1] if steps else None
            if isinstance(last, Police):
                exceeded = tuple(self._follow(last.exceed, place, sent=sent, again=[Drop()]))
                steps[-1] = replace(last, index=index, exceeded=exceeded)
                return steps + self._follow(last.conform, place, sent=sent)
            if isinstance(last, AtRandom):
                steps[-1] = replace(last, instead=tuple(self._follow(last.verdict, place, sent=sent)))
            if parsed.verdict != ta.TC_ACT_PIPE:
                return steps + self._follow(parsed.verdict, place, sent=sent)
        return [*steps, GoOn()]

    def _follow(self, verdict: int, at: int, *, sent: bool, again: list[Step] | None = None) -> list[Step]:
        """What follows action *at* by its *verdict*; *again*: what comes of classifying the packet once more, which
        most often ends with too many times (tcf_classify)."""
        if verdict == ta.TC_ACT_PIPE:
            return self.walk(at + 1, sent=sent)
        if verdict == ta.TC_ACT_UNSPEC:
            return [Continue()]
        if verdict == ta.TC_ACT_RECLASSIFY:
            return [Continue(anew=True)] if again is None else again
        if not ta.has_opcode(verdict, ta.TC_ACT_JUMP):
            return _verdict(verdict, sent)
        to = verdict & ta.TC_ACT_EXT_VAL_MASK
        if not to or to > len(self._actions):
            return [Pass()]
        if to <= at:
            return [Beyond(None, "a TC verdict that jumps back is not supported")]
        return self.walk(to, sent=sent)


def in_order(actions: Attrs) -> list[Attrs]:
    """A request's actions by their number, each of a kind that there is (tcf_action_init); EINVAL, ENOENT."""
    given = [action for _, action in sorted((key, value) for key, value in actions.items() if isinstance(key, int))]
    for action in given:
        kind = action.get("kind")
        if not kind:
            raise NetlinkError(errno.EINVAL, "TC action kind must be specified")
        if kind not in PARSERS:
            raise NetlinkError(errno.ENOENT, "Failed to load TC action module")
    return given


def parse_one(action: Attrs) -> Parsed:
    """One action of a request (tcf_action_init_1); errors as :func:`parse`."""
    kind, options = action["kind"], action.get("options")
    cookie, flags, hw_stats = action.get("cookie"), action.get("flags"), action.get("hw_stats")
    if cookie is not None and len(cookie) > _MOST_COOKIE:
        raise NetlinkError(errno.EINVAL, "TC cookie size above the maximum")
    both = FLAG_SKIP_HW | FLAG_SKIP_SW
    if flags is not None and flags.value & both == both:
        raise NetlinkError(errno.EINVAL)
    if not isinstance(options, Attrs):
        raise NetlinkError(errno.EINVAL, NO_OPTIONS.get(kind))
    if kind in FLAGGED and not (action.bits or {}).get("options", 0) & NLA_F_NESTED:
        raise NetlinkError(errno.EINVAL, "NLA_F_NESTED is missing")
    if parms_of(options) is None:
        raise NetlinkError(errno.EINVAL, NO_PARMS.get(kind))
    steps, verdict, kept = PARSERS[kind](options)
    given = flags.value if flags is not None else 0
    counted = HW_STATS_ANY if hw_stats is None else hw_stats.value
    return Parsed(kind, tuple(steps), verdict, kept, cookie, given, counted)


def _behind(parsed: Parsed, before: list[Step]) -> list[Step]:
    """What an action that packets do not meet means for a NIC, whose driver takes the list as a whole."""
    whole = [*before, *parsed.steps, *(_verdict(parsed.verdict, True) if parsed.kind == "gact" else ())]
    if any(isinstance(s, Drop) for s in whole) and any(isinstance(s, Mirred | Goto | Pass | Trap) for s in whole):
        return [Beyond("mlx5_core: Rule cannot support forward+drop action")]
    return []


def _verdict(verdict: int, sent: bool) -> list[Step]:
    """What *verdict* does with the packet, of which a copy was *sent* already, or not."""
    if verdict in _FINAL:
        return [_FINAL[verdict]]
    if verdict in _TAKEN:
        return [] if sent else [Drop()]
    if ta.has_opcode(verdict, ta.TC_ACT_GOTO_CHAIN):
        return [Goto(verdict & ta.TC_ACT_EXT_VAL_MASK)]
    if verdict == ta.TC_ACT_TRAP:
        return [Trap()]
    return [Beyond(None, f"TC verdict {verdict:#x} is not supported")]


def to_rule(
    steps: tuple[Step, ...],
    output: Callable[[Mirred], int],
    trap: Callable[[], Action],
    *,
    meter: Callable[[Police], int] = lambda step: step.index,
    prio: int | None = None,
) -> tuple[Action, ...]:
    """Rule actions; *output* gives a destination's port (NetlinkError when it cannot), *trap* what Trap becomes,
    *meter* the number of an action's meter. *prio* is that of a filter in software.

    Without *prio*, nothing goes on behind a last output, as in a NIC: there the packet is the copy.
    """
    return _to_rule(steps, output, trap, meter, prio) or (Pass(),)


def _to_rule(
    steps: tuple[Step, ...],
    output: Callable[[Mirred], int],
    trap: Callable[[], Action],
    meter: Callable[[Police], int],
    prio: int | None,
) -> tuple[Action, ...]:
    actions: list[Action] = []
    for step in steps:
        if isinstance(step, Mirred):
            actions.append(Output(output(step)))
        elif isinstance(step, Beyond):
            if step.software:
                raise NetlinkError(errno.EOPNOTSUPP, step.software)
        elif isinstance(step, PacketType | Csum):
            continue
        elif isinstance(step, Police):
            actions.append(Meter(meter(step), _to_rule(step.exceeded, output, trap, meter, prio)))
        elif isinstance(step, AtRandom):
            if prio is None:
                continue
            if step.probability is None:
                raise NetlinkError(errno.EOPNOTSUPP, "TC action gact random determ is not supported")
            instead = _to_rule(step.instead, output, trap, meter, prio)
            actions.append(Chance(step.probability, instead))
        elif isinstance(step, Continue):
            if prio is not None:
                actions.append(Goto(0) if step.anew else LookOn(prio + 1 << 16) if prio < LAST_PRIO else Pass())
        elif isinstance(step, PushLabel):
            raise TypeError("it is not known whether a label is the last of its stack")
        elif isinstance(step, Trap):
            actions.append(trap())
        elif isinstance(step, GoOn):
            if prio is not None:
                actions.append(Pass())
        else:
            actions.append(step)
    return tuple(actions)


def dump(
    listed: tuple[Listed, ...],
    state: ActionState,
    *,
    terse: bool,
    shared: Callable[[Instance], ActionState] | None = None,
    metered: Callable[[int], tuple[Metered, Metered]] = lambda _index: (Metered(), Metered()),
) -> list[dict[str, Any]]:
    """A filter's actions as the kernel gives them back, with counters and times: *state*'s, or for those that others
    may share, what *shared* says; of an action police, what *metered* says (in software, and in hardware)."""
    none = ActionState(NOTHING, state.made_ns, state.first_ns, state.in_hw, state.skip_hw)
    out = []
    for action in listed:
        instance = action.instance
        counts, its = (1, 1), state if action.reached else none
        if instance is not None and shared is not None:
            counts, its = (instance.references, instance.bindings), shared(instance)
        if action.kind == "police":
            measured = metered(action.index)
            its = its.policed(action, *measured)
            state = state.behind(*measured)
        out.append(dump_one(action, its, *counts, terse=terse))
    return out


def dump_one(
    action: Listed, state: ActionState, references: int = 1, bindings: int = 1, *, terse: bool = False
) -> dict[str, Any]:
    """One action as the kernel gives it back (tcf_action_dump_1)."""
    counted = ta.Basic(state.counters.bytes, state.counters.packets & 0xFFFFFFFF)
    drops = counted.packets if action.drops else state.drops
    queue = ta.Queue(drops=drops & 0xFFFFFFFF, overlimits=state.overlimits & 0xFFFFFFFF)
    hardware = ta.Basic(state.counters.hardware.bytes, state.counters.hardware.packets & 0xFFFFFFFF)
    entry: dict[str, Any] = {
        "kind": action.kind,
        "stats": {"basic": counted, "basic_hw": hardware, "queue": queue},
    }
    if action.cookie is not None:
        entry["cookie"] = action.cookie
    if terse:
        return entry
    if action.hw_stats != HW_STATS_ANY:
        entry["hw_stats"] = ta.Bitfield32(action.hw_stats, HW_STATS_ANY)
    if state.in_hw:
        entry["used_hw_stats"] = USED_HW_STATS_DELAYED
    flags = action.flags | (FLAG_SKIP_HW if state.skip_hw else 0)
    if flags:
        entry["flags"] = ta.Bitfield32(flags, flags)
    entry["in_hw_count"] = state.drivers
    options = action.options
    if (references, bindings) != (1, 1):
        options = _indexed(options, action.index, references, bindings)
    entry["options"] = {**dict(options), "tm": state.times()}
    return entry


@dataclass(frozen=True, slots=True)
class ActionState:
    """What the actions of a filter share: counters, when it was made and first used (ns, CLOCK_MONOTONIC)."""

    counters: Counted
    made_ns: int
    first_ns: int
    in_hw: bool
    skip_hw: bool
    drops: int = 0
    overlimits: int = 0
    drivers: int = 0
    """How many drivers have the action by itself."""

    def policed(self, action: Listed, software: Metered, hardware: Metered) -> ActionState:
        """The same of an action police that has measured that."""
        both = software.plus(hardware)
        there = Counters(hardware.packets, hardware.bytes, hardware.used_ns)
        dropped = 0
        options = dict(action.options)
        if options["tbf"].action == ta.TC_ACT_SHOT:
            dropped = software.over + hardware.over_packets
        if options.get("result") == ta.TC_ACT_SHOT:
            dropped += both.packets - both.over_packets
        counted = Counted(both.packets, both.bytes, both.used_ns, there)
        return replace(self, counters=counted, drops=dropped, overlimits=software.over)

    def behind(self, software: Metered, hardware: Metered) -> ActionState:
        """The same of the actions that packets within the rate meet."""
        both = software.plus(hardware)
        if both.packets != self.counters.packets:
            return self  # others share the meter
        there = self.counters.hardware
        there = replace(there, packets=there.packets - hardware.over_packets, bytes=there.bytes - hardware.over_bytes)
        left = self.counters.packets - both.over_packets, self.counters.bytes - both.over_bytes
        return replace(self, counters=Counted(*left, self.counters.used_ns, there))

    def times(self) -> ta.Tcf:
        """struct tcf_t: clock ticks since installation, last and first use (never used: since installation)."""
        now = time.monotonic_ns()

        def ticks(since: int) -> int:
            return max(0, now - since) * USER_HZ // 1_000_000_000

        used = self.counters.used_ns or self.made_ns
        return ta.Tcf(ticks(self.made_ns), ticks(used), 0, ticks(self.first_ns) if self.first_ns else 0)
