# SPDX-License-Identifier: Apache-2.0
"""What programs are made of: what is set up, what changes, and the packets between."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import IntEnum
from typing import Any

from asap2.nic.rules import Action, Rule, SetTunnel
from asap2.nic.silicon.metering import Limit
from asap2.nic.silicon.ports import Port


@dataclass(frozen=True, slots=True)
class SetPorts:
    """Make these ports, or change them. VXLAN comes to the UDP ports *tunnel_ports*, and rules match on the options of
    Geneve with the headers *option_kinds*. Each port may have *upcall_limit* units on their way to user space."""

    ports: tuple[Port, ...]
    tunnel_ports: tuple[int, ...] = ()
    upcall_limit: int = 0
    option_kinds: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Add:
    """Add *rule*, which later steps call *number*."""

    number: int
    rule: Rule


@dataclass(frozen=True, slots=True)
class Replace:
    """Give a rule other actions."""

    number: int
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a rule away."""

    number: int


@dataclass(frozen=True, slots=True)
class NewReceiver:
    """User space begins again, and with it the count of what each port has on its way there."""


@dataclass(frozen=True, slots=True)
class Send:
    """A packet comes in by *port*: a super-packet of so many *segments*, perhaps its tag in its metadata, with the
    kernel's hash of its flow, and the metadata of the tunnel that the kernel took it out of. A NIC has left the number
    *resume* of one of :data:`.programs.PLACES` with it, 0 for none; or it has left the packet *within* a rule of some
    number, of whose actions so many are done. *tracked* are its ``ct_`` fields, *carried* what a NIC says of its
    connection. It comes *later* than the one before, by so many nanoseconds."""

    frame: bytes
    port: int = 1
    segments: int = 1
    in_metadata: bool = False
    flow_hash: int = 0
    came_in: SetTunnel | None = None
    resume: int = 0
    tracked: tuple[tuple[str, int], ...] = ()
    within: tuple[int, int] | None = None
    later: int = 0
    carried: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SetMeter:
    """Give meter *number* a limit; None: it has none."""

    number: int
    limit: Limit | None


@dataclass(frozen=True, slots=True)
class Forget:
    """User space takes a connection out of the table: the one at this *place*, a fraction of all, oldest first."""

    place: float


@dataclass(frozen=True, slots=True)
class SetMark:
    """User space gives the connection at that *place* a mark."""

    place: float
    mark: int


@dataclass(frozen=True, slots=True)
class Expect:
    """A helper expects a connection to *port* of the one at that *place*, from the end that did not tell of it: of the
    end that began it, if *reply*."""

    place: float
    port: int
    reply: bool = False
    seconds: int = 300


@dataclass(frozen=True, slots=True)
class LimitZone:
    """Let so many connections be committed in *zone*; 0 means no limit."""

    zone: int
    limit: int


@dataclass(frozen=True, slots=True)
class Verify:
    """Whether a packet whose checksum is wrong is invalid from now on, as it is at first."""

    on: bool


Step = (
    Verify | Expect | LimitZone | Forget | SetMark | SetMeter | SetPorts | Add | Replace | Remove | NewReceiver | Send
)


def written(value: Any) -> str:
    """*value*, a step or what is in one, as Python that makes it again, without what has its default."""
    if isinstance(value, IntEnum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' * (len(value) == 1)})"
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    said = []
    for field in fields(value):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if getattr(value, field.name) != default:
            said.append(f"{field.name}={written(getattr(value, field.name))}")
    return f"{type(value).__name__}({', '.join(said)})"
