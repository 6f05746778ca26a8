# SPDX-License-Identifier: Apache-2.0
"""ethtool, by netlink and by ioctl."""
