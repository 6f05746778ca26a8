# SPDX-License-Identifier: Apache-2.0
"""Commands and attributes of the datapath's families by number: those of :mod:`asap2.netlink.tables.ovs`."""

from __future__ import annotations

from typing import Final

from asap2.netlink.request import GENL_CMD_CAP_DO, GENL_CMD_CAP_DUMP, GENL_CMD_CAP_HASPOL, GENL_UNS_ADMIN_PERM
from asap2.netlink.tables import ovs as protocol

NEW: Final = protocol.OVS_DP_CMD_NEW
DEL: Final = protocol.OVS_DP_CMD_DEL
GET: Final = protocol.OVS_DP_CMD_GET
SET: Final = protocol.OVS_DP_CMD_SET
"""Of datapaths, ports and flows."""
ASK: Final = GENL_CMD_CAP_DO | GENL_CMD_CAP_HASPOL
CHANGE: Final = ASK | GENL_UNS_ADMIN_PERM
"""Flags of commands: what asks, and what changes something."""
OPS: Final = ((NEW, CHANGE), (DEL, CHANGE), (GET, ASK | GENL_CMD_CAP_DUMP), (SET, CHANGE))

_DP, _PORT = protocol.DATAPATH_ATTRS.numbers, protocol.VPORT_ATTRS.numbers
_FLOW, _PKT = protocol.FLOW_ATTRS.numbers, protocol.PACKET_ATTRS.numbers
DP_NAME: Final = _DP["name"]
DP_UPCALL_PID: Final = _DP["upcall_pid"]
DP_STATS: Final = _DP["stats"]
DP_MEGAFLOW_STATS: Final = _DP["megaflow_stats"]
DP_USER_FEATURES: Final = _DP["user_features"]
DP_MASKS_CACHE_SIZE: Final = _DP["masks_cache_size"]
DP_PER_CPU_PIDS: Final = _DP["per_cpu_pids"]
PORT_NO: Final = _PORT["port_no"]
PORT_TYPE: Final = _PORT["type"]
PORT_NAME: Final = _PORT["name"]
PORT_UPCALL_PID: Final = _PORT["upcall_pid"]
PORT_STATS: Final = _PORT["stats"]
PORT_IFINDEX: Final = _PORT["ifindex"]
PORT_NETNSID: Final = _PORT["netnsid"]
PORT_UPCALL_STATS: Final = _PORT["upcall_stats"]
UPCALL_SUCCESS: Final = protocol.VPORT_UPCALL_STATS.numbers["success"]
UPCALL_FAIL: Final = protocol.VPORT_UPCALL_STATS.numbers["fail"]
FLOW_KEY: Final = _FLOW["key"]
FLOW_ACTIONS: Final = _FLOW["actions"]
FLOW_STATS: Final = _FLOW["stats"]
FLOW_USED: Final = _FLOW["used"]
FLOW_CLEAR: Final = _FLOW["clear"]
FLOW_MASK: Final = _FLOW["mask"]
FLOW_UFID: Final = _FLOW["ufid"]
FLOW_UFID_FLAGS: Final = _FLOW["ufid_flags"]
PKT_PACKET: Final = _PKT["packet"]
PKT_KEY: Final = _PKT["key"]
PKT_ACTIONS: Final = _PKT["actions"]
PKT_USERDATA: Final = _PKT["userdata"]
PKT_EGRESS_TUN_KEY: Final = _PKT["egress_tun_key"]
PKT_PROBE: Final = _PKT["probe"]
PKT_MRU: Final = _PKT["mru"]
PKT_LEN: Final = _PKT["len"]
PKT_HASH: Final = _PKT["hash"]
