# SPDX-License-Identifier: Apache-2.0
"""Our side of a case: the TC face takes the requests, the reference eSwitch the rules and the frames.

Between them is what stands there in a node: the flower and action translation, the filters' state, the placement in the
node's software pipeline. No netlink socket, no eBPF program.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from asap2.netlink.request import Answer, Client, Handler, Message, Netns, Request
from asap2.netlink.server import Server
from asap2.netlink.wire import NETLINK_ROUTE, NLM_F_REQUEST, NetlinkError
from asap2.nic.faces.tc.face import TcFace
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.offload import Offloader
from asap2.nic.journal import Journal
from asap2.nic.netdevs import CountedNetDevs
from asap2.nic.node_ports import NodePorts
from asap2.nic.rules import Action, Counters, ModifyVlan, PopVlan, PushVlan, Rule
from asap2.nic.silicon import packet
from asap2.nic.silicon.events import Matched, Passed, Sent
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.reference import ReferenceSwitch
from asap2.nic.underlay.resolver import Tunnels
from tests.system.realkernel import guest, views
from tests.system.realkernel.machine import Capture, Case

_COOKIE = 1
_BEGIN = 10**12
"""When frames come in, in nanoseconds."""
_CLIENT = Client(NETLINK_ROUTE, 1, Netns(_COOKIE, -1), ext_ack=True)

Reply = NetlinkError | list[Message]


class _Switch(ReferenceSwitch):
    """The reference eSwitch; with a *view*, it looks for rules as the kernel does."""

    view: views.View | None = None

    def look(self, frame: bytes, *, ovs: bool = False) -> packet.Fields:
        return super().look(frame, ovs=ovs) if self.view is None else self.view.look(frame)

    def retag(self, frame: bytes, action: PushVlan | PopVlan | ModifyVlan) -> bytes:
        if self.view is not None:
            self.view.retagged(frame, action)
        return super().retag(frame, action)


class _Pipeline:
    """The reference eSwitch as the pipeline of a node: same calls, one port for each device. With *allowances*, what
    :mod:`tests.system.realkernel.views` tells of the kernel is allowed for."""

    def __init__(self, allowances: bool) -> None:
        self.allowances = allowances
        self.switch = _Switch()
        self.switch.now = _BEGIN
        self._rules: dict[int, Rule] = {}
        for port in range(guest.PORTS):
            ifindex = guest.NEAR + port
            self.switch.set_port(Port(ifindex, ifindex, PortKind.NODE, tables=(0,), miss=Miss.PASS))

    def supports(self, _rule: Rule) -> str | None:
        return None

    def rule(self, handle: int) -> Rule:
        return self._rules[handle]

    def add(self, rule: Rule) -> int:
        handle = self.switch.add(replace(rule, match=views.tags(rule.match)) if self.allowances else rule)
        self._rules[handle] = rule
        return handle

    def replace(self, handle: int, actions: tuple[Action, ...]) -> None:
        self.switch.replace(handle, actions)
        self._rules[handle] = replace(self._rules[handle], actions=actions)

    def remove(self, handle: int) -> Counters:
        del self._rules[handle]
        return self.switch.remove(handle)

    def counters(self, handles: Sequence[int]) -> list[Counters]:
        return [self.switch.counters(handle) for handle in handles]


class _NodePorts:
    """The devices of the kernel's side; none is Open vSwitch's."""

    def __init__(self, pipeline: _Pipeline) -> None:
        self.pipeline = pipeline

    def use_tc(self, ifindex: int, on: bool) -> None:
        """A device has filters, or none."""

    def sent_to(self, ifindex: int) -> None:
        """A rule sends to a device."""

    upcall_device = 0

    def is_internal(self, _ifindex: int) -> bool:
        return False


class _NoNetDevs:
    """No device is a NIC's, so every rule is software's."""

    def epoch(self) -> int:
        return 0

    def by_ifindex(self, _ifindex: int) -> None:
        return None


class _NoTunnels:
    """No device is a tunnel's."""

    def protocol_of(self, _ifindex: int) -> None:
        return None


class _NoJournal:
    def put(self, key: bytes, value: bytes) -> None:
        """Nothing is kept."""

    def reserve(self) -> None:
        """There is always room."""

    def delete(self, key: bytes) -> None:
        """Nothing was kept."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(())


class _Handlers:
    """In place of the netlink server: who handles which message."""

    def __init__(self) -> None:
        self.by_type: dict[int, Handler] = {}

    def route(self, types: Sequence[int], handler: Handler) -> None:
        self.by_type.update(dict.fromkeys(types, handler))

    def notify(self, *_arguments: Any) -> None:
        """Nobody listens."""


def _check_device(ifindex: int) -> None:
    """Only the kernel's devices exist."""
    if ifindex not in range(guest.NEAR, guest.NEAR + guest.PORTS):
        raise NetlinkError(errno.ENODEV)


@dataclass
class Outcome:
    """What our side does with a case: the answer to each request, and the frames that come out, in order.

    ``frames`` came in, and ``matched`` of them found a rule.
    """

    answers: list[Reply] = field(default_factory=list)
    captures: list[Capture] = field(default_factory=list)
    frames: int = 0
    matched: int = 0


def run(case: Case, *, allowances: bool = True, entropy: int = 0) -> Outcome:
    """What our side does with *case*; with *allowances*, where it differs from the kernel on purpose, as the kernel.
    *entropy* stands for random numbers."""
    pipeline = _Pipeline(allowances)
    ports = cast(NodePorts, _NodePorts(pipeline))
    handlers = _Handlers()
    offloader = Offloader(cast(CountedNetDevs, _NoNetDevs()), _no_silicon, ports, cast(Tunnels, _NoTunnels()))
    filters = Filters(offloader, cast(Journal, _NoJournal()), _check_device)
    TcFace(cast(Server, handlers), filters, ports, _COOKIE)
    outcome = Outcome()
    for step in case:
        if step[0] == "ask":
            outcome.answers.append(_ask(handlers, *step[1:]))
        elif step[0] == "send":
            _send(pipeline, *step[1:], outcome, entropy)
    return outcome


def _ask(handlers: _Handlers, kind: int, flags: int, payload: bytes) -> Reply:
    request = Request(kind, flags | NLM_F_REQUEST, 1, payload, _CLIENT)
    try:
        answer: Answer = handlers.by_type[kind](request)
    except NetlinkError as error:
        return error
    return list(cast("list[Message]", answer or []))


def _send(pipeline: _Pipeline, port: int, frame: bytes, mss: int, outcome: Outcome, entropy: int) -> None:
    segments = -(-_tcp_payload(frame) // mss) if mss else 1
    view = views.View()
    pipeline.switch.view = view if pipeline.allowances else None
    events = pipeline.switch.process(frame, guest.NEAR + port, segments=segments, flow_hash=entropy)
    outcome.frames += 1
    outcome.matched += any(isinstance(event, Matched) for event in events)
    for event in events:
        match event:
            case Sent(to, sent):
                outcome.captures.append(Capture(to - guest.NEAR, False, sent))
            case Passed(sent):
                outcome.captures.append(Capture(port, True, sent))


def _tcp_payload(frame: bytes) -> int:
    """Bytes behind a TCP header without options, in a frame with a tag at most."""
    ip = 14 if frame[12:14] in (b"\x08\x00", b"\x86\xdd") else 18
    return len(frame) - ip - (40 if frame[ip - 2 : ip] == b"\x08\x00" else 60)


def _no_silicon(_nic: object) -> Any:
    raise LookupError("there is no NIC")
