# SPDX-License-Identifier: Apache-2.0
"""A case in words, for a person who has to find out why the two sides differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import tc
from tests.system.realkernel import guest
from tests.system.realkernel.compare import error_in
from tests.system.realkernel.machine import Ask, Case, Result
from tests.system.realkernel.ours import Outcome

_NAMES = {
    tc.RTM_NEWQDISC: "add qdisc",
    tc.RTM_DELQDISC: "delete qdisc",
    tc.RTM_NEWTFILTER: "add filter",
    tc.RTM_DELTFILTER: "delete filter",
    tc.RTM_GETTFILTER: "get filters",
    tc.RTM_NEWCHAIN: "add chain",
    tc.RTM_DELCHAIN: "delete chain",
    tc.RTM_GETCHAIN: "get chain",
}


def describe(case: Case, ours: Outcome, result: Result) -> Iterator[str]:
    """Lines: each step, then what came out on either side."""
    number = 0
    for step in case:
        if step[0] == "send":
            super_packet = f" in segments of {step[3]}" if step[3] else ""
            yield f"  send by port {step[1]}: {step[2].hex()}{super_packet}"
            continue
        if step[0] == "run":
            yield f"  {step[1]}"
            number += 1
            continue
        error = error_in(result.answers[number])
        yield f"  request {number}: {_request(step)}" + (f"; the kernel says errno {error.errno}" if error else "")
        number += 1
    yield from (f"  ours: {capture}" for capture in ours.captures)
    yield from (f"  kernel: {capture}" for capture in result.captures)


def _request(step: Ask) -> str:
    header, attrs = tc.TC.decode(step[3])
    words = [_NAMES.get(step[1], str(step[1])), f"of port {header.ifindex - guest.NEAR}"]
    if step[1] in (tc.RTM_NEWCHAIN, tc.RTM_DELCHAIN, tc.RTM_GETCHAIN):
        words.append(str(attrs.get("chain")))
    if header.info and header.prio:
        words.append(f"chain {attrs.get('chain', 0)} prio {header.prio} protocol {header.protocol:#06x}")
        words.append(attrs.get("kind", ""))
    if header.prio and header.handle:
        words.append(f"handle {header.handle}")
    options = attrs.get("options")
    if isinstance(options, Attrs):
        words += [f"{name}={_value(value)}" for name, value in options.items() if name != "act"]
        for action in options.get("act", {}).values():
            words.append(f"[{action['kind']} " + " ".join(_value(value) for value in action["options"].values()) + "]")
    return " ".join(words)


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int):
        return hex(value)
    return str(value)
