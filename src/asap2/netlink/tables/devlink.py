# SPDX-License-Identifier: Apache-2.0
"""devlink: DEVLINK_CMD_* and DEVLINK_ATTR_* of devices, eSwitch, ports, info, parameters (linux/devlink.h)."""

from __future__ import annotations

from asap2.netlink.body import Body
from asap2.netlink.codec import Table, binary, flag, nested, repeated, string, u8, u16, u32, u64
from asap2.netlink.tables.actions import bitfield32
from asap2.netlink.tables.genl import GenlHdr

DEVLINK_CMD_GET = 1
DEVLINK_CMD_NEW = 3
DEVLINK_CMD_PORT_GET = 5
DEVLINK_CMD_PORT_SET = 6
DEVLINK_CMD_PORT_NEW = 7
DEVLINK_CMD_PORT_DEL = 8
DEVLINK_CMD_ESWITCH_GET = 29
DEVLINK_CMD_ESWITCH_SET = 30
DEVLINK_CMD_RELOAD = 37
DEVLINK_CMD_PARAM_GET = 38
DEVLINK_CMD_PARAM_SET = 39
DEVLINK_CMD_PARAM_NEW = 40
DEVLINK_CMD_INFO_GET = 51
DEVLINK_CMD_HEALTH_REPORTER_GET = 52
DEVLINK_CMD_RATE_GET = 74
DEVLINK_CMD_RATE_SET = 75
DEVLINK_CMD_RATE_NEW = 76
DEVLINK_CMD_RATE_DEL = 77

DEVLINK_RATE_TYPE_LEAF = 0

DEVLINK_ESWITCH_MODE_LEGACY = 0
DEVLINK_ESWITCH_MODE_SWITCHDEV = 1
DEVLINK_ESWITCH_INLINE_MODE_NONE = 0
DEVLINK_ESWITCH_INLINE_MODE_LINK = 1
DEVLINK_ESWITCH_INLINE_MODE_NETWORK = 2
DEVLINK_ESWITCH_INLINE_MODE_TRANSPORT = 3
DEVLINK_ESWITCH_ENCAP_MODE_NONE = 0
DEVLINK_ESWITCH_ENCAP_MODE_BASIC = 1

DEVLINK_RELOAD_ACTION_DRIVER_REINIT = 1
DEVLINK_RELOAD_ACTION_FW_ACTIVATE = 2
DEVLINK_RELOAD_LIMIT_NO_RESET = 1

DEVLINK_PORT_TYPE_NOTSET = 0
DEVLINK_PORT_TYPE_AUTO = 1
DEVLINK_PORT_TYPE_ETH = 2
DEVLINK_PORT_FLAVOUR_PHYSICAL = 0
DEVLINK_PORT_FLAVOUR_PCI_PF = 3
DEVLINK_PORT_FLAVOUR_PCI_VF = 4
DEVLINK_PORT_FLAVOUR_VIRTUAL = 5
DEVLINK_PORT_FLAVOUR_PCI_SF = 7

DEVLINK_PARAM_CMODE_RUNTIME = 0
DEVLINK_PARAM_CMODE_DRIVERINIT = 1
DEVLINK_PARAM_CMODE_PERMANENT = 2
DEVLINK_PARAM_TYPE_U8 = 1
DEVLINK_PARAM_TYPE_U16 = 2
DEVLINK_PARAM_TYPE_U32 = 3
DEVLINK_PARAM_TYPE_STRING = 5
DEVLINK_PARAM_TYPE_BOOL = 6


PORT_FUNCTION = Table(
    "devlink_port_function",
    {1: ("hw_addr", binary), 2: ("state", u8), 3: ("opstate", u8), 4: ("caps", bitfield32)},
)
INFO_VERSION = Table("devlink_info_version", {103: ("name", string), 104: ("value", string)})
PARAM_VALUE = Table("devlink_param_value", {86: ("data", binary), 87: ("cmode", u8)})
"""One value; *data* depends on the parameter's type: a number of its width, a string, or a flag."""
PARAM_VALUES = Table("devlink_param_values", {85: ("value", repeated(nested(PARAM_VALUE, flagged=True)))})
PARAM = Table(
    "devlink_param",
    {
        81: ("name", string),
        82: ("generic", flag),
        83: ("type", u8),
        84: ("values_list", nested(PARAM_VALUES, flagged=True)),
    },
)
HEALTH_REPORTER = Table(
    "devlink_health_reporter",
    {
        115: ("name", string),
        116: ("state", u8),
        117: ("err_count", u64),
        118: ("recover_count", u64),
        120: ("graceful_period", u64),
        121: ("auto_recover", u8),
        141: ("auto_dump", u8),
    },
)
DEVLINK_ATTRS = Table(
    "devlink",
    {
        1: ("bus_name", string),
        2: ("dev_name", string),
        3: ("port_index", u32),
        4: ("port_type", u16),
        5: ("port_desired_type", u16),
        6: ("port_netdev_ifindex", u32),
        7: ("port_netdev_name", string),
        8: ("port_ibdev_name", string),
        9: ("port_split_count", u32),
        10: ("port_split_group", u32),
        25: ("eswitch_mode", u16),
        26: ("eswitch_inline_mode", u8),
        62: ("eswitch_encap_mode", u8),
        77: ("port_flavour", u16),
        78: ("port_number", u32),
        79: ("port_split_subport_number", u32),
        80: ("param", nested(PARAM, flagged=True)),
        81: ("param_name", string),
        82: ("param_generic", flag),
        83: ("param_type", u8),
        84: ("param_values_list", binary),
        85: ("param_value", binary),
        86: ("param_value_data", binary),
        87: ("param_value_cmode", u8),
        98: ("info_driver_name", string),
        99: ("info_serial_number", string),
        100: ("info_version_fixed", repeated(nested(INFO_VERSION, flagged=True))),
        101: ("info_version_running", repeated(nested(INFO_VERSION, flagged=True))),
        102: ("info_version_stored", repeated(nested(INFO_VERSION, flagged=True))),
        114: ("health_reporter", nested(HEALTH_REPORTER)),
        115: ("health_reporter_name", string),
        127: ("port_pci_pf_number", u16),
        128: ("port_pci_vf_number", u16),
        136: ("reload_failed", u8),
        138: ("netns_fd", u32),
        139: ("netns_pid", u32),
        140: ("netns_id", u32),
        145: ("port_function", nested(PORT_FUNCTION, flagged=True)),
        146: ("info_board_serial_number", string),
        147: ("port_lanes", u32),
        148: ("port_splittable", u8),
        149: ("port_external", u8),
        150: ("port_controller_number", u32),
        153: ("reload_action", u8),
        154: ("reload_actions_performed", bitfield32),
        155: ("reload_limits", bitfield32),
        156: ("dev_stats", binary),
        164: ("port_pci_sf_number", u32),
        165: ("rate_type", u16),
        166: ("rate_tx_share", u64),
        167: ("rate_tx_max", u64),
        168: ("rate_node_name", string),
        169: ("rate_parent_node_name", string),
        177: ("rate_tx_priority", u32),
        178: ("rate_tx_weight", u32),
    },
)
DEVLINK: Body[GenlHdr] = Body(GenlHdr, "=BBH", DEVLINK_ATTRS)
"""The payload of a devlink message. Family version 1, no header of its own, group ``config``."""
