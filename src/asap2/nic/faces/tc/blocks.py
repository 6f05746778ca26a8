# SPDX-License-Identifier: Apache-2.0
"""Where filters are: ingress and clsact qdiscs, their blocks, and the chains of a block (struct tcf_block)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from asap2.netlink.tables.tc import TC
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.filter import Filter
from asap2.nic.faces.tc.flower import FlowerKey, parse
from asap2.nic.faces.tc.proto import Proto
from asap2.nic.faces.tc.steps import Step

MAX_CHAIN: Final = 0x0FFF_FFFF


@dataclass(frozen=True, slots=True)
class ChainTemplate:
    """What all filters of a chain are: of a *kind*, and with masks within those of *key*."""

    kind: str
    key: FlowerKey
    request: bytes

    def check(self, key: FlowerKey) -> None:
        """EINVAL for a filter whose key does not fit (fl_mask_fits_tmplt)."""
        masks = dict(self.key.masks)
        for name, mask in key.masks:
            allowed = masks.get(name, 0)
            if name != "addresses" and (allowed != -1 if mask == -1 else allowed != -1 and mask & ~allowed):
                raise NetlinkError(errno.EINVAL, "cls_flower: Mask does not fit the template")


def chain_template_of(request: bytes) -> ChainTemplate:
    """The template that a request for a chain (struct tcmsg on) asks for; errors as :func:`.flower.parse`."""
    header, attrs = TC.decode(request)
    return ChainTemplate(attrs["kind"], parse(attrs["options"], header.protocol), request)


@dataclass(slots=True)
class Block:
    """The filters of one device and direction, or of the devices that share them: chains of priorities."""

    ifindex: int
    """The device, or -1 where devices share it."""
    egress: bool
    chains: dict[int, dict[int, Proto]] = field(default_factory=dict)
    explicit: dict[int, ChainTemplate | None] = field(default_factory=dict)
    """Chains that somebody asked for, which stay when they are empty."""
    parent: int = 0
    """The parent by which filters were last put here: the one that dumps tell (struct tcf_block, classid). A
    shared one's index."""
    index: int = 0
    """By which devices share it; 0: they do not."""
    devices: list[int] = field(default_factory=list)
    """Those that have it."""
    returned: bool = False
    """Whether hardware has, or had, a rule here that gives packets to the host, whose software goes through the filters
    again: those that are in hardware are then in software too, as with the kernel they always are."""

    @property
    def identity(self) -> int:
        """What the journal knows it by."""
        return -self.index if self.index else self.ifindex

    def protos(self, chain: int | None = None) -> Iterator[tuple[int, Proto]]:
        """(chain, proto) in order of chain, then priority."""
        for index in sorted(self.chains):
            if chain in (None, index):
                for prio in sorted(self.chains[index]):
                    yield index, self.chains[index][prio]

    def filters(self) -> Iterator[tuple[int, Proto, Filter]]:
        """(chain, proto, filter), in that order."""
        for chain, proto in self.protos():
            for one in proto.filters.values():
                yield chain, proto, one


@dataclass(slots=True)
class Qdisc:
    """An ingress or clsact qdisc and its blocks."""

    kind: str
    ingress: Block
    egress: Block

    @property
    def blocks(self) -> tuple[Block, Block]:
        """Both."""
        return self.ingress, self.egress


class Blocks:
    """Every qdisc and block of the node."""

    def __init__(self) -> None:
        self.qdiscs: dict[int, Qdisc] = {}
        self.shared: dict[int, Block] = {}
        """Blocks that devices share, by index."""

    def join(self, ifindex: int, kind: str, shared: int) -> None:
        """Give a device a qdisc, whose ingress block is the one that is *shared* by this index (0: its own)."""
        if shared:
            ingress = self.shared.setdefault(shared, Block(-1, False, parent=shared, index=shared))
        else:
            ingress = Block(ifindex, False)
        ingress.devices.append(ifindex)
        self.qdiscs[ifindex] = Qdisc(kind, ingress, Block(ifindex, True, devices=[ifindex]))

    def known_by(self, identity: int, egress: bool) -> Block:
        """The block with this :attr:`Block.identity`."""
        if identity < 0:
            return self.shared[-identity]
        qdisc = self.qdiscs[identity]
        return qdisc.egress if egress else qdisc.ingress

    def all(self) -> Iterator[tuple[Block, int, Proto, Filter]]:
        """Every filter."""
        own = (block for qdisc in self.qdiscs.values() for block in qdisc.blocks if not block.index)
        for block in (*own, *self.shared.values()):
            for chain, proto, one in block.filters():
                yield block, chain, proto, one

    def in_hardware(self, ifindex: int) -> Iterator[tuple[Step, ...]]:
        """What the device's ingress filters do that are in hardware."""
        qdisc = self.qdiscs.get(ifindex)
        for *_, one in qdisc.ingress.filters() if qdisc is not None else ():
            if one.in_hw:
                yield one.steps
