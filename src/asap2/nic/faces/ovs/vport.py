# SPDX-License-Identifier: Apache-2.0
"""A port of the datapath."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Vport:
    """A port: its number in the datapath, its device, and the netlink port ids that its upcalls go to.

    ``port`` is its id in the node's pipeline. ``far`` tells an internal port's device wherever it is, ``netnsid`` is
    its network namespace when that is not the node's.
    """

    number: int
    type: int
    name: str
    ifindex: int
    pids: tuple[int, ...] = ()
    far: str = ""
    port: int = 0
    netnsid: int | None = None
