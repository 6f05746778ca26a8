# SPDX-License-Identifier: Apache-2.0
"""The generic netlink family psample: sampled packets and the groups that they are sampled for.

Formats and order of the attributes: net/psample/psample.c of Linux 6.12. Packets reach the pipeline's ring buffer
while somebody listens. A program that asks for more samples than the daemon can pass on loses some of them, and nobody
else anything: the daemon passes samples on while it has rested as long as it has worked
(:class:`asap2.nic.faces.ovs.spare_time.SpareTime`), and the ring buffer's room is limited.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from asap2.netlink.request import GENL_CMD_CAP_DUMP, Answer, GenlFamily, GenlHeader, Message, Request
from asap2.netlink.server import Server
from asap2.netlink.tables import psample as protocol
from asap2.netlink.wire import NLM_F_MULTI, attribute
from asap2.nic.faces.ovs.spare_time import SpareTime
from asap2.nic.rules import SetTunnel
from asap2.nic.silicon.events import Sampled

PSAMPLE_ID: Final = 0x7020
CONFIG_GROUP, PACKETS_GROUP = 0x7020, 0x7021
NAME, CONFIG, PACKETS = "psample", "config", "packets"

_BATCH: Final = 32
"""Samples that are passed on before others are served."""
_LOOK_AGAIN: Final = 0.002
"""Seconds after which a daemon that had no time looks again."""
_LARGEST: Final = 0xFFFF
"""PSAMPLE_MAX_PACKET_SIZE: octets of a message's attributes."""
_ATTRIBUTE_HEADER: Final = 4

_ATTRS, _TUNNEL = protocol.PSAMPLE_ATTRS.numbers, protocol.TUNNEL.numbers
_U16, _U32, _U64, _BE64 = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=Q"), struct.Struct(">Q")


class Source(Protocol):
    """Where samples come from."""

    def read(self, most: int) -> Iterator[tuple[int, Sampled]]:
        """The oldest samples, at most so many, each with its time in nanoseconds of CLOCK_MONOTONIC."""

    def discard(self) -> None:
        """Forget the samples that are there."""


class PsampleFace:
    """The family, served by *server*.

    *groups* gives the number of actions of each group, in the order in which the groups came; *listen* has the program
    sample packets, or not.
    """

    def __init__(
        self,
        server: Server,
        source: Source,
        groups: Callable[[], dict[int, int]],
        listen: Callable[[bool], None],
        spare_time: SpareTime,
    ) -> None:
        self._server = server
        self._source = source
        self._groups = groups
        self._listen = listen
        self._spare_time = spare_time
        self._known: dict[int, int] = {}
        """The groups, and the number of the next sample of each."""
        self.family = GenlFamily(
            NAME,
            PSAMPLE_ID,
            maxattr=max(_ATTRS.values()),
            ops=((protocol.PSAMPLE_CMD_GET_GROUP, GENL_CMD_CAP_DUMP),),
            groups=((CONFIG, CONFIG_GROUP), (PACKETS, PACKETS_GROUP)),
            handlers={protocol.PSAMPLE_CMD_GET_GROUP: self._dump},
            netns=server.netns.cookie,
            admin_groups=(PACKETS_GROUP,),
        )
        server.family(self.family)
        self._listened: bool | None = None
        self._ready = False
        self.look()

    # ---- groups

    def settle(self) -> None:
        """Announce groups that have come, and those that have gone."""
        groups = self._groups()
        if groups.keys() == self._known.keys():
            return
        for group in [known for known in self._known if known not in groups]:
            self._announce(protocol.PSAMPLE_CMD_DEL_GROUP, group, self._known.pop(group))
        for group in groups:
            if group not in self._known:
                self._known[group] = 0
                self._announce(protocol.PSAMPLE_CMD_NEW_GROUP, group, 0)

    def _announce(self, cmd: int, group: int, seq: int) -> None:
        payload = self.family.payload(cmd, _group_of(group, 0, seq))
        self._server.multicast(NAME, CONFIG, payload, flags=NLM_F_MULTI)

    def _dump(self, _request: Request, _genl: GenlHeader) -> Answer:
        self.settle()
        counts = self._groups()
        return [
            Message(
                PSAMPLE_ID, self.family.payload(protocol.PSAMPLE_CMD_NEW_GROUP, _group_of(group, counts[group], seq))
            )
            for group, seq in self._known.items()
        ]

    # ---- samples

    def look(self) -> None:
        """Find out whether a program listens."""
        listened = self._server.listens(NAME, PACKETS)
        if listened != self._listened:
            self._listened = listened
            self._source.discard()
            self._listen(listened)

    def came(self, _mask: int = 0) -> None:
        """There are samples."""
        self._ready = True

    def serve(self) -> float | None:
        """Pass on some samples, if there is time; the seconds to the next time (None: there are none)."""
        if not self._ready:
            return None
        if not self._listened:
            self._source.discard()
            self._ready = False
            return None
        count = 0
        with self._spare_time.spent():
            if not self._spare_time.left:
                return _LOOK_AGAIN
            offset = time.time_ns() - time.monotonic_ns()
            for now, sample in self._source.read(_BATCH):
                count += 1
                self._pass_on(sample, now + offset)
            if count:
                self.look()
        self._ready = count == _BATCH
        return 0 if self._ready else None

    def _pass_on(self, sample: Sampled, when_ns: int) -> None:
        group, seq = sample.action.group, 0
        if sample.action.counted:
            seq = self._known.get(group, 0)
            if group in self._known:
                self._known[group] = (seq + 1) & 0xFFFF_FFFF
        body = self.family.payload(protocol.PSAMPLE_CMD_SAMPLE, sample_body(sample, seq, when_ns))
        self._server.multicast(NAME, PACKETS, body)


def _group_of(group: int, references: int, seq: int) -> bytes:
    """A group's attributes (psample_group_nl_fill)."""
    return (
        attribute(_ATTRS["sample_group"], _U32.pack(group))
        + attribute(_ATTRS["group_refcount"], _U32.pack(references))
        + attribute(_ATTRS["group_seq"], _U32.pack(seq))
    )


def sample_body(sample: Sampled, seq: int, when_ns: int) -> bytes:
    """The attributes of a sample (psample_sample_packet), the *seq*-th of its group, taken at *when_ns* of
    CLOCK_REALTIME. Where they would be too long, the packet is shorter."""
    action = sample.action
    head = b"".join(
        attribute(_ATTRS[name], _U16.pack(ifindex & 0xFFFF))
        for name, ifindex in (("iifindex", action.ifindex), ("oifindex", action.out))
        if ifindex
    )
    head += attribute(_ATTRS["sample_rate"], _U32.pack(action.rate))
    head += attribute(_ATTRS["origsize"], _U32.pack(sample.original))
    head += attribute(_ATTRS["sample_group"], _U32.pack(action.group))
    head += attribute(_ATTRS["group_seq"], _U32.pack(seq))
    head += attribute(_ATTRS["timestamp"], _U64.pack(when_ns))
    head += attribute(_ATTRS["proto"], _U16.pack(sample.protocol))
    tail = b"" if sample.tunnel is None else attribute(_ATTRS["tunnel"], _tunnel_body(sample.tunnel))
    counted = len(head) + len(tail)
    if action.cookie:
        cookie = attribute(_ATTRS["user_cookie"], action.cookie)
        counted += len(cookie)
        tail += cookie
    if action.probability:
        tail += attribute(_ATTRS["sample_probability"], b"")
    data = sample.data
    if counted + _ATTRIBUTE_HEADER + (len(data) + 3 & ~3) > _LARGEST:
        data = data[: _LARGEST - counted - 2 * _ATTRIBUTE_HEADER]
    return head + (attribute(_ATTRS["data"], data) if data else b"") + tail


def _tunnel_body(tunnel: SetTunnel) -> bytes:
    """The attributes of a tunnel (psample_ip_tun_to_nlattr)."""
    version = "ipv4" if len(tunnel.dst) == 4 else "ipv6"
    body = attribute(_TUNNEL["id"], _BE64.pack(tunnel.tun_id)) if tunnel.keyed else b""
    for name, address in (("src", tunnel.src), ("dst", tunnel.dst)):
        body += attribute(_TUNNEL[f"{version}_{name}"], address) if any(address) else b""
    body += attribute(_TUNNEL["tos"], bytes((tunnel.tos,))) if tunnel.tos else b""
    body += attribute(_TUNNEL["ttl"], bytes((tunnel.ttl,)))
    for name, given in (("dont_fragment", tunnel.dont_fragment), ("csum", tunnel.csum)):
        body += attribute(_TUNNEL[name], b"") if given else b""
    body += attribute(_TUNNEL["tp_dst"], tunnel.tp_dst.to_bytes(2, "big")) if tunnel.tp_dst else b""
    return body + (attribute(_TUNNEL["geneve_opts"], tunnel.options) if tunnel.options else b"")
