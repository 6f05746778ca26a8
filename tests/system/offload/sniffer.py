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
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.offload.labs import Bench

ETHERTYPE = 0x88B5
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 3, 263, 8, 4
PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 1, 1
TP_STATUS_VLAN_VALID = 16
QUIET_MS, PATIENCE = 200, 60
S_TAG = 0x88A8_0000
"""What an 802.1ad tag is more than an 802.1Q tag, as :func:`frame` takes tags and :meth:`Sniffer.seen` gives them."""
_PAYLOAD = bytes(range(50))
_TPIDS = {0x8100: 0, 0x88A8: S_TAG}
_CHANGED = -1


def frame(dst: str, src: str, *tags: int) -> bytes:
    """A frame with these tags, the outer first."""
    shim = b"".join((tag if tag & S_TAG else tag | 0x8100_0000).to_bytes(4, "big") for tag in tags)
    return bytes.fromhex((dst + src).replace(":", "")) + shim + ETHERTYPE.to_bytes(2, "big") + _PAYLOAD


def send(bench: Bench, where: str, device: str, *frames: bytes) -> None:
    """Send frames from a device in a guest or node."""
    listed = [one.hex() for one in frames]
    program = (
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
        f"s.bind(('{device}', 0)); [s.send(bytes.fromhex(f)) for f in {listed}]"
    )
    bench.ok(where, f'python3 -c "{program}"')


class Sniffer:
    """Collects the frames that a device receives from now on, until :meth:`seen`."""

    def __init__(self, bench: Bench, where: str, device: str, *, promiscuous: bool = True) -> None:
        words = [sys.executable, __file__, device, str(int(promiscuous))]
        self.process = bench.start(where, *words, stdin=subprocess.PIPE)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def seen(self, count: int = 0) -> list[tuple[int, ...]]:
        """The VLAN tags of each frame, in the order they came; waits for *count*, and then until no more come. A frame
        whose payload has changed has the tag -1 in front."""
        lines = self.process.communicate(f"{count}\n", timeout=2 * PATIENCE)[0].split("\n")[:-1]
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
    wanted, end = int(sys.stdin.readline()), time.monotonic() + PATIENCE
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while poll.poll(QUIET_MS) or (wanted > 0 and time.monotonic() < end):
        if not poll.poll(0):
            continue
        data, auxiliary, _, address = sock.recvmsg(2048, 256)
        tags = [
            _TPIDS[tpid] | tci & 0xEFFF
            for _, kind, value in auxiliary
            for status, _, _, _, _, tci, tpid in [struct.unpack("=IIIHHHH", value)]
            if kind == PACKET_AUXDATA and status & TP_STATUS_VLAN_VALID
        ]
        at = 12
        while (tpid := int.from_bytes(data[at : at + 2], "big")) in _TPIDS:
            tags.append(_TPIDS[tpid] | int.from_bytes(data[at + 2 : at + 4], "big"))
            at += 4
        if address[2] != PACKET_OUTGOING and tpid == ETHERTYPE:
            wanted -= 1
            print(*([] if data[at + 2 :] == _PAYLOAD else [_CHANGED]), *tags, flush=True)


if __name__ == "__main__":
    _main()
