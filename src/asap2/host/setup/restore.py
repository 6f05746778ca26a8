# SPDX-License-Identifier: Apache-2.0
"""Undo: the earlier state as a target for the planner, and what still differs from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from asap2.host.inventory import Filter, Host, Netdev, Pf, place
from asap2.host.kernel.tc import can_be_put_back
from asap2.host.setup.journal import Journal, devices, interfaces
from asap2.host.setup.plan import NicTarget, Target, attributes_of
from asap2.host.setup.steps import CleanTc, PortRef, PortState
from asap2.host.setup.target import STEERING, RefusedError, vfs_are_free

DATAPATH_KIND = "openvswitch"
"""The kind of Open vSwitch's own devices: bridges, and ovs-system."""


def restore_target(journal: Journal, now: Host, *, force: bool = False) -> Target:
    """The target that brings back ``journal.before``.

    Raises:
        RefusedError: it would take VFs from their users, or remove a bridge that has ports of others. With *force* only
            VFs of guests are refused.
    """
    before, switch = journal.before, now.openvswitch
    nics = tuple(_nic(before, pf) for address in journal.pfs if (pf := before.pf(address)) and pf.eswitch)
    for nic in nics:
        vfs_are_free(now, nic, force=force)
    if switch.trouble and _switch_differs(journal, now):
        raise RefusedError(f"{switch.trouble}, and something is to be undone in it; {switch.remedy}")
    ours = {one.name for address in journal.pfs for one in devices(now, address)}
    was_in = {name for bridge in before.openvswitch.bridges for name in interfaces(bridge)}
    had = {bridge.name for bridge in before.openvswitch.bridges}
    made = [bridge for bridge in switch.bridges if bridge.name in journal.bridges and bridge.name not in had]
    for bridge in made:
        foreign = [name for name in interfaces(bridge) if name not in ours and name != bridge.name]
        if foreign and not force:
            raise RefusedError(
                f"bridge {bridge.name} was made by `asap2 host setup`, and has ports that were not: "
                f"{', '.join(foreign)}; take them out, or say --force"
            )
    names = {bridge.name for bridge in made}
    delete = tuple(
        (bridge.name, port.name)
        for bridge in switch.bridges
        if bridge.name not in names
        for port in bridge.ports
        if any(one.name in ours and one.name not in was_in for one in port.interfaces)
    )
    seen = watched(journal, now)
    return Target(
        nics=nics,
        options=tuple((key, before.openvswitch.option(key)) for key in journal.options),
        service=switch.service if journal.wanted.openvswitch.restart else None,
        restart_pending=journal.restart_pending,
        bridges=tuple((bridge.name, False) for bridge in made),
        delete=delete,
        clean=_clean(before, now),
        ingress=tuple(one for one in before.qdiscs if one.netdev in seen and not one.block),
        filters=tuple(one for one in others_filters(before) if one.netdev in seen),
        switch_first=True,
    )


def _switch_differs(journal: Journal, now: Host) -> bool:
    before, switch = journal.before.openvswitch, now.openvswitch
    options = any(before.option(key) != switch.option(key) for key in journal.options) if switch.database else True
    return bool(journal.options) and options


def _nic(before: Host, pf: Pf) -> NicTarget:
    assert pf.eswitch is not None
    return NicTarget(
        pf=pf.address,
        mode=pf.eswitch.mode,
        vfs=pf.num_vfs,
        order="vfs-first",
        encap=pf.eswitch.encap_mode,
        inline=pf.eswitch.inline_mode,
        params=tuple((name, word) for name, word in pf.params if name == STEERING),
        drivers=tuple((vf.driver, vf.driver_override) for vf in pf.vfs),
        attributes=pf.vfs,
        ports=tuple(_port_states(before, pf)),
    )


def _port_states(before: Host, pf: Pf) -> Iterator[PortState]:
    uplink = before.uplink(pf)
    if uplink is not None:
        yield _state(PortRef(pf.address, "uplink", 0, uplink.name), uplink)
    for number, netdev in before.representors(pf):
        yield _state(PortRef(pf.address, "representor", number, netdev.name), netdev)
    for vf in pf.vfs:
        own = before.netdev(vf.netdev)
        if own is not None:
            state = _state(PortRef(pf.address, "vf", vf.index, own.name), own)
            yield dataclasses.replace(state, mac=own.mac or None, offload=None)


def _state(port: PortRef, netdev: Netdev) -> PortState:
    return PortState(port, netdev.name, up=netdev.up, mtu=netdev.mtu, offload=netdev.hw_tc_offload)


def _clean(before: Host, now: Host) -> CleanTc | None:
    """What offloading has left in TC, unless Open vSwitch offloaded before the first setup, too."""
    if before.openvswitch.hw_offload:
        return None
    kept = {one.netdev for one in before.qdiscs}
    old = {place(one) for one in before.filters}
    left = {one.netdev for one in now.filters if one.of_open_vswitch and place(one) not in old}
    ports = {name for bridge in now.openvswitch.bridges for name in interfaces(bridge)}
    ports |= {one.name for one in now.netdevs if one.kind == DATAPATH_KIND}
    left |= {one.netdev for one in now.qdiscs if one.netdev not in kept and one.netdev in ports}
    return CleanTc(tuple(sorted(left)), tuple(sorted(kept & left))) if left else None


def watched(journal: Journal, now: Host) -> set[str]:
    """The devices whose ingress a setup may have changed: those of the PFs, and the ports of Open vSwitch."""
    both = (journal.before, now)
    ports = {name for host in both for bridge in host.openvswitch.bridges for name in interfaces(bridge)}
    return ports | {one.name for host in both for address in journal.pfs for one in devices(host, address)}


def others_filters(host: Host) -> Iterator[Filter]:
    """The filters that are not flows of Open vSwitch and can be installed again."""
    for one in host.filters:
        if not one.of_open_vswitch and one.message and can_be_put_back(bytes.fromhex(one.message)):
            yield one


def differences(before: Host, now: Host, pfs: Iterable[str]) -> list[str]:
    """Differences of *pfs*, TC and Open vSwitch from *before*, each in a few words; counters are ignored."""
    found = []
    for address in pfs:
        was, is_ = before.pf(address), now.pf(address)
        if was is None or is_ is None:
            found.append(f"{address}: {'came' if was is None else 'went'}")
            continue
        for name in ("num_vfs", "eswitch", "params", "driver", "netdev", "autoprobe"):
            if getattr(was, name) != getattr(is_, name):
                found.append(f"{was.name}: {name} was {getattr(was, name)}, is {getattr(is_, name)}")
        for one, other in zip(was.vfs, is_.vfs, strict=False):
            if (one.driver, one.driver_override, attributes_of(one)) != (
                other.driver,
                other.driver_override,
                attributes_of(other),
            ):
                found.append(f"{was.name}: VF {one.index} was {attributes_of(one)}, is {attributes_of(other)}")
        theirs = {one.name: _shape(one) for one in devices(before, address)}
        ours = {one.name: _shape(one) for one in devices(now, address)}
        found += [
            f"{name}: was {theirs.get(name)}, is {ours.get(name)}"
            for name in sorted({*theirs, *ours})
            if theirs.get(name) != ours.get(name)
        ]
    for what, left, right in (
        ("ingress qdiscs", {one.netdev for one in before.qdiscs}, {one.netdev for one in now.qdiscs}),
        ("options", set(before.openvswitch.other_config), set(now.openvswitch.other_config)),
        ("bridges", set(map(_bridge, before.openvswitch.bridges)), set(map(_bridge, now.openvswitch.bridges))),
    ):
        if left != right:
            found.append(f"{what}: {left - right or 'none'} missing, {right - left or 'none'} too many")
    lost = {place(one) for one in before.filters if one.message} - {place(one) for one in now.filters}
    if lost:
        found.append(f"filters: {sorted(lost)} missing")
    orphans = [one for one in now.filters if one.of_open_vswitch and not now.openvswitch.hw_offload]
    if len(orphans) > len([one for one in before.filters if one.of_open_vswitch]):
        found.append(f"flower filters: {len(orphans)} orphans")
    return found


def _shape(netdev: Netdev) -> tuple[object, ...]:
    return netdev.up, netdev.mtu, netdev.master, netdev.hw_tc_offload


def _bridge(bridge: object) -> str:
    return f"{getattr(bridge, 'name', '')}: {' '.join(sorted(port.name for port in getattr(bridge, 'ports', ())))}"
