# SPDX-License-Identifier: Apache-2.0
"""What a lab consists of, as written down when it came up, and the state of each part now: plain data."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from asap2.lab.cables import cables
from asap2.lab.layout import Layout
from asap2.lab.namespaces import call_in, identity
from asap2.lab.processes import inside
from asap2.lab.topology import Topology

PCI = Path("/sys/bus/pci/devices")


def record(topology: Topology) -> dict[str, Any]:
    """What of *topology* a description needs."""
    return {
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "nodes": [
            {
                "name": each.name,
                "nics": [
                    {
                        "name": nic.name,
                        "model": nic.model,
                        "total_vfs": nic.total_vfs,
                        "ports": [
                            {"netdev": nic.netdev(port), "pci": nic.pf_address(port)} for port in range(nic.ports)
                        ],
                    }
                    for nic in each.nics
                ],
            }
            for each in topology.nodes
        ],
        "cables": [
            *({"ends": [str(end) for end in each.ends]} for each in topology.cables),
            *({"ends": [str(end), each.name]} for each in topology.switches for end in each.ends),
        ],
        "guests": [
            {
                "name": each.name,
                "node": each.node,
                "vf": each.vf_netdev,
                "device": each.device,
                "mac": each.mac,
                "address": each.address,
            }
            for each in topology.guests
        ],
    }


def describe(layout: Layout) -> dict[str, Any]:
    """The lab at *layout*; one that is half up, or was made by another version of this program, has neither nodes nor
    guests."""
    about = {"name": layout.name, "root": str(layout.root)}
    nothing: dict[str, Any] = {"since": None, "nodes": [], "cables": [], "guests": []}
    try:
        return about | _describe(layout)
    except FileNotFoundError:  # also of what is being taken down
        return {**about, "state": "half up", **nothing}
    except (KeyError, TypeError, ValueError):
        return {**about, "state": "of another version", **nothing}


def _describe(layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(layout.record.read_text())
    for node in found["nodes"]:
        node["daemon"] = daemon_pid(layout, node["name"])
        node["state"] = "up" if node["daemon"] else "no daemon"
        with contextlib.suppress(OSError):
            node["state"] = (layout.node(node["name"]) / "refused").read_text().strip()
        node["processes"] = _processes(layout.node(node["name"]))
        for nic in node["nics"]:
            for port in nic["ports"]:
                port |= _port(layout, node["name"], port["pci"]) if node["daemon"] else _UNKNOWN
    for guest in found["guests"]:
        guest["processes"] = _processes(layout.guest(guest["name"]))
    found["cables"] = [cable.as_data() for cable in cables(layout)]
    return {"state": "up", **found}


_UNKNOWN = {"mode": None, "num_vfs": None, "used_vfs": None}


def _port(layout: Layout, node: str, address: str) -> dict[str, Any]:
    """The eSwitch's mode, the number of VFs, and how many of them are in a guest, as the node's sysfs has them."""
    with contextlib.suppress(OSError, RuntimeError):
        found: dict[str, Any] = call_in(layout.bundle(node), lambda: _look(PCI / address))
        return found
    return _UNKNOWN


def _look(device: Path) -> dict[str, Any]:
    return {
        "mode": eswitch_mode(device),
        "num_vfs": int((device / "sriov_numvfs").read_text()),
        "used_vfs": sum(_is_away(function) for function in device.glob("virtfn*")),
    }


def eswitch_mode(device: Path) -> str:
    """The eSwitch's mode of the PF whose directory in sysfs is *device*, as devlink has it: only in switchdev mode
    is its network device a port of a switch (its file can be read then)."""
    for file in device.glob("net/*/phys_switch_id"):
        with contextlib.suppress(OSError):
            if file.read_text().strip():
                return "switchdev"
    return "legacy"


def _is_away(function: Path) -> bool:
    """Whether a VF has a driver, and a network device elsewhere than in the node."""
    return (function / "driver").exists() and not any((function / "net").glob("*"))


def daemon_pid(layout: Layout, node: str) -> int | None:
    """The process id of the node's daemon."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((layout.node(node) / "daemon.pid").read_text())
        if pid in inside([identity(layout.node(node) / "ns" / "net")]):
            return pid
    return None


def _processes(directory: Path) -> int:
    return len(list(inside([identity(path) for path in (directory / "ns").iterdir()])))
