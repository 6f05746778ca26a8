# SPDX-License-Identifier: Apache-2.0
"""What files tell: sysfs, PCI, procfs."""
