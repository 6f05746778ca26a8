# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the topology file, for editors: what the one strict reader asks for, key by key.

The reader reads a file that has every key once, and the schema is what it asked for: kinds, limits and defaults are its
own. What it knows beyond a key (that names are unique, and refer to something) no schema says.
"""

from __future__ import annotations

from typing import Any

from asap2.lab.layout import NAME
from asap2.lab.topology import Asking, read

EVERY_KEY = """
[[node]]
name = "a"                  # Its host name
openvswitch = true          # Start Open vSwitch with the node
setup = ["true"]            # Commands of a shell that run in the node once all of the lab is up
connections = 262144        # The most connections that it tracks
[[node.nic]]
name = "nic0"               # nic0, nic1, … if it is not given
model = "ConnectX-6 Dx"     # Of the software NIC
pci = "0000:03:00.0"        # Device 0, function 0 of a bus
ports = 2                   # Physical functions
total_vfs = 127             # The most VFs of a port
vfs = 127                   # Value for sriov_numvfs when the lab comes up
rules = 262144              # The most rules in the eSwitch
mode = "switchdev"          # Of the eSwitch; switchdev needs vfs
[[cable]]
ends = ["a/nic0/p0", "a/nic0/p1"]   # Two ports, each as NODE/NIC or NODE/NIC/pPORT
delay = "10ms"              # Of packets in each direction
jitter = "1ms"              # By how much the delay varies
loss = "1%"                 # Share of packets that are lost
rate = "1gbit"              # Bits a second
[[switch]]
name = "tor"                # Of the switch
ends = []                   # Ports, each as NODE/NIC or NODE/NIC/pPORT
[[guest]]
name = "vm"                 # Its host name
node = "a"                  # Node whose VF it has
nic = "nic0"                # NIC of that VF; may be left out where the node has one
port = 0                    # Port of that VF
vf = 0                      # Number of that VF
device = "eth0"             # The VF's name in the guest
mac = "02:00:00:00:00:01"   # The VF's MAC address
address = "10.0.0.1/24"     # IP address with the length of the prefix
"""


def topology() -> dict[str, Any]:
    """The schema, without ``$schema`` and ``$id``."""
    asked: list[Asking] = []
    read(EVERY_KEY, asked.append)
    about = dict(_comments())
    root: dict[str, Any] = {"title": "Topology of an asap2 lab", "type": "object"}
    tables: dict[tuple[str, ...], dict[str, Any]] = {(): root}
    for one in asked:
        table = tables.setdefault(one.table, {"type": "object"})
        properties = table.setdefault("properties", {})
        if one.key in properties:
            continue
        place = (*one.table, one.key)
        if one.kind == "tables":
            tables[place] = {"type": "object"}
            properties[one.key] = {"type": "array", "items": tables[place]}
        else:
            properties[one.key] = _described(one, about[place])
        if one.required:
            table.setdefault("required", []).append(one.key)
    for table in tables.values():
        table["additionalProperties"] = False
    root["required"] = ["node"]
    return root


def _described(one: Asking, about: str) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        "string": {"type": "string"},
        "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
        "integer": {"type": "integer"},
        "boolean": {"type": "boolean"},
        "strings": {"type": "array", "items": {"type": "string"}},
    }
    made = {"description": about, **kinds[one.kind], **one.limits}
    return made if one.default is None or one.kind == "name" else {**made, "default": one.default}


def _comments() -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = []
    table: tuple[str, ...] = ()
    for line in EVERY_KEY.strip().splitlines():
        if line.startswith("[["):
            table = tuple(line.strip("[]").split("."))
        else:
            key, _, about = line.partition(" = ")
            found.append(((*table, key), about.partition("# ")[2]))
    return found
