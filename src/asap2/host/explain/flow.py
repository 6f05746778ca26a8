# SPDX-License-Identifier: Apache-2.0
"""Flows of a datapath as ``ovs-appctl dpctl/dump-flows -m`` prints them.

After lib/odp-util.c and lib/dpctl.c of Open vSwitch. Its own Python parser (``ovs.flow.odp``, which the demo uses for
flows that it made itself) raises an error for much of what must be explained here: NSH, ``pop_mpls``, ``dec_ttl``, and
keys that are damaged or newer than the switch.

A flow is attributes, some of them with parts (``ipv4(src=10.0.0.1,dst=10.0.0.2/255.255.255.0)``), figures
(``packets:9``) and actions. A value may have a mask after a slash; without one it is matched exactly.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from asap2.errors import UsageError

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)
_OCTETS = re.compile(r"[\da-f]{2}(?: [\da-f]{2})+")
_CALL = re.compile(r"([\w.:@\-]+)\((.*)\)", re.DOTALL)
_FIGURE = re.compile(r"(ufid|packets|bytes|used|flags|offloaded|dp|dp-extra-info):(.*)")
_SOMEWHERE = re.compile(r"(?:^|, ?)(ufid|packets|bytes|offloaded|dp):([^,\s]+)")
"""Figures, whatever brackets precede them: Open vSwitch prints damaged keys without closing brackets."""
CT_STATES = {"new": 1, "est": 2, "rel": 4, "rpl": 8, "inv": 16, "trk": 32, "snat": 64, "dnat": 128}
"""OVS_CS_F_* (include/uapi/linux/openvswitch.h) by the words that dumps without -m use."""


def split(text: str) -> Iterator[str]:
    """The parts of *text* between commas that are in no brackets, without spaces around them."""
    depth, start = 0, 0
    for at, letter in enumerate(text):
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
        elif letter == "," and not depth:
            if text[start:at].strip():
                yield text[start:at].strip()
            start = at + 1
    if text[start:].strip():
        yield text[start:].strip()


def number(text: str) -> int:
    """A number, MAC or IP address as an integer; ValueError when it is none of these.

    The octets of an attribute that is newer than Open vSwitch are a number too, as in ``key32(00 00/00 00)``: the IPv6
    extension headers that Linux tells of since 5.18.
    """
    if _OCTETS.fullmatch(text):
        return int(text.replace(" ", ""), 16)
    if _MAC.fullmatch(text):
        return int(text.replace(":", ""), 16)
    if ":" in text or text.count(".") == 3:
        return int(ipaddress.ip_address(text))
    return int(text, 0)


@dataclass(frozen=True, slots=True)
class Call:
    """An attribute or action: ``name(text)``, or ``name`` alone with ``text`` None."""

    name: str
    text: str | None = None

    @property
    def is_port(self) -> bool:
        """Of an action: whether it is the name of a port, to which packets are sent."""
        return self.text is None and self.name not in PLAIN

    @property
    def parts(self) -> dict[str, str]:
        """What is in the brackets: ``key=value`` by key, ``key(value)`` by key, words with an empty value."""
        found = {}
        for part in split(self.text or ""):
            call = _CALL.fullmatch(part)
            if call and "=" not in part.partition("(")[0]:
                found[call[1]] = call[2]
            else:
                key, _, value = part.partition("=")
                found[key] = value
        return found

    @property
    def inner(self) -> tuple[Call, ...]:
        """The actions in the brackets."""
        return calls(self.text or "")

    def __str__(self) -> str:
        return self.name if self.text is None else f"{self.name}({self.text})"


def calls(text: str) -> tuple[Call, ...]:
    """Attributes or actions, in order."""
    found = []
    for part in split(text):
        call = _CALL.fullmatch(part)
        found.append(Call(call[1], call[2]) if call else Call(part))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow. ``levels`` are its attributes, first the outer ones, then those in each ``encap()`` (behind a VLAN tag).

    ``offloaded`` is what the switch says ("yes", "no", "partial"), ``dp`` where the flow is: "tc", "ovs" (the kernel's
    datapath) or another word; both None when it does not say. ``datapath`` names the datapath that it is of.
    """

    text: str
    levels: tuple[dict[str, str], ...]
    actions: tuple[Call, ...]
    ufid: str | None = None
    packets: int = 0
    bytes: int = 0
    offloaded: str | None = None
    dp: str | None = None
    datapath: str = field(default="system@ovs-system", compare=False)

    @property
    def in_port(self) -> str:
        """The port that its packets enter through, a name or a number; "" if it has none."""
        return self.levels[0].get("in_port", "")

    @property
    def inside(self) -> dict[str, str]:
        """The attributes behind all VLAN tags."""
        return self.levels[-1]

    @property
    def recirc_id(self) -> int:
        """Its recirculation id, which is its TC chain."""
        return self.value("recirc_id")[0]

    @property
    def eth_type(self) -> int | None:
        """The Ethernet type behind all tags; None when the key has none."""
        text = self.inside.get("eth_type")
        return number(text.partition("/")[0]) if text else None

    def value(self, name: str, width: int = 32) -> tuple[int, int]:
        """Value and mask of an attribute that is a number; (0, 0) when it is not there, or not matched."""
        return masked(self.levels[0].get(name), width)

    def part(self, name: str, part: str, width: int) -> tuple[int, int]:
        """Value and mask of a part of an attribute, innermost first: ``part("ipv4", "src", 32)``."""
        for level in reversed(self.levels):
            if name in level:
                return masked(Call(name, level[name]).parts.get(part), width)
        return 0, 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The ports that it sends to, in order, in nested actions too."""
        return tuple(outputs(self.actions))


def masked(text: str | None, width: int) -> tuple[int, int]:
    """``value`` or ``value/mask`` as numbers of *width* bits; (0, 0) for nothing."""
    if not text:
        return 0, 0
    value, slash, mask = text.partition("/")
    if (
        any(letter.isalpha() for letter in value)
        and not _OCTETS.fullmatch(value)
        and not value.startswith("0x")
        and ":" not in value
    ):
        return _ct_words(value)
    return number(value), number(mask) if slash else (1 << width) - 1


def matched(name: str, text: str) -> bool:
    """Whether the attribute *name* with *text* in its brackets matches anything: it or one of its parts has a mask."""
    call = Call(name, text)
    if "=" not in text and "(" not in text:
        return bool(masked(text, 128)[1])
    return any(masked(part, 128)[1] if "(" not in part else True for part in call.parts.values())


def match_text(flow: Flow) -> str:
    """What *flow* matches on, as a dump has it, without what has no mask."""
    levels = []
    for level in flow.levels:
        attributes = []
        for name, text in level.items():
            if name == "packet_type" or (name != "in_port" and not matched(name, text)):
                continue
            if "=" in text:
                text = ",".join(
                    f"{key}={value}" for key, value in Call(name, text).parts.items() if matched(key, value)
                )
            attributes.append(f"{name}({text})")
        levels.append(",".join(attributes))
    return " encap: ".join(levels)


def _ct_words(text: str) -> tuple[int, int]:
    """Flags as dumps without -m print them: ``+est-new`` or ``est|trk``."""
    value = mask = 0
    for sign, word in re.findall(r"([+\-|]?)([a-z]+)", text):
        bit = CT_STATES.get(word, 0)
        mask |= bit
        value |= bit if sign != "-" else 0
    return value, mask


PLAIN = frozenset({"pop_vlan", "ct", "ct_clear", "drop", "pop_eth", "pop_nsh", "dec_ttl"})
"""Actions without brackets; every other word is a port."""


NESTS = frozenset({"clone", "sample", "check_pkt_len", "actions", "gt", "le"})
"""Actions, and their branches, that have actions in their brackets."""


def outputs(actions: tuple[Call, ...]) -> Iterator[str]:
    """The ports that *actions* send to."""
    for action in actions:
        if action.is_port:
            yield action.name
        elif action.name == "clone":
            yield from outputs(action.inner)
        elif action.name in ("sample", "check_pkt_len"):
            for branch in action.inner:
                yield from outputs(branch.inner) if branch.name in ("actions", "gt", "le") else ()


def parse(text: str, datapath: str = "system@ovs-system") -> Flow:
    """Parse a line as a flow; UsageError if it is not one."""
    before, found, after = text.partition("actions:")
    if not found or "(" not in before:
        raise UsageError(f"{text[:60]!r} is not a flow as `ovs-appctl dpctl/dump-flows -m` prints it")
    figures = dict(_SOMEWHERE.findall(before))
    attributes = []
    for part in split(before):
        figure = _FIGURE.fullmatch(part)
        if figure:
            figures[figure[1]] = figure[2]
        else:
            attributes.append(part)
    levels = []
    inner: str | None = ",".join(attributes)
    while inner is not None:
        level = {call.name: call.text or "" for call in calls(inner)}
        inner = level.pop("encap", None)
        levels.append(level)
    try:
        return Flow(
            text.strip(),
            tuple(levels),
            calls(after),
            figures.get("ufid"),
            int(figures.get("packets", 0)),
            int(figures.get("bytes", 0)),
            figures.get("offloaded"),
            figures.get("dp"),
            datapath,
        )
    except ValueError:
        raise UsageError(f"{text[:60]!r} has a figure that is not a number") from None


def named(flow: Flow, names: Mapping[str, str]) -> Flow:
    """*flow* with names in place of the numbers of ports that *names* has."""
    outer = dict(flow.levels[0])
    if "in_port" in outer:
        outer["in_port"] = names.get(outer["in_port"], outer["in_port"])
    return replace(flow, levels=(outer, *flow.levels[1:]), actions=tuple(_named(one, names) for one in flow.actions))


def _named(action: Call, names: Mapping[str, str]) -> Call:
    """*action*, and those in it, with names for the numbers of ports."""
    if action.text is None:
        return Call(names.get(action.name, action.name))
    if action.name not in NESTS:
        return action
    return Call(action.name, ",".join(str(_named(one, names)) for one in action.inner))
