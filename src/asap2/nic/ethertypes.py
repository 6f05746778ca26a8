# SPDX-License-Identifier: Apache-2.0
"""Ethernet protocol numbers (include/uapi/linux/if_ether.h)."""

from __future__ import annotations

from typing import Final

ETH_P_ALL: Final = 0x0003
ETH_P_802_2: Final = 0x0004
ETH_P_802_3_MIN: Final = 0x0600
"""The least number that is a type; below, it is a length."""
ETH_P_IP: Final = 0x0800
ETH_P_ARP: Final = 0x0806
ETH_P_TEB: Final = 0x6558
ETH_P_RARP: Final = 0x8035
ETH_P_8021Q: Final = 0x8100
ETH_P_IPV6: Final = 0x86DD
ETH_P_MPLS: Final = (0x8847, 0x8848)
ETH_P_8021AD: Final = 0x88A8
ETH_P_NSH: Final = 0x894F

VLAN_TYPES: Final = (ETH_P_8021Q, ETH_P_8021AD)
ARP_TYPES: Final = (ETH_P_ARP, ETH_P_RARP)
