# SPDX-License-Identifier: Apache-2.0
"""What must hold in a daemon whatever it was sent: its books agree with each other and with the silicon."""

from __future__ import annotations

import collections
import json
import socket
from collections.abc import Iterable

from asap2.nic.daemon import Daemon
from asap2.nic.function import Role
from asap2.nic.silicon.actionlists import _PORT, _TO_PORTS, _List
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Miss
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


def check_empty(daemon: Daemon) -> None:
    """TroubleError when a rule or an action is left after all filters, flows and actions were taken out."""
    pipeline = daemon.ports.pipeline
    kept = _entries_of(pipeline, pipeline.handing._passing)
    left = {"rules": len(pipeline.rules), "actions": len(pipeline._actions._content.keys() - kept)}
    left["indices of actions"] = sum(len(kind.used) for kind in daemon.filters.actions.table._kinds.values())
    left["records of TC"] = len(list(daemon.filters.kept.journal.items()))
    if any(left.values()):
        raise TroubleError(f"when nothing should be left there are {left}")


def _rules(daemon: Daemon) -> None:
    """Every rule of a pipeline is a filter's, a flow's, the legacy eSwitch's or a rate limit's; each has its own."""
    known: dict[int, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    pipelines: dict[int, Pipeline] = {id(daemon.ports.pipeline): daemon.ports.pipeline}
    for _proto, one in daemon.filters.all():
        for placed in one.placed:
            known[id(placed.pipeline)][placed.handle] += 1
    if daemon.ovs.datapath is not None:
        for flow in daemon.ovs.datapath.flows:
            known[id(daemon.ports.pipeline)].update(flow.handles)
    for silicon in daemon.netdevs.silicon.values():
        pipelines[id(silicon.pipeline)] = silicon.pipeline
        for fdb in silicon._fdbs.values():
            for installed in fdb._rules.values():
                known[id(silicon.pipeline)][installed.handle] += 1
        known[id(silicon.pipeline)].update(silicon.rates._handles.values())
        known[id(silicon.pipeline)].update(silicon.rates._shaped.values())
    for key, pipeline in pipelines.items():
        there, wanted = set(pipeline.rules), known[key]
        if twice := [handle for handle, count in wanted.items() if count > 1]:
            raise TroubleError(f"rules {twice[:5]} of {pipeline.directory.name} belong to two")
        if there != set(wanted):
            lost, extra = set(wanted) - there, there - set(wanted)
            raise TroubleError(f"{pipeline.directory.name}: {len(lost)} rules are missing, {len(extra)} are nobody's")
        _maps(pipeline)


def _maps(pipeline: Pipeline) -> None:
    """The program's memory has what rules and ports need, and nothing else."""
    where, layout, entries = pipeline.directory.name, pipeline._layout, pipeline._entries
    found = sorted(handle for _, _, handle in layout.keys.items())
    if found != sorted(entries):
        raise TroubleError(f"{where}: {len(found)} keys for {len(entries)} rules")
    mask_lists = pipeline._lists._by_place.values()
    nodes = [node for masks in mask_lists for node in masks.nodes]
    if collections.Counter(id(entry.node) for entry in entries.values()) != {id(node): node.rules for node in nodes}:
        raise TroubleError(f"{where}: {len(nodes)} masks for other rules than the {len(entries)} that there are")
    if sum(1 for _ in layout.mask_list_of.items()) != len(mask_lists):
        raise TroubleError(f"{where}: lists of masks that nobody has")
    lists = pipeline._actions
    actions = collections.Counter(entry.actions for entry in entries.values())
    ports = collections.Counter(list(pipeline._ports._ports))
    ports.update(port.miss_port for port in pipeline.ports.values() if port.miss is Miss.REDIRECT)
    ports.update(port for _, port in pipeline.resumes._numbers if port)
    ports.update(port for port, _ in pipeline.resumes._within.values())
    actions.update(pipeline.resumes.within.values())
    actions.update(pipeline.handing._passing)  # kept for the fragments of packets that were handed in
    for op, arg, following in lists._content.values():
        actions[following] += 1
        if isinstance(arg, _List):
            actions[arg.entry] += 1
        elif op in _TO_PORTS and isinstance(arg, int):
            ports[arg & _PORT] += 1
    del actions[0]
    if actions != lists._references:
        raise TroubleError(f"{where}: references to actions are {lists._references}, not {dict(actions)}"[:2000])
    if ports != pipeline._ports._references:
        raise TroubleError(f"{where}: references to ports are {pipeline._ports._references}, not {dict(ports)}"[:2000])


def _entries_of(pipeline: Pipeline, starts: Iterable[int]) -> set[int]:
    """The entries of the action lists that begin at *starts*, those of lists in lists included."""
    entries: set[int] = set()
    waiting = list(starts)
    while waiting:
        entry = waiting.pop()
        content = pipeline._actions.content(entry)
        if content is not None and entry not in entries:
            entries.add(entry)
            waiting.append(content[2])
            if isinstance(content[1], _List):
                waiting.append(content[1].entry)
    return entries


def _devices(daemon: Daemon) -> None:
    """Each function that is bound has its netdev, and each VF of an eSwitch in switchdev mode its representor."""
    wanted: collections.Counter[tuple[str, Role]] = collections.Counter()
    for function in daemon.driver.functions():
        wanted[function.bdf, function.role] += function.bound
        if function is not function.pf:
            wanted[function.bdf, Role.REPRESENTOR] += function.pf.switchdev
    there: collections.Counter[tuple[str, Role]] = collections.Counter()
    for device in daemon.netdevs.all():
        if device.function is not None:
            there[device.function.bdf, device.role] += 1
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
