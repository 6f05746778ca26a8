# SPDX-License-Identifier: Apache-2.0
"""Proof by traffic: send packets through a VF, and count how many of them the host had to handle."""

PROTOCOLS = ("icmp", "udp", "tcp")
COUNT = 1000
"""Default number of packets of each protocol, both directions together."""
ECHO_PORT = 7
"""Default UDP and TCP port (RFC 862)."""
