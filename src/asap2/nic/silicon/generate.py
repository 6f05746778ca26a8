# SPDX-License-Identifier: Apache-2.0
"""Writes ``generated.h``: what the eBPF program has of :mod:`asap2.nic.fields`, :mod:`asap2.nic.tunnels` and
:mod:`asap2.nic.silicon.abi`.

Run ``python -m asap2.nic.silicon.generate`` after a change; a test says whether the file is current.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from asap2.nic import rules
from asap2.nic.conntrack import states
from asap2.nic.fields import FIELDS, KEY_SIZE, NARROW, NO_ETHERNET_AT, TRACKED_AT, Field, Header, Width
from asap2.nic.silicon import abi
from asap2.nic.silicon.events import DropReason
from asap2.nic.silicon.metering import Counting
from asap2.nic.silicon.ports import Miss
from asap2.nic.tunnels import geneve, gre, options, vxlan

HEADER: Final = Path(__file__).with_name("generated.h")

_TOP: Final = """\
// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Written by asap2.nic.silicon.generate from fields.py, tunnels/ and abi.py, which say what these mean. Do not edit. */
/* clang-format off */
#pragma once
"""
_LIMITS: Final = (
    *("TABLES", "STAGES", "METERS", "LOOKUPS", "COPY_LOOKUPS", "TRACED_LOOKUPS", "MASKS", "ACTIONS"),
    *("L3_WINDOW", "EXTENSIONS", "MPLS_LABELS", "COPIES", "NEAR", "OUTER_MAX", "TUNNEL_PORTS", "RESUMES", "ONWARD"),
    *("OPTION_KINDS", "OPTIONS_MAX", "SET_OPTIONS_MAX"),
    *("LAST_STAGE", "DROP_REASONS", "TRACE_BYTES", "TEST_SLOT", "UPCALL_SLOTS", "UPCALL_UNIT"),
    *("POLICIES", "POLICY_TIMEOUTS", "POLICY_NAME", "LOCKS", "KEEP_MOST", "HARDWARE_IDLE"),
    *("SAMPLE_COOKIE", "SAMPLE_BYTES", "WATCH_SHORT", "WATCH_USUAL", "WATCH_BYTES"),
)
_MARKS: Final = (
    "UPCALL_MAGIC",
    "SELF_MARK",
    "CONTINUE_MARK",
    "CARRIED_MAGIC",
    "TUNNEL_LIST",
    "LIMITS",
    "DELIVER",
    "IN_PORT",
)
_WORD: Final = 8
_TYPES: Final = {1: "u8", 2: "u16", 4: "u32"}


def _defines(numbers: Iterable[tuple[str, int]]) -> str:
    return "".join(f"#define {name} {value if value < 1 << 16 else hex(value)}\n" for name, value in numbers)


def _enum(name: str, prefix: str, members: Iterable[tuple[str, int]]) -> str:
    lines = "".join(f"\t{prefix}_{member} = {value},\n" for member, value in members)
    return f"enum {name} {{\n{lines}}};\n"


def _members(kind: type[enum.IntEnum] | type[enum.IntFlag]) -> Iterator[tuple[str, int]]:
    return ((name, member.value) for name, member in kind.__members__.items())


def _numbers_of(kind: type) -> Iterator[tuple[str, int]]:
    return ((name, value) for name, value in vars(kind).items() if name.isupper())


def _declaration(field: Field) -> str:
    kind = _TYPES.get(field.size)
    if kind and field.at % field.size == 0:
        return f"{kind} {field.name};"
    return f"u8 {field.name}[{field.size}];"


def _layout(fields: Iterable[Field], start: int, pad: str, within: Iterable[Field] = ()) -> list[str]:
    """Declarations of *fields* that do not overlap, with room before and between them, from octet *start* on. Others,
    *within*, begin where one of them does and are no longer."""
    lines, at = [], start
    beside = {field.at: field for field in within}
    for field in sorted(fields, key=lambda field: field.at):
        if field.at > at:
            lines.append(f"u8 {pad}{at}[{field.at - at}];")
        both = [field, beside[field.at]] if field.at in beside else [field]
        declared = " ".join(map(_declaration, both))
        lines.append(f"union {{ {declared} }};" if len(both) > 1 else declared)
        at = field.at + field.size
    return lines


def _struct_fields() -> str:
    """``struct fields``: alternatives for the same octets, each with the fields of one kind of packet."""
    head_end = min(field.at for field in FIELDS if field.hidden)
    tracked = [field for field in FIELDS if field.at >= TRACKED_AT]
    plain = [field for field in FIELDS if not field.ethertypes and not field.tunnel and field not in tracked]
    groups: dict[str, list[Field]] = {"plain": [field for field in plain if field.at >= head_end]}
    within = [field for field in FIELDS if field.ethertypes and field.at < head_end]
    for field in FIELDS:
        if field.ethertypes and field not in within:
            groups.setdefault(field.name.partition("_")[0], []).append(field)
    groups["tunnel"] = [field for field in FIELDS if field.tunnel]
    head = _layout([field for field in plain if field.at < head_end], 0, "room_", within)
    out = "/* What is in the same octets of all packets. */\n#define FIELDS_HEAD \\\n"
    out += " \\\n".join(f"\t{line}" for line in head) + "\n\n"
    out += "/* What connection tracking says of a packet. */\n#define FIELDS_TRACKED \\\n"
    out += " \\\n".join(f"\t{line}" for line in _layout(tracked, TRACKED_AT, "room_")) + "\n"
    out += "struct tracked {\n\tFIELDS_TRACKED\n} __attribute__((aligned(8)));\n\n"
    out += "/* What rules match on; network byte order. */\nstruct fields {\n\tFIELDS_HEAD\n\tunion {\n"
    for name, fields in groups.items():
        body = "".join(f"\t\t\t{line}\n" for line in _layout(fields, head_end, f"{name}_"))
        out += f"\t\tstruct {{\n{body}\t\t}};\n"
    flags = f"\t\t\tu8 flags_{head_end}[{NO_ETHERNET_AT - head_end}];\n\t\t\tu8 no_ethernet, in_tunnel;\n"
    out += f"\t\tstruct {{\n{flags}\t\t}};\n\t}};\n"
    out += "\tunion {\n\t\tstruct { FIELDS_TRACKED };\n\t\tstruct tracked tracked;\n\t};\n};\n"
    places = "".join(
        f'_Static_assert(__builtin_offsetof(struct fields, {field.name}) == {field.at}, "{field.name}");\n'
        for field in sorted(FIELDS, key=lambda field: field.at)
    )
    return f'{out}{places}_Static_assert(sizeof(struct fields) == {KEY_SIZE}, "fields");\n'


def _sum(words: Iterable[int]) -> str:
    return " + \\\n\t".join(f"WORD({word}) * {abi.HASH_FACTORS[word]:#018x}" for word in words)


def _chosen(words: list[int]) -> str:
    """An expression of ``i`` that is the i-th of *words*."""
    return "".join(f"(i) == {at} ? {word} : \\\n\t" for at, word in enumerate(words[:-1])) + str(words[-1])


def _hash() -> str:
    narrow = [word for start, end in NARROW for word in range(start // _WORD, end // _WORD)]
    rest = [word for word in range(TRACKED_AT // _WORD) if word not in narrow]
    tracked = list(range(TRACKED_AT // _WORD, KEY_SIZE // _WORD))
    return (
        f"/* Words of a packed key, those of them that rules on IPv4 need, and those about connections: the last. */\n"
        f"#define WORDS {KEY_SIZE // _WORD}\n#define NARROW {len(narrow)}\n#define REST {len(rest)}\n"
        f"#define TRACKED {len(tracked)}\n"
        f"#define NARROW_AT(i) ({_chosen(narrow)})\n#define REST_AT(i) ({_chosen(rest)})\n\n"
        f"/* Parts of the hash of a key. */\n#define HASH_SEED {abi.HASH_SEED:#x}\n#define HASH_MIX {abi.HASH_MIX:#x}\n"
        f"#define HASH_NARROW ( \\\n\t{_sum(narrow)})\n#define HASH_REST ( \\\n\t{_sum(rest)})\n"
        f"#define HASH_TRACKED ( \\\n\t{_sum(tracked)})\n"
    )


def header() -> str:
    """The whole file."""
    marks = (
        *((name, getattr(abi, name)) for name in _MARKS),
        ("UPCALL_SEQ", ~abi.UPCALL_MAGIC_MASK & 0xFFFF_FFFF),
        ("BARE_LIST", rules.BARE),
        ("VLAN_PRESENT", rules.VLAN_PRESENT),
        ("VXLAN_PORT", vxlan.PORT),
        ("VXLAN_LEN", vxlan.HEADER_LENGTH),
        ("VXLAN_ID_VALID", vxlan.ID_VALID),
        ("VXLAN_ID_AT", vxlan.ID_AT),
        ("GENEVE_PORT", geneve.PORT),
        ("GENEVE_LEN", geneve.HEADER_LENGTH),
        ("GENEVE_OPTIONS_MAX", geneve.OPTIONS_MAX),
        ("GENEVE_OAM", geneve.OAM),
        ("GENEVE_ID_AT", geneve.ID_AT),
        ("GRE_LEN", gre.HEADER_LENGTH),
        ("GRE_CHECKSUM", gre.CHECKSUM),
        ("GRE_KEY", gre.KEY),
        ("GRE_SEQUENCE", gre.SEQUENCE),
        ("TUN_CSUM", rules.TUN_CSUM),
        ("TUN_OPTIONS", rules.TUN_OPTIONS),
        ("TUN_GBP", rules.TUN_GBP),
        ("TUN_ERSPAN", rules.TUN_ERSPAN),
        ("GBP_KIND", options.GBP),
        ("TUN_FLAGS", rules.TUN_CSUM | rules.TUN_KEY | rules.TUN_DONT_FRAGMENT | rules.TUN_OAM),
    )
    flags = ((name[5:], value) for name, value in vars(abi).items() if name.startswith("PORT_"))
    meter_flags = ((name[6:], value) for name, value in vars(abi).items() if name.startswith("METER_"))
    events = ((name[6:], value) for name, value in vars(abi).items() if name.startswith("EVENT_"))
    parts = (
        _TOP,
        _defines((name, getattr(abi, name)) for name in _LIMITS) + _defines(marks),
        _enum("port_flag", "PORT", flags),
        _enum("miss", "MISS", _members(Miss)),
        _enum("op", "OP", _numbers_of(abi.Op)),
        _enum("layer", "LAYER", _members(Header)),
        _enum("drop", "DROP", _members(DropReason)),
        _enum("width", "WIDTH", _members(Width)),
        _enum("event", "EVENT", events),
        _enum("meter_flag", "METER", meter_flags),
        _enum("counting", "COUNT", _members(Counting)),
        _enum("ct_state", "CT", _members(rules.CtState)),
        _enum("ct_flag", "CT", _members(abi.CtFlag)),
        _enum("ct_event_bit", "CT_EVENT", _members(abi.CtEvent)),
        _enum("sample_flag", "SAMPLE", _members(abi.SampleFlag)),
        _enum("keep", "KEEP", _members(abi.Keep)),
        _enum("ct_policy", "POLICY", _members(abi.Policy)),
        _enum("ct_status", "IPS", (*_members(states.Status), ("NAT_MASK", states.NAT_MASK))),
        _struct_fields(),
        _hash(),
    )
    return "\n".join(parts)


if __name__ == "__main__":
    HEADER.write_text(header())
    sys.stdout.write(f"{HEADER} is current\n")
