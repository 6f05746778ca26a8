# SPDX-License-Identifier: Apache-2.0
"""OVN on a lab: its own, unmodified programs on the nodes, and a demo of what it does with hardware offload."""
