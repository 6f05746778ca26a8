# SPDX-License-Identifier: Apache-2.0
"""What a protocol's tracker says of a packet."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """Of a packet and its connection."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    """It is the connection's, and changes nothing."""
    INVALID = "invalid"
    """It is of no connection."""
    REPEAT = "repeat"
    """The connection is over; the packet may begin another."""
