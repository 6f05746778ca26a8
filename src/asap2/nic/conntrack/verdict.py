# SPDX-License-Identifier: Apache-2.0
"""The verdict of a protocol's tracker on a packet."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What happens to a packet and its connection."""

    ACCEPT = "accept"
    IGNORE = "ignore"
    """The packet belongs to the connection and changes nothing; it is reported as invalid."""
    INVALID = "invalid"
    """The packet belongs to no connection."""
    REPEAT = "repeat"
    """The connection has ended; the packet may begin a new one."""
