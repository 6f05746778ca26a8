# SPDX-License-Identifier: Apache-2.0
"""Requests that Open vSwitch has sent to a real kernel, to be sent again about what a node has."""

from __future__ import annotations

import random
import struct

from asap2.netlink.tables.genl import CTRL, GENL_ID_CTRL
from asap2.netlink.tables.link import LINK
from asap2.netlink.tables.tc import TC
from asap2.netlink.wire import NETLINK_GENERIC, NETLINK_ROUTE, NLM_F_REQUEST
from tests.captures import CAPTURES, messages
from tests.system.fuzz.material import Made, World

_LINKS = range(16, 20)
_TC = (*range(36, 51), *range(100, 103))


class Recorded:
    """The requests of all captures."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._generic: list[tuple[str, int, bytes]] = []
        self._route: list[tuple[int, int, bytes]] = []
        for capture in CAPTURES:
            names: dict[int, str] = {}
            for message in messages(capture, NETLINK_GENERIC):
                if message.type == GENL_ID_CTRL:
                    attrs = CTRL.decode(message.payload)[1]
                    if "family_id" in attrs and "family_name" in attrs:
                        names[attrs["family_id"]] = attrs["family_name"]
                elif message.flags & NLM_F_REQUEST and names.get(message.type, "").startswith("ovs_"):
                    self._generic.append((names[message.type], message.flags, message.payload))
            self._route += [
                (message.type, message.flags, message.payload)
                for message in messages(capture, NETLINK_ROUTE)
                if message.flags & NLM_F_REQUEST and message.type in (*_LINKS, *_TC)
            ]

    def __len__(self) -> int:
        return len(self._generic) + len(self._route)

    def make(self, world: World) -> Made:
        """One of them, about a device or datapath of *world*."""
        rng = self._rng
        while True:
            if rng.random() < 0.6:
                family, flags, payload = rng.choice(self._generic)
                if family not in world.families:
                    continue
                return Made(
                    NETLINK_GENERIC,
                    world.families[family],
                    flags,
                    payload[:4] + struct.pack("=i", world.datapath) + payload[8:],
                    8,
                )
            type_, flags, payload = rng.choice(self._route)
            if len(payload) >= 8 and struct.unpack_from("=i", payload, 4)[0] and world.devices:
                device = rng.choice(world.representors or world.devices)
                payload = payload[:4] + struct.pack("=i", device) + payload[8:]
            return Made(NETLINK_ROUTE, type_, flags, payload, TC.size if type_ in _TC else LINK.size)
