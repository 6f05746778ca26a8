# SPDX-License-Identifier: Apache-2.0
"""Reading the captures of a real kernel's netlink traffic (nlmon, linktype 253: LINUX_SLL-like netlink header)."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

from asap2.netlink.wire import NlMsg, split

DATA = Path(__file__).parent / "data" / "netlink"
CAPTURES = ("ovs-hw-offload", "ovs-no-offload")
_COOKED = 16
"""Length of the cooked header in front of each datagram; its last two octets are the protocol, big-endian."""


def messages(capture: str, protocol: int) -> Iterator[NlMsg]:
    """Every message of *protocol* (NETLINK_*) in *capture*, in order."""
    data = gzip.decompress((DATA / f"{capture}.pcap.gz").read_bytes())
    at = 24
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        record = data[at + 16 : at + 16 + length]
        at += 16 + length
        if int.from_bytes(record[14:16], "big") == protocol:
            yield from split(record[_COOKED:])
