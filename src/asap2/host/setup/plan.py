# SPDX-License-Identifier: Apache-2.0
"""Plan the steps from the current state to a target, in an order that drivers accept. Pure functions.

The order, for each NIC: VFs while the eSwitch is in its old mode, drivers taken from them, encapsulation, mode, the
uplink's features, drivers given back, representors ("vfs-first", the getting-started page's); or no VFs, mode, VFs
("switchdev-first", which some drivers and firmware versions need). Each phase is done for all NICs before the next,
because the VFs of a bond may be bound only when all of its PFs are in switchdev mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from asap2.host.inventory import LEGACY, Filter, Host, Netdev, Pairs, Pf, Qdisc, Vf, place
from asap2.host.setup.steps import (
    AddIngress,
    AddPorts,
    CleanTc,
    DeletePorts,
    PortRef,
    PortState,
    RestartSwitch,
    SetBridge,
    SetDrivers,
    SetEswitch,
    SetOption,
    SetParam,
    SetPorts,
    SetVfAttributes,
    SetVfs,
    Step,
)

NEED_RESTART = ("hw-offload", "tc-policy")
"""Options that the switch reads only when it starts (ovs-vswitchd.conf.db(5))."""
PORT_ATTRIBUTES = ("name", "mac", "up", "mtu", "offload")
Drivers = tuple[tuple[str | None, str | None], ...]


@dataclass(frozen=True, slots=True)
class NicTarget:
    """The target state of a PF. ``drivers`` are (driver, driver_override) of each VF; ``attributes`` the VFs whose MAC
    and so on are to be set; ``ports`` the uplink, representors and VFs' devices; None leaves a mode unchanged."""

    pf: str
    mode: str
    vfs: int
    order: Literal["vfs-first", "switchdev-first"] = "vfs-first"
    encap: str | None = None
    inline: str | None = None
    params: Pairs = ()
    drivers: Drivers = ()
    attributes: tuple[Vf, ...] = ()
    ports: tuple[PortState, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """The target state of a host. ``service`` may be restarted (None: not), and must be if ``restart_pending``;
    ``delete`` and ``add`` are ports by bridge, ``bridges`` whether each is to be there. With ``switch_first`` Open
    vSwitch lets go before NICs change; without, it comes after. ``ingress`` and ``filters`` are to be there
    in the end."""

    nics: tuple[NicTarget, ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    service: str | None = None
    restart_pending: bool = False
    bridges: tuple[tuple[str, bool], ...] = ()
    delete: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, PortRef], ...] = ()
    clean: CleanTc | None = None
    ingress: tuple[Qdisc, ...] = ()
    filters: tuple[Filter, ...] = ()
    switch_first: bool = False


def plan(now: Host, target: Target) -> tuple[Step, ...]:
    """The steps from *now* to *target*; empty if nothing differs."""
    nics = [_Nic(now, pf, one, target) for one in target.nics if (pf := now.pf(one.pf))]
    phases = (_Nic.make_vfs, _Nic.change_mode, _Nic.finish)
    nic_steps = [step for phase in phases for nic in nics for step in phase(nic)]
    switch_steps = list(_switch(now, target))
    if target.switch_first:
        return (*switch_steps, *nic_steps, *_ingress(now, target, nic_steps))
    return (*nic_steps, *switch_steps)


def disruptive(now: Host, target: NicTarget) -> bool:
    """Whether the PF's VFs are unbound or removed on the way to *target*."""
    pf = now.pf(target.pf)
    return pf is not None and bool(pf.vfs) and (_mode(pf) != target.mode or pf.num_vfs != target.vfs)


def restart_needed(now: Host, target: Target) -> bool:
    """Whether the switch must be restarted for *target*."""
    changed = any(now.openvswitch.option(key) != value for key, value in target.options if key in NEED_RESTART)
    return target.restart_pending or changed


def _mode(pf: Pf) -> str | None:
    return pf.eswitch.mode if pf.eswitch else None


class _Nic:
    """The steps of one PF, phase by phase."""

    def __init__(self, now: Host, pf: Pf, target: NicTarget, whole: Target) -> None:
        self.now = now
        self.pf = pf
        self.target = target
        self.whole = whole
        self.mode_changes = _mode(pf) != target.mode
        self.count_changes = pf.num_vfs != target.vfs
        self.vfs_first = target.order == "vfs-first"
        later = self.mode_changes and not self.vfs_first
        self.remade = self.count_changes or later
        """Whether every VF in the end is a new one."""

    def make_vfs(self) -> Iterator[Step]:
        """Create VFs in the old mode, and unbind all before it changes."""
        pf, target = self.pf, self.target
        if self.remade and pf.num_vfs:
            yield SetVfs(pf.address, 0)
        if self.vfs_first and self.count_changes and target.vfs:
            yield SetVfs(pf.address, target.vfs)
        if self._attributes_early():
            yield from self._set_attributes()

    def change_mode(self) -> Iterator[Step]:
        """Set parameters and encapsulation, which need the old mode; the mode; and then what needs the new one."""
        pf, target = self.pf, self.target
        for name, word in target.params:
            if dict(pf.params).get(name) != word:
                yield SetParam(pf.address, name, word)
        if self.mode_changes and self.vfs_first:
            taken = self._drivers_taken()
            if taken is not None:
                yield SetDrivers(pf.address, taken, pf.driver or "")
        if target.encap is not None and pf.eswitch and pf.eswitch.encap_mode != target.encap:
            yield SetEswitch(pf.address, "encap_mode", target.encap)
        if self.mode_changes:
            yield from self._rules_out()
            yield SetEswitch(pf.address, "mode", target.mode)
        missing = self.now.qdisc(pf.name) is None or (self.mode_changes and self._offloading())
        own = tuple(one for one in self.whole.ingress if one.netdev == pf.name)
        if own and missing:
            yield AddIngress(own)
        if target.inline is not None and pf.eswitch and pf.eswitch.inline_mode != target.inline:
            yield SetEswitch(pf.address, "inline_mode", target.inline)
        yield from self._ports(lambda one: one.port.kind == "uplink", ("up", "offload") if self.mode_changes else ())

    def _rules_out(self) -> Iterator[Step]:
        """Remove the rules of a switch that continues to offload: a mode cannot change while the eSwitch has rules."""
        if self._offloading():
            yield CleanTc(self._offloading(), ())

    def _offloading(self) -> tuple[str, ...]:
        """The PF's devices on which Open vSwitch has rules and will keep them."""
        if self.whole.clean is not None:
            return ()
        netdevs = [self.now.uplink(self.pf), *(netdev for _, netdev in self.now.representors(self.pf))]
        return tuple(one.name for one in netdevs if one and self.now.qdisc(one.name))

    def _drivers_taken(self) -> Drivers | None:
        """The VFs' drivers while the mode changes, without the PF's own; None if none is bound to that."""
        if self.count_changes:
            now: Drivers = tuple((self.pf.driver if self.pf.autoprobe else None, None) for _ in range(self.target.vfs))
        else:
            now = tuple((vf.driver, vf.driver_override) for vf in self.pf.vfs)
        if not any(driver == self.pf.driver for driver, _ in now):
            return None
        return tuple((None if driver == self.pf.driver else driver, override) for driver, override in now)

    def finish(self) -> Iterator[Step]:
        """Create VFs in the new mode, set their attributes, bind them, and then set up their devices."""
        pf, target = self.pf, self.target
        if not self.vfs_first and self.remade and target.vfs:
            yield SetVfs(pf.address, target.vfs)
        drivers = self._drivers_now()
        attributes = () if self._attributes_early() else tuple(self._set_attributes())
        if attributes and self.remade and drivers and any(driver for driver, _ in drivers):
            drivers = tuple((None, override) for _, override in drivers)  # a VF takes its MAC when it is bound
            yield SetDrivers(pf.address, drivers, pf.driver or "")
        yield from attributes
        if target.drivers and target.drivers != drivers:
            yield SetDrivers(pf.address, target.drivers, pf.driver or "")
        anew = self.remade or self.mode_changes
        yield from self._ports(lambda one: one.port.kind != "uplink", PORT_ATTRIBUTES if anew else ())

    def _drivers_now(self) -> Drivers | None:
        """The VFs' drivers before they are bound again."""
        if self.mode_changes and self.vfs_first:
            taken = self._drivers_taken()
            if taken is not None:
                return taken
        if self.remade:
            return tuple((self.pf.driver if self.pf.autoprobe else None, None) for _ in range(self.target.vfs))
        return tuple((vf.driver, vf.driver_override) for vf in self.pf.vfs)

    def _attributes_early(self) -> bool:
        """Whether attributes are set before the mode changes: legacy mode accepts all of them."""
        return self.vfs_first and _mode(self.pf) == LEGACY

    def _set_attributes(self) -> Iterator[Step]:
        """Set the VF attributes that differ."""
        attributes = tuple(vf for vf in self.target.attributes if self._differs(vf))
        if attributes:
            yield SetVfAttributes(self.pf.address, self.pf.name, attributes)

    def _differs(self, wanted: Vf) -> bool:
        """Whether a VF's attributes differ, or may differ because it is recreated or its PF changes mode."""
        if self.remade or self.mode_changes:
            return True
        now = next((vf for vf in self.pf.vfs if vf.index == wanted.index), None)
        return now is None or attributes_of(now) != attributes_of(wanted)

    def _ports(self, which: Callable[[PortState], bool], lost: tuple[str, ...]) -> Iterator[Step]:
        """The remaining changes of some ports; what is *lost* on the way must be set in any case."""
        left = [_left(self.now, self.pf, one, lost) for one in self.target.ports if which(one)]
        states = tuple(one for one in left if one is not None)
        if states:
            yield SetPorts(states)


def attributes_of(vf: Vf) -> tuple[object, ...]:
    """The attributes that ``ip link set PF vf N`` sets."""
    return vf.mac, vf.vlan, vf.qos, vf.spoofchk, vf.trust, vf.link_state, vf.rates


def find(host: Host, pf: Pf, port: PortRef) -> Netdev | None:
    """The device of *port* on *host*."""
    if port.kind == "uplink":
        return host.uplink(pf)
    if port.kind == "representor":
        return host.representor(pf, port.vf)
    return next((host.netdev(vf.netdev) for vf in pf.vfs if vf.index == port.vf), None)


def named(step: Step, now: Host) -> Step:
    """*step* with the current names of its network devices."""

    def name(port: PortRef) -> PortRef:
        pf = now.pf(port.pf)
        netdev = find(now, pf, port) if pf else None
        return dataclasses.replace(port, hint=netdev.name) if netdev else port

    match step:
        case SetPorts():
            ports = tuple(dataclasses.replace(one, port=name(one.port)) for one in step.ports)
            return dataclasses.replace(step, ports=ports)
        case AddPorts():
            return dataclasses.replace(step, ports=tuple(name(one) for one in step.ports))
    return step


def nameless(step: Step) -> bool:
    """Whether *step* concerns a network device that had no name when it was planned."""
    match step:
        case SetPorts():
            return not all(one.port.hint for one in step.ports)
        case AddPorts():
            return not all(one.hint for one in step.ports)
    return False


def _left(now: Host, pf: Pf, wanted: PortState, lost: tuple[str, ...]) -> PortState | None:
    """The part of *wanted* that differs or is *lost* on the way; None if nothing does."""
    netdev = find(now, pf, wanted.port)
    state = wanted
    if netdev is not None:
        have = {name: getattr(netdev, name) for name in ("name", "mac", "up", "mtu")}
        have["offload"] = netdev.hw_tc_offload
        so: dict[str, Any] = {k: None for k, v in have.items() if k not in lost and getattr(wanted, k) == v}
        state = dataclasses.replace(wanted, **so)
    return None if all(getattr(state, name) is None for name in PORT_ATTRIBUTES) else state


def _ingress(now: Host, target: Target, before: list[Step]) -> Iterator[Step]:
    """Restore ingress qdiscs and filters at the end: restarting the switch, or changing the mode, removes them."""
    taken = restart_needed(now, target) or any(isinstance(step, SetEswitch) for step in before)
    there = {place(one) for one in now.filters}
    missing = any(now.qdisc(one.netdev) is None for one in target.ingress)
    if target.ingress and (taken or missing or any(place(one) not in there for one in target.filters)):
        yield AddIngress(target.ingress, target.filters)


def _switch(now: Host, target: Target) -> Iterator[Step]:
    """The changes in Open vSwitch, and then in TC."""
    switch = now.openvswitch
    there = {bridge.name for bridge in switch.bridges}
    for bridge in sorted({bridge for bridge, _ in target.delete}):
        names = tuple(name for one, name in target.delete if one == bridge and switch.port_of(name))
        if names:
            yield DeletePorts(bridge, names)
    for name, wanted in target.bridges:
        if not wanted and name in there:
            yield SetBridge(name, False)
    for key, value in target.options:
        if switch.option(key) != value:
            yield SetOption(key, value)
    if target.service and restart_needed(now, target):
        yield RestartSwitch(target.service)
    if target.clean is not None:
        yield target.clean
    for name, wanted in target.bridges:
        if wanted and name not in there:
            yield SetBridge(name, True)
    for bridge in dict.fromkeys(bridge for bridge, _ in target.add):
        ports = tuple(port for one, port in target.add if one == bridge and not _is_in(now, bridge, port))
        if ports:
            yield AddPorts(bridge, ports)


def _is_in(now: Host, bridge: str, port: PortRef) -> bool:
    pf = now.pf(port.pf)
    netdev = find(now, pf, port) if pf else None
    place = now.openvswitch.port_of(netdev.name) if netdev else None
    return place is not None and place[0].name == bridge
