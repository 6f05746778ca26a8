# SPDX-License-Identifier: Apache-2.0
"""Proof by traffic: packets are sent through a VF, and it is seen how many of them the host had to touch."""

PROTOCOLS = ("icmp", "udp", "tcp")
COUNT = 1000
"""Packets of each protocol, both ways together, unless said."""
ECHO_PORT = 7
"""The port of UDP and TCP, unless said (RFC 862)."""
