# SPDX-License-Identifier: Apache-2.0
"""The actions by number, the attributes within them, and their lengths: those of :mod:`asap2.netlink.tables.ovs`."""

from __future__ import annotations

from typing import Final

from asap2.netlink.tables import ovs as protocol
from asap2.nic.faces.ovs.key.numbers import lengths

_ACTIONS = protocol.ACTIONS.numbers
OUTPUT: Final = _ACTIONS["output"]
USERSPACE: Final = _ACTIONS["userspace"]
SET: Final = _ACTIONS["set"]
PUSH_VLAN: Final = _ACTIONS["push_vlan"]
POP_VLAN: Final = _ACTIONS["pop_vlan"]
SAMPLE: Final = _ACTIONS["sample"]
RECIRC: Final = _ACTIONS["recirc"]
HASH: Final = _ACTIONS["hash"]
PUSH_MPLS: Final = _ACTIONS["push_mpls"]
POP_MPLS: Final = _ACTIONS["pop_mpls"]
SET_MASKED: Final = _ACTIONS["set_masked"]
CT: Final = _ACTIONS["ct"]
TRUNC: Final = _ACTIONS["trunc"]
PUSH_ETH: Final = _ACTIONS["push_eth"]
POP_ETH: Final = _ACTIONS["pop_eth"]
CT_CLEAR: Final = _ACTIONS["ct_clear"]
PUSH_NSH: Final = _ACTIONS["push_nsh"]
POP_NSH: Final = _ACTIONS["pop_nsh"]
CLONE: Final = _ACTIONS["clone"]
METER: Final = _ACTIONS["meter"]
CHECK_PKT_LEN: Final = _ACTIONS["check_pkt_len"]
ADD_MPLS: Final = _ACTIONS["add_mpls"]
DEC_TTL: Final = _ACTIONS["dec_ttl"]
DROP: Final = _ACTIONS["drop"]
PSAMPLE: Final = _ACTIONS["psample"]

USERSPACE_PID: Final = protocol.USERSPACE.numbers["pid"]
USERSPACE_USERDATA: Final = protocol.USERSPACE.numbers["userdata"]
USERSPACE_EGRESS_TUN_PORT: Final = protocol.USERSPACE.numbers["egress_tun_port"]
USERSPACE_ACTIONS: Final = protocol.USERSPACE.numbers["actions"]
SAMPLE_PROBABILITY: Final = protocol.SAMPLE.numbers["probability"]
SAMPLE_ACTIONS: Final = protocol.SAMPLE.numbers["actions"]
CHECK_LENGTH: Final = protocol.CHECK_PKT_LEN.numbers["pkt_len"]
CHECK_IF_GREATER: Final = protocol.CHECK_PKT_LEN.numbers["actions_if_greater"]
CHECK_IF_LESS_EQUAL: Final = protocol.CHECK_PKT_LEN.numbers["actions_if_less_equal"]
DEC_TTL_ACTION: Final = protocol.DEC_TTL.numbers["action"]

PSAMPLE_GROUP: Final = protocol.PSAMPLE.numbers["group"]
PSAMPLE_COOKIE: Final = protocol.PSAMPLE.numbers["cookie"]
LENGTHS: Final = lengths(protocol.ACTIONS, frozenset())
"""The actions there are, and the length in bytes of each one's argument."""
