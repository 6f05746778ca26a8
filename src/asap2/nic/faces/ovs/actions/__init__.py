# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch datapath actions: netlink attributes to rule actions, checked as Linux checks them, and back.

Numbers and layouts: enum ovs_action_attr, include/uapi/linux/openvswitch.h; checks: net/openvswitch/flow_netlink.c,
__ovs_nla_copy_actions.
"""

from asap2.nic.faces.ovs.actions.reading import parse
from asap2.nic.faces.ovs.actions.rewriting import tunnel_of
from asap2.nic.faces.ovs.actions.steps import (
    NO_PORT,
    Nested,
    PortOutput,
    Recirc,
    Step,
    Userspace,
    outputs,
    to_rule,
    userspaces,
)
from asap2.nic.faces.ovs.actions.writing import echoed

__all__ = [
    "NO_PORT",
    "Nested",
    "PortOutput",
    "Recirc",
    "Step",
    "Userspace",
    "echoed",
    "outputs",
    "parse",
    "to_rule",
    "tunnel_of",
    "userspaces",
]
