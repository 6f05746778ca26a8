# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch flow keys: netlink attributes to fields, checked as Linux checks them, and back.

A key, or a mask, is a dictionary of fields by name; a field that is not there is 0. The names are those of
:data:`asap2.nic.fields.FIELDS`, with the kernel's values where they differ (fragments, TPIDs), and of
:data:`asap2.nic.fields.OVS_ONLY`, which the kernel's ``struct sw_flow_key`` has besides. Numbers are host integers.
Attribute numbers and layouts: include/uapi/linux/openvswitch.h; meanings and checks: net/openvswitch/flow_netlink.c.
"""

from asap2.nic.faces.ovs.key.layout import Fields, invalid, walk
from asap2.nic.faces.ovs.key.matching import FRAGMENTS, table_of, to_match
from asap2.nic.faces.ovs.key.reading import (
    FlowMatch,
    check_original_tuple,
    match_of,
    number,
    packet_attributes,
    packet_metadata,
)
from asap2.nic.faces.ovs.key.tunnel import INET, INET6, check_options, emit_tunnel, options_of, read_tunnel
from asap2.nic.faces.ovs.key.writing import emit

__all__ = [
    "FRAGMENTS",
    "INET",
    "INET6",
    "Fields",
    "FlowMatch",
    "check_options",
    "check_original_tuple",
    "emit",
    "emit_tunnel",
    "invalid",
    "match_of",
    "number",
    "options_of",
    "packet_attributes",
    "packet_metadata",
    "read_tunnel",
    "table_of",
    "to_match",
    "walk",
]
