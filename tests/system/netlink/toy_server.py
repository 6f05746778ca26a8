# SPDX-License-Identifier: Apache-2.0
"""A netlink server with toy handlers, run by the tests in a network namespace of their own.

Usage: ``toy_server.py SOCKET [FILTERS]``; it says ``ready`` when it listens, and serves until it is killed.
"""

from __future__ import annotations

import errno
import os
import selectors
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from asap2.netlink.request import PASS, Answer, GenlFamily, GenlHeader, Message, Netns, Proxy, Reply, Request
from asap2.netlink.server import Server
from asap2.netlink.tables.actions import TC_ACT_SHOT, Generic
from asap2.netlink.tables.devlink import (
    DEVLINK,
    DEVLINK_CMD_ESWITCH_GET,
    DEVLINK_CMD_ESWITCH_SET,
    DEVLINK_CMD_GET,
    DEVLINK_CMD_NEW,
)
from asap2.netlink.tables.ethtool import ETHTOOL_GDRVINFO, ETHTOOL_MSG_FEATURES_SET, ETHTOOL_MSG_RINGS_GET
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.tables.link import LINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK
from asap2.netlink.tables.tc import (
    RTM_DELTFILTER,
    RTM_GETTFILTER,
    RTM_NEWTFILTER,
    TC,
    TC_H_MIN_INGRESS,
    Tcmsg,
    info,
)
from asap2.netlink.wire import NETLINK_GENERIC, NetlinkError, NlMsg

TOY_ECHO, TOY_UPCALLS, TOY_EVENT, TOY_BIG, TOY_DIE = 1, 2, 3, 4, 5
BIG = 20_000


class Toy:
    """Filters by (ifindex, handle), an eSwitch mode, and what else the handlers keep."""

    def __init__(self, server: Server, filters: int) -> None:
        self.server = server
        self.mode = 0
        self.filters: dict[tuple[int, int], bytes] = {}
        for handle in range(1, filters + 1):
            self.filters[1, handle] = self.filter(1, handle, handle)

    def filter(self, ifindex: int, handle: int, number: int) -> bytes:
        """A flower filter of some 400 bytes: matches on many fields, and drops."""
        key = {
            "key_eth_dst": number.to_bytes(6, "big"),
            "key_eth_dst_mask": b"\xff" * 6,
            "key_eth_type": 0x86DD,
            "key_ip_proto": 6,
            "key_ipv6_src": number.to_bytes(16, "big"),
            "key_ipv6_src_mask": b"\xff" * 16,
            "key_ipv6_dst": number.to_bytes(16, "big"),
            "key_ipv6_dst_mask": b"\xff" * 16,
            "key_tcp_src": 1000,
            "key_tcp_src_mask": 0xFFFF,
            "flags": 4,
            "in_hw_count": 1,
            "act": [
                {"kind": "gact", "options": {"parms": Generic(action=TC_ACT_SHOT, index=number)}, "cookie": b"c" * 16}
            ],
        }
        return TC.encode(
            Tcmsg(0, ifindex, handle, TC_H_MIN_INGRESS, info(1, 0x86DD)), {"kind": "flower", "chain": 0, "options": key}
        )

    def tc(self, request: Request) -> Answer:
        header, attrs = TC.decode(request.payload)
        if request.type == RTM_GETTFILTER:
            found = [Message(RTM_NEWTFILTER, raw) for (at, _), raw in self.filters.items() if at == header.ifindex]
            if not request.dump and not found:
                raise NetlinkError(errno.ENOENT, "Filter with specified priority/protocol not found")
            return found
        if request.type == RTM_DELTFILTER:
            for key in [key for key in self.filters if key[0] == header.ifindex]:
                del self.filters[key]
            return None
        if attrs["kind"] == "matchall":
            return PASS
        if attrs["kind"] != "flower":
            raise NetlinkError(errno.ENOENT, "TC classifier not found", 36)
        handle = header.handle or len(self.filters) + 1
        raw = TC.encode(header._replace(handle=handle), attrs)
        self.filters[header.ifindex, handle] = raw
        messages = [Message(RTM_NEWTFILTER, raw)] if request.echo else []
        return Reply(messages, "toy: not offloaded" if header.prio == 7 else None)

    def link(self, request: Request) -> Answer:
        header, attrs = LINK.decode(request.payload)
        if request.type == RTM_GETLINK:
            return Proxy(self.with_alias) if request.dump or attrs.get("ifname") == "lo" or header.index == 1 else PASS
        if "vfinfo_list" in attrs:
            vf = attrs["vfinfo_list"]["vf_info"][0]
            raise NetlinkError(errno.EOPNOTSUPP, f"toy: no VF {next(iter(vf.values())).vf} here")
        return PASS

    def with_alias(self, message: NlMsg) -> Iterator[Message]:
        header, attrs = LINK.decode(message.payload)
        attrs["ifalias"] = f"toy {attrs['ifname']}"
        yield Message(message.type, LINK.encode(header, attrs))

    def echo(self, _request: Request, genl: GenlHeader) -> Answer:
        return [Message(0x7000, bytes((genl.cmd, 1, 0, 0)) + genl.header + genl.attrs)]

    def upcalls(self, request: Request, genl: GenlHeader) -> Answer:
        """Upcalls to the client: their number is in the family header. Their fate is the answer."""
        sent = full = 0
        for number in range(struct.unpack("=I", genl.header)[0]):
            payload = struct.pack("=BBHI", TOY_UPCALLS, 1, 0, number) + bytes(100)
            try:
                self.server.unicast(request.client.netns, NETLINK_GENERIC, request.client.portid, 0x7000, payload)
                sent += 1
            except BlockingIOError:
                full += 1
        gone = 0
        try:
            self.server.unicast(request.client.netns, NETLINK_GENERIC, 0x3FFFFFFF, 0x7000, b"")
        except ConnectionRefusedError:
            gone = 1
        return [Message(0x7000, struct.pack("=BBHIII", TOY_UPCALLS, 2, 0, sent, full, gone))]

    def event(self, request: Request, _genl: GenlHeader) -> Answer:
        self.server.multicast("toy", "events", struct.pack("=BBHI", TOY_EVENT, 1, 0, 42), request.client.netns)
        return None

    def big(self, _request: Request, _genl: GenlHeader) -> Answer:
        return [Message(0x7000, struct.pack("=BBHI", TOY_BIG, 1, 0, i) + bytes(400)) for i in range(BIG)]

    def die(self, _request: Request, _genl: GenlHeader) -> Answer:
        os._exit(0)

    def devlink(self, request: Request, genl: GenlHeader) -> Answer:
        _header, attrs = DEVLINK.decode(request.payload)
        handle = {"bus_name": "pci", "dev_name": "0000:03:00.0"}
        if not request.dump and (attrs.get("bus_name"), attrs.get("dev_name")) != ("pci", "0000:03:00.0"):
            raise NetlinkError(errno.ENODEV)
        if genl.cmd == DEVLINK_CMD_GET:
            body = DEVLINK.encode(GenlHdr(DEVLINK_CMD_NEW), {**handle, "reload_failed": 0})
        elif genl.cmd == DEVLINK_CMD_ESWITCH_SET:
            if attrs.get("eswitch_mode") == 0 and self.mode == 0:
                raise NetlinkError(errno.EINVAL, "toy: already in legacy mode")
            self.mode = attrs["eswitch_mode"]
            return None
        else:
            body = DEVLINK.encode(
                GenlHdr(DEVLINK_CMD_ESWITCH_GET),
                {**handle, "eswitch_mode": self.mode, "eswitch_inline_mode": 0, "eswitch_encap_mode": 1},
            )
        return [Message(request.type, body)]

    def features_set(self, _request: Request, _genl: GenlHeader) -> Answer:
        raise NetlinkError(errno.EOPNOTSUPP, "toy: features are fixed")

    def rings(self, _request: Request, _genl: GenlHeader) -> Answer:
        return PASS

    def drvinfo(self, _netns: Netns, name: str, command: int, buffer: bytes) -> bytes | None:
        if name == "lo":
            return None
        if name == "refused":
            raise OSError(errno.EACCES, "toy")
        assert command == ETHTOOL_GDRVINFO
        assert len(buffer) == 196
        return (buffer[:4] + b"toy_core".ljust(32, b"\0") + b"1.0").ljust(len(buffer), b"\0")


def serve(server: Server) -> None:
    """Say ``ready``, and serve until killed."""
    with selectors.EpollSelector() as selector:
        server.attach(selector)
        print("ready", flush=True)
        while True:
            for key, mask in selector.select():
                key.data(mask)


def main() -> None:
    """Serve."""
    server = Server(Path(sys.argv[1]), threading.RLock())
    toy = Toy(server, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    server.route((RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER), toy.tc)
    server.route((RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK), toy.link)
    server.family(
        GenlFamily(
            "toy",
            0x7000,
            hdrsize=4,
            maxattr=3,
            ops=[(TOY_ECHO, 2), (TOY_UPCALLS, 2), (TOY_EVENT, 2), (TOY_BIG, 4), (TOY_DIE, 2)],
            groups=[("events", 0x7000)],
            handlers={
                TOY_ECHO: toy.echo,
                TOY_UPCALLS: toy.upcalls,
                TOY_EVENT: toy.event,
                TOY_BIG: toy.big,
                TOY_DIE: toy.die,
            },
        )
    )
    commands = (DEVLINK_CMD_GET, DEVLINK_CMD_ESWITCH_GET, DEVLINK_CMD_ESWITCH_SET)
    server.family(
        GenlFamily(
            "devlink", 0x7001, maxattr=178, groups=[("config", 0x7001)], handlers=dict.fromkeys(commands, toy.devlink)
        )
    )
    server.family(
        GenlFamily(
            "ethtool",
            0x7002,
            real=True,
            handlers={ETHTOOL_MSG_FEATURES_SET: toy.features_set, ETHTOOL_MSG_RINGS_GET: toy.rings},
        )
    )
    server.ethtool_ioctl([ETHTOOL_GDRVINFO], toy.drvinfo)
    serve(server)


if __name__ == "__main__":
    main()
