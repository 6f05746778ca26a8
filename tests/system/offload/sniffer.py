# SPDX-License-Identifier: Apache-2.0
"""Single frames, sent and seen inside a lab: as a program that runs in a guest or node, and what drives it.

Frames of a test have the ethertype 0x88b5 (IEEE 802, for experiments), so nothing else sends such.
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.offload.labs import Bench

ETHERTYPE = 0x88B5
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 3, 263, 8, 4
PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 1, 1
TP_STATUS_VLAN_VALID = 16
QUIET_MS = 200


def frame(dst: str, src: str, *tags: int) -> bytes:
    """A frame with these 802.1Q tags, the outer first."""
    shim = b"".join(b"\x81\x00" + tag.to_bytes(2, "big") for tag in tags)
    return bytes.fromhex((dst + src).replace(":", "")) + shim + ETHERTYPE.to_bytes(2, "big") + bytes(50)


class Sniffer:
    """Collects the frames that a device receives from now on, until :meth:`seen`."""

    def __init__(self, bench: Bench, where: str, device: str, *, promiscuous: bool = True) -> None:
        words = [sys.executable, __file__, device, str(int(promiscuous))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asap2.cli.main", "exec", where, "--", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=bench.environment,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def seen(self) -> list[tuple[int, ...]]:
        """The VLAN tags of each frame, in the order they came; waits until no more come."""
        lines = self.process.communicate("stop\n", timeout=20)[0].split("\n")[:-1]
        return [tuple(map(int, line.split())) for line in lines]


def _main() -> None:
    device, promiscuous = sys.argv[1], sys.argv[2] == "1"
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((device, ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    if promiscuous:
        index = socket.if_nametoindex(device)
        sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("=IHH8s", index, PACKET_MR_PROMISC, 0, b""))
    print("ready", flush=True)
    sys.stdin.readline()
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while poll.poll(QUIET_MS):
        data, auxiliary, _, address = sock.recvmsg(2048, 256)
        tags = [
            tci & 0xEFFF
            for _, kind, value in auxiliary
            for status, _, _, _, _, tci, _ in [struct.unpack("=IIIHHHH", value)]
            if kind == PACKET_AUXDATA and status & TP_STATUS_VLAN_VALID
        ]
        at = 12
        while data[at : at + 2] == b"\x81\x00":
            tags.append(int.from_bytes(data[at + 2 : at + 4], "big"))
            at += 4
        if address[2] != PACKET_OUTGOING and int.from_bytes(data[at : at + 2], "big") == ETHERTYPE:
            print(*tags, flush=True)


if __name__ == "__main__":
    _main()
