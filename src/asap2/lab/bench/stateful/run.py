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
from asap2.lab.bench.stateful.connections import new_connections, one_connection
from asap2.lab.bench.stateful.many import Many
from asap2.lab.bench.stateful.paths import build, topology
from asap2.lab.bench.stateful.sizes import FULL, Sizes
from asap2.lab.bench.suite import Measurement, named
from asap2.lab.lab import Lab

RATIOS = (
    Ratio("TCP, tracked and translated in hardware / rules without state", "tracked", "tcp_gbps", "plain", 0.95),
    Ratio(
        "small packets, tracked and translated in hardware / rules without state",
        *("tracked", "packets_per_second", "plain", 0.90),
    ),
    Ratio(
        "new connections, tracked in hardware / a Linux router's nftables",
        *("tracked", "connections_per_second", "router", 0.7),
    ),
    Ratio("TCP, tracked in software / a Linux router's nftables", "software", "tcp_gbps", "router", 1.0),
    Ratio("new connections, tracked in software / the router", "software", "connections_per_second", "router"),
    Ratio("small packets, tracked in hardware / the router", "tracked", "packets_per_second", "router"),
    Ratio(
        "packets/s, many connections round robin / one",
        *("many", "many_packets_per_second", "many", 0.7, "one_packets_per_second"),
    ),
)
TARGETS = (
    Target("packets of a TCP connection of 1000 that the host sees", "tracked", "host_packets", 8, most=True),
    Target("bytes of memory of a connection", "many", "bytes_each", 400, most=True),
)
"""A handshake has three packets, a close three or four. On a ConnectX those in between that come before the driver has
the connection in its table are the host's too: a few."""


def run(lab: Lab, rounds: int, tell: Callable[[str], object], sizes: Sizes = FULL) -> dict[str, Any]:
    """Run the suite (:func:`asap2.lab.bench.suite.run`). The lab is brought up for it and taken down after it."""
    return suite.run(Suite("stateful", RATIOS, TARGETS), lab, _built(lab, sizes), rounds, tell)


@contextlib.contextmanager
def _built(lab: Lab, sizes: Sizes) -> Iterator[list[Measurement]]:
    """Bring everything up; what is to be measured, in turn."""
    plan = topology()
    lab.up(plan)
    with contextlib.ExitStack() as stack:
        paths = build(lab.layout, plan)
        things = [named(path.name, partial(tcp, path)) for path in paths]
        things.append(partial(packets_in_turn, paths, sizes.turns))
        things += [named(path.name, partial(new_connections, path, sizes.connect_seconds)) for path in paths]
        tracked = next(path for path in paths if path.name == "tracked")
        things.append(named("tracked", partial(one_connection, tracked, sizes.requests)))
        many = stack.enter_context(contextlib.closing(Many(lab.layout, sizes.many)))
        things.append(named("many", partial(many.measure, sizes.packets_seconds)))
        yield things
