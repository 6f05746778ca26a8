# SPDX-License-Identifier: Apache-2.0
"""What TC actions do, step by step: a rule's actions, and what becomes of them, or not, when the rule is placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asap2.nic.rules import Action


@dataclass(frozen=True, slots=True)
class Mirred:
    """Send to device ``ifindex``, into its receive path when ``ingress``; ``final`` for a redirect."""

    ifindex: int
    ingress: bool
    final: bool


@dataclass(frozen=True, slots=True)
class Trap:
    """Give the packet to the host by the representor."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """The list ends without a verdict: the packet goes on to the network stack."""


@dataclass(frozen=True, slots=True)
class PacketType:
    """Take the packet for one of this type (PACKET_*), which changes nothing in a packet of a pipeline."""

    type: int


@dataclass(frozen=True, slots=True)
class Csum:
    """Compute the checksums of *headers* (TCA_CSUM_UPDATE_FLAG_*): the pipelines keep them right without."""

    headers: int


@dataclass(frozen=True, slots=True)
class Beyond:
    """What no NIC takes, with the words in which the kernel refuses it (None: an error alone).

    *software*, where it is not empty, says that the node's pipeline cannot do it either.
    """

    hardware: str | None = None
    software: str = ""


NO_MARK: Final = Beyond("mlx5_core: Not implemented offload action")
"""What an eSwitch says of a mark, which a function's receive side can set: it stands before the mark, and is known by
its identity."""

Step = Action | Mirred | Trap | GoOn | PacketType | Csum | Beyond
