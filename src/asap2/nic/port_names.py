# SPDX-License-Identifier: Apache-2.0
"""The ports of a node's pipelines as people know them, for programs beside the daemon."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from asap2.nic import eswitch
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Port, PortKind
from asap2.nic.veth import VethNetDevs


def of_nic(netdevs: VethNetDevs, nic: str) -> list[dict[str, Any]]:
    """The ports of a NIC's pipeline. ``name`` is that of the far end, ``netdev`` the device that it belongs to as the
    driver named it, and ``node_port`` the port of the node's pipeline at its other end, 0 where that is elsewhere."""
    silicon = netdevs.silicon[nic]
    home, names = silicon.node_nsid(), {far.ifindex: far for far in silicon.far.values()}
    found = []
    for port in silicon.pipeline.ports.values():
        far = names.get(port.ifindex)
        here = far is not None and far.nsid is not None and far.nsid == home
        known = eswitch.netdev_of(silicon.nic, far.name) if far is not None else None
        found.append(
            {
                **_of(port),
                "name": far.name if far is not None else f"port {port.id:#x}",
                "netdev": known[1].netdev if known is not None else None,
                "node_port": far.peer if far is not None and here else 0,
            }
        )
    return found


def of_node(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The ports of the node's own pipeline; ``name`` is the device's."""
    found = []
    for port in pipeline.ports.values():
        name = f"port {port.id:#x}"
        with contextlib.suppress(OSError, OverflowError):
            name = socket.if_indextoname(port.ifindex)
        found.append({**_of(port), "name": name, "netdev": None, "node_port": port.id})
    return found


def _of(port: Port) -> dict[str, Any]:
    return {
        "id": port.id,
        "kind": PortKind(port.kind).name,
        "tables": list(port.tables),
        "miss": port.miss.name,
        "metadata": port.metadata,
    }
