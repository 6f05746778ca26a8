# SPDX-License-Identifier: Apache-2.0
"""``client.py SEED COUNT``: in a node, sends COUNT random messages on netlink sockets as any program does, through the
redirect library, and reads what is answered. Prints as JSON how they ended.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import socket
import sys

from asap2.netlink.client import Connection, genl_family
from asap2.netlink.wire import NETLINK_EXT_ACK, NLMSG_ERROR, SOL_NETLINK, build, error_of, spans
from tests.system.fuzz.grammar import World
from tests.system.fuzz.source import Source

BATCH = 20
FAMILIES = ("ovs_datapath", "ovs_vport", "ovs_flow", "ovs_packet", "devlink", "ethtool")


def look(world: World) -> None:
    """See what there is."""
    with Connection(16) as kernel:
        known = {name: genl_family(kernel, name) for name in FAMILIES}
    world.families = {name: info.id for name, info in known.items() if info is not None}
    named = [(index, name) for index, name in socket.if_nameindex() if name != "lo"]
    world.devices = [index for index, _ in named]
    world.representors = [index for index, name in named if name.startswith("eth")]
    world.functions = os.listdir("/sys/bus/pci/drivers/mlx5_core")
    world.functions = [name for name in world.functions if name.startswith("0000:")]
    world.datapath = next((index for index, name in named if name == "ovs-system"), 0)
    world.ports = list(range(8))


def main() -> None:
    """Send, and say what came of it."""
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    world = World({}, [], [], [])
    look(world)
    source = Source(seed, world)
    ended: collections.Counter[str] = collections.Counter()
    sockets = {}
    for protocol in (0, 16):
        sockets[protocol] = sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
    for start in range(0, count, BATCH):
        if start % 500 == 0:
            look(world)
        batches: dict[int, bytes] = {0: b"", 16: b""}
        for number in range(start, min(start + BATCH, count)):
            made = source.next()
            batches[made.protocol] += build(made.type, made.flags, number, 0, made.payload)
        for protocol, batch in batches.items():
            if not batch:
                continue
            try:
                sockets[protocol].send(batch)
            except OSError as error:
                ended[f"send: {error.strerror}"] += 1
            with contextlib.suppress(BlockingIOError):
                while select.select([sockets[protocol]], [], [], 0)[0]:
                    for _start, _end, one in spans(sockets[protocol].recv(1 << 20, socket.MSG_DONTWAIT)):
                        if one.type == NLMSG_ERROR:
                            error_or_none = error_of(one)
                            ended[os.strerror(error_or_none.errno or 0) if error_or_none else "acknowledged"] += 1
                        else:
                            ended["told"] += 1
    print(json.dumps({"ended": dict(ended.most_common())}))


if __name__ == "__main__":
    main()
