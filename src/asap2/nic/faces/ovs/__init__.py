# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch's datapath: its generic netlink families, keys, actions and upcalls."""
