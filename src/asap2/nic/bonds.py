# SPDX-License-Identifier: Apache-2.0
"""The bonds of a node, whether they are devices of ours or the kernel's own."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.nic.kinds import BOND
from asap2.nic.kinds.links import KindLinks
from asap2.nic.lag import Bond
from asap2.nic.links import LinkReader


def bonds(kinds: KindLinks, node: LinkReader) -> Iterator[Bond]:
    """Every bond in the node's network namespace, whose links *node* reads."""
    for link in kinds:
        if link.kind == BOND.name and link.namespace == kinds.home_of_node:
            yield Bond(link.ifindex, link.data["mode"], BOND.sends(link))
    there = node.all()
    for bond in there:
        if bond.kind == BOND.name:
            ports = {port.ifindex: port.bond_sends for port in there if port.master == bond.ifindex}
            yield Bond(bond.ifindex, bond.bond_mode, ports)
