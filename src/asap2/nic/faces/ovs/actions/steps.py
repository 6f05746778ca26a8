# SPDX-License-Identifier: Apache-2.0
"""The steps of an action list, and the rule actions that they become."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, assert_never

from asap2.nic.layer_actions import LayerChange
from asap2.nic.rules import (
    OVS_TABLE,
    Action,
    CheckLength,
    Clone,
    Ct,
    CtClear,
    DecTtl,
    Drop,
    Goto,
    Hash,
    Meter,
    Output,
    PopVlan,
    Psample,
    PushVlan,
    Sample,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)

_ALWAYS: Final = 0xFFFF_FFFF
NO_PORT: Final = 0xFFFF_FFFF
"""A port of the pipeline that there never is."""


@dataclass(frozen=True, slots=True)
class PortOutput:
    """Send to datapath port ``port``."""

    port: int


@dataclass(frozen=True, slots=True)
class Userspace:
    """Give the packet to the netlink port id ``pid`` with ``userdata``, and with ``actions``: the list that this is in,
    where it asks for that. ``egress``: tell also of the tunnel that it would leave by, out of that port, and ``tunnel``
    is the attribute of the action that has set it, empty where none has."""

    pid: int
    userdata: bytes | None
    actions: bytes | None
    egress: int | None = None
    tunnel: bytes = b""


@dataclass(frozen=True, slots=True)
class Recirc:
    """Look up again with recirculation id ``id``."""

    id: int


@dataclass(frozen=True, slots=True)
class ByMeter:
    """Drop the packet where it is over the rate of the datapath's meter ``id``."""

    id: int


@dataclass(frozen=True, slots=True)
class Nested:
    """An action with lists of steps in it, in the order of the lists of *action*, which stand empty there."""

    action: Clone | Sample | CheckLength | DecTtl
    lists: tuple[tuple[Step, ...], ...]


_Own = PortOutput | Userspace | Recirc | ByMeter | Nested
Step = _Own | Psample | Truncate | Hash | Drop | SetField | SetTunnel | PushVlan | PopVlan | LayerChange | Ct | CtClear
"""What this datapath does with a packet: a rule's action already, or one that :func:`to_rule` has a case for, which the
type checker demands."""


def userspaces(steps: tuple[Step, ...]) -> Iterator[Userspace]:
    """Every step that goes to user space, in the order of :func:`to_rule`."""
    for step in steps:
        if isinstance(step, Userspace):
            yield step
        elif isinstance(step, Nested):
            for nested in step.lists:
                yield from userspaces(nested)


def outputs(steps: tuple[Step, ...]) -> Iterator[int]:
    """Every port that something may be sent to."""
    for step in steps:
        if isinstance(step, PortOutput):
            yield step.port
        elif isinstance(step, Nested):
            for nested in step.lists:
                yield from outputs(nested)


def to_rule(
    steps: tuple[Step, ...],
    ifindex_of: Callable[[int], int | None],
    cookie_of: Callable[[Userspace], int],
    meter_of: Callable[[int], int],
) -> tuple[Action, ...]:
    """The rule actions of *steps*. What is sent to a port that does not exist is dropped, as in the kernel."""
    return _to_rule(steps, ifindex_of, cookie_of, meter_of, _ALWAYS) or (Drop(),)


def _to_rule(
    steps: tuple[Step, ...],
    ifindex_of: Callable[[int], int | None],
    cookie_of: Callable[[Userspace], int],
    meter_of: Callable[[int], int],
    probability: int,
) -> tuple[Action, ...]:
    """*probability* is, in 2^32, that of a packet to get there: the product of those of the actions around."""
    actions: list[Action] = []
    for at, step in enumerate(steps):
        match step:
            case PortOutput(port):
                ifindex = ifindex_of(port)
                if ifindex is not None:
                    actions.append(Output(ifindex))
                elif any(isinstance(before, Truncate) for before in steps[:at]):
                    actions.append(Output(NO_PORT))  # else what follows would be cut
            case Userspace():
                actions.append(Upcall(cookie_of(step)))
            case Psample():
                actions.append(replace(step, rate=probability))
            case ByMeter(number):
                actions.append(Meter(meter_of(number)))
            case Recirc(number):
                to = Goto(OVS_TABLE | number)
                actions.append(to if at + 1 == len(steps) else Clone((to,)))
            case Nested(action, lists):
                within = probability * action.probability // _ALWAYS if isinstance(action, Sample) else probability
                made = [_to_rule(nested, ifindex_of, cookie_of, meter_of, within) for nested in lists]
                match action:
                    case Clone():
                        actions.append(Clone(made[0]))
                    case Sample(chance):
                        actions.append(Sample(chance, made[0]))
                    case CheckLength(length):
                        actions.append(CheckLength(length, made[0], made[1]))
                    case DecTtl():
                        actions.append(DecTtl(made[0]))
                    case _:
                        assert_never(action)
            case _:
                actions.append(step)
    return tuple(actions)
