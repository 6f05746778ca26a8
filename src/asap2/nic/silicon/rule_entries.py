# SPDX-License-Identifier: Apache-2.0
"""What a pipeline knows of the rules in its program."""

from __future__ import annotations

from typing import NamedTuple

from asap2.nic.silicon.actionlists import Content
from asap2.nic.silicon.masklists import MaskNode


class Entry:
    """What is known of one rule in the program."""

    __slots__ = ("actions", "key", "node")

    def __init__(self, node: MaskNode, key: bytes, actions: int) -> None:
        self.node = node
        self.key = key
        self.actions = actions


class Pattern(NamedTuple):
    """What rules have in common that differ in matched values only (:meth:`Pipeline.add_like`)."""

    node: MaskNode
    actions: int
    content: Content | None
    key: bytes
    """The matched values of the rule that the pattern was taken of, as ``struct fields``."""
