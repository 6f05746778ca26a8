# SPDX-License-Identifier: Apache-2.0
"""Print samples as ``ovstest test-psample`` of Open vSwitch does, as far as its system tests look.

The formats are those of generic netlink and of include/uapi/linux/psample.h. It is a program for any Python.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final

NETLINK_GENERIC, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 16, 270, 1
CTRL, GETFAMILY, FAMILY_NAME, MCAST_GROUPS = 16, 3, 2, 7
GROUP_NAME, GROUP_ID = 1, 2
SAMPLE_GROUP, SAMPLE_RATE, DATA, USER_COOKIE = 3, 5, 6, 15
_HEADERS: Final = 20
"""Octets of a message before its attributes."""
_ETHERNET: Final = 14
_NAMES: Final = {(4, 1): "icmp", (6, 58): "icmp6"}


def attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message or nest."""
    at = 0
    while at + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, at)
        yield kind & 0x3FFF, payload[at + 4 : at + length]
        at += length + 3 & ~3


def listen() -> socket.socket:
    """A socket in the group that samples are sent to."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    name = b"psample\0"
    body = struct.pack("=BBHHH", GETFAMILY, 1, 0, 4 + len(name), FAMILY_NAME) + name
    listener.send(struct.pack("=IHHII", 16 + len(body), CTRL, 1, 1, 0) + body)
    family = dict(attributes(listener.recv(65536)[_HEADERS:]))
    for _position, nest in attributes(family.get(MCAST_GROUPS, b"")):
        group = dict(attributes(nest))
        if group[GROUP_NAME] == b"packets\0":
            listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, struct.unpack("=I", group[GROUP_ID])[0])
            return listener
    sys.exit("ovstest: there is no psample")


def flow(frame: bytes) -> str:
    """The addresses and the protocol of a packet."""
    packet = frame[_ETHERNET:]
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        family, prefix, protocol, at, size = socket.AF_INET, "nw", packet[9], 12, 4
    elif version == 6:
        family, prefix, protocol, at, size = socket.AF_INET6, "ipv6", packet[6], 8, 16
    else:
        return "other"
    source, target = (socket.inet_ntop(family, packet[n : n + size]) for n in (at, at + size))
    name = _NAMES.get((version, protocol), f"proto {protocol}")
    return f"{name},{prefix}_src={source},{prefix}_dst={target}"


def main() -> None:
    """Print samples as they come."""
    listener = listen()
    print("Listening for psample events", flush=True)
    while True:
        sample = dict(attributes(listener.recv(1 << 17)[_HEADERS:]))
        group, rate = (struct.unpack("=I", sample.get(kind, bytes(4)))[0] for kind in (SAMPLE_GROUP, SAMPLE_RATE))
        line = f"group_id={group:#x},prob={rate} "
        if len(sample.get(USER_COOKIE, b"")) == 8:
            domain, point = struct.unpack("!II", sample[USER_COOKIE])
            line += f"obs_domain={domain:#x},obs_point={point:#x} "
        print(line + flow(sample.get(DATA, b"")), flush=True)


if __name__ == "__main__":
    main()
