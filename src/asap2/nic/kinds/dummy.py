# SPDX-License-Identifier: Apache-2.0
"""Dummy devices: what is sent on one is gone (drivers/net/dummy.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asap2.nic.kinds.kind import IFF_MULTICAST, IFF_NOARP, KindLink, LinkKind, Made, Wanted

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks


class Dummy(LinkKind):
    """See the module."""

    name = "dummy"
    driver = ("dummy", "", "")
    mtus = (0, 0)
    has_carrier = False

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. dummy_setup()."""
        return Made(flags=IFF_NOARP, without=IFF_MULTICAST)

    def install(self, links: KindLinks, link: KindLink, netns: int) -> None:
        """See :class:`LinkKind`."""
        links.programs.run("discard", link.id, link.far, links.home)
        links.set_far_up(link, True)
