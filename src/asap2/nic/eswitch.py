# SPDX-License-Identifier: Apache-2.0
"""What the pipeline's ports are, in switchdev and in legacy mode.

Plain functions of the driver's state and of the netdevs that there are; far ends are named as in :mod:`asap2.nic.veth`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from asap2.nic import legacy
from asap2.nic.function import Function, LinkState, Nic, Pf, Role, Vf
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind


@dataclass(frozen=True, slots=True)
class End:
    """A pair: ``ifindex`` is the far end's; ``mac`` the near end's address, empty where that cannot be asked;
    ``promiscuous`` whether the near end is; ``carrier`` whether the far end has a carrier; ``here`` whether the near
    end is in the silicon too: that of a cable between two ports of one NIC."""

    ifindex: int
    mac: bytes = b""
    promiscuous: bool = False
    carrier: bool = True
    here: bool = False


Ends = Mapping[str, End]
"""The pairs of one NIC by their far end's name."""


_FAR_END = re.compile(r"pf(\d+)(?:(vf|rep)(\d+))?")


def netdev_of(nic: Nic, name: str) -> tuple[Role, Function] | None:
    """The role and the function of the netdev whose far end has, or had, that *name*; None for another name. A VF that
    is no more is made up: its place and nothing else."""
    found = _FAR_END.fullmatch(name)
    if found is None or int(found[1]) >= len(nic.pfs):
        return None
    pf = nic.pfs[int(found[1])]
    if found[2] is None:
        return Role.PF, pf
    index = int(found[3])
    vf = pf.vfs[index] if index < len(pf.vfs) else Vf(pf, index)
    return (Role.VF if found[2] == "vf" else Role.REPRESENTOR), vf


def links(pf: Pf, ends: Ends) -> dict[str, bool]:
    """Whether the far ends of functions are to be up: their netdevs have carrier then, or not.

    The PF's link is the cable's. In switchdev mode a VF's is its representor's; in legacy mode it is what the
    administrator says, ``auto`` being the cable's (MLX5_VPORT_ADMIN_STATE_*).
    """
    wire = ends.get(pf.wire)
    cable = wire is not None and wire.carrier
    wanted = {pf.far: cable}
    for vf in pf.vfs:
        wanted[vf.far] = _link(vf, cable)
    return {name: up for name, up in wanted.items() if name in ends}


def _link(vf: Vf, cable: bool) -> bool:
    return cable if vf.link_state is LinkState.AUTO else vf.link_state is LinkState.ENABLE


def legacy_switch(pf: Pf, ends: Ends) -> legacy.Switch | None:
    """The eSwitch in legacy mode; None where it is in switchdev mode, or has no VFs: then the PF is the whole NIC."""
    if pf.switchdev or not pf.vfs:
        return None
    up = links(pf, ends)
    vports = []
    if end := ends.get(pf.far):
        vports.append(legacy.Vport(pf.port, end.mac or pf.mac))
    for vf in pf.vfs:
        if end := ends.get(vf.far):
            vport = legacy.Vport(
                vf.port,
                end.mac,
                vf.index,
                vf.vlan,
                vf.qos,
                vf.mac if vf.spoofchk else None,
                vf.trust and end.promiscuous,
                up[vf.far],
            )
            vports.append(vport)
    return legacy.Switch(pf.switched_port, tuple(vports), pf.nic.model.vst_stacks_tags)


def bonded(pf: Pf, ends: Ends) -> Port | None:
    """The port by which *pf*'s eSwitch sends while the NIC's ports are bonded; None: they never were."""
    lag = pf.nic.lag
    wire = ends.get(pf.nic.pfs[lag.ways[pf.index]].wire) if lag is not None else None
    if wire is None:
        return None
    deliver = Deliver.EGRESS if wire.here else Deliver.PEER
    return Port(pf.bonded_port, wire.ifindex, PortKind.BONDED, deliver=deliver, peer_any=True, tables=())


def ports(pf: Pf, ends: Ends, switch: legacy.Switch | None) -> dict[str, Port]:
    """The port of each pair, by its far end's name; *switch* is :func:`legacy_switch`."""
    switchdev = pf.switchdev
    uplink, wire = ends.get(pf.far), ends.get(pf.wire)
    found: dict[str, Port] = {}
    if uplink:
        found[pf.far] = Port(
            pf.port,
            uplink.ifindex,
            PortKind.UPLINK_REP if switchdev else PortKind.PF,
            mac=uplink.mac or pf.mac,
            deliver=Deliver.PEER,
            peer_any=switchdev,  # it has to get, without a carrier too, what is for internal ports of Open vSwitch
            tables=(legacy.FDB,) if switch else (),
            miss=Miss.REDIRECT if wire else Miss.DROP,
            miss_port=pf.switched_port,
        )
    if wire:
        idle = pf.nic.lag is not None and pf.index in pf.nic.lag.idle
        tables = (0,) if switchdev and not idle else ()
        found[pf.wire] = Port(
            pf.switched_port,
            wire.ifindex,
            PortKind.UPLINK,
            deliver=Deliver.EGRESS if wire.here else Deliver.PEER,  # a peer has to be in another namespace
            peer_any=True,
            tables=(legacy.FDB,) if switch else tables,
            miss=Miss.REDIRECT if uplink else Miss.DROP,
            miss_port=pf.port,
        )
    up = links(pf, ends)
    vports = {vport.index: vport for vport in switch.vports} if switch else {}
    for vf in pf.vfs:
        own, representor = ends.get(vf.far), ends.get(vf.representor)
        if own:
            found[vf.far] = Port(
                vf.port,
                own.ifindex,
                PortKind.VF,
                mac=own.mac or vf.mac,
                deliver=Deliver.PEER,
                tables=(legacy.entry(switch, vports[vf.index]),) if switch else (0,),
                miss=Miss.REDIRECT if representor else Miss.DROP,
                miss_port=vf.host_port,
                enabled=up[vf.far],
            )
        if representor:
            found[vf.representor] = Port(
                vf.host_port,
                representor.ifindex,
                PortKind.REP,
                deliver=Deliver.PEER,
                tables=(),
                miss=Miss.REDIRECT if own else Miss.DROP,
                miss_port=vf.port,
            )
    return found
