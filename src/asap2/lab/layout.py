# SPDX-License-Identifier: Apache-2.0
"""Names of a running lab's files and directories, all below one private tmpfs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from asap2.errors import UsageError

ROOT_VARIABLE = "ASAP2_LAB"
"""Environment variable that names another lab than the one at :data:`DEFAULT_ROOT`, so that two can be up at once: by
its name, or by the path of its directory."""
DEFAULT_ROOT = "/run/asap2"
DEFAULT_NAME = "default"

_NAMED = f"{DEFAULT_ROOT}."
"""What the directory of a lab with another name begins with."""
MOUNT_SOURCE = "asap2-lab"
"""What the mount table has as the source of a lab's file system, and of no other."""
NAME_MAX = 32
"""Characters of a lab's name."""

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
"""What a node, guest or NIC may be called: a host name's label (RFC 1123), in lower case."""
MOST_NODES = 32
"""Of a lab that is made by their number alone."""


REAL_SYSFS = "realsys"
"""In the directory of a node or guest: a sysfs of its network namespace."""


class Layout:
    """The lab below *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        """What :func:`layout` takes for it: the lab's name, or the path of a lab without one."""
        path = str(self.root)
        if path == DEFAULT_ROOT:
            return DEFAULT_NAME
        name = path.removeprefix(_NAMED)
        return name if NAME.fullmatch(name) else path

    @property
    def record(self) -> Path:
        """A description of the lab as JSON, written when the lab is up."""
        return self.root / "lab.json"

    def node(self, name: str) -> Path:
        """The directory of a node."""
        return self.root / "nodes" / name

    def guest(self, name: str) -> Path:
        """The directory of a guest."""
        return self.root / "guests" / name

    def silicon(self, node: str, nic: int) -> Path:
        """The network namespace of the silicon of a node's NIC number *nic*."""
        return self.node(node) / "nics" / str(nic) / "net"

    def switch(self, name: str) -> Path:
        """The namespaces of a switch."""
        return self.root / "wiring" / name

    @property
    def cables(self) -> Path:
        """What belongs to cables that are impaired."""
        return self.root / "cables"

    def bundle(self, name: str) -> Path:
        """The namespaces of the node or guest called *name*, of whatever kind; UsageError when there is none."""
        if NAME.fullmatch(name):
            for namespace in sorted(self.root.glob(f"*/{name}/ns/net")):
                return namespace.parent
        if not self.root.exists():
            where = "" if self.name == DEFAULT_NAME else f" as {self.name}"
            raise UsageError(f"there is no {name}: no lab is up{where}; `asap2 lab up TOPOLOGY` makes one")
        known = sorted({namespace.parts[-3] for namespace in self.root.glob("*/*/ns/net")})
        raise UsageError(f"the lab has no node or guest {name}; it has {', '.join(known) or 'none'}")


def layout() -> Layout:
    """The lab of this machine, or the one that the environment names; UsageError when that cannot be a name."""
    wanted = os.environ.get(ROOT_VARIABLE) or DEFAULT_NAME
    if wanted == DEFAULT_NAME:
        return Layout(Path(DEFAULT_ROOT))
    if "/" in wanted:
        return Layout(Path(wanted))
    if not NAME.fullmatch(wanted) or len(wanted) > NAME_MAX:
        allowed = f"at most {NAME_MAX} lower-case letters, digits and inner hyphens"
        raise UsageError(f"{wanted!r} cannot be a lab's name; it may have {allowed}")
    return Layout(Path(_NAMED + wanted))


def layouts() -> list[Layout]:
    """Every lab that is up, or half up, on this machine, as far as this process's mounts show."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words, _, source = line.partition(" - ")
        if source.split()[:2] == ["tmpfs", MOUNT_SOURCE]:
            found.append(Layout(Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), words.split()[4]))))
    return sorted(found, key=lambda each: (each.name != DEFAULT_NAME, each.name))
