# SPDX-License-Identifier: Apache-2.0
"""What must hold in a daemon whatever it was sent: its books agree with each other and with the silicon."""

from __future__ import annotations

import collections
import json
import socket

from asap2.nic.daemon import Daemon
from asap2.nic.netdevs import Role
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.snapshot import Snapshot

STRANGERS = 8


class TroubleError(Exception):
    """Something does not hold."""


def check(daemon: Daemon) -> None:
    """TroubleError when it does not. The daemon's lock is held."""
    _rules(daemon)
    _devices(daemon)
    _ports(daemon)
    _state(daemon)


def _rules(daemon: Daemon) -> None:
    """Every rule of a pipeline is a filter's, a flow's or the legacy eSwitch's, and each of those has its rule."""
    known: dict[int, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    pipelines: dict[int, Pipeline] = {id(daemon.ports.pipeline): daemon.ports.pipeline}
    for _block, _chain, _proto, one in daemon.filters.all():
        for placed in one.placed:
            known[id(placed.pipeline)][placed.handle] += 1
    if daemon.ovs.datapath is not None:
        for flow in daemon.ovs.datapath.flows.values():
            if flow.handle is not None:
                known[id(daemon.ports.pipeline)][flow.handle] += 1
    for silicon in daemon.netdevs.silicon.values():
        pipelines[id(silicon.pipeline)] = silicon.pipeline
        for fdb in silicon._fdbs.values():
            for installed in fdb._rules.values():
                known[id(silicon.pipeline)][installed.handle] += 1
    for key, pipeline in pipelines.items():
        there, wanted = set(pipeline.rules), known[key]
        if twice := [handle for handle, count in wanted.items() if count > 1]:
            raise TroubleError(f"rules {twice[:5]} of {pipeline.directory.name} belong to two")
        if there != set(wanted):
            lost, extra = set(wanted) - there, there - set(wanted)
            raise TroubleError(f"{pipeline.directory.name}: {len(lost)} rules are missing, {len(extra)} are nobody's")


def _devices(daemon: Daemon) -> None:
    """Each function that is bound has its netdev, and each VF of an eSwitch in switchdev mode its representor."""
    wanted: collections.Counter[tuple[str, Role]] = collections.Counter()
    for _nic, pf, vf in daemon.driver.functions():
        if vf is None:
            wanted[pf.bdf, Role.PF] += pf.bound
        else:
            wanted[vf.bdf, Role.VF] += vf.bound
            wanted[vf.bdf, Role.REPRESENTOR] += pf.mode.name == "SWITCHDEV"
    there: collections.Counter[tuple[str, Role]] = collections.Counter()
    for device in daemon.netdevs.all():
        function = device.vf or device.pf
        if function is not None:
            there[function.bdf, device.role] += 1
    if +wanted != there:
        raise TroubleError(f"netdevs: wanted {dict(+wanted - there)} more, {dict(there - +wanted)} fewer")


def _ports(daemon: Daemon) -> None:
    """A port of the node's pipeline is a device's that there is, once the daemon has followed its links; but for a few
    that rules send to and that never were."""
    there = {ifindex for ifindex, _ in socket.if_nameindex()}
    daemon.netdevs.drain()
    gone = set(daemon.ports.known()) - there
    if len(gone) > STRANGERS and not daemon.netdevs.unsettled:
        raise TroubleError(f"ports of devices that are no more: {sorted(gone)[:10]}")


def _state(daemon: Daemon) -> None:
    """What is written down is what is so, and can be read."""
    daemon._keep()
    kept = Snapshot(daemon.run_dir / "state" / "driver", 0)
    kept.close()
    written = json.loads(kept.state or b"{}")
    now = json.loads(json.dumps(daemon.driver.snapshot()))
    for name, pfs in now.items():
        for before, pf in zip(written[name], pfs, strict=True):
            for key, value in pf.items():
                if before[key] != value:
                    raise TroubleError(f"{before[key]} is written down for {key}, which is {value}")
