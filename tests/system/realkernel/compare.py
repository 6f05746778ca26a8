# SPDX-License-Identifier: Apache-2.0
"""Where our side and the kernel differ in a case."""

from __future__ import annotations

import errno
from typing import Any

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc
from asap2.netlink.wire import NLMSG_DONE, NLMSG_ERROR, NetlinkError, NlMsg, error_of
from asap2.nic.faces.tc import flower as tc_flower
from tests.system.realkernel.machine import Ask, Capture, Case, Message, Result
from tests.system.realkernel.ours import Outcome, Reply
from tests.system.realkernel.views import SetAsideError

_NO_CHAIN = tuple(f"errno {number} 'Cannot find specified filter chain'" for number in (errno.ENOENT, errno.EINVAL))
_NO_PRIORITY = f"errno {errno.ENOENT} 'Filter with specified priority/protocol not found'"
"""A chain that filters go to but that has none: the kernel has it, the TC face has not. Either says no."""
_VOLATILE = ("tm", "index", "pad")


def differences(case: Case, ours: Outcome, result: Result) -> list[str]:
    """What differs in a *case* between our side and the kernel's *result*; nothing when both agree.

    Raises:
        SetAsideError: the case goes where the two are not to be compared.
    """
    found = []
    asks = [step for step in case if step[0] == "ask"]
    super_packets = any(step[3] for step in case if step[0] == "send")
    for number, (mine, theirs) in enumerate(zip(ours.answers, result.answers, strict=True)):
        _set_aside(asks[number], mine, error_in(theirs))
        found += [f"request {number}: {text}" for text in _answers(mine, theirs, super_packets)]
    for passed in (False, True):  # one is a hop longer than the other, so the order between them means nothing
        out = ([one for one in captures if one.passed is passed] for captures in (ours.captures, result.captures))
        found += _captures(*out)
    return found


def _set_aside(request: Ask, mine: Reply, kernels: NetlinkError | None) -> None:
    """The TC face says of a filter that there is one already, and the kernel takes it: two filters of one mask that can
    match nothing, for different reasons, are one rule for the eSwitch."""
    if kernels is not None or not isinstance(mine, NetlinkError) or mine.errno != errno.EEXIST:
        return
    header, attrs = tc.TC.decode(request[3])
    if tc_flower.parse(attrs["options"], header.protocol).match.ip_frag == tc_flower.NEVER["ip_frag"]:
        raise SetAsideError("there are two filters that match nothing")


def _answers(mine: Reply, theirs: list[Message], super_packets: bool) -> list[str]:
    error = error_in(theirs)
    if isinstance(mine, NetlinkError) or error is not None:
        said = _shown(mine), _shown(error)
        if said[0] == said[1] or (said[0] in _NO_CHAIN and said[1] == _NO_PRIORITY):
            return []
        return [f"ours: {said[0]}; the kernel: {said[1]}"]
    messages = [message for message in theirs if message[0] not in (NLMSG_ERROR, NLMSG_DONE)]
    ours = {_name(one): one for one in (plain(here.type, here.payload) for here in mine)}
    kernels = {_name(one): one for one in (plain(there[0], there[2]) for there in messages)}
    found = []
    for name in [*ours, *(name for name in kernels if name not in ours)]:
        one, other = ours.get(name), kernels.get(name)
        if one is None or other is None:
            found.append(f"{name}: only {'the kernel' if one is None else 'ours'} has it")
        else:
            found += [f"{name}: {text}" for text in _trees("", one, other, super_packets)]
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


def error_in(messages: list[Message]) -> NetlinkError | None:
    """The error that an answer of the kernel is, if it is one."""
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


def _trees(path: str, one: Any, other: Any, super_packets: bool) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for name in [*one, *(name for name in other if name not in one)]:
            found += _trees(f"{path}.{name}", one.get(name), other.get(name), super_packets)
        if not found and list(one) != list(other):
            found.append(f"{path}: ours in order {list(one)}, the kernel's {list(other)}")
        return found
    if one == other or (super_packets and _once_for_all(path, one, other)):
        return []
    return [f"{path}: ours {one!r}, the kernel's {other!r}"]


def _once_for_all(path: str, mine: Any, kernels: Any) -> bool:
    """Dropped packets, and a matchall's hits, are in the kernel one for a super-packet, here one for each segment."""
    if isinstance(mine, ta.Queue) and isinstance(kernels, ta.Queue):
        return 0 < kernels.drops < mine.drops and mine._replace(drops=0) == kernels._replace(drops=0)
    return path == ".options.pcnt" and 0 < kernels < mine


def _captures(mine: list[Capture], theirs: list[Capture]) -> list[str]:
    if mine == theirs:
        return []
    for number, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if one != other:
            return [f"frame {number} that comes out: ours {one}, the kernel's {other}"]
    if len(mine) < len(theirs):
        return [f"the kernel alone has frame {len(mine)}: {theirs[len(mine)]}"]
    return [f"ours alone has frame {len(theirs)}: {mine[len(theirs)]}"]
