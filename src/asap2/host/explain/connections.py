# SPDX-License-Identifier: Apache-2.0
"""Why tracked connections are not in hardware: what the kernel requires before it offloads one.

Sources: net/sched/act_ct.c (tcf_ct_flow_table_process_conn) and net/netfilter/nf_flow_table_core.c of Linux 6.12.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from asap2.host.connections import Tracked
from asap2.host.explain.reasons import Meaning
from asap2.host.inventory import Host

_ASSURED, _OFFLOAD, _SEEN_REPLY = 1 << 2, 1 << 14, 1 << 1
"""IPS_* (include/uapi/linux/netfilter/nf_conntrack_common.h)."""
_ESTABLISHED: Final = 3
_HANDSHAKE: Final = {
    1: "1 of 3 packets seen",
    2: "2 of 3 packets seen",
    9: "both sides have sent SYN, neither has replied",
}
"""TCP states before ESTABLISHED, TCP_CONNTRACK_*: SYN_SENT, SYN_RECV, SYN_SENT2."""
_CARRIED: Final = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_GRE)
_NAMES: Final = {6: "TCP", 17: "UDP", 1: "ICMP", 58: "ICMPv6", 132: "SCTP", 47: "GRE"}
_ZONE = re.compile(r"\bct\((?:[^()]|\([^()]*\))*\)")
_NUMBER = re.compile(r"\bzone=(\d+)")

HARDWARE: Final = "connection.hardware"
REASONS: Final[dict[str, Meaning]] = {
    HARDWARE: Meaning("the NIC carries it", "nothing"),
    "connection.protocol": Meaning(
        "hardware carries only TCP, UDP and GRE; ICMP is never in hardware", "nothing: there are few such packets"
    ),
    "connection.helper": Meaning(
        "a helper (ct(alg=…)) on the host must read its packets", "nothing: only control connections have helpers"
    ),
    "connection.no-rule": Meaning(
        "no rule in hardware tracks connections in its zone",
        "find out why the flows with ct(zone=…) are not in hardware",
    ),
    "connection.handshake": Meaning(
        "it is not established yet, and the host must see the handshake",
        "nothing; if this persists, find out where the replies are lost",
    ),
    "connection.closing": Meaning("a FIN or RST returned it to the host", "nothing: it is closing"),
    "connection.not-assured": Meaning(
        "the host has not seen enough packets of both sides yet (it is not ASSURED)",
        "nothing; if this persists, find out where the replies are lost",
    ),
    "connection.resting": Meaning(
        "it qualifies for hardware, but no packet has arrived since it did, or for 30 seconds",
        "nothing: its next packet offloads it",
    ),
}
"""Codes as in :mod:`.reasons`, for connections; docs/reasons.md has them in a table of their own."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Connections that have one reason for being where they are; ``example`` is the tuple of one of them."""

    code: str
    count: int
    what: str
    example: str
    why: str
    fix: str


def placed(host: Host) -> list[Placed]:
    """The host's connections grouped by reason, largest group first; those in hardware last."""
    if host.connections is None:
        return []
    zones = zones_in_hardware(host)
    found: dict[tuple[str, str], list[Tracked]] = {}
    for one in host.connections.tracked_as:
        found.setdefault(_reason(one, zones), []).append(one)
    rows = [
        Placed(code, sum(one.count for one in some), what, some[0].example, REASONS[code].why, REASONS[code].fix)
        for (code, what), some in found.items()
    ]
    return sorted(rows, key=lambda row: (row.code == HARDWARE, -row.count, row.code, row.what))


def zones_in_hardware(host: Host) -> set[int] | None:
    """The zones in which offloaded flows track connections; None if the flows are not known."""
    if not host.openvswitch.running:
        return None
    flows = (flow for flow in host.openvswitch.datapath_flows if "offloaded:yes" in flow)
    return {zone for flow in flows for zone in _zones(flow.partition("actions:")[2])}


def _zones(actions: str) -> Iterator[int]:
    for action in _ZONE.findall(actions):
        number = _NUMBER.search(action)
        yield int(number[1]) if number else 0


def _reason(one: Tracked, zones: set[int] | None) -> tuple[str, str]:
    """The code, and a description of the connection: protocol, zone and how far its handshake is."""
    name = _NAMES.get(one.protocol, f"protocol {one.protocol}")
    where = f"{name} in zone {one.zone}"
    if one.status & _OFFLOAD:
        return HARDWARE, where
    if one.helper:
        return "connection.helper", where
    if one.protocol not in _CARRIED:
        return "connection.protocol", where
    if zones is not None and one.zone not in zones:
        return "connection.no-rule", where
    if one.tcp_state is not None and one.tcp_state != _ESTABLISHED:
        seen = _HANDSHAKE.get(one.tcp_state)
        return ("connection.handshake", f"{where}, {seen}") if seen else ("connection.closing", where)
    sure = _SEEN_REPLY if one.protocol == socket.IPPROTO_UDP else _ASSURED
    return ("connection.resting" if one.status & sure else "connection.not-assured"), where
