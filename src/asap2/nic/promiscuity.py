# SPDX-License-Identifier: Apache-2.0
"""Promiscuity of the datapath's ports: the kernel counts it, shows it and announces it (packet(7))."""

from __future__ import annotations

import errno
import socket
import struct

PACKET_ADD_MEMBERSHIP, PACKET_DROP_MEMBERSHIP = 1, 2
PACKET_MR_PROMISC = 1
_SOL_PACKET = 263
_MREQ = struct.Struct("=iHH8s")
"""struct packet_mreq."""


class Promiscuity:
    """What is promiscuous because of this process, in the network namespace that it was made in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # 0: receives nothing

    def set(self, ifindex: int, on: bool) -> None:
        """Make the device promiscuous, or no longer (dev_set_promiscuity). One that has gone is no longer by itself."""
        option = PACKET_ADD_MEMBERSHIP if on else PACKET_DROP_MEMBERSHIP
        try:
            self._socket.setsockopt(_SOL_PACKET, option, _MREQ.pack(ifindex, PACKET_MR_PROMISC, 0, b""))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EADDRNOTAVAIL):
                raise
