# SPDX-License-Identifier: Apache-2.0
"""The whole run: everything in turn, round after round; then medians, ratios to peers in the same round, targets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from asap2.lab.bench import suite
from asap2.lab.bench.measure import packets_in_turn, tcp
from asap2.lab.bench.ratios import Ratio, Suite, Target
from asap2.lab.bench.scale.burst import Burst
from asap2.lab.bench.scale.flood import Flood
from asap2.lab.bench.scale.held import Held
from asap2.lab.bench.scale.insertion import Insertion
from asap2.lab.bench.scale.lookup import Lookups, name_of
from asap2.lab.bench.scale.paths import build, topology
from asap2.lab.bench.scale.sizes import FULL, Sizes
from asap2.lab.bench.suite import Measurement, named
from asap2.lab.lab import Lab


def ratios(sizes: Sizes) -> list[Ratio]:
    """All ratios that are told of a run of these *sizes*; where they have no such table, not of that one."""
    lookups = [name_of(*each) for each in sizes.tables]
    least, most = lookups[0], name_of(1_000_000, 64)
    packets = "round_robin_packets_per_second"
    return [
        Ratio("TCP, same node / direct veth", "same_node", "tcp_gbps", "direct", 0.95),
        Ratio("small packets, same node / direct veth", "same_node", "packets_per_second", "direct", 0.90),
        Ratio("TCP, VLAN across the cable / direct veth", "vlan", "tcp_gbps", "direct", 0.90),
        Ratio("small packets, VLAN across the cable / direct veth", "vlan", "packets_per_second", "direct"),
        Ratio("TCP, VXLAN across the cable / bridges and kernel's vxlan", "vxlan", "tcp_gbps", "kernel_vxlan", 1.15),
        Ratio(
            "small packets, VXLAN across the cable / bridges and kernel's vxlan",
            *("vxlan", "packets_per_second", "kernel_vxlan"),
        ),
        Ratio("TCP, VXLAN across the cable / direct veth", "vxlan", "tcp_gbps", "direct"),
        Ratio("TCP, Geneve across the cable / bridges and kernel's vxlan", "geneve", "tcp_gbps", "kernel_vxlan", 1.15),
        Ratio(
            "small packets, Geneve across the cable / bridges and kernel's vxlan",
            *("geneve", "packets_per_second", "kernel_vxlan", 1.4),
        ),
        *(
            Ratio(f"packets/s round robin, {each} / {least}", each, packets, least, 0.5 if each == most else None)
            for each in lookups[1:]
        ),
        *(Ratio(f"packets/s round robin, {each} / direct veth", each, packets, "direct_frames") for each in lookups),
        Ratio(
            "rules by tc -batch / neighbours by ip -batch",
            *("insertion", "rules_per_second", "insertion", None, "kernel_neighbours_per_second"),
        ),
        Ratio("new flows, offloaded / software", "flows_offloaded", "flows_per_second", "flows_software"),
        Ratio("first packet's time, offloaded / software", "flows_offloaded", "first_packet_ms", "flows_software"),
        Ratio(
            "first packet's time, another guest floods / quiet",
            *("flood", "flood_first_packet_ms", "flood", 3, "quiet_first_packet_ms"),
            most=True,
        ),
    ]


_DUMPS_MS = {20_000: 150, 100_000: 800}
"""The most that the revalidator's dump of so many flows should take, in milliseconds."""


def targets(sizes: Sizes) -> list[Target]:
    """All targets of a run of these *sizes* that are not ratios."""
    found = [
        Target("rules/s by tc -batch", "insertion", "rules_per_second", 15_000),
        Target("new flows/s through Open vSwitch, offloaded", "flows_offloaded", "flows_per_second", 2_000),
        Target("first packet, upcall to delivery, ms", "flows_offloaded", "first_packet_ms", 3, most=True),
        Target("new flows lost while another guest floods", "flood", "lost", 0, most=True),
    ]
    for count in sizes.held:
        if count in _DUMPS_MS:
            name = f"revalidator's dump of {count:,} flows, ms"
            found.append(Target(name, "held", f"dump_{count}_ms", _DUMPS_MS[count], most=True))
        found.append(Target(f"flow limit with {count:,} flows", "held", f"flow_limit_{count}", 10_000))
    return found


def run(lab: Lab, rounds: int, tell: Callable[[str], object], sizes: Sizes = FULL) -> dict[str, Any]:
    """Run the suite (:func:`asap2.lab.bench.suite.run`). The lab is brought up for it and taken down after it."""
    return suite.run(Suite("scale", ratios(sizes), targets(sizes)), lab, _built(lab, sizes), rounds, tell)


@contextlib.contextmanager
def _built(lab: Lab, sizes: Sizes) -> Iterator[list[Measurement]]:
    """Bring everything up; what is to be measured, in turn."""
    plan = topology()
    lab.up(plan)
    place = lab.layout
    with contextlib.ExitStack() as stack:
        paths = build(place, plan)
        lookups = stack.enter_context(contextlib.closing(Lookups(place, sizes)))
        insertion = Insertion(place, "rules", sizes.batch_rules)
        things: list[Measurement] = [named(path.name, partial(tcp, path)) for path in paths]
        things.append(partial(packets_in_turn, paths, sizes.turns))
        things.append(named("direct_frames", lookups.direct))
        things += [named(name_of(*each), partial(lookups.measure, n)) for n, each in enumerate(sizes.tables)]
        things.append(named("insertion", insertion.measure))
        for name, offload in (("flows-offloaded", True), ("flows-software", False)):
            burst = stack.enter_context(contextlib.closing(Burst(place, plan, name, sizes, offload=offload)))
            things.append(named(name.replace("-", "_"), burst.measure))
            if offload:
                things.append(named("held", Held(burst, sizes.held, sizes.held_seconds).measure))
        flood = stack.enter_context(contextlib.closing(Flood(place, plan, "flood", sizes)))
        things.append(named("flood", flood.measure))
        yield things
