# SPDX-License-Identifier: Apache-2.0
"""Flows with the reason for each that is not in hardware, and connections: of a host, in one go."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

from asap2.errors import Asap2Error
from asap2.host import openvswitch
from asap2.host.connections import Connections as TrackedConnections
from asap2.host.explain.connections import placed
from asap2.host.explain.explain import Explanation, explain, flows_of
from asap2.host.explain.flow import Flow as DatapathFlow
from asap2.host.explain.flow import match_text
from asap2.host.explain.reasons import OFFLOADED
from asap2.host.explain.trials import KeptTrials
from asap2.host.inventory import Host
from asap2.host.kernel import conntrack
from asap2.host.observe import observe
from asap2.live.snapshot import Connections, Detail, Flow, Tracked

MOST_LISTED = 200
"""Connections of a listing that are given one by one."""
OBSERVE_AGAIN = 10.0
"""Seconds for which what the reasons rest on, besides the flows, is taken to be as it was."""


class DetailReader:
    """Reads this host's flows and connections, again and again."""

    def __init__(self, *, trial: bool = True) -> None:
        """With *trial*, the rule of each flow in software is tried once, as ``asap2 host explain`` does."""
        self._trials = KeptTrials() if trial else None
        self._host: Host | None = None
        self._datapaths: tuple[str, ...] | None = None
        """The switch's datapaths: to ask for them takes its NIC half as long as to ask for their flows."""
        self._observed = 0.0
        self.listed: frozenset[str] = frozenset()
        """Which connections are wanted one by one: those that have all words of one of these texts."""

    def read(self) -> Detail:
        """The details now."""
        now = time.monotonic()
        try:
            if self._host is None or not self._host.openvswitch.running or now - self._observed > OBSERVE_AGAIN:
                self._host = observe(full=True, filters=False, openflow=False, connections="each")
                self._observed, self._datapaths = now, None
                host = self._host
            else:
                host = self._refreshed(self._host)
            if self._trials is not None and host.openvswitch.running:
                software = [flow for flow in flows_of(host) if flow.offloaded != "yes"]
                host = self._trials.tried(host, software)
        except (Asap2Error, openvswitch.SwitchError, OSError) as error:
            self._host = None
            return Detail(time.time(), trouble=str(error))
        found = detail_of(host, time.time())
        return dataclasses.replace(found, listings=conntrack.listings(self.listed, MOST_LISTED))

    def _refreshed(self, host: Host) -> Host:
        """*host* with the flows and connections of now."""
        if self._datapaths is None:
            self._datapaths = openvswitch.datapaths()
        kernel, userspace = openvswitch.dump_flows(self._datapaths)
        switch = dataclasses.replace(host.openvswitch, datapath_flows=kernel, userspace_flows=userspace)
        return dataclasses.replace(host, openvswitch=switch, connections=conntrack.connections(each=True))


def detail_of(host: Host, taken: float) -> Detail:
    """The details of *host*, which was looked at at *taken* (seconds since 1970)."""
    connections = _connections(host.connections)
    tracked = tuple(Tracked(one.code, one.why, one.what, one.count, one.example) for one in placed(host))
    try:
        flows = flows_of(host)
        explanations = explain(host, flows)
    except Asap2Error as error:
        return Detail(taken, (), connections, tracked, str(error))
    return Detail(taken, tuple(_flows(flows, explanations)), connections, tracked)


def _connections(found: TrackedConnections | None) -> Connections | None:
    return Connections(found.in_hardware or 0, found.in_software) if found is not None else None


def _flows(flows: Iterable[DatapathFlow], explanations: Iterable[Explanation]) -> Iterable[Flow]:
    for flow, one in zip(flows, explanations, strict=True):
        yield Flow(
            flow.ufid or "",
            flow.in_port,
            flow.outputs,
            match_text(flow),
            ",".join(map(str, flow.actions)) or "drop",
            flow.packets,
            flow.bytes,
            flow.offloaded or "no",
            one.code,
            one.why,
            one.found,
            "" if one.code == OFFLOADED else one.fix,
        )
