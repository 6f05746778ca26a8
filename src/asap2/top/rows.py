# SPDX-License-Identifier: Apache-2.0
"""What passes, as rows of two tables and a line of totals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from asap2.live import Flow, Node, Port, PortKind, PortRate, Rates, Snapshot
from asap2.quantities import percent, short
from asap2.top.columns import Column
from asap2.top.watch import Moment

_Row = TypeVar("_Row", "PortRow", "FlowRow")
_NOTHING = PortRate()
_BITS = 8


@dataclass(frozen=True, slots=True)
class PortRow:
    """A port, what passes it per second, and the part of it that is in ``hardware``, from 0 to 1, or None where nothing
    passes. ``in`` is what comes into the switch by the port. A VF and its representor are one row."""

    id: str
    node: str
    port: str
    kind: str
    guest: str
    representor: str
    bridge: str
    in_packets: float
    out_packets: float
    in_bits: float
    out_bits: float
    hardware: float | None
    refused: float


@dataclass(frozen=True, slots=True)
class FlowRow:
    """A flow of Open vSwitch's datapath and what passes it per second, None where that is not known yet. ``where`` is
    "NIC", "host", or "both" for a flow that is offloaded in part; ``reason`` is a code of docs/reasons.md."""

    id: str
    node: str
    in_port: str
    outputs: str
    packets: float | None
    bits: float | None
    counted: int
    where: str
    reason: str
    match: str
    actions: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What comes into all switches per second, by VFs, uplinks and all other ports: each packet counts once in each
    hypervisor. ``hardware`` is the part of the packets that is in hardware; ``refused`` also has what eSwitches
    dropped."""

    packets: float
    bits: float
    hardware: float | None
    refused: float


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node; ``state`` is "up", or what is wrong."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Round:
    """What passed in the ``seconds`` before ``taken``. ``source`` is "lab" or "host", ``name`` its name. ``flows`` are
    None unless they are asked for, and until they have been read."""

    taken: str
    source: str
    name: str
    seconds: float
    totals: Totals
    nodes: list[NodeState]
    ports: list[PortRow]
    flows: list[FlowRow] | None


def round_of(moment: Moment) -> Round:
    """All of *moment*, as data."""
    snapshot = moment.snapshot
    return Round(
        datetime.fromtimestamp(snapshot.taken).astimezone().isoformat(timespec="milliseconds"),
        snapshot.source,
        snapshot.name,
        round(moment.rates.seconds, 3) if moment.rates else 0.0,
        totals(moment),
        [NodeState(node.name, node.state) for node in snapshot.nodes],
        ports(moment),
        flows(moment),
    )


def ports(moment: Moment) -> list[PortRow]:
    """A row for each port but representors of VFs, whose packets are those of their VFs."""
    return [_port_row(node, port, moment.rates) for node, port in _counted(moment.snapshot)]


def flows(moment: Moment) -> list[FlowRow] | None:
    """A row for each flow; None until there are any details."""
    details = [(node, node.detail) for node in moment.snapshot.nodes if node.detail is not None]
    if not details:
        return None
    return [_flow_row(node.name, flow, moment.rates) for node, detail in details for flow in detail.flows]


def totals(moment: Moment) -> Totals:
    """The sums."""
    rates = moment.rates or Rates(0)
    found = [rates.ports.get(port.id, _NOTHING) for _, port in _counted(moment.snapshot)]
    hardware = sum(one.hardware_in_packets for one in found)
    packets = hardware + sum(one.software_in_packets for one in found)
    octets = sum(one.hardware_in_bytes + one.software_in_bytes for one in found)
    refused = sum(one.dropped_packets for one in found) + sum(rates.drops.values())
    return Totals(packets, octets * _BITS, hardware / packets if packets else None, refused)


def troubles(snapshot: Snapshot) -> list[str]:
    """What is wrong with nodes, in a few words each."""
    found = [f"{node.name}: {node.state}" for node in snapshot.nodes if node.state != "up"]
    return found + [
        f"{node.name}: {node.detail.trouble}" for node in snapshot.nodes if node.detail and node.detail.trouble
    ]


def chosen(rows: Iterable[_Row], words: str) -> list[_Row]:
    """Those of *rows* that have each of the *words* in one of their texts, in any case."""
    wanted = words.casefold().split()
    return [row for row in rows if all(word in _texts(row) for word in wanted)]


def _texts(row: PortRow | FlowRow) -> str:
    if isinstance(row, PortRow):
        texts: Sequence[str] = (row.node, row.port, row.kind, row.guest, row.representor, row.bridge)
    else:
        texts = (row.node, row.in_port, row.outputs, row.where, row.reason, row.match, row.actions)
    return "\n".join(texts).casefold()


def _counted(snapshot: Snapshot) -> Iterable[tuple[Node, Port]]:
    for node in snapshot.nodes:
        for port in node.ports:
            if port.kind is PortKind.PATCH or (port.kind is PortKind.REPRESENTOR and port.twin is not None):
                continue
            yield node, port


def _port_row(node: Node, port: Port, found: Rates | None) -> PortRow:
    rate = found.ports.get(port.id, _NOTHING) if found else _NOTHING
    twin = next((one for one in node.ports if port.twin is not None and one.id == port.twin), None)
    bridge = port.bridge or (twin.bridge if twin is not None else None)
    return PortRow(
        port.id,
        node.name,
        port.name,
        port.kind.value,
        port.guest or "",
        twin.name if twin is not None else "",
        bridge or "",
        rate.hardware_in_packets + rate.software_in_packets,
        rate.hardware_out_packets + rate.software_out_packets,
        (rate.hardware_in_bytes + rate.software_in_bytes) * _BITS,
        (rate.hardware_out_bytes + rate.software_out_bytes) * _BITS,
        rate.hardware_share,
        rate.dropped_packets,
    )


_WHERE = {"yes": "NIC", "partial": "both"}


def _flow_row(node: str, flow: Flow, found: Rates | None) -> FlowRow:
    rate = found.flows.get((node, flow.ufid)) if found else None
    return FlowRow(
        f"{node} {flow.ufid}",
        node,
        flow.in_port,
        ", ".join(flow.outputs),
        rate.packets if rate else None,
        rate.bytes * _BITS if rate else None,
        flow.packets,
        _WHERE.get(flow.offloaded, "host"),
        "" if flow.code == "offloaded" else flow.code,
        flow.match,
        flow.actions,
    )


def _rate(value: float | None) -> str:
    return "" if value is None else short(value)


def _match(row: FlowRow) -> str:
    """The match without what other columns say, or nearly all flows have."""
    return row.match.replace(f"in_port({row.in_port}),", "").removeprefix("recirc_id(0),")


PORTS: tuple[Column[PortRow], ...] = (
    Column("node", "node", lambda row: row.node, lambda row: row.node, most=12),
    Column("port", "port", lambda row: row.port, lambda row: row.port),
    Column("guest", "guest", lambda row: row.guest or None, lambda row: row.guest, need=1, most=14),
    Column("kind", "kind", lambda row: row.kind, lambda row: row.kind, need=5, most=11),
    Column("representor", "repr", lambda row: row.representor or None, lambda row: row.representor, need=3),
    Column("bridge", "bridge", lambda row: row.bridge or None, lambda row: row.bridge, need=6),
    Column("in", "in p/s", lambda row: row.in_packets, lambda row: short(row.in_packets), number=True),
    Column("out", "out p/s", lambda row: row.out_packets, lambda row: short(row.out_packets), number=True),
    Column("in-bits", "in b/s", lambda row: row.in_bits, lambda row: short(row.in_bits), need=2, number=True),
    Column("out-bits", "out b/s", lambda row: row.out_bits, lambda row: short(row.out_bits), need=2, number=True),
    Column("hardware", "HW %", lambda row: row.hardware, lambda row: percent(row.hardware), number=True),
    Column("refused", "refused", lambda row: row.refused, lambda row: short(row.refused), need=4, number=True),
)
FLOWS: tuple[Column[FlowRow], ...] = (
    Column("node", "node", lambda row: row.node, lambda row: row.node, most=12),
    Column("port", "in port", lambda row: row.in_port, lambda row: row.in_port),
    Column("to", "to", lambda row: row.outputs or None, lambda row: row.outputs, need=4),
    Column("in", "p/s", lambda row: row.packets, lambda row: _rate(row.packets), number=True),
    Column("in-bits", "b/s", lambda row: row.bits, lambda row: _rate(row.bits), need=2, number=True),
    Column("counted", "packets", lambda row: row.counted, lambda row: short(row.counted), need=3, number=True),
    Column("where", "where", lambda row: row.where, lambda row: row.where),
    Column("reason", "reason", lambda row: row.reason or None, lambda row: row.reason, need=1, most=22),
    Column("match", "match", lambda row: row.match, _match, most=400, stretches=True),
)
NUMBERS_FIRST = "in"
"""The column that rows are sorted by, largest first, until another is chosen."""
