# SPDX-License-Identifier: Apache-2.0
"""Fragments on their way through connection tracking: the pipeline gives them to the daemon, which puts them together
and hands the packet in again. Where it leaves, the pipeline gives it to the daemon to be cut.

As handle_fragments and ovs_fragment do in the kernel. Fragments are rare, and so is what becomes of them here.
"""

from __future__ import annotations

import random
import time

from asap2.nic.faces.ovs import actions as act
from asap2.nic.faces.ovs.extract import tunnel_metadata
from asap2.nic.faces.ovs.upcall import PacketPath
from asap2.nic.fields import TRACKED
from asap2.nic.fragments import Fragments, cut
from asap2.nic.rules import Ct, Output, SetTunnel
from asap2.nic.silicon.events import UpcallContext, UpcallKind
from asap2.nic.silicon.handing_in import HandedIn, HandingIn


class Reassembly:
    """The fragments of one datapath."""

    def __init__(self) -> None:
        self._fragments = Fragments()
        self._random = random.SystemRandom()

    def forget_ipv6(self) -> None:
        """Give up the packets of IPv6 that wait for fragments."""
        self._fragments.forget_ipv6()

    def take(self, handing: HandingIn, path: PacketPath, context: UpcallContext, frame: bytes) -> bool:
        """Put a fragment with the others of its packet, or cut a packet; False: it is neither.

        Raises:
            OSError: the packet cannot go on, and is lost.
        """
        if context.kind is UpcallKind.FRAGMENT:
            self._put_together(handing, path, context, frame)
        elif context.kind is UpcallKind.CUT:
            self._cut(handing, path, context, frame)
        else:
            return False
        return True

    def _put_together(self, handing: HandingIn, path: PacketPath, context: UpcallContext, frame: bytes) -> None:
        action = handing.kept(context.cookie >> 32)
        if not isinstance(action, Ct):
            return
        whole = self._fragments.add(frame, action.zone, time.monotonic_ns())
        if whole is not None:
            way = way_of(context, whole.mru)
            with handing.hand_on(way, context.cookie) as mark:
                path.hand_in(whole.frame, mark)

    def _cut(self, handing: HandingIn, path: PacketPath, context: UpcallContext, frame: bytes) -> None:
        port, given = handing.port_of(context.cookie), handing.kept(context.tunnel)
        way = way_of(context, 0)._replace(actions=(Output(port),))
        if isinstance(given, SetTunnel):
            way = way._replace(tunnel=given)
        for part in cut(frame[: context.max_length or None], context.mru, self._random.getrandbits(32)):
            with handing.hand_in(way) as mark:
                path.hand_in(part, mark)


def way_of(context: UpcallContext, mru: int) -> HandedIn:
    """How a packet goes on, with no actions yet."""
    fields = context.fields
    tunnel = tunnel_metadata(fields, context.options) if context.in_tunnel else {}
    return HandedIn(
        (),
        context.port,
        context.table,
        act.tunnel_of(tunnel) if tunnel else None,
        fields["skb_mark"],
        fields["skb_priority"],
        fields["dp_hash"],
        bare=not context.has_ethernet,
        tracked={name: fields[name] for name in TRACKED},
        mru=mru,
    )
