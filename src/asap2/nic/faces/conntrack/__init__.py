# SPDX-License-Identifier: Apache-2.0
"""How programs see and change a node's connections: ctnetlink, and what /proc has of them."""
