# SPDX-License-Identifier: Apache-2.0
"""A stream of messages for a node: made by the grammar or recorded, a good part of them made wrong, none that would
move a device out of the node's namespaces or make one there."""

from __future__ import annotations

import random

from asap2.netlink.tables.link import LINK
from asap2.netlink.wire import NETLINK_GENERIC, NETLINK_ROUTE, NLA_TYPE_MASK, NLM_F_REQUEST, attributes, build
from tests.system.fuzz.grammar import Grammar
from tests.system.fuzz.material import Made, World
from tests.system.fuzz.mutate import mutated
from tests.system.fuzz.recorded import Recorded

_LINK_CHANGES = (16, 17, 19)
_ELSEWHERE = {LINK.table.numbers[name] for name in ("linkinfo", "net_ns_pid", "net_ns_fd", "target_netnsid", "group")}
_DEVLINK_ELSEWHERE = {138, 139, 140}


class Source:
    """The stream that a seed gives; *world* may change as it flows."""

    def __init__(self, seed: int, world: World, *, wrong: float = 0.6) -> None:
        self.rng = random.Random(seed)
        self.world = world
        self._wrong = wrong
        self._grammar = Grammar(self.rng, world)
        self._recorded = Recorded(self.rng)

    def next(self) -> Made:
        """The next message."""
        rng = self.rng
        made = self._recorded.make(self.world) if rng.random() < 0.15 else self._grammar.make()
        if rng.random() >= self._wrong:
            return made
        flags = made.flags ^ (1 << rng.randrange(12) if rng.random() < 0.1 else 0) | NLM_F_REQUEST
        wrong = Made(made.protocol, made.type, flags, mutated(rng, made.payload, made.fixed), made.fixed)
        return wrong if self._stays(wrong) else made

    def batch(self) -> tuple[int, bytes]:
        """Messages of one protocol, as by one system call; the last may be cut, or be behind what is no message."""
        rng = self.rng
        made = [self.next() for _ in range(rng.randrange(2, 8))]
        data = b""
        for number, one in enumerate(made):
            if one.protocol == made[0].protocol:
                data += build(one.type, one.flags, number, 0, one.payload)
                data += bytes(-len(data) % 4) + (rng.randbytes(rng.choice((1, 3, 15))) if rng.random() < 0.03 else b"")
        return made[0].protocol, data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data

    @staticmethod
    def _stays(made: Made) -> bool:
        """Whether the message leaves every device where it is, should the kernel itself be asked."""
        if made.protocol == NETLINK_ROUTE and made.type in _LINK_CHANGES:
            start = LINK.size
            if len(made.payload) < start:
                return False
            return not any(type_ & NLA_TYPE_MASK in _ELSEWHERE for type_, _ in attributes(made.payload, start))
        if made.protocol == NETLINK_GENERIC and made.fixed == 4:
            return not any(type_ & NLA_TYPE_MASK in _DEVLINK_ELSEWHERE for type_, _ in attributes(made.payload, 4))
        return True
