# SPDX-License-Identifier: Apache-2.0
"""Carry out the steps of a plan: each reads the state, changes what differs, and checks that it had its effect.

Every refusal of the kernel or of Open vSwitch is converted to a :class:`StepError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterable
from functools import singledispatchmethod
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from asap2.host import openvswitch
from asap2.host.inventory import Host, Vf, place
from asap2.host.kernel import links, sysfs, tc
from asap2.host.kernel.devlink import Devlink
from asap2.host.kernel.ethtool import Ethtool
from asap2.host.observe import observe
from asap2.host.setup.failure import StepError
from asap2.host.setup.plan import find
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
from asap2.netlink.client import Connection
from asap2.netlink.wire import NETLINK_GENERIC, NETLINK_ROUTE, NetlinkError

P = ParamSpec("P")
T = TypeVar("T")
UDEV = "/run/udev/control"
SETTLE_SECONDS = 10
HINTS = {
    errno.ENOMEM: "the BIOS gave the card no room for its VFs: turn on SR-IOV (and large BARs) there",
    errno.ENOSPC: "there are no bus numbers left for the VFs: the kernel option pci=assign-busses may help",
    errno.EBUSY: "something still uses it",
    errno.EROFS: "/sys is mounted read-only here",
}


def told(doing: str, what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *what*, and convert errors of the kernel or Open vSwitch to a StepError that begins with *doing*."""
    try:
        return what(*args, **kwargs)
    except NetlinkError as error:
        raise StepError(f"{doing}: {error.text or os.strerror(error.errno or 0)}") from None
    except OSError as error:
        hint = HINTS.get(error.errno or 0)
        raise StepError(f"{doing}: {error.strerror or error}{f' ({hint})' if hint else ''}") from None
    except openvswitch.SwitchError as error:
        raise StepError(f"{doing}: {error}") from None


class Hands:
    """Carries out steps on this host."""

    def __init__(self) -> None:
        self.route = Connection(NETLINK_ROUTE)
        self.generic = Connection(NETLINK_GENERIC)
        self.devlink = Devlink(self.generic)
        self.ethtool = Ethtool(self.generic)

    def __enter__(self) -> Hands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.route.close()
        self.generic.close()

    def look(self) -> Host:
        """The current state of the host."""
        return observe(openflow=False)

    def do(self, step: Step) -> None:
        """Do one step; raises StepError if it fails or has no effect."""
        self._do(step)

    @singledispatchmethod
    def _do(self, step: Any) -> None:
        raise TypeError(step)

    # ---- NICs

    @_do.register
    def _(self, step: SetVfs) -> None:
        function = sysfs.Function(step.pf)
        if function.number("sriov_numvfs") != step.count:
            told(f"{step.count} VFs", sysfs.set_numvfs, step.pf, step.count)
        settle()
        if (count := len(function.vfs)) != step.count:
            raise StepError(f"{step.pf} was asked for {step.count} VFs, and has {count}")

    @_do.register
    def _(self, step: SetDrivers) -> None:
        functions = dict(sysfs.Function(step.pf).vfs)
        for number, (driver, override) in enumerate(step.drivers):
            function = functions.get(number)
            if function is None:
                raise StepError(f"{step.pf} has no VF {number}")
            self._bind(function, driver, override)
        settle()

    def _bind(self, function: sysfs.Function, driver: str | None, override: str | None) -> None:
        now, address = function.driver, function.address
        if now is not None and now != driver:
            told(f"unbinding {address} from {now}", sysfs.unbind, address, now)
        if function.driver_override != override:
            told(f"driver_override of {address}", sysfs.set_driver_override, address, override)
        if driver is not None and now != driver:
            told(f"binding {address} to {driver}", sysfs.bind, address, driver)
        if function.driver != driver:
            raise StepError(f"{address} is bound to {function.driver or 'nothing'}, not to {driver or 'nothing'}")

    @_do.register
    def _(self, step: SetEswitch) -> None:
        words = step.attribute.replace("_", " ")
        now = told(f"eSwitch of {step.pf}", self.devlink.eswitch, step.pf)
        if getattr(now, step.attribute) == step.word:
            return
        told(f"eSwitch {words} {step.word}", self.devlink.set_eswitch, step.pf, step.attribute, step.word)
        settle()
        now = told(f"eSwitch of {step.pf}", self.devlink.eswitch, step.pf)
        if getattr(now, step.attribute) != step.word:
            raise StepError(f"the eSwitch's {words} is {getattr(now, step.attribute)}, not {step.word}")

    @_do.register
    def _(self, step: SetParam) -> None:
        told(f"{step.name} {step.word}", self.devlink.set_param, step.pf, step.name, step.word)
        have = told(step.name, self.devlink.params, step.pf).get(step.name)
        if have != step.word:
            raise StepError(f"{step.name} is {have}, not {step.word}")

    @_do.register
    def _(self, step: SetVfAttributes) -> None:
        now = observe(filters=False, openflow=False)
        pf = now.pf(step.pf)
        uplink = now.uplink(pf) if pf else None
        if pf is None or uplink is None:
            raise StepError(f"{step.pf} has no network device")
        for wanted in step.vfs:
            have = next((vf for vf in pf.vfs if vf.index == wanted.index), None)
            if have is None:
                raise StepError(f"{step.pf} has no VF {wanted.index}")
            for attribute, value in _changes(have, wanted, pf.switchdev):
                doing = f"{attribute} of VF {wanted.index}"
                told(doing, links.set_vf, self.route, uplink.index, wanted.index, attribute, value)

    # ---- network devices

    @_do.register
    def _(self, step: SetPorts) -> None:
        self._rename(step.ports)
        settle()
        names = self._names(one.port for one in step.ports)
        for one in step.ports:
            name = names[one.port]
            if one.offload is not None:
                told(f"hw-tc-offload of {name}", self.ethtool.set_offload, name, one.offload)
            link = self._link(name)
            if one.mac is not None and links.mac_text(link.attrs.get("address", b"")) != one.mac:
                with contextlib.suppress(NetlinkError):  # a VF may not always choose
                    links.set_mac(self.route, link.index, one.mac)
            if one.mtu is not None and link.attrs.get("mtu") != one.mtu:
                told(f"MTU of {name}", links.set_mtu, self.route, link.index, one.mtu)
            if one.up is not None and link.up != one.up:
                told(f"{name} {'up' if one.up else 'down'}", links.set_up, self.route, link.index, one.up)
        have = told("features", self.ethtool.offload, names.values())
        for one in step.ports:
            name = names[one.port]
            if one.offload is not None and have.get(name) != one.offload:
                raise StepError(f"hw-tc-offload of {name} stays {'off' if one.offload else 'on'}")
            if one.up is not None and self._link(name).up != one.up:
                raise StepError(f"{name} stays {'down' if one.up else 'up'}")

    def _rename(self, ports: Iterable[PortState]) -> None:
        """Rename devices; if they exchange names, through unused ones."""
        wanted = [(one.port, one.name) for one in ports if one.name is not None]
        if not wanted:
            return
        have = self._names(port for port, _ in wanted)
        moves = [(self._link(have[port]).index, name) for port, name in wanted if have[port] != name]
        others = {link.name for link in told("network devices", links.links, self.route)}
        aside = [index for index, name in moves if name in others]
        if aside:
            for index, _ in moves:
                told("names of network devices", links.rename, self.route, index, f"asap2-{index}")
        for index, name in moves:
            told(f"name {name}", links.rename, self.route, index, name)

    def _names(self, ports: Iterable[PortRef]) -> dict[PortRef, str]:
        """The current names of network devices; raises StepError for one that does not exist."""
        now = observe(filters=False, openflow=False)
        found = {}
        for port in ports:
            pf = now.pf(port.pf)
            netdev = find(now, pf, port) if pf else None
            if netdev is None:
                raise StepError(f"{port.shown} is not there")
            found[port] = netdev.name
        return found

    def _link(self, name: str) -> links.Link:
        link = told(name, links.link_named, self.route, name)
        if link is None:
            raise StepError(f"{name} is not there")
        return link

    # ---- Open vSwitch

    @_do.register
    def _(self, step: SetOption) -> None:
        words = ["set", "Open_vSwitch", ".", f"other_config:{step.key}={step.value}"]
        if step.value is None:
            words = ["remove", "Open_vSwitch", ".", "other_config", step.key]
        told(step.commands[0], openvswitch.vsctl, *words)

    @_do.register
    def _(self, step: RestartSwitch) -> None:
        told(step.commands[0], openvswitch.systemctl, "restart", step.service)
        told(f"after {step.commands[0]}", openvswitch.ask, "version")

    @_do.register
    def _(self, step: SetBridge) -> None:
        words = ["--may-exist", "add-br"] if step.there else ["--if-exists", "del-br"]
        told(step.commands[0], openvswitch.vsctl, *words, step.name)
        if step.there:
            self._no_error([step.name])

    @_do.register
    def _(self, step: AddPorts) -> None:
        names = list(self._names(step.ports).values())
        words = [word for name in names for word in ("--", "--may-exist", "add-port", step.bridge, name)]
        told(f"{', '.join(names)} into {step.bridge}", openvswitch.vsctl, *words[1:])
        self._no_error(names)

    def _no_error(self, names: list[str]) -> None:
        """Raise StepError if Open vSwitch reports an error for an interface."""
        switch = openvswitch.observe(openflow=False)
        for name in names:
            interface = switch.interface(name)
            if interface is None or interface.error or (interface.ofport or -1) < 0:
                why = interface.error if interface else "it is not in the database"
                raise StepError(f"Open vSwitch has an error with {name}: {why or 'it got no port number'}")

    @_do.register
    def _(self, step: DeletePorts) -> None:
        words = [word for name in step.names for word in ("--", "--if-exists", "del-port", step.bridge, name)]
        told(f"{', '.join(step.names)} out of {step.bridge}", openvswitch.vsctl, *words[1:])

    # ---- TC

    @_do.register
    def _(self, step: CleanTc) -> None:
        names = {link.index: link.name for link in told("network devices", links.links, self.route)}
        for row in told("qdiscs", tc.qdiscs, self.route):
            if names.get(row.index) in step.devices:
                told(f"filters of {names[row.index]}", self._clean, row, names[row.index] in step.kept)

    @_do.register
    def _(self, step: AddIngress) -> None:
        have = {row.index for row in told("qdiscs", tc.qdiscs, self.route)}
        indices = {link.name: link.index for link in told("network devices", links.links, self.route)}
        for qdisc in step.qdiscs:
            index = indices.get(qdisc.netdev)
            if index is not None and index not in have:
                told(f"{qdisc.kind} qdisc of {qdisc.netdev}", tc.add_qdisc, self.route, index, qdisc.kind)
        there = {place(one) for one in self.look().filters} if step.filters else set()
        for one in step.filters:
            if place(one) not in there and one.netdev in indices:
                message = bytes.fromhex(one.message)
                told(f"{one.kind} filter on {one.netdev}", tc.add_filter, self.route, indices[one.netdev], message)

    def _clean(self, row: tc.QdiscRow, keep: bool) -> None:
        rows = list(tc.filters(self.route, row))
        ours = tc.orphans(rows)
        if not keep and len(ours) == len(rows):
            tc.delete_qdisc(self.route, row)
            return
        for one in ours:
            tc.delete_filter(self.route, one)


def _changes(have: Vf, wanted: Vf, switchdev: bool) -> Iterable[tuple[str, Any]]:
    """The attributes to set on a VF; in switchdev mode only MAC and rates: its representor determines the rest."""
    for name in ("mac", "rates") if switchdev else ("mac", "rates", "spoofchk", "trust", "link_state"):
        if getattr(have, name) != getattr(wanted, name):
            yield name, getattr(wanted, name)
    if not switchdev and (have.vlan, have.qos) != (wanted.vlan, wanted.qos):
        yield "vlan", (wanted.vlan, wanted.qos)


def settle() -> None:
    """Wait until udev, if it runs, has processed new devices: it may rename them."""
    if os.path.exists(UDEV):
        subprocess.run(["udevadm", "settle", f"--timeout={SETTLE_SECONDS}"], capture_output=True)
