# SPDX-License-Identifier: Apache-2.0
"""What the driver does to the world, as an interface: netdevs made and removed, the silicon programmed."""

from __future__ import annotations

from typing import Protocol

from asap2.nic.function import Function, Pf


class Backend(Protocol):
    """What the driver does to the world. Every call is complete when it returns; OSError where it could not."""

    def create(self, function: Function) -> None:
        """Make the function's netdev in the node."""

    def destroy(self, function: Function) -> None:
        """Remove the function's netdev, in whichever namespace it is."""

    def create_representor(self, function: Function) -> None:
        """Make the function's representor in the node."""

    def destroy_representor(self, function: Function) -> None:
        """Remove the function's representor."""

    def program(self, pf: Pf) -> None:
        """Program the default forwarding of *pf*'s eSwitch for its mode and its present functions."""
