# SPDX-License-Identifier: Apache-2.0
"""neutron's mechanism drivers that a cloud can have."""

from __future__ import annotations

from enum import StrEnum


class Mechanism(StrEnum):
    """Who tells the nodes' Open vSwitch what to do, by the name in neutron's ``mechanism_drivers``: an agent of
    neutron's on each node, or OVN."""

    OPENVSWITCH = "openvswitch"
    OVN = "ovn"
