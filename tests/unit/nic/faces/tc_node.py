# SPDX-License-Identifier: Apache-2.0
"""A node with a NIC of two VFs for tests of the TC face: its pipelines keep rules, and do nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asap2.netlink.dispatch import Dispatcher
from asap2.netlink.request import Client, Handler, Message, Netns
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_NEWQDISC
from asap2.netlink.wire import NETLINK_ROUTE, build
from asap2.nic.faces.tc.face import TcFace
from asap2.nic.faces.tc.filters import Filters
from asap2.nic.faces.tc.offload import Offloader
from asap2.nic.faces.tc.templates import Templates
from asap2.nic.function import EswitchMode, Function, Role, Vf
from asap2.nic.journal import Journal
from asap2.nic.netdevs import NetDev
from asap2.nic.rules import Action, Counters, Rule
from asap2.nic.silicon import maps
from asap2.nic.silicon.masklists import MaskList, MaskNode
from asap2.nic.silicon.rule_entries import Pattern
from asap2.nic.tunnels.vxlan import VXLAN
from tests.unit.nic.backend import nic

REPRESENTOR, OTHER, UPLINK, TUNNEL = 10, 11, 12, 13
REQUEST, ACK, ECHO, DUMP, EXCL, CREATE = 1, 4, 8, 0x300, 0x200, 0x400
NEW = REQUEST | ACK | ECHO | EXCL | CREATE


class NoTemplates(Templates):
    """Knows none."""

    def add(self, *_: Any) -> None:
        return None


class FakePipeline:
    """Keeps rules; what one has counted follows from its handle."""

    def __init__(self) -> None:
        self.rules: dict[int, Rule] = {}
        self._next = 0

        self.within: dict[int, tuple[int, tuple[Action, ...]]] = {}
        """The rule and the actions of each number for going on within one."""
        self.resumes = SimpleNamespace(at=lambda table, _port=0: 1000 + table)

    def supports(self, _rule: Rule) -> str | None:
        return None

    def resume_within(self, handle: int, actions: tuple[Action, ...]) -> int:
        number = max(self.within, default=0) + 1
        self.within[number] = handle, actions
        return number

    def change_resume(self, number: int, actions: tuple[Action, ...]) -> None:
        self.within[number] = self.within[number][0], actions

    def end_resume(self, number: int) -> None:
        del self.within[number]

    def add(self, rule: Rule) -> int:
        self._next += 1
        self.rules[self._next] = rule
        return self._next

    def rule(self, handle: int) -> Rule:
        return self.rules[handle]

    def pattern(self, handle: int) -> Pattern:
        return Pattern(
            MaskNode(handle, 0, b"", MaskList(0, 0, 0)), handle, None, maps.encode_match(self.rules[handle].match)[1]
        )

    def add_like(self, pattern: Pattern, key: bytes) -> int | None:
        like = self.rules.get(pattern.actions)
        if like is None:
            return None
        mask = maps.encode_match(like.match)[0]
        return self.add(replace(like, match=maps.decode_match(mask, key)))

    def replace(self, handle: int, actions: tuple[Action, ...]) -> None:
        old = self.rules[handle]
        self.rules[handle] = Rule(old.table, old.in_port, old.priority, old.match, actions)

    def remove(self, handle: int) -> Counters:
        del self.rules[handle]
        return Counters()

    def counters(self, handles: Sequence[int]) -> list[Counters]:
        return [Counters(handle // 2 * 3, handle // 2 * 300, handle // 2 * 1000) for handle in handles]


class Node:
    """A TC face with a NIC of two VFs; without *templates*, each request is translated in full."""

    def __init__(self, directory: Path, templates: bool = True, model: str = "ConnectX-5") -> None:
        self.silicon, self.pipeline = FakePipeline(), FakePipeline()
        self.pf = pf = nic(model).pfs[0]
        pf.mode, pf.hw_tc_offload = EswitchMode.SWITCHDEV, {"uplink": True}
        self.devices = {
            REPRESENTOR: NetDev(REPRESENTOR, "eth0", Role.REPRESENTOR, Vf(pf, 0)),
            OTHER: NetDev(OTHER, "eth1", Role.REPRESENTOR, Vf(pf, 1)),
            UPLINK: NetDev(UPLINK, "enp3s0f0", Role.PF, pf),
        }
        self.told: list[bytes] = []
        self._epoch = 0
        self._dispatcher = Dispatcher(threading.RLock())
        tunnels: Any = SimpleNamespace(
            protocol_of=lambda ifindex: VXLAN if ifindex == TUNNEL else None,
            ports=SimpleNamespace(knows=lambda _protocol, port: port == 4789),
        )
        this: Any = self
        offloader = Offloader(this, lambda _nic: this.silicon, this, tunnels)
        self.filters = Filters(offloader, Journal(directory / f"tc{templates}.journal"))
        self.face = TcFace(this, self.filters, this, 1)
        if not templates:
            self.face._templates = NoTemplates()
        self._client = Client(NETLINK_ROUTE, 1, Netns(1, -1), ext_ack=True, privileged=True)
        self.begin(REPRESENTOR)

    def begin(self, ifindex: int) -> None:
        """A device gets an ingress qdisc."""
        qdisc = tables.TC.encode(tables.Tcmsg(0, ifindex, 0xFFFF0000, 0xFFFFFFF1, 0), {"kind": "ingress"})
        self.ask(RTM_NEWQDISC, NEW, qdisc)

    def route(self, types: Sequence[int], handler: Handler) -> None:
        self._dispatcher.route.update(dict.fromkeys(types, handler))

    def notify(self, _netns: Netns, _group: int, message: Message) -> None:
        self.told.append(message.type.to_bytes(2, "big") + message.payload)

    def swap(self) -> None:
        """The devices that filters send to change places."""
        other, uplink = self.devices[OTHER], self.devices[UPLINK]
        self.devices |= {OTHER: replace(uplink, ifindex=OTHER), UPLINK: replace(other, ifindex=UPLINK)}
        self._epoch += 1

    def epoch(self) -> int:
        return self._epoch

    def all(self) -> list[NetDev]:
        return list(self.devices.values())

    def by_ifindex(self, ifindex: int) -> NetDev | None:
        return self.devices.get(ifindex)

    def limit(self, _function: Function, _mbit: int) -> bool:
        return False

    def unlimit(self, _function: Function) -> None:
        pass

    def use_tc(self, ifindex: int, on: bool) -> None:
        """A port of the node's pipeline."""

    upcall_device = 0
    sent_to = is_internal = lambda _self, _ifindex: False

    def reply(self, _protocol: int, _portid: int, *messages: bytes, dump: bool = False) -> None:
        self.told += [bytes((dump,)) + message for message in messages]

    def busy_dumping(self, _protocol: int, _portid: int) -> bool:
        return False

    def ask(self, kind: int, flags: int, payload: bytes) -> list[bytes]:
        """All that is said in answer, and to those who listen."""
        self.told = []
        outlet: Any = self
        self._dispatcher.submit(outlet, self._client, build(kind, flags, 7, 1, payload))
        return self.told
