# SPDX-License-Identifier: Apache-2.0
"""How the demo reads programs' output, and what it must know about a host to do so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from asap2.lab.terminal import OutputError
from asap2.lab.topology import Guest

if TYPE_CHECKING:
    from ovs.flow.odp import ODPFlow


class Host(Protocol):
    """What the proofs need to know of a node."""

    name: str
    guest: Guest
    pf: str
    representor: str


def parse_flows(output: str) -> list[ODPFlow]:
    """The flows that ``dpctl/dump-flows -m`` printed."""
    from ovs.flow.odp import ODPFlow

    return [ODPFlow(line) for line in output.splitlines() if line.startswith("ufid:")]


def find_flow(output: str, in_port: str, source: str | None, destination: str | None) -> ODPFlow | None:
    """The IPv4 flow from *in_port* between two MACs, among those that ``dpctl/dump-flows -m`` printed."""
    from ovs.flow.decoders import EthMask

    ends = {"src": str(EthMask(source)), "dst": str(EthMask(destination))}
    for flow in parse_flows(output):
        its_ends = {end: str(mac) for end, mac in flow.match.get("eth", {}).items()}
        inner = flow.match.get("encap", flow.match)
        if flow.match.get("in_port") == in_port and its_ends == ends and "ipv4" in inner:
            return flow
    return None


def packets(flow: ODPFlow | None) -> int:
    """The packets that *flow* counted."""
    return int(flow.info["packets"]) if flow else 0


def deeds(flow: ODPFlow | None) -> list[str]:
    """What *flow* does with packets in a word or two each, other than to send them out: ``push_vlan 57``."""
    found = [one for action in (flow.actions if flow else ()) for one in action.items() if one[0] != "output"]
    return [f"{name} {value['vid']}" if isinstance(value, dict) and "vid" in value else name for name, value in found]


def gbps(output: str) -> float:
    """The receiver's throughput as printed by ``iperf3 -f g``; OutputError if there is none."""
    found = re.search(r"([\d.]+) Gbits/sec\s+receiver", output)
    if not found:
        raise OutputError("iperf3 did not measure anything")
    return float(found[1])


def judge_iperf(output: str) -> str:
    """A judge for a run of iperf3."""
    return f"{gbps(output):g} Gbit/s"


def address(guest: Guest) -> str:
    """A guest's address without the prefix length."""
    return (guest.address or "").split("/")[0]
