# SPDX-License-Identifier: Apache-2.0
"""What Prometheus scrapes: flows by where they are and why not in hardware, packets of VFs and of what the host saw.

Names follow Prometheus' rules (units and ``_total`` in the name); counters are the kernel's, so they restart at 0 when
a device is created again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asap2.host.check.audit import audit
from asap2.host.check.finding import Verdict
from asap2.host.connections import Connections
from asap2.host.explain.explain import counted, explain, flows_of
from asap2.host.explain.probe import try_flows
from asap2.host.explain.reasons import OFFLOADED
from asap2.host.explain.trials import KeptTrials, Trier
from asap2.host.inventory import Host
from asap2.host.observe import observe
from asap2.host.status import NicStatus, Status, status
from asap2.output import line


class HostCollector(Collector):
    """This host's figures, read again at each scrape. *trial* tries the rule of each flow in software that is new, has
    changed, or was tried long ago, to know the NIC's answer."""

    def __init__(self, trial: bool = True, see: Callable[[], Host] | None = None, attempt: Trier = try_flows) -> None:
        self._see = see or (lambda: observe(full=True, connections="count"))
        self._trials = KeptTrials(attempt) if trial else None
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """None beforehand: a registry then need not read the host to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures now."""
        with self._lock:
            began = time.monotonic()
            host = self._see()
            page = status(host, host.pfs)
            yield from _switch(host, page)
            yield self._reasons(host)
            yield from _nics(page)
            yield _findings(host)
            yield _gauge("asap2_scrape_seconds", "How long this took.", time.monotonic() - began)

    def _reasons(self, host: Host) -> Metric:
        found = GaugeMetricFamily(
            "asap2_flows_not_offloaded", "Flows not in hardware by reason (docs/reasons.md).", labels=["reason"]
        )
        if not host.openvswitch.running:
            return found
        flows = [flow for flow in flows_of(host) if flow.offloaded != "yes"]
        if self._trials:
            host = self._trials.tried(host, flows)
        for reason, number in counted(explain(host, flows)).items():
            if reason != OFFLOADED:
                found.add_metric([reason], number)
        return found


def registry(collector: HostCollector) -> CollectorRegistry:
    """A registry of this host's figures alone."""
    made = CollectorRegistry()
    made.register(collector)
    return made


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _connections(found: Connections) -> Iterator[Metric]:
    places = GaugeMetricFamily(
        "asap2_connections", "Connections that the kernel tracks, by where they are.", labels=["place"]
    )
    places.add_metric(["hardware"], found.in_hardware or 0)
    places.add_metric(["software"], found.in_software)
    yield places
    yield _gauge("asap2_connection_limit", "The most connections that the kernel tracks.", found.most)


def _switch(host: Host, page: Status) -> Iterator[Metric]:
    switch = host.openvswitch
    yield _gauge("asap2_openvswitch_up", "Whether ovs-vswitchd runs.", switch.running)
    yield _gauge("asap2_offload_in_force", "Whether hw-offload is on, and the switch was started since.", page.in_force)
    flows = GaugeMetricFamily("asap2_flows", "Flows of Open vSwitch by where they are.", labels=["place"])
    flows.add_metric(["hardware"], page.flows.in_hardware)
    flows.add_metric(["tc_software"], page.flows.in_tc_software)
    flows.add_metric(["datapath"], page.flows.in_datapath or 0)
    yield flows
    if host.connections is not None:
        yield from _connections(host.connections)
    if switch.flow_limit is not None:
        yield _gauge("asap2_flow_limit", "The most flows that the switch has at present.", switch.flow_limit)
    if switch.lookups is not None:
        lookups = CounterMetricFamily(
            "asap2_datapath_lookups", "Packets in the kernel's datapath; missed ones are upcalls.", labels=["result"]
        )
        for name, value in zip(("hit", "missed", "lost"), switch.lookups, strict=True):
            lookups.add_metric([name], value)
        yield lookups


def _nics(page: Status) -> Iterator[Metric]:
    rules = GaugeMetricFamily("asap2_rules", "TC rules of a NIC's ports.", labels=["pf", "place"])
    mode = GaugeMetricFamily("asap2_switchdev", "Whether the eSwitch is in switchdev mode.", labels=["pf", "address"])
    families = {
        (what, unit): CounterMetricFamily(f"asap2_{what}_{unit}", words.format(unit), labels=labels)
        for what, words, labels in (
            ("uplink", "{} of the uplink, as the host counts.", ["pf", "direction"]),
            ("vf", "{} of a VF, as its guest counts.", ["pf", "vf", "direction"]),
        )
        for unit in ("packets", "bytes")
    }
    host_packets = CounterMetricFamily(
        "asap2_representor_packets", "Packets of a VF that its representor counts.", labels=["pf", "vf", "representor"]
    )
    for nic in page.nics:
        mode.add_metric([line(nic.name), nic.address], nic.mode == "switchdev")
        rules.add_metric([line(nic.name), "hardware"], nic.rules_in_hardware)
        rules.add_metric([line(nic.name), "software"], nic.rules_in_software)
        _count(families, nic)
        for vf in nic.vfs:
            if vf.representor:
                host_packets.add_metric([line(nic.name), str(vf.index), line(vf.representor)], vf.host_packets)
    yield mode
    yield rules
    yield from families.values()
    yield host_packets


def _count(families: dict[tuple[str, str], CounterMetricFamily], nic: NicStatus) -> None:
    for unit in ("packets", "bytes"):
        for direction, short in (("received", "rx"), ("sent", "tx")):
            families["uplink", unit].add_metric([line(nic.name), direction], getattr(nic, f"{short}_{unit}"))
            for vf in nic.vfs:
                families["vf", unit].add_metric(
                    [line(nic.name), str(vf.index), direction], getattr(vf, f"{short}_{unit}")
                )


def _findings(host: Host) -> Metric:
    found = GaugeMetricFamily("asap2_check_findings", "What `asap2 host check` finds, by verdict.", labels=["verdict"])
    verdicts = Counter(one.verdict for one in audit(host, host.pfs))
    for verdict in Verdict:
        found.add_metric([str(verdict)], verdicts[verdict])
    return found
