# SPDX-License-Identifier: Apache-2.0
"""What is wanted, as a target for the planner, or the sentence that says why it cannot be."""

from __future__ import annotations

import dataclasses
from typing import Literal

from asap2.errors import Asap2Error, UsageError
from asap2.host.inventory import SWITCHDEV, Host, Pf, Qdisc, Vf, vf_use_by_host, vf_user
from asap2.host.records import to_data
from asap2.host.select import not_a_pf
from asap2.host.setup.plan import NicTarget, Target, disruptive
from asap2.host.setup.steps import PortRef, PortState
from asap2.host.setup.wanted import DEFAULT_VFS, Nic, Wanted

ORDERS: dict[str, Literal["vfs-first", "switchdev-first"]] = {"ice": "switchdev-first"}
"""Drivers whose eSwitch refuses to change its mode while there are VFs (ice_eswitch_mode_set)."""
STEERING = "flow_steering_mode"
NO_MAC = "00:00:00:00:00:00"
"""The MAC of a VF that nobody gave one."""


class RefusedError(Asap2Error):
    """What is wanted cannot be done, or should not; nothing was changed."""


def with_default(now: Host, names: tuple[str, ...]) -> tuple[str, ...]:
    """The PFs to set up when *names* were named: these, or the only one there is."""
    if names:
        return names
    able = [pf for pf in now.pfs if pf.eswitch is not None]
    if len(able) == 1:
        return (able[0].name,)
    if not able:
        raise RefusedError(
            "there is no switchdev NIC here: no PF has an eSwitch that can be managed; see `asap2 host check`"
        )
    raise UsageError(f"say which PF is to be set up; here are {', '.join(pf.name for pf in able)}")


def setup_target(
    now: Host, wanted: Wanted, *, force: bool = False, restart_pending: bool = False, order: str | None = None
) -> Target:
    """The target that *wanted* means on the host *now*; *order* is for NICs that want "auto".

    Raises:
        UsageError: a PF or number that the host does not have.
        RefusedError: what would not work, or would harm; the latter not with *force*.
    """
    if not wanted.nic_only:
        _switch_runs(now)
    nics: list[NicTarget] = []
    add, bridges = [], []
    for nic in wanted.nic:
        pf = now.pf(nic.pf)
        if pf is None:
            raise UsageError(not_a_pf(now, nic.pf))
        if any(one.pf == pf.address for one in nics):
            raise UsageError(f"{pf.name} is there twice, as {nic.pf} too")
        target = nic_target(now, pf, nic, order)
        _harmless(now, pf, nic, target, force)
        nics.append(target)
        if nic.bridge is not None and not wanted.nic_only:
            _bridge_takes(now, pf, nic)
            bridges.append((nic.bridge, True))
            add += [(nic.bridge, one.port) for one in target.ports if _goes_in(nic, one.port)]
    options = {"hw-offload": "true", "tc-policy": wanted.openvswitch.tc_policy}
    if wanted.openvswitch.max_idle is not None:
        options["max-idle"] = str(wanted.openvswitch.max_idle)
    if now.openvswitch.hw_offload:
        options["hw-offload"] = now.openvswitch.option("hw-offload")
    if wanted.openvswitch.restart and not wanted.nic_only and now.openvswitch.service is None:
        raise RefusedError("systemd has no service for Open vSwitch here; say --no-restart, and restart it yourself")
    return Target(
        nics=tuple(nics),
        options=() if wanted.nic_only else tuple((key, word) for key, word in options.items() if word is not None),
        service=now.openvswitch.service if wanted.openvswitch.restart and not wanted.nic_only else None,
        restart_pending=restart_pending,
        bridges=tuple(dict.fromkeys(bridges)),
        add=tuple(add),
        ingress=_ingress(now),
    )


def _ingress(now: Host) -> tuple[Qdisc, ...]:
    """The uplinks' qdiscs, those that Open vSwitch thinks it made too: they are to be there in the end."""
    switch = now.openvswitch
    offloading = [pf.name for pf in now.pfs if switch.hw_offload and switch.port_of(pf.name)]
    missing = [Qdisc(name, "ingress") for name in offloading if now.qdisc(name) is None]
    return (*missing, *(one for one in now.qdiscs if not one.block))


def nic_target(now: Host, pf: Pf, nic: Nic, order: str | None) -> NicTarget:
    """What *pf* is to be for *nic*."""
    _has_eswitch(pf)
    count = nic.vfs if nic.vfs is not None else pf.num_vfs or min(DEFAULT_VFS, pf.total_vfs)
    if count > pf.total_vfs:
        raise UsageError(f"{pf.name} has at most {pf.total_vfs} VFs, not {count}")
    if len(nic.representor_names) > count:
        raise UsageError(f"{pf.name} has {count} VFs, and {len(nic.representor_names)} representors are named")
    if nic.steering is not None and nic.steering != dict(pf.params).get(STEERING):
        if STEERING not in dict(pf.params):
            raise RefusedError(f"{pf.name} has no {STEERING} to set")
        if pf.switchdev:
            raise RefusedError(f"{STEERING} of {pf.name} can change in legacy mode only; say `asap2 host undo` first")
    remade = count != pf.num_vfs
    default = pf.driver if pf.autoprobe else None
    old = {} if remade else {vf.index: vf for vf in pf.vfs}
    drivers = tuple(
        (old[n].driver or default, old[n].driver_override) if n in old else (default, None) for n in range(count)
    )
    inline = pf.eswitch.inline_mode if pf.eswitch else None
    chosen = nic.order if nic.order != "auto" else order or ORDERS.get(pf.driver or "", "vfs-first")
    return NicTarget(
        pf=pf.address,
        mode=SWITCHDEV,
        vfs=count,
        order="switchdev-first" if chosen == "switchdev-first" else "vfs-first",
        encap=None if nic.encap is None else "basic" if nic.encap else "none",
        inline="transport" if inline in ("link", "network") else None,
        params=((STEERING, nic.steering),) if nic.steering else (),
        drivers=drivers,
        attributes=_attributes(pf, nic, count, early=chosen == "vfs-first" and not pf.switchdev),
        ports=_ports(now, pf, nic, count),
    )


def _ports(now: Host, pf: Pf, nic: Nic, count: int) -> tuple[PortState, ...]:
    """What uplink and representors are to be."""
    uplink = PortState(PortRef(pf.address, "uplink", 0, pf.name), up=True, offload=True)
    have = dict(now.representors(pf)) if count == pf.num_vfs else {}
    names = dict(enumerate(nic.representor_names))
    return (
        uplink,
        *(
            PortState(
                PortRef(pf.address, "representor", n, have[n].name if n in have else ""),
                name=names.get(n),
                up=True if nic.representors else None,
                offload=True,
            )
            for n in range(count)
        ),
    )


def _attributes(pf: Pf, nic: Nic, count: int, *, early: bool) -> tuple[Vf, ...]:
    """The VFs that get attributes: those that are said, and those that would lose what an administrator gave them;
    *early*, while the eSwitch is in legacy mode: only there is it asked for trust and spoof checks."""
    said = {vf.index: {k: v for k, v in to_data(vf).items() if k != "index" and v is not None} for vf in nic.vf}
    if any(index >= count for index in said):
        raise UsageError(f"{pf.name} is to have {count} VFs, so there is no VF {max(said)}")
    have = {vf.index: vf for vf in pf.vfs if vf.index < count}
    for index, values in said.items():
        other = [
            k for k in ("trust", "spoofchk") if k in values and values[k] != getattr(have.get(index, Vf(0, "")), k)
        ]
        if other and not early:
            raise RefusedError(f"{other[0]} of VF {index} of {pf.name} can only be set before it is in switchdev mode")
    kept = [index for index, vf in have.items() if vf.trust or vf.mac != NO_MAC or vf.rates != (0, 0)]
    found = []
    for index in sorted({*said, *(kept if count != pf.num_vfs else ())}):
        now = have.get(index, Vf(index, ""))
        wanted = dataclasses.replace(now, **said.get(index, {}))
        if wanted != now or count != pf.num_vfs:
            found.append(wanted)
    return tuple(found)


def _goes_in(nic: Nic, port: PortRef) -> bool:
    return nic.uplink if port.kind == "uplink" else nic.representors


# ---- refusals


def _has_eswitch(pf: Pf) -> None:
    if pf.driver is None:
        raise RefusedError(f"{pf.address} has no driver: `echo {pf.address} > /sys/bus/pci/drivers_probe` binds it")
    if pf.eswitch is None:
        raise RefusedError(f"{pf.name} ({pf.driver}) is not a switchdev NIC: {pf.eswitch_refusal}")
    if not pf.total_vfs:
        raise RefusedError(f"{pf.name} has no VFs to offer: SR-IOV is off in its firmware; see `asap2 host check`")


def _switch_runs(now: Host) -> None:
    if now.openvswitch.trouble:
        raise RefusedError(f"{now.openvswitch.trouble}; {now.openvswitch.remedy}")


def vfs_are_free(now: Host, target: NicTarget, *, force: bool) -> None:
    """RefusedError when VFs that would be taken away are in use."""
    pf = now.pf(target.pf)
    if pf is None or not disruptive(now, target):
        return
    for vf in pf.vfs:
        if user := vf_user(vf):
            raise RefusedError(f"VF {vf.index} of {pf.name} ({vf.address}) is in use by {user}; stop it first")
        if (use := vf_use_by_host(now, vf)) and not force:
            raise RefusedError(
                f"VF {vf.index} of {pf.name} ({vf.netdev}) is in use by this host, {use}; --force takes it away"
            )


def _harmless(now: Host, pf: Pf, nic: Nic, target: NicTarget, force: bool) -> None:
    """RefusedError for what takes VFs from guests, or cuts the way by which the host is reached."""
    vfs_are_free(now, target, force=force)
    joins = bool(nic.bridge) and nic.uplink and now.openvswitch.port_of(pf.name) is None
    if pf.name in now.reached_by and (not pf.switchdev or joins) and not force:
        raise RefusedError(
            f"this host is reached over {pf.name} (default route or SSH), and would be cut off; --force does it"
        )


def _bridge_takes(now: Host, pf: Pf, nic: Nic) -> None:
    """RefusedError when the bridge, or where the uplink is already, does not fit."""
    bridge = next((one for one in now.openvswitch.bridges if one.name == nic.bridge), None)
    if bridge and bridge.datapath_type not in ("", "system"):
        raise RefusedError(
            f"bridge {bridge.name} has the datapath {bridge.datapath_type}, which does not offload through TC"
        )
    place = now.openvswitch.port_of(pf.name)
    if nic.uplink and place and place[0].name != nic.bridge:
        raise RefusedError(f"{pf.name} is in bridge {place[0].name} already, not in {nic.bridge}")
    uplink = now.uplink(pf)
    if nic.uplink and uplink and uplink.master and not place:
        raise RefusedError(f"{pf.name} is a port of {uplink.master}, so it cannot be in {nic.bridge}; say --no-uplink")
