# SPDX-License-Identifier: Apache-2.0
"""devlink: the NIC as a device."""
