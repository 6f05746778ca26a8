# SPDX-License-Identifier: Apache-2.0
"""Our side of a case: the TC face takes the requests, the reference eSwitch the rules and the frames.

Between them is what stands there in a node: the flower and action translation, the filters' state, the placement in the
node's software pipeline. No netlink socket, no eBPF program.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from asap2.netlink.request import Answer, Client, Handler, Message, Netns, Request
from asap2.netlink.server import Server
from asap2.netlink.wire import NETLINK_ROUTE, NetlinkError
from asap2.nic.journal import Journal
from asap2.nic.kernel.tc import TcFace
from asap2.nic.kernel.tc_filters import Filters
from asap2.nic.kernel.tc_offload import Offloader
from asap2.nic.netdevs import NetDevs
from asap2.nic.node_ports import NodePorts
from asap2.nic.rules import Action, Counters, Rule
from asap2.nic.silicon.events import Matched, Passed, Sent
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.reference import ReferenceSwitch
from asap2.nic.tunnels import Tunnels
from tests.system.realkernel import guest, views
from tests.system.realkernel.machine import Capture, Case

_COOKIE = 1
_CLIENT = Client(NETLINK_ROUTE, 1, Netns(_COOKIE, -1), ext_ack=True)

Reply = NetlinkError | list[Message]


class _Pipeline:
    """The reference eSwitch as the pipeline of a node: same calls, one port for each device.

    Flower filters of one priority whose keys are different but mean the same to the eSwitch (``protocol ip`` alone,
    and with the type IP in its key) are one rule there, and the second is refused; the kernel takes both. The first
    of them is always found first, so here the second waits in its *shadow* until the first is gone.
    """

    def __init__(self) -> None:
        self.switch = ReferenceSwitch()
        self._shadows: dict[int, Rule] = {}
        self._next = 1 << 20
        for port in range(guest.PORTS):
            ifindex = guest.NEAR + port
            self.switch.set_port(Port(ifindex, ifindex, PortKind.NODE, tables=(0,), miss=Miss.PASS))

    def supports(self, _rule: Rule) -> str | None:
        return None

    def add(self, rule: Rule) -> int:
        rule = replace(rule, match=views.tags(rule.match))
        try:
            return self.switch.add(rule)
        except FileExistsError:
            self._next += 1
            self._shadows[self._next] = rule
            return self._next

    def replace(self, handle: int, actions: tuple[Action, ...]) -> None:
        if handle in self._shadows:
            self._shadows[handle] = replace(self._shadows[handle], actions=actions)
        else:
            self.switch.replace(handle, actions)

    def remove(self, handle: int) -> Counters:
        if self._shadows.pop(handle, None):
            return Counters()
        counted = self.switch.remove(handle)
        for waiting, rule in list(self._shadows.items()):
            with contextlib.suppress(FileExistsError):
                self.switch.add(rule, waiting)
                del self._shadows[waiting]
        return counted

    def counters(self, handles: Sequence[int]) -> list[Counters]:
        return [Counters() if handle in self._shadows else self.switch.counters(handle) for handle in handles]


class _NodePorts:
    """The devices of the kernel's side; none is Open vSwitch's."""

    def __init__(self, pipeline: _Pipeline) -> None:
        self.pipeline = pipeline

    def use_tc(self, ifindex: int, on: bool) -> None:
        """A device has filters, or none."""

    def sent_to(self, ifindex: int) -> None:
        """A rule sends to a device."""

    def is_internal(self, _ifindex: int) -> bool:
        return False


class _NoNetDevs:
    """No device is a NIC's, so every rule is software's."""

    def by_ifindex(self, _ifindex: int) -> None:
        return None


class _NoTunnels:
    """No device is a tunnel's."""

    def port_of(self, _ifindex: int) -> None:
        return None


class _NoJournal:
    def put(self, key: bytes, value: bytes) -> None:
        """Nothing is kept."""

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


class _Face(TcFace):
    """The TC face where only the kernel's devices exist."""

    @staticmethod
    def _device(ifindex: int) -> None:
        if ifindex not in range(guest.NEAR, guest.NEAR + guest.PORTS):
            raise NetlinkError(errno.ENODEV)


class Ours:
    """What our side does with one case."""

    def __init__(self) -> None:
        pipeline = _Pipeline()
        ports = cast(NodePorts, _NodePorts(pipeline))
        offloader = Offloader(cast(NetDevs, _NoNetDevs()), _no_silicon, ports, cast(Tunnels, _NoTunnels()))
        self._handlers = _Handlers()
        self._filters = Filters(offloader, cast(Journal, _NoJournal()))
        self._face = _Face(cast(Server, self._handlers), self._filters, ports, _COOKIE)
        self.switch = pipeline.switch
        self.matched = 0
        self.frames = 0

    def run(self, case: Case) -> tuple[list[Reply], list[Capture]]:
        """The answer to each request, and the frames that come out, in order."""
        answers: list[Reply] = []
        captures: list[Capture] = []
        for step in case:
            if step[0] == "ask":
                answers.append(self.ask(*step[1:]))
            else:
                captures += self.send(step[1], step[2])
        return answers, captures

    def ask(self, kind: int, flags: int, payload: bytes) -> Reply:
        """The answer to a request: messages, or the error."""
        request = Request(kind, flags | 1, 1, payload, _CLIENT)
        try:
            answer: Answer = self._handlers.by_type[kind](request)
            return list(cast("list[Message]", answer or []))
        except NetlinkError as error:
            return error

    def send(self, port: int, frame: bytes) -> list[Capture]:
        """What comes out when *frame* comes in by *port*."""
        out = []
        self.frames += 1
        with views.kernels():
            events = self.switch.process(frame, guest.NEAR + port)
        self.matched += any(isinstance(event, Matched) for event in events)
        for event in events:
            match event:
                case Sent(to, sent):
                    out.append(Capture(to - guest.NEAR, False, sent))
                case Passed(sent):
                    out.append(Capture(port, True, sent))
        return out


def _no_silicon(_nic: object) -> Any:
    raise LookupError("there is no NIC")
