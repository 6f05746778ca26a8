# SPDX-License-Identifier: Apache-2.0
"""What tunnels travel on: the node's routes and neighbours, and the UDP ports that the NICs know tunnels by."""
