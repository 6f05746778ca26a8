# SPDX-License-Identifier: Apache-2.0
"""What all filters of a chain must be like, where somebody said so (net/sched/cls_flower.c, struct fl_flow_tmplt)."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from asap2.netlink.tables.tc import TC
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.flower import FlowerKey, masks_of, parse


@dataclass(frozen=True, slots=True)
class ChainTemplate:
    """What all filters of a chain are: of a *kind*, and with masks within those of *key*."""

    kind: str
    key: FlowerKey
    request: bytes

    def check(self, key: FlowerKey) -> None:
        """EINVAL for a filter whose key does not fit (fl_mask_fits_tmplt)."""
        masks = dict(self.key.masks)
        for name, mask in masks_of(key.masks):
            allowed = masks.get(name, 0)
            if name != "addresses" and (allowed != -1 if mask == -1 else allowed != -1 and mask & ~allowed):
                raise NetlinkError(errno.EINVAL, "cls_flower: Mask does not fit the template")


def chain_template_of(request: bytes, *, again: bool = False) -> ChainTemplate:
    """The template that a request for a chain (struct tcmsg on) asks for; *again* and errors as
    :func:`.flower.parse`."""
    header, attrs = TC.decode(request)
    return ChainTemplate(attrs["kind"], parse(attrs["options"], header.protocol, again=again), request)
