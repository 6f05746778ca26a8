# SPDX-License-Identifier: Apache-2.0
"""Names of a running lab's files and directories, all below one private tmpfs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from asap2.errors import UsageError

ROOT_VARIABLE = "ASAP2_LAB"
"""Environment variable that puts a lab elsewhere than :data:`DEFAULT_ROOT`, so that two can be up at once."""
DEFAULT_ROOT = "/run/asap2"

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
"""What a node, guest or NIC may be called: a host name's label (RFC 1123), in lower case."""


REAL_SYSFS = "realsys"
"""In the directory of a node or guest: a sysfs of its network namespace."""


class Layout:
    """The lab below *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root

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

    def bundle(self, name: str) -> Path:
        """The namespaces of the node or guest called *name*, of whatever kind; UsageError when there is none."""
        if NAME.fullmatch(name):
            for namespace in sorted(self.root.glob(f"*/{name}/ns/net")):
                return namespace.parent
        if not self.root.exists():
            raise UsageError(f"there is no {name}: no lab is up; `asap2 lab up FILE` makes one")
        known = sorted({namespace.parts[-3] for namespace in self.root.glob("*/*/ns/net")})
        raise UsageError(f"the lab has no node or guest {name!r}; it has {', '.join(known) or 'none'}")


def layout() -> Layout:
    """The lab of this machine, or the one that the environment names."""
    return Layout(Path(os.environ.get(ROOT_VARIABLE, DEFAULT_ROOT)))
