# SPDX-License-Identifier: Apache-2.0
"""What one event is as a step of a packet's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from asap2.nic.rules import Rule
from asap2.nic.silicon.events import DropReason, UpcallKind
from asap2.nic.silicon.watching import Record
from asap2.nic.watchers import NODE
from asap2.trace import words
from asap2.trace.identity import holds
from asap2.trace.known_rules import table_title
from asap2.trace.lab import LabWatch
from asap2.trace.model import Medium, Stage, Step
from asap2.trace.node import NodeWatch, PortOf, Told, in_nic

DROPS = {
    DropReason.RULE: "its rule drops it",
    DropReason.MISS: "no rule is for it, and the port drops such packets",
    DropReason.SHORT: "it is shorter than an Ethernet header",
    DropReason.IN_PORT: "the port that it came in by is disabled",
    DropReason.OUT_PORT: "the port that it is for is disabled or absent",
    DropReason.LOOP: "it was looked up more often than a packet may be",
    DropReason.ACTION: "an action cannot be done with it",
    DropReason.TRUNCATE: "it cannot be cut to the length that is asked for",
    DropReason.UPCALL: "its port has as many packets on their way to Open vSwitch as it may have",
    DropReason.OUTPUT: "the kernel did not transmit it",
    DropReason.COPY: "a copy of it could not be made",
}
_UPCALLS = {
    UpcallKind.MISS: "no rule is for it: it goes to Open vSwitch",
    UpcallKind.ACTION: "its rule gives it to Open vSwitch",
    UpcallKind.FRAGMENT: "a fragment: the daemon puts the packet together",
    UpcallKind.CUT: "the daemon cuts it into fragments again",
    UpcallKind.HELPER: "the helper of its connection looks at it",
}
_CARRIED, _NOT_CARRIED = 0, 1
"""enum carried (carry.h)."""


def _medium(port: PortOf) -> Medium:
    return Medium.HARDWARE if in_nic(port.pipeline) else Medium.SOFTWARE


def _inside(port: PortOf) -> Stage:
    return Stage.SILICON if in_nic(port.pipeline) else Stage.PIPELINE


def _place(watch: LabWatch, node: str, port: PortOf) -> str:
    """The device that a step within a pipeline is shown at."""
    return port.pipeline if in_nic(port.pipeline) else watch.title(node, port)


def _within(watch: LabWatch, node: str, port: PortOf, record: Record, text: str) -> Step:
    """What happens in a pipeline to a packet that came in by a port."""
    return Step(record.now, node, _place(watch, node, port), _inside(port), _medium(port), text)


def entered(watch: LabWatch, node: str, port: PortOf, record: Record, *, seen: bool) -> Step:
    """A packet has come in by a port."""
    title, medium = watch.title(node, port), _medium(port)
    if not in_nic(port.pipeline):
        if port.metadata:
            return Step(record.now, node, title, Stage.TUNNEL, medium, f"comes out of the tunnel at {title}")
        stage, text = Stage.PIPELINE, f"received on {title}"
        if port.kind == "INTERNAL":
            text = f"sent by the node on {title}"
        return Step(record.now, node, title, stage, medium, text)
    match port.kind:
        case "VF":
            text = f"sent by VF {port.netdev}" if not seen else f"goes into the NIC by VF {port.netdev}"
            return Step(record.now, node, title, Stage.VF, medium, text)
        case "UPLINK" | "BONDED":
            return Step(record.now, node, title, Stage.UPLINK, medium, f"comes in by {title}")
        case "REP" | "UPLINK_REP":
            return Step(record.now, node, title, Stage.REPRESENTOR, medium, f"goes into the NIC by {title}")
        case _:
            return Step(record.now, node, title, Stage.SILICON, medium, f"goes into the NIC by {title}")


def matched(watch: LabWatch, node: str, port: PortOf, record: Record, rule: Rule | None) -> Step:
    """A rule decides."""

    def named(number: int) -> str:
        return watch.title(node, watch.nodes[node].port(port.pipeline, number))

    where = table_title(port.pipeline, rule.table if rule is not None else record.table)
    done = words.actions(rule, named) if rule is not None else ()
    text = f"rule {record.arg} in {where}: {', '.join(done)}" if rule else f"rule {record.arg}, which is no more"
    return replace(
        _within(watch, node, port, record, text),
        rule=f"{port.pipeline} rule {record.arg}",
        mask=words.match(rule) if rule is not None else (),
        actions=done,
        connection=_connection(record.cookie),
    )


def missed(watch: LabWatch, node: str, port: PortOf, record: Record, why: str) -> Step:
    """No rule of a table is for the packet."""
    step = _within(watch, node, port, record, f"no rule in {table_title(port.pipeline, record.table)} is for it")
    return replace(step, why=why, connection=_connection(record.cookie))


def tracked(watch: LabWatch, node: str, port: PortOf, record: Record) -> Step:
    """Its connection was looked for."""
    known = _connection(record.cookie)
    why = None
    if record.arg == _CARRIED:
        text = f"its connection: {known}" if known else "its connection is carried in hardware"
    elif record.arg == _NOT_CARRIED:
        text = "hardware does not carry its connection"
        why = "hardware carries established connections only, of whole packets without FIN or RST"
    else:
        text = "its connection cannot be looked for"
    return replace(_within(watch, node, port, record, text), why=why, connection=known)


def left(watch: LabWatch, node: str, port: PortOf, record: Record) -> Step:
    """A NIC leaves a packet to the node within a rule."""
    return _within(watch, node, port, record, f"rule {record.arg} goes on in software at this action")


def sent(watch: LabWatch, node: str, port: PortOf, to: PortOf, record: Record, before: bytes) -> Step:
    """A packet leaves a program by a port."""
    title, medium = watch.title(node, to), _medium(port)
    rewritten = words.changes(before, record.frame)
    stage, text = Stage.HOST, f"goes to {title}"
    if in_nic(to.pipeline):
        if watch.guest_of(node, to) is not None:
            stage, text = Stage.DELIVERY, f"received by VF {to.netdev}"
        elif to.kind in ("UPLINK", "BONDED"):
            stage, text = Stage.CABLE, f"leaves by {title}"
        elif to.kind in ("REP", "UPLINK_REP"):
            stage, text = Stage.REPRESENTOR, f"handed to the node at {title}"
        else:
            stage = Stage.SILICON
    elif to.metadata:
        stage, text = Stage.TUNNEL, f"goes into the tunnel at {title}"
    elif to.kind == "INTERNAL":
        text = f"received by the node on {title}"
    else:
        stage = Stage.PIPELINE
    if holds(record.frame, before):
        text, rewritten = f"{text}, in a tunnel: {words.frame(record.frame, record.length)}", ()
    elif holds(before, record.frame):
        text, rewritten = f"{text}, out of its tunnel", ()
    return Step(record.now, node, title, stage, medium, text, rewritten=rewritten)


def passed(watch: LabWatch, node: str, port: PortOf, record: Record) -> Step:
    """A packet goes on to the network stack."""
    title = watch.title(node, port)
    return Step(record.now, node, title, Stage.HOST, Medium.SOFTWARE, "goes on to the node's network stack")


def upcalled(watch: LabWatch, node: str, port: PortOf, record: Record, kind: UpcallKind) -> Step:
    """A packet goes to user space."""
    return Step(record.now, node, watch.title(node, port), Stage.UPCALL, Medium.SOFTWARE, _UPCALLS[kind])


def dropped(watch: LabWatch, node: str, port: PortOf, record: Record, reason: DropReason) -> Step:
    """A packet goes nowhere."""
    return replace(_within(watch, node, port, record, "dropped"), stage=Stage.DROP, why=DROPS[reason])


def given(node: str, port: PortOf, at: int) -> Step:
    """Open vSwitch was given a packet."""
    return Step(at, node, port.name, Stage.UPCALL, Medium.SOFTWARE, "the daemon has given it to ovs-vswitchd")


def handed_in(watch: LabWatch, node: str, port: PortOf, at: int) -> Step:
    """Open vSwitch hands a packet in."""
    text = f"Open vSwitch executes its actions, as received on {watch.title(node, port)}"
    return Step(at, node, "Open vSwitch", Stage.SWITCH, Medium.SOFTWARE, text)


def ruled(watch: LabWatch, node: NodeWatch, port: PortOf, told: Told, found: Sequence[tuple[str, Rule]]) -> Step:
    """Open vSwitch has put a rule for such packets."""
    in_hw = told.data["in_hw"]
    what = "a TC filter" if told.what == "filter" else "a flow of the datapath"
    pipeline, rule = next((one for one in found if in_nic(one[0])), found[0]) if found else (NODE, None)

    def named(number: int) -> str:
        return watch.title(node.name, node.port(pipeline, number))

    done = words.actions(rule, named) if rule is not None else ()
    where = "in hardware" if in_hw else "in software"
    text = f"Open vSwitch puts {what} for such packets on {port.name}, {where}: {', '.join(done)}"
    why = None if in_hw or told.what != "filter" else told.data["refused"] or "it may not be in hardware"
    mask = words.match(rule) if rule is not None else ()
    return Step(
        *(told.at, node.name, "Open vSwitch", Stage.SWITCH, Medium.SOFTWARE, text), why=why, mask=mask, actions=done
    )


def _connection(cookie: int) -> str | None:
    """What is known of a connection by the cookie of a record (watch.h); None: nothing."""
    bits, zone = cookie >> 48, cookie >> 32 & 0xFFFF
    return f"{words.state(bits)}, zone {zone}" if bits else None
