# SPDX-License-Identifier: Apache-2.0
"""The Open vSwitch datapath as data: datapath, ports, flows, and their place in the node's pipeline.

It does what net/openvswitch does in the kernel; :mod:`asap2.nic.faces.ovs.families` speaks its protocol.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from asap2.netlink.request import Netns
from asap2.netlink.tables import ovs as protocol
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.ovs import actions as act
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.flows import Flow, FlowTable, flow_of, in_port_of, written
from asap2.nic.faces.ovs.kept import Kept, KeptDatapath, KeptFlow
from asap2.nic.faces.ovs.key import numbers
from asap2.nic.faces.ovs.vport import Vport
from asap2.nic.internal_ports import Place
from asap2.nic.node_ports import NodePorts
from asap2.nic.rules import Action, Counters, Match, Rule
from asap2.nic.silicon.meters import MeterUse

log = logging.getLogger(__name__)

FEATURES: Final = (
    protocol.OVS_DP_F_UNALIGNED
    | protocol.OVS_DP_F_VPORT_PIDS
    | protocol.OVS_DP_F_TC_RECIRC_SHARING
    | protocol.OVS_DP_F_DISPATCH_UPCALL_PER_CPU
)
"""User features that are granted (enum ovs_datapath_feature…, OVS_DP_F_*)."""

_MASKS_CACHE: Final = 256
"""MC_DEFAULT_HASH_ENTRIES, net/openvswitch/flow_table.c."""
PER_CPU_PID: Final = 0xFFFF_FFFF

_PASSING: Final = 8192
"""So many packets that were handed in may wait for user space: as many as wait of all."""


def _error(number: int) -> NetlinkError:
    return NetlinkError(number)


class InternalDevices(Protocol):
    """The devices of internal ports (:class:`asap2.nic.internal_ports.InternalPorts`)."""

    def create(self, name: str) -> Place:
        """Make one."""

    def destroy(self, far: str) -> None:
        """Remove one."""

    def place(self, far: str) -> Place | None:
        """Where one is; None: nowhere."""

    def counters(self, far: str) -> tuple[int, ...]:
        """Its counters, in the order of struct ovs_vport_stats."""

    def follow(self, far: str, trunk: str) -> None:
        """Make the pipelines reach one where it is now."""

    def forget(self, port: int) -> None:
        """A port of the node's pipeline that was one in another network namespace is no more."""


class Datapath:
    """One datapath. Linux allows many; Open vSwitch makes one, ``ovs-system``, and so does this."""

    def __init__(
        self,
        name: str,
        ports: NodePorts,
        devices: InternalDevices,
        netns: Netns,
        features: int,
        kept: Kept,
        *,
        restored: KeptDatapath | None = None,
    ) -> None:
        self.name = name
        self.kept = kept
        self.ports = ports
        self.pipeline = ports.pipeline
        self.devices = devices
        self.netns = netns
        self.features = features
        self.cpu_pids: tuple[int, ...] = ()
        self.masks_cache = _MASKS_CACHE
        self.vports: dict[int, Vport] = {}
        self.flows = FlowTable()
        self.userspace: dict[int, act.Userspace] = {}
        self._next_cookie = 1
        self._passing: deque[tuple[int, ...]] = deque()
        if restored is not None:
            _name, self.features, self.cpu_pids, self.masks_cache = restored
            self._restore()
            self.local = self.vports[0]
        else:
            kept.clear()
            self.local = self._add(0, protocol.OVS_VPORT_TYPE_INTERNAL, name, ())
        self.ifindex = self.local.ifindex
        self.keep()

    # ---- ports

    def add_port(self, kind: int, name: str, number: int | None, pids: tuple[int, ...]) -> Vport:
        """Add a port (ovs_vport_cmd_new). EBUSY: the number or device is taken; EFBIG: no number left; ENODEV: no
        such device; EINVAL: loopback, or an internal port of another kind; EOPNOTSUPP: another type."""
        if kind not in (protocol.OVS_VPORT_TYPE_NETDEV, protocol.OVS_VPORT_TYPE_INTERNAL):
            raise _error(errno.EAFNOSUPPORT)
        if not 0 < len(os.fsencode(name)) < 16:
            raise _error(errno.EINVAL)
        if number is not None:
            if number >= numbers.MAX_PORTS:
                raise _error(errno.EFBIG)
            if number in self.vports:
                raise _error(errno.EBUSY)
        else:
            number = next((n for n in range(1, numbers.MAX_PORTS) if n not in self.vports), None)
            if number is None:
                raise _error(errno.EFBIG)
        return self._add(number, kind, name, pids)

    def _add(self, number: int, kind: int, name: str, pids: tuple[int, ...]) -> Vport:
        self.kept.reserve()
        far = ""
        if kind == protocol.OVS_VPORT_TYPE_INTERNAL:
            try:
                place = self.devices.create(name)
                far, ifindex = place.far, place.ifindex
            except OSError as error:
                raise _error(error.errno or errno.EINVAL) from None
        else:
            try:
                ifindex = socket.if_nametoindex(name)
            except OSError:
                raise _error(errno.ENODEV) from None
            if name == "lo":
                raise _error(errno.EINVAL)
            if any(port.port == ifindex for port in self.vports.values()):
                raise _error(errno.EBUSY)
        vport = Vport(number, kind, name, ifindex, pids, far, ifindex)
        self.vports[number] = vport
        if number or kind == protocol.OVS_VPORT_TYPE_NETDEV:
            self.ports.use_vport(ifindex, True)
        self.kept.put_port(vport)
        self._rules_of_port_changed(vport)
        return vport

    def remove_port(self, vport: Vport, *, device_gone: bool = False) -> None:
        """Remove a port; EINVAL for the local one."""
        if vport.number == 0:
            raise _error(errno.EINVAL)
        self.vports.pop(vport.number, None)
        self.kept.drop_port(vport)
        if vport.netnsid is not None:
            self.devices.forget(vport.port)
        elif device_gone:
            self.ports.gone(vport.port)
        else:
            self.ports.use_vport(vport.port, False)
        if vport.far:
            self.ports.gone(vport.port)
            self.devices.destroy(vport.far)
        self._rules_of_port_changed(vport)

    def refresh(self) -> list[Vport]:
        """Follow renames and moves, drop ports whose device is gone; the ones dropped that user space is told of."""
        gone = []
        for vport in list(self.vports.values()):
            if vport.far:
                self._follow(vport)
                continue
            try:
                vport.name = socket.if_indextoname(vport.ifindex)
            except OSError:
                self.remove_port(vport, device_gone=True)
                gone.append(vport)
        return gone

    def _follow(self, vport: Vport) -> None:
        """An internal port is where its device is, in whatever network namespace; it goes with the namespace, which is
        told to nobody (ovs_exit_net)."""
        place = self.devices.place(vport.far)
        if place is None:
            if vport.number:
                self.remove_port(vport, device_gone=True)
            return
        self.devices.follow(vport.far, self.vports[0].far)
        vport.name, vport.ifindex = place.name, place.ifindex
        before, vport.port = vport.port, place.port
        was_home, vport.netnsid = vport.netnsid is None, place.netnsid
        if before == place.port or not vport.number:
            return
        if was_home:
            self.ports.left(before)
        else:
            self.devices.forget(before)
        if place.netnsid is None:
            self.ports.use_vport(place.port, True)
        self._renumber(before, place.port)
        self._rules_of_port_changed(vport)
        self.kept.put_port(vport)

    def _renumber(self, before: int, now: int) -> None:
        """A port has another id in the pipeline: the rules of its flows have it too, and their counters go on."""
        for flow in self.flows:
            if not self._drop_rules(flow, before):
                continue
            self._forget_cookies(flow.cookies)
            translated, flow.cookies = self._translate(_steps_of(flow))
            self._add_rule(flow, now, translated)
            self.kept.put_flow(flow)

    def _drop_rules(self, flow: Flow, port: int) -> bool:
        """Remove *flow*'s rule for packets of *port*, if it has one; what the rule has counted still counts."""
        for handle in flow.handles:
            if self.pipeline.in_port(handle) == port:
                counted = self.pipeline.remove(handle)
                base = flow.base
                flow.base = Counters(base.packets - counted.packets, base.bytes - counted.bytes, base.used_ns)
                flow.handles = tuple(other for other in flow.handles if other != handle)
                return True
        return False

    def _add_rule(self, flow: Flow, port: int, actions: tuple[Action, ...]) -> bool:
        """Add *flow*'s rule for packets of *port*; whether there is one now. A port that comes refuses no flow."""
        if flow.entry is None:
            return False
        table, match = flow.entry
        try:
            handle = self.pipeline.add(Rule(table, port, 0, match, actions))
        except OSError as error:
            log.error("flow %s takes no packets of port %d: %s", flow.identity.hex(), port, error)
            return False
        flow.handles += (handle,)
        return True

    def by_name(self, name: str) -> Vport | None:
        """The port whose device is called *name* now."""
        self.refresh()
        return next((port for port in self.vports.values() if port.name == name), None)

    def by_port(self, port: int) -> Vport | None:
        """The port with that id in the node's pipeline: the ifindex of a device that is in the node."""
        return next((vport for vport in self.vports.values() if vport.port == port), None)

    def port_of(self, number: int) -> int | None:
        """The id in the node's pipeline of port *number*."""
        vport = self.vports.get(number)
        return vport.port if vport else None

    # ---- flows

    def put(self, ufid: bytes | None, match: ovs_key.FlowMatch, actions: bytes, *, modify: bool) -> Flow:
        """Add a flow or, with *modify*, give the one that is there new actions.

        EINVAL for a mask or action that the datapath does not have; EEXIST where a flow of that name is, or one that
        takes packets with this key, and ENOENT when it has another name or key and is to be modified; ENOSPC when the
        pipeline is full. Then nothing has changed.
        """
        key = match.masked()
        steps = act.parse(actions, key)
        old = self.flows.to_change(ufid, match, modify=modify)
        if old is not None:
            self._change(old, match, actions, steps)
            return old
        flow = flow_of(ufid, match, actions)
        self.kept.reserve()
        flow.entry = _entry_of(match)
        translated, flow.cookies = self._translate(steps)
        if flow.entry is not None:
            table, found = flow.entry
            with self._forgetting(flow.cookies), contextlib.ExitStack() as undo:
                for vport in self._sources(flow):
                    handle = self.pipeline.add(Rule(table, vport.port, 0, found, translated))
                    undo.callback(self.pipeline.remove, handle)
                    flow.handles += (handle,)
                undo.pop_all()
        self.flows.add(flow)
        self.kept.put_flow(flow)
        return flow

    def _sources(self, flow: Flow) -> list[Vport]:
        """The ports whose packets *flow* takes, if they are there."""
        if flow.in_port is None:
            return list(self.vports.values())
        vport = self.vports.get(flow.in_port)
        return [vport] if vport is not None else []

    @contextlib.contextmanager
    def _forgetting(self, cookies: tuple[int, ...]) -> Iterator[None]:
        """What the pipeline refuses is refused to user space, and leaves nothing behind."""
        try:
            yield
        except OSError as error:
            self._forget_cookies(cookies)
            raise _error(errno.EINVAL if error.errno == errno.EOPNOTSUPP else error.errno or errno.ENOSPC) from None

    def set_actions(self, flow: Flow, match: ovs_key.FlowMatch, actions: bytes) -> None:
        """Give *flow* other actions, checked for *match*; its counters go on. Raises as :meth:`put`."""
        self._change(flow, match, actions, act.parse(actions, match.masked()))

    def _change(self, flow: Flow, match: ovs_key.FlowMatch, actions: bytes, steps: tuple[act.Step, ...]) -> None:
        if actions == flow.actions:
            return
        self.kept.reserve()
        self._replace(flow, steps)
        flow.actions = actions
        checked = written(match)
        flow.checked = None if checked == (flow.exact, flow.mask) else checked
        self.kept.put_flow(flow)

    def _replace(self, flow: Flow, steps: tuple[act.Step, ...]) -> None:
        """Let packets of *flow* take *steps* from now on."""
        translated, cookies = self._translate(steps)
        with self._forgetting(cookies):
            for handle in flow.handles:
                self.pipeline.replace(handle, translated)
        self._forget_cookies(flow.cookies)
        flow.cookies = cookies

    def delete(self, flow: Flow) -> Counters:
        """Remove *flow*; its last counters."""
        self.flows.remove(flow)
        self.kept.drop_flow(flow)
        self._forget_cookies(flow.cookies)
        return _total([self.pipeline.remove(handle) for handle in flow.handles])

    def flush(self) -> None:
        """Remove every flow."""
        for flow in list(self.flows):
            self.delete(flow)

    def counters(self, flows: Iterable[Flow]) -> list[Counters]:
        """What each flow has done, since it was last cleared."""
        flows = list(flows)
        read = iter(self.pipeline.counters([handle for flow in flows for handle in flow.handles]))
        return [
            _since(next(read) if len(flow.handles) == 1 else _total([next(read) for _ in flow.handles]), flow.base)
            for flow in flows
        ]

    def clear(self, flow: Flow) -> None:
        """Start *flow*'s counters from zero."""
        flow.base = _total(self.pipeline.counters(flow.handles))

    def _translate(self, steps: tuple[act.Step, ...]) -> tuple[tuple[Action, ...], tuple[int, ...]]:
        cookies: list[int] = []

        def cookie_of(step: act.Userspace) -> int:
            cookie = self._next_cookie
            self._next_cookie = self._next_cookie % 0x7FFF_FFFF + 1
            self.userspace[cookie] = step
            cookies.append(cookie)
            return cookie

        translated = act.to_rule(steps, self.port_of, cookie_of, self._meter_of)
        return translated, tuple(cookies)

    def _meter_of(self, number: int) -> int:
        """The pipeline's number of a meter of the datapath, which may come later."""
        try:
            return self.pipeline.meters.number(MeterUse.OVS, number)
        except OSError:
            raise _error(errno.ENOMEM) from None

    def one_packet(self, steps: tuple[act.Step, ...]) -> tuple[Action, ...]:
        """The rule actions of *steps* for a packet that user space hands in. What it gives to user space again can be
        read for some time."""
        translated, cookies = self._translate(steps)
        if cookies:
            self._passing.append(cookies)
            if len(self._passing) > _PASSING:
                self._forget_cookies(self._passing.popleft())
        return translated

    def _forget_cookies(self, cookies: tuple[int, ...]) -> None:
        for cookie in cookies:
            self.userspace.pop(cookie, None)

    def _rules_of_port_changed(self, vport: Vport) -> None:
        """A port came or went: flows that send to it or take its packets start or stop doing so."""
        there = self.vports.get(vport.number) is vport
        for flow in self.flows:
            if flow.entry is None:
                continue
            steps = _steps_of(flow)
            changed = False
            if vport.number in act.outputs(steps):
                try:
                    self._replace(flow, steps)
                    changed = True
                except OSError as error:
                    # The old actions name the device by its number, which nobody else has: nothing goes wrong.
                    log.error("flow %s does not follow port %d: %s", flow.identity.hex(), vport.number, error)
            if flow.takes_from(vport.number):
                changed |= self._join(flow, vport.port, steps) if there else self._drop_rules(flow, vport.port)
            if changed:
                self.kept.put_flow(flow)

    def _join(self, flow: Flow, port: int, steps: tuple[act.Step, ...]) -> bool:
        """A port came, whose packets *flow* takes; whether it does so now."""
        translated, cookies = self._translate(steps)
        if not self._add_rule(flow, port, translated):
            self._forget_cookies(cookies)
            return False
        for handle in flow.handles[:-1]:
            self.pipeline.replace(handle, translated)
        self._forget_cookies(flow.cookies)
        flow.cookies = cookies
        return True

    # ---- upcalls

    def pids_for(self, vport: Vport) -> tuple[int, ...]:
        """The netlink port ids that upcalls of *vport* may go to."""
        return self.cpu_pids if self.features & protocol.OVS_DP_F_DISPATCH_UPCALL_PER_CPU else vport.pids

    def destroy(self) -> None:
        """Remove every flow, meter and port."""
        self.flush()
        for number in self.pipeline.meters.every(MeterUse.OVS):
            self.pipeline.meters.clear(MeterUse.OVS, number)
        for vport in list(self.vports.values()):
            if vport.number:
                self.remove_port(vport)
        self.ports.gone(self.local.ifindex)
        self.devices.destroy(self.local.far)
        self.kept.clear()

    # ---- keeping

    def keep(self) -> None:
        """Remember the datapath's own attributes."""
        self.kept.put_datapath(KeptDatapath(self.name, self.features, self.cpu_pids, self.masks_cache))

    def _restore(self) -> None:
        """Take up ports and flows of an earlier run; the flows' rules are in the pipeline still."""
        for vport in self.kept.ports():
            self.vports[vport.number] = vport
            if vport.port != vport.ifindex:
                vport.netnsid = -1
            elif vport.number and (not vport.far or self._at_home(vport)):
                self.ports.use_vport(vport.ifindex, True)
        for kept in self.kept.flows():
            self._restore_flow(kept)

    def _at_home(self, vport: Vport) -> bool:
        """Whether an internal port is where it was when it was noted."""
        place = self.devices.place(vport.far)
        return place is not None and place.port == vport.port

    def _restore_flow(self, kept: KeptFlow) -> None:
        match = ovs_key.match_of(kept.exact, kept.mask)
        place = ovs_key.number(match.mask), ovs_key.number(match.masked())
        named = kept.ufid, kept.exact, kept.key, kept.mask, kept.actions
        flow = Flow(*named, in_port_of(match), _entry_of(match), place, kept.handles, kept.cookies)
        flow.checked = kept.checked
        for cookie, step in zip(kept.cookies, act.userspaces(_steps_of(flow)), strict=False):
            self.userspace[cookie] = step
            self._next_cookie = max(self._next_cookie, cookie + 1)
        self.flows.add(flow)


def _entry_of(match: ovs_key.FlowMatch) -> tuple[int, Match] | None:
    """The table and match of a flow's rules; None when no packet can be like that. EINVAL where this datapath cannot
    tell."""
    found = ovs_key.to_match(match)
    return None if found is None else (ovs_key.table_of(match.masked()), found)


def _steps_of(flow: Flow) -> tuple[act.Step, ...]:
    """The steps of a flow's actions, which were checked when they came."""
    return act.parse(flow.actions, ovs_key.match_of(*(flow.checked or (flow.exact, flow.mask))).masked())


def _total(counters: list[Counters]) -> Counters:
    """What the rules of one flow have counted together."""
    if len(counters) == 1:
        return counters[0]
    used = max((each.used_ns for each in counters), default=0)
    return Counters(sum(each.packets for each in counters), sum(each.bytes for each in counters), used)


def _since(now: Counters, base: Counters) -> Counters:
    used = now.used_ns if now.used_ns > base.used_ns else 0
    return Counters(now.packets - base.packets, now.bytes - base.bytes, used)
