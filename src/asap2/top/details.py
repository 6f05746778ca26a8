# SPDX-License-Identifier: Apache-2.0
"""All that is known of one port or flow, as a text."""

from __future__ import annotations

import dataclasses

from asap2.live import Counters, Flow, Node, Port
from asap2.top.watch import Moment

COUNTERS = dataclasses.fields(Counters)


def of(moment: Moment, identity: str) -> str | None:
    """The text about the row called *identity*; None when it has gone."""
    for node in moment.snapshot.nodes:
        for port in node.ports:
            if port.id == identity:
                return _port(node, port)
        for flow in node.detail.flows if node.detail is not None else ():
            if f"{node.name} {flow.ufid}" == identity:
                return _flow(node, flow)
    return None


def _port(node: Node, port: Port) -> str:
    nic = next((one for one in node.nics if one.name == port.nic), None)
    dropped = [(f"dropped by {nic.name}: {one.reason}", f"{one.packets:,}") for one in nic.drops] if nic else []
    counted = [(field.name.replace("_", " "), getattr(port.counters, field.name)) for field in COUNTERS]
    facts = {
        "port": f"{port.name}, {port.kind} of {node.name}",
        "state": {True: "up", False: "down", None: None}[port.up],
        "MAC": port.mac,
        "NIC": f"{nic.name}, {nic.model}, {nic.address}, {nic.mode or 'unknown mode'}" if nic else None,
        "function": None if port.pf is None else f"PF {port.pf}" + ("" if port.vf is None else f", VF {port.vf}"),
        "guest": port.guest,
        "bridge": port.bridge or next((one.bridge for one in node.ports if one.id == port.twin), None),
        "twin": port.twin,
        **{name: f"{number:,}" for name, number in counted},
        **dict(dropped),
    }
    return _lines(facts)


def _flow(node: Node, flow: Flow) -> str:
    return _lines(
        {
            "flow": f"{flow.ufid}, in {node.name}",
            "in port": flow.in_port,
            "out": ", ".join(flow.outputs) or "nowhere",
            "match": flow.match,
            "actions": flow.actions,
            "packets": f"{flow.packets:,}",
            "bytes": f"{flow.bytes:,}",
            "offloaded": flow.offloaded,
            "code": flow.code,
            "why": flow.why,
            "found": flow.found,
            "to do": flow.fix,
        }
    )


def _lines(facts: dict[str, str | None]) -> str:
    known = {name: value for name, value in facts.items() if value}
    widest = max(map(len, known))
    return "\n".join(f"{name:<{widest}}  {value}" for name, value in known.items())
