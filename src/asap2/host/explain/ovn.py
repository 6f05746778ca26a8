# SPDX-License-Identifier: Apache-2.0
"""Which logical flows of OVN are behind a datapath flow, as ovn-detrace(1) finds them.

``ofproto/trace`` of a datapath flow's key names the OpenFlow rules that its packets meet. The cookie of a rule that
ovn-controller made is the first 32 bits of the UUID of a row in the southbound database: of Logical_Flow, or of
Port_Binding for the rules with which packets enter and leave logical switches (ovn-controller's lflow.c, physical.c).
A masked field of the key is traced with zeros under the mask, so the path is that of one packet of the flow.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from asap2.host.explain.flow import Flow
from asap2.host.inventory import Host
from asap2.host.logical import LogicalFlow, LogicalPath
from asap2.host.openvswitch import SwitchError, ask, transact, value

DATABASE = "OVN_Southbound"
PATIENCE = 5.0
"""Seconds that the southbound database may take, which is on another host."""
MOST = 100
"""Flows that are traced; of more, those with most packets."""
COLUMNS = ("_uuid", "pipeline", "table_id", "priority", "match", "actions", "external_ids")

_RULE = re.compile(r"\s*\d+\. (?:(.*), )?priority \d+(?:, cookie 0x([0-9a-f]+))?")
_METADATA = re.compile(r"metadata=0x([0-9a-f]+)")
_END = "Final flow:"
"""What follows is of packets that recirculate: their flows are others."""


@dataclass(frozen=True, slots=True)
class Step:
    """An OpenFlow rule that a packet meets: its cookie, as eight digits, and the key of its logical datapath."""

    cookie: str
    metadata: int


def steps(trace: str) -> tuple[Step, ...]:
    """The rules with cookies in what ``ofproto/trace`` printed."""
    found, metadata = [], 0
    for line in trace.splitlines():
        if line.startswith(_END):
            break
        if rule := _RULE.match(line):
            if at := _METADATA.search(rule[1] or ""):
                metadata = int(at[1], 16)
            if rule[2]:
                found.append(Step(rule[2].zfill(8), metadata))
    return tuple(found)


def key(flow: Flow) -> str:
    """The key of *flow* as ``ofproto/trace`` takes it."""
    text = re.sub(r"^ufid:[^,]*, ?", "", flow.text)
    text = re.split(r", ?packets:|, ?actions:", text)[0]
    return re.sub(r",key\d+\([^)]*\)", "", text)  # attributes that are newer than Open vSwitch


def traced(host: Host, flows: Iterable[Flow]) -> Host:
    """*host* with the logical path of each of *flows*, and with what stood in the way of finding it."""
    remote = host.openvswitch.ovn_remote
    if not remote or not host.openvswitch.running:
        return host
    wanted = [flow for flow in flows if flow.ufid and flow.datapath.startswith("system@")]
    found: dict[str, tuple[Step, ...]] = {}
    for flow in sorted(wanted, key=lambda one: -one.packets)[:MOST]:
        try:
            found[flow.ufid or ""] = steps(ask("ofproto/trace", "ovs-system", key(flow)))
        except SwitchError:
            continue  # it is of a packet that recirculates, and the switch has forgotten what came before
    if not any(found.values()):
        return host
    trouble = "it has no address"
    for one in remote.split(","):
        try:
            paths = _paths(found, Southbound(one.strip()))
            return dataclasses.replace(host, logical=paths)
        except SouthboundError as error:
            trouble = f"{one.strip()}: {error}"
    return dataclasses.replace(host, logical_trouble=trouble)


class SouthboundError(Exception):
    """The southbound database did not answer; the text says why."""


class Southbound:
    """The southbound database at *remote*."""

    def __init__(self, remote: str, call: Callable[..., tuple[int, Any]] = transact) -> None:
        self._remote, self._call = remote, call

    def select(self, *selects: tuple[str, list[Any], tuple[str, ...]]) -> list[list[dict[str, Any]]]:
        """The rows of each (table, condition, columns); SouthboundError."""
        if not self._remote.startswith(("tcp:", "unix:")):
            raise SouthboundError("only tcp: and unix: are asked, which need no keys")
        operations = [
            {"op": "select", "table": table, "where": where, "columns": list(columns)}
            for table, where, columns in selects
        ]
        try:
            error, reply = self._call(self._remote, "ovsdb-server", "transact", [DATABASE, *operations], PATIENCE)
        except SwitchError:
            raise SouthboundError(f"no answer within {PATIENCE:g} s") from None
        if error:
            raise SouthboundError(os.strerror(error) if error > 0 else "it closed the connection")
        if reply.error is not None or any("error" in one for one in reply.result):
            raise SouthboundError("it refused to be read")
        return [one["rows"] for one in reply.result]


def _paths(found: dict[str, tuple[Step, ...]], southbound: Southbound) -> tuple[LogicalPath, ...]:
    cookies = {step.cookie for path in found.values() for step in path}
    uuids, bindings, datapaths = southbound.select(
        ("Logical_Flow", [], ("_uuid",)),
        ("Port_Binding", [], ("_uuid", "logical_port")),
        ("Datapath_Binding", [], ("tunnel_key", "external_ids")),
    )
    wanted = [uuid for row in uuids if (uuid := value(row["_uuid"]))[:8] in cookies]
    by_uuid = [("Logical_Flow", [["_uuid", "==", ["uuid", uuid]]], COLUMNS) for uuid in wanted]
    rows = {value(row["_uuid"])[:8]: row for one in (southbound.select(*by_uuid) if by_uuid else ()) for row in one}
    names = {row["tunnel_key"]: value(row["external_ids"]).get("name", "") for row in datapaths}
    ports = {value(row["_uuid"])[:8]: row["logical_port"] for row in bindings}
    return tuple(
        LogicalPath(
            ufid,
            tuple(dict.fromkeys(ports[step.cookie] for step in path if step.cookie in ports)),
            tuple(_flow(rows[step.cookie], names.get(step.metadata, "")) for step in path if step.cookie in rows),
        )
        for ufid, path in found.items()
    )


def _flow(row: dict[str, Any], datapath: str) -> LogicalFlow:
    return LogicalFlow(
        value(row["_uuid"])[:8],
        datapath,
        row["pipeline"],
        value(row["external_ids"]).get("stage-name", ""),
        row["table_id"],
        row["priority"],
        row["match"] or "1",
        row["actions"],
    )
