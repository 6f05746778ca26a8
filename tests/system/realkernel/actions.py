# SPDX-License-Identifier: Apache-2.0
"""Random action lists of filters, and actions as netlink has them."""

from __future__ import annotations

from random import Random
from typing import Any

from asap2.netlink.tables import actions as ta
from tests.system.realkernel import guest
from tests.system.realkernel.frames import TPIDS

Action = dict[str, Any]
"""An action for :mod:`asap2.netlink.tables`: its kind and options."""


def actions(random: Random, port: int, chain: int, *, pushes: bool = True) -> list[Action]:
    """An action list as a filter has it: changes and mirrors (with *pushes*, new tags), then where the packet goes."""
    chosen = [_middle(random, port, pushes) for _ in range(random.choice((0, 0, 1, 1, 2, 3)))]
    match random.choice(("redirect", "redirect", "redirect", "goto", "drop", "pass", "pipe", "mirror", "trap")):
        case "redirect":
            chosen.append(mirred(_other(random, port), ta.TCA_EGRESS_REDIR, ta.TC_ACT_STOLEN))
        case "mirror":
            chosen.append(mirred(_other(random, port), ta.TCA_EGRESS_MIRROR, random.choice((0, 2, 3, 4))))
        case "goto":
            following = [other for other in (1, 7, 9) if other > chain]
            chosen.append(gact(ta.TC_ACT_GOTO_CHAIN | random.choice(following or [11])))
        case "drop":
            chosen.append(gact(ta.TC_ACT_SHOT))
        case "pass":
            chosen.append(gact(ta.TC_ACT_OK))
        case "trap":
            chosen.append(gact(ta.TC_ACT_TRAP))
    if random.random() < 0.05:
        chosen.append(_middle(random, port, pushes))
    return chosen


def _other(random: Random, port: int) -> int:
    return random.choice([other for other in range(guest.PORTS) if other != port])


def _middle(random: Random, port: int, pushes: bool) -> Action:
    verdict = ta.TC_ACT_PIPE if random.random() < 0.93 else random.choice((0, 2, 4, ta.TC_ACT_GOTO_CHAIN | 9))
    match random.choice(("mirror", "push", "push", "pop", "pop", "modify", "skbedit", "gact")):
        case "mirror":
            return mirred(_other(random, port), ta.TCA_EGRESS_MIRROR, verdict)
        case "pop":
            return vlan(ta.TCA_VLAN_ACT_POP, verdict)
        case "skbedit":
            return {"kind": "skbedit", "options": {"parms": ta.Generic(action=verdict), **_edit(random)}}
        case "gact":
            return gact(verdict)
        case "push" if pushes:
            return vlan(ta.TCA_VLAN_ACT_PUSH, verdict, **_new_tag(random))
    return vlan(ta.TCA_VLAN_ACT_MODIFY, verdict, **_new_tag(random))


def _edit(random: Random) -> dict[str, Any]:
    match random.choice(("type", "mark", "masked mark", "priority", "queue")):
        case "mark":
            return {"mark": random.getrandbits(32), "priority": random.getrandbits(32)}
        case "masked mark":
            return {"mark": random.getrandbits(32), "mask": random.getrandbits(32)}
        case "priority":
            return {"priority": random.getrandbits(32), "ptype": 0}
        case "queue":
            return {"queue_mapping": random.randrange(4)}
    return {"ptype": 0}


def _new_tag(random: Random) -> dict[str, Any]:
    made: dict[str, Any] = {
        "push_vlan_id": random.choice((0, 57, 4095, 4095, 4096) if random.random() < 0.1 else (0, 57))
    }
    if random.random() < 0.7:
        made["push_vlan_protocol"] = random.choice(TPIDS)
    if random.random() < 0.6:
        made["push_vlan_priority"] = random.randrange(8)
    return made


def gact(verdict: int) -> Action:
    """A verdict."""
    return {"kind": "gact", "options": {"parms": ta.Generic(action=verdict)}}


def mirred(port: int, what: int, verdict: int) -> Action:
    """A copy, or all, to *port*."""
    parms = ta.Mirred(action=verdict, eaction=what, ifindex=guest.NEAR + port)
    return {"kind": "mirred", "options": {"parms": parms}}


def vlan(what: int, verdict: int, **options: Any) -> Action:
    """A change of tags."""
    return {"kind": "vlan", "options": {"parms": ta.Vlan(action=verdict, v_action=what), **options}}
