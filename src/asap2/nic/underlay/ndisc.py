# SPDX-License-Identifier: Apache-2.0
"""Neighbour solicitation (RFC 4861) where the kernel does not ask: from a device without a link-local address.

Without a packet to take an address from, the kernel asks from the device's link-local address or not at all
(net/ipv6/ndisc.c, ndisc_solicit and ndisc_send_ns). A driver that wants a neighbour has no packet.
"""

from __future__ import annotations

import logging
import socket
import struct
from pathlib import Path

log = logging.getLogger(__name__)

SOLICITATION = 135
SOURCE_LINK_LAYER_ADDRESS = 1
HOPS = 255
"""Fewer tell a receiver that a router has forwarded it, and so that it is forged."""

_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")
_SCOPE_LINK = 0x20
_ADDRESSES = Path("/proc/thread-self/net/if_inet6")


def has_link_local(ifindex: int) -> bool:
    """Whether the device has a link-local address, in the network namespace of the calling thread."""
    try:
        lines = _ADDRESSES.read_bytes().split(b"\n")[:-1]
    except OSError:
        return False
    return any(
        (int(index, 16), int(scope, 16)) == (ifindex, _SCOPE_LINK) for _, index, _, scope, *_ in map(bytes.split, lines)
    )


def message(target: bytes, own_mac: bytes) -> bytes:
    """A solicitation of the IPv6 address *target* from the device with *own_mac*; the kernel fills in the checksum."""
    return struct.pack("!BBHI16sBB6s", SOLICITATION, 0, 0, 0, target, SOURCE_LINK_LAYER_ADDRESS, 1, own_mac)


def solicit(ifindex: int, source: bytes, own_mac: bytes, target: bytes, *, multicast: bool) -> None:
    """Ask *target* for its address, from *source* out of the device: whoever has it, or (not *multicast*) it alone.

    The kernel takes the answer as if it had asked itself. When it cannot be sent, nothing is.
    """
    if len(own_mac) != 6 or not any(source):
        return
    to = _SOLICITED_NODE + target[-3:] if multicast else target
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as sender:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, ifindex)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOPS)
            sender.bind((socket.inet_ntop(socket.AF_INET6, source), 0))
            sender.sendto(message(target, own_mac), (socket.inet_ntop(socket.AF_INET6, to), 0, 0, ifindex))
    except OSError as error:
        log.debug("cannot ask for a neighbour out of device %d: %s", ifindex, error)
