# SPDX-License-Identifier: Apache-2.0
"""Topologies that come with the program, each by its name, and the one that is made for any number of nodes."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from asap2.errors import UsageError
from asap2.lab.layout import NAME
from asap2.lab.topology import Topology, load, parse

_ROOM = 16384
"""For rules and connections: a third of the memory of a node with room for as many as a ConnectX has."""
_COMMENT = re.compile(r"# (?!SPDX)(.*)")


def _shipped() -> dict[str, str]:
    """The text of each topology by its name, in the order of names."""
    files = resources.files("asap2.lab").joinpath("topologies").iterdir()
    return {file.name.removesuffix(".toml"): file.read_text() for file in sorted(files, key=lambda file: file.name)}


def names() -> dict[str, str]:
    """What each topology is, by its name."""
    return {name: " ".join(_COMMENT.findall(text.split("\n\n")[0])) for name, text in _shipped().items()}


def text_of(name: str) -> str:
    """The file of the topology called *name*; UsageError when there is none."""
    found = _shipped()
    if name not in found:
        raise UsageError(f"there is no topology {name!r}; there is {', '.join(found)}")
    return found[name]


def named(what: str) -> Topology:
    """The topology that *what* names: the path of a file, or else one that comes with the program."""
    path = Path(what)
    if path.is_file() or not NAME.fullmatch(what):
        return load(path)
    return parse(text_of(what))


def rack(nodes: int) -> Topology:
    """So many *nodes*, at most :data:`MOST_NODES`, each with Open vSwitch that offloads and one guest, at a switch."""
    return parse(rack_text(nodes))


def rack_text(nodes: int) -> str:
    """The file of :func:`rack`."""
    numbers = range(1, nodes + 1)
    ends = ", ".join(f'"hv{number}/nic0"' for number in numbers)
    switch = f'[[switch]]\nname = "tor"\nends = [{ends}]\n'
    parts = [*map(_node, numbers), *([switch] if nodes > 1 else []), *map(_guest, numbers)]
    return "\n".join(parts)


def _node(number: int) -> str:
    return f"""[[node]]
name = "hv{number}"
setup = [
  "ovs-vsctl set Open_vSwitch . other_config:hw-offload=true",
  "systemctl restart openvswitch",
  "ovs-vsctl add-br br-int -- add-port br-int enp3s0f0 -- add-port br-int eth0",
  "ip link set enp3s0f0 up && ip link set eth0 up",
]
connections = {_ROOM}
[[node.nic]]
vfs = 2
mode = "switchdev"
rules = {_ROOM}
"""


def _guest(number: int) -> str:
    return f"""[[guest]]
name = "vm{number}"
node = "hv{number}"
vf = 0
mac = "fa:16:3e:00:00:{number:02x}"
address = "10.57.0.{number}/24"
"""
