# SPDX-License-Identifier: Apache-2.0
"""Options in tunnels that rules match on: numbered, so that a match has a number where a packet has class and type.

A kind of option is its header on the wire (class, type, and length of its data in words, which is one): four octets
without the reserved bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from asap2.nic.tunnels.geneve import OPTION_HEADER

MOST: Final = 4
"""Kinds at most: as many as the program's memory has room for (:data:`asap2.nic.silicon.abi.OPTION_KINDS`)."""


GBP: Final = 0xFF
"""The number of VXLAN's group policy, as if it were an option: ``struct vxlan_metadata``, 32 bits. It is no kind that a
header on the wire says."""
GBP_OCTETS: Final = 4


def kind_of(option_class: int, option_type: int) -> bytes:
    """The kind of options with this class and type, and data of one word."""
    return OPTION_HEADER.pack(option_class, option_type, 1)


class OptionKinds:
    """The kinds that rules of a node match on, each with a number from 1 on, for good."""

    def __init__(self) -> None:
        self._kinds: dict[int, bytes] = {}
        self._program: Callable[[Mapping[int, bytes]], None] | None = None

    def bind(self, program: Callable[[Mapping[int, bytes]], None], known: Mapping[int, bytes]) -> None:
        """*program* gets all kinds when one comes in; *known* are those of an earlier run."""
        self._program = program
        self._kinds = dict(known)

    def number(self, kind: bytes) -> int | None:
        """The number of a *kind*; None: there is no room for another."""
        for number, known in self._kinds.items():
            if known == kind:
                return number
        number = len(self._kinds) + 1
        if number > MOST:
            return None
        self._kinds[number] = kind
        if self._program is not None:
            self._program(self._kinds)
        return number

    def kind(self, number: int) -> bytes:
        """The kind with this *number*. KeyError."""
        return self._kinds[number]


KINDS: Final = OptionKinds()
"""Those of this process's node: the numbers are in the memory of its pipelines, of which there is one set."""
