# SPDX-License-Identifier: Apache-2.0
"""Requests for filters that differ in addresses, ports and cookies only: translated once, then by copying octets.

Open vSwitch and ``tc -batch`` add thousands of filters that differ in little. A *template* stands for the requests that
are equal outside its *holes*: the values of keys whose masks are equal, and the actions' cookies. What the full
translation (:mod:`asap2.nic.faces.tc.flower`, :mod:`asap2.nic.faces.tc.actions`) made of the first such request holds
for all of them, except what is in the holes; likewise for the messages about such filters, except counters and times.
Nothing here decides anything: a request that fits no template, or looks odd, is translated in full.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.tables.tc import TC, TCA, Tcmsg
from asap2.netlink.wire import NLA_TYPE_MASK
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc.actions import ActionState, Listed, Step
from asap2.nic.faces.tc.flower import FIELD_OF, FlowerKey, Identity, parse
from asap2.nic.rules import Masked, Match
from asap2.nic.silicon import maps

_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_BASIC = struct.Struct("=QI")
_TIMES = struct.Struct("=4Q")
_TCMSG_SIZE: Final = 20
_HANDLE_AT: Final = 8
_DROPS_AT: Final = 8
"""Of tcm_handle in struct tcmsg, of drops in struct gnet_stats_queue."""
_OPTIONS, _ACT, _COOKIE, _ACT_OPTIONS, _ACT_STATS = (
    TCA.numbers["options"],
    FLOWER.numbers["act"],
    ta.ACTION.numbers["cookie"],
    ta.ACTION.numbers["options"],
    ta.ACTION.numbers["stats"],
)
_NOT_HOLES: Final = frozenset({"key_flags", "key_tcp_flags", "key_ct_zone", "key_ct_mark"})
"""Keys with a mask whose value decides more than what is compared, or is not in network order."""
MOST_TEMPLATES: Final = 1024
_MOST_ONCE: Final = 4096
"""Requests that have come once, whose template is not kept yet."""

Span = tuple[int, int]


class Hole(NamedTuple):
    """Where a key's value lies in the request, what it is compared with, and where it lies in the masked key."""

    start: int
    end: int
    field: str
    mask: int
    number: int
    at: int


class Values(NamedTuple):
    """Octets that are the same for all filters of a template, and where those of a request go that differ."""

    pattern: bytes
    copies: tuple[tuple[int, int, int, int], ...]
    """Start and end here, start and end in the request."""
    masks: int | None
    """What counts of the request, a number as long as it; None: all of what is copied does."""

    def fill(self, request: bytes) -> bytes:
        """Those of one request."""
        out = bytearray(self.pattern)
        if self.masks is not None:
            request = (int.from_bytes(request, "big") & self.masks).to_bytes(len(request), "big")
        for at, stop, start, end in self.copies:
            out[at:stop] = request[start:end]
        return bytes(out)


class _Stats(NamedTuple):
    """Where one action's statistics lie in a message: struct gnet_stats_basic, that of the hardware (0: stays zero),
    the count of drops (0: stays zero)."""

    basic: int
    hardware: int
    drops: int


@dataclass(slots=True)
class Frame:
    """A message that tells of a filter of a template, and where the octets lie that differ."""

    pattern: bytearray
    """It has no counters and times."""
    copies: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Where a hole goes, start and end, and its start and end in the request."""
    indices: list[int] = field(default_factory=list)
    stats: list[_Stats] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def fill(self, handle: int, request: bytes, indices: tuple[int, ...], state: ActionState | None) -> bytes:
        """The message of one filter; without *state*, of one that was made just now."""
        out = bytearray(self.pattern)
        _U32.pack_into(out, _HANDLE_AT, handle)
        for at, stop, start, end in self.copies:
            out[at:stop] = request[start:end]
        for at, index in zip(self.indices, indices, strict=False):
            _U32.pack_into(out, at, index)
        if state is None:
            return bytes(out)
        counters = state.counters
        if counters.packets:
            packets = counters.packets & 0xFFFFFFFF
            by_hardware = counters.hardware.bytes, counters.hardware.packets & 0xFFFFFFFF
            for basic, hardware, drops in self.stats:
                _BASIC.pack_into(out, basic, counters.bytes, packets)
                if hardware:
                    _BASIC.pack_into(out, hardware, *by_hardware)
                if drops:
                    _U32.pack_into(out, drops, packets)
        if self.times:
            times = state.times()
            for at in self.times:
                _TIMES.pack_into(out, at, *times)
        return bytes(out)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Template:
    """What is the same for all requests that are equal outside the holes."""

    header: Tcmsg
    chain: int
    classid: int | None
    flags: int
    steps: tuple[Step, ...]
    kinds: tuple[str, ...]
    """The actions' kinds: each gets an index of its own kind."""
    masks: tuple[tuple[str, int], ...]
    fixed: dict[str, Masked]
    """The fields that are compared with the same in all."""
    head: tuple[Any, ...]
    canon: Values
    """The masked key; *head* is what it does not show."""
    holes: tuple[Hole, ...]
    cookies: tuple[tuple[int, int, int], ...]
    """Number of the action, start and end of its cookie in the request."""
    frames: dict[tuple[bool, bool], Frame] = field(default_factory=dict)

    def key(self, request: bytes) -> FlowerKey:
        """The key in a request that fits this template."""
        fields = self.fixed.copy()
        for hole in self.holes:
            value = int.from_bytes(request[hole.start : hole.end], "big") & hole.mask
            fields[hole.field] = Masked(value, hole.mask)
        return FlowerKey(Match.of(fields), self.identity(request), self.masks)

    def identity(self, request: bytes) -> Identity:
        """What the key in a request that fits this template is, masked (:attr:`FlowerKey.identity`)."""
        return (*self.head, self.canon.fill(request))

    def values(self, key: bytes) -> Values:
        """What the rules of filters of this template match, as ``struct fields``, if *key* is that of one of them."""
        pattern, copies = bytearray(key), []
        for hole in self.holes:
            at, size = maps.place(hole.field)
            stop = at + size
            at = stop - (hole.end - hole.start)
            pattern[at:stop] = bytes(stop - at)
            copies.append((at, stop, hole.start, hole.end))
        return Values(bytes(pattern), tuple(copies), self.canon.masks)

    def read(self, request: bytes, indices: tuple[int, ...]) -> tuple[FlowerKey, tuple[Listed, ...]]:
        """Key and actions of a request in full, to be given back."""
        header, attrs = TC.decode(request)
        options = attrs["options"]
        actions = options.get("act")
        listed = tc_actions.parse(actions, tc_actions.Given(indices))[1] if actions is not None else ()
        return parse(options, header.protocol), listed

    def learn(self, message: bytes, in_hw: bool, terse: bool, listed: tuple[Listed, ...]) -> None:
        """Take *message*, of a filter of this template, as the pattern for others."""
        frame = Frame(bytearray(message))
        options = _spans(message, *_spans(message, _TCMSG_SIZE, len(message))[_OPTIONS])
        for hole in self.holes:
            if hole.number in options:
                frame.copies.append((*options[hole.number], hole.start, hole.end))
        actions = _spans(message, *options[_ACT]) if _ACT in options else {}
        cookies = {number: (start, end) for number, start, end in self.cookies}
        for number, action in enumerate(listed, 1):
            spans = _spans(message, *actions[number])
            if _COOKIE in spans:
                frame.copies.append((*spans[_COOKIE], *cookies[number]))
            stats = _spans(message, *spans[_ACT_STATS])
            basic, hardware, queue = (stats[ta.STATS.numbers[name]][0] for name in ("basic", "basic_hw", "queue"))
            if action.reached:
                found = _Stats(basic, hardware if in_hw else 0, queue + _DROPS_AT if action.drops else 0)
                frame.stats.append(found)
                for at in (found.basic, found.hardware):
                    _BASIC.pack_into(frame.pattern, at or found.basic, 0, 0)
                if found.drops:
                    _U32.pack_into(frame.pattern, found.drops, 0)
            if _ACT_OPTIONS in spans:
                numbers = ta.OPTIONS[action.kind].numbers
                given = _spans(message, *spans[_ACT_OPTIONS])
                parms = numbers.get("parms_ex")  # pedit's, where keys say what header they are about
                frame.indices.append(given[parms if parms in given else numbers["parms"]][0])
                frame.times.append(given[numbers["tm"]][0])
                _TIMES.pack_into(frame.pattern, frame.times[-1], 0, 0, 0, 0)
        self.frames[in_hw, terse] = frame


class Templates:
    """Every template, kept from its second request on: most of random requests are never used again."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], dict[int, dict[int, Template]]] = {}
        self._count = 0
        self._once: set[int] = set()

    def find(self, flags: int, request: bytes) -> Template | None:
        """The template that fits a request, from struct tcmsg on, with these message flags (NLM_F_*)."""
        by_care = self._seen.get((len(request), flags))
        if by_care is not None:
            number = int.from_bytes(request, "big")
            for care, known in by_care.items():
                template = known.get(number & care)
                if template is not None:
                    return template
        return None

    def add(
        self,
        flags: int,
        request: bytes,
        header: Tcmsg,
        attrs: Attrs,
        key: FlowerKey,
        steps: tuple[Step, ...],
        listed: tuple[Listed, ...],
    ) -> Template | None:
        """The template of a request that was translated, remembered when it came before; None if it is too odd for
        that."""
        if header.handle or not header.prio or attrs.get("kind") != "flower":
            return None
        found = _holes(request, key)
        if found is None:
            return None
        holes, cookies = found
        options = attrs["options"]
        if any(map(_wants_index, options.get("act", {}).values())) or any(one.kind == "police" for one in listed):
            return None
        care = bytearray(b"\xff" * len(request))
        canon = bytearray(key.canon)
        for hole in holes:
            size = hole.end - hole.start
            care[hole.start : hole.end] = bytes(size)
            canon[hole.at : hole.at + size] = bytes(size)
        for _, start, end in cookies:
            care[start:end] = bytes(end - start)
        counted = None if all(map(_is_whole, holes)) else _counted(holes, len(request))
        names = {hole.field for hole in holes}
        template = Template(
            header,
            attrs.get("chain", 0),
            options.get("classid"),
            options.get("flags", 0),
            steps,
            tuple(action.kind for action in listed),
            key.masks,
            {name: masked for name, masked in key.match.used().items() if name not in names},
            key.identity[:-1],
            Values(bytes(canon), tuple((h.at, h.at + h.end - h.start, h.start, h.end) for h in holes), counted),
            holes,
            cookies,
        )
        mask = int.from_bytes(care, "big")
        self._remember(len(request), flags, mask, int.from_bytes(request, "big") & mask, template)
        return template

    def _remember(self, size: int, flags: int, mask: int, cared_for: int, template: Template) -> None:
        seen = hash((size, flags, mask, cared_for))
        if seen not in self._once:
            if len(self._once) >= _MOST_ONCE:
                self._once.clear()
            self._once.add(seen)
            return
        self._once.discard(seen)
        if self._count >= MOST_TEMPLATES:
            self._seen.clear()
            self._count = 0
        self._count += 1
        self._seen.setdefault((size, flags), {}).setdefault(mask, {})[cared_for] = template


def _is_whole(hole: Hole) -> bool:
    return hole.mask == (1 << 8 * (hole.end - hole.start)) - 1


def _counted(holes: tuple[Hole, ...], size: int) -> int:
    """The masks of *holes*, where they lie in a request of *size* octets, as a number."""
    return sum(hole.mask << 8 * (size - hole.end) for hole in holes)


def _wants_index(action: Attrs) -> bool:
    """Whether the request names the action's index: then no two filters have the same."""
    options = action.get("options")
    parms = options.get("parms", options.get("parms_ex")) if isinstance(options, Attrs) else None
    return parms is None or bool(parms.index)


def _spans(data: bytes, start: int, end: int) -> dict[int, Span]:
    """Start and end of the payload of each attribute in ``data[start:end]``, by type; of those that come twice, the
    last."""
    spans = {}
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            break
        spans[kind & NLA_TYPE_MASK] = (start + 4, start + length)
        start += (length + 3) & ~3
    return spans


def _usual(data: bytes, start: int, end: int) -> dict[int, Span] | None:
    """As :func:`_spans`; None when there is more than whole attributes, each once, padded."""
    spans = _spans(data, start, end)
    taken = sum(4 + ((stop - begin + 3) & ~3) for begin, stop in spans.values())
    return spans if taken == end - start else None


def _holes(request: bytes, key: FlowerKey) -> tuple[tuple[Hole, ...], tuple[tuple[int, int, int], ...]] | None:
    """The holes of a request, and those of its cookies; None where it is not as Open vSwitch and tc build it."""
    top = _usual(request, _TCMSG_SIZE, len(request))
    options = _usual(request, *top[_OPTIONS]) if top is not None and _OPTIONS in top else None
    if options is None:
        return None
    canon = _spans(key.canon, 0, len(key.canon))
    masks = dict(key.masks)
    holes = []
    for number, (start, end) in options.items():
        name = FLOWER.fields[number][0] if number in FLOWER.fields else ""
        if name not in FIELD_OF or name in _NOT_HOLES or number not in canon:
            continue
        at, stop = canon[number]
        if stop - at != end - start:
            return None
        holes.append(Hole(start, end, FIELD_OF[name], masks[name], number, at))
    if len({hole.field for hole in holes}) != len(holes):
        return None
    cookies = []
    if _ACT in options:
        actions = _usual(request, *options[_ACT])
        if actions is None or sorted(actions) != list(range(1, len(actions) + 1)):
            return None
        for number, span in actions.items():
            action = _usual(request, *span)
            if action is None:
                return None
            if _COOKIE in action:
                cookies.append((number, *action[_COOKIE]))
    return tuple(holes), tuple(cookies)
