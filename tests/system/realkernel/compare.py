# SPDX-License-Identifier: Apache-2.0
"""Where our side and the kernel differ in a case."""

from __future__ import annotations

import errno
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc
from asap2.netlink.wire import NLMSG_DONE, NLMSG_ERROR, NetlinkError, NlMsg, error_of
from tests.system.realkernel.machine import Capture, Case, Message, Result, Step
from tests.system.realkernel.ours import Ours, Reply
from tests.system.realkernel.views import SetAside

_MOST_TAGS = 4
_NO_CHAIN = f"errno {errno.ENOENT} 'Cannot find specified filter chain'"
_NO_PRIORITY = f"errno {errno.ENOENT} 'Filter with specified priority/protocol not found'"
"""A chain that filters go to but that has none: the kernel has it, the TC face has not. The error is the same."""
_VOLATILE = ("tm", "index", "pad")


def differences(case: Case, result: Result, ours: Ours | None = None) -> list[str]:
    """What differs, one sentence each; nothing when both sides agree.

    Raises:
        SetAside: the case goes where the two are not to be compared.
    """
    ours = ours or Ours()
    answers, captures = ours.run(case)
    found = []
    asks = [step for step in case if step[0] == "ask"]
    for number, (mine, theirs) in enumerate(zip(answers, result.answers, strict=True)):
        _set_aside(asks[number], mine, _error(theirs))
        found += [f"request {number}, type {asks[number][1]}: {text}" for text in _answers(mine, theirs)]
    for passed in (False, True):  # one is a hop longer than the other, so the order between them means nothing
        mine_out, theirs_out = ([one for one in out if one.passed is passed] for out in (captures, result.captures))
        found += _captures(mine_out, theirs_out)
    return found


def _set_aside(request: Step, mine: Reply, kernels: NetlinkError | None) -> None:
    """A filter that is overwritten with the key of another: the kernel says yes, and from then on the filter is not
    found by packets (fl_ht_insert_unique()). The TC face says EEXIST, and the filter stays as it was."""
    handle = tc.TC.decode(request[3])[0].handle if request[0] == "ask" else 0
    refused = isinstance(mine, NetlinkError) and mine.errno == errno.EEXIST
    if request[1] == tc.RTM_NEWTFILTER and handle and refused and kernels is None:
        raise SetAside("a filter is overwritten with the key of another")


def _answers(mine: Reply, theirs: list[Message]) -> list[str]:
    error = _error(theirs)
    if isinstance(mine, NetlinkError) or error is not None:
        one, other = _shown(mine), _shown(error)
        if _NO_CHAIN in one and _NO_PRIORITY in other:
            return []
        return [] if one == other else [f"ours: {one}; kernel: {other}"]
    messages = [message for message in theirs if message[0] not in (NLMSG_ERROR, NLMSG_DONE)]
    ours = {_name(one): one for one in (plain(here.type, here.payload) for here in mine)}
    kernels = {_name(one): one for one in (plain(there[0], there[2]) for there in messages)}
    found = []
    for name in [*ours, *(name for name in kernels if name not in ours)]:
        one, other = ours.get(name), kernels.get(name)
        if one is None or other is None:
            found.append(f"{name}: only {'the kernel' if one is None else 'ours'} has it")
        else:
            found += [f"{name}: {text}" for text in _trees("", one, other)]
    if not found and _by_chain(ours) != _by_chain(kernels):
        found.append(f"order: ours {list(ours)}, the kernel's {list(kernels)}")
    return found


def _by_chain(messages: dict[str, Any]) -> dict[int, list[str]]:
    """The filters of each chain, in order. (Of the chains themselves, the kernel's order is that of their making.)"""
    found: dict[int, list[str]] = {}
    for name, message in messages.items():
        found.setdefault(message.get("chain", 0), []).append(name)
    return found


def _name(message: Any) -> str:
    """Which filter of a device a message is about."""
    header = message["header"]
    return f"type {message['type']} chain {message.get('chain')} prio {header.prio} handle {header.handle}"


def _error(messages: list[Message]) -> NetlinkError | None:
    return error_of(NlMsg(messages[-1][0], messages[-1][1], 0, 0, messages[-1][2]))


def _shown(error: NetlinkError | list[Any] | None) -> str:
    if not isinstance(error, NetlinkError):
        return "success"
    return f"errno {error.errno} {error.text!r}"


def plain(kind: int, payload: bytes) -> Any:
    """A TC message without what no two kernels share: times, the numbers of actions, padding."""
    header, attrs = tc.TC.decode(payload)
    return {"type": kind, "header": header, **_plain(attrs)}


def _plain(value: Any) -> Any:
    if isinstance(value, Attrs):
        return {name: _plain(inner) for name, inner in value.items() if name not in _VOLATILE}
    if hasattr(value, "_replace") and "index" in value._fields:
        return value._replace(index=0)
    return value


def _trees(path: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, ta.Basic) and isinstance(other, ta.Basic) and _counts_agree(one, other):
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for name in [*one, *(name for name in other if name not in one)]:
            found += _trees(f"{path}.{name}", one.get(name), other.get(name))
        if not found and list(one) != list(other):
            found.append(f"{path}: ours in order {list(one)}, the kernel's {list(other)}")
        return found
    return [] if one == other else [f"{path}: ours {one!r}, the kernel's {other!r}"]


def _counts_agree(mine: ta.Basic, kernels: ta.Basic) -> bool:
    """Packets are the same. Octets are but for tags: the kernel leaves out the outer one, which is not in the packet
    but beside it, and each action counts the packet as the actions before it have left it."""
    octets = mine.bytes - kernels.bytes
    return mine.packets == kernels.packets and octets % 4 == 0 and abs(octets) <= 4 * _MOST_TAGS * mine.packets


def _captures(mine: list[Capture], theirs: list[Capture]) -> list[str]:
    if mine == theirs:
        return []
    for number, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if one != other:
            return [f"frame {number} that comes out: ours {shown(one)}, the kernel's {shown(other)}"]
    if len(mine) < len(theirs):
        return [f"the kernel alone has frame {len(mine)}: {shown(theirs[len(mine)])}"]
    return [f"ours alone has frame {len(theirs)}: {shown(mine[len(theirs)])}"]


def shown(capture: Capture) -> str:
    """A capture, readable."""
    return f"{'passed by' if capture.passed else 'sent to'} {capture.port} {capture.frame.hex()}"
