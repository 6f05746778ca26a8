# SPDX-License-Identifier: Apache-2.0
"""What the driver does to the world, as an interface: netdevs made and removed, the silicon programmed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asap2.nic.device import Nic, Pf, Vf


class Backend(Protocol):
    """What the driver does to the world. Every call is complete when it returns; OSError where it could not."""

    def create_pf(self, nic: Nic, pf: Pf) -> None:
        """Make the PF's netdev and connect it."""

    def destroy_pf(self, nic: Nic, pf: Pf) -> None:
        """Remove the PF's netdev."""

    def create_vf(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """Make the VF's netdev in the node."""

    def destroy_vf(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """Remove the VF's netdev wherever it is."""

    def create_representor(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """Make the VF's representor in the node."""

    def destroy_representor(self, nic: Nic, pf: Pf, vf: Vf) -> None:
        """Remove the VF's representor."""

    def set_mode(self, nic: Nic, pf: Pf) -> None:
        """Program the silicon's default forwarding for ``pf.mode`` and the functions that now are."""

    def offloaded_rules(self, nic: Nic, pf: Pf) -> int:
        """How many TC rules of this eSwitch are in hardware."""
