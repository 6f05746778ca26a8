# SPDX-License-Identifier: Apache-2.0
"""LACP of the node's bonds on their ports: what is sent and received, and what each bond makes of it.

A socket keeps its network namespace alive, so bonds in other namespaces than the node's own speak no LACP.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import struct
import time
from collections.abc import Callable

from asap2.namespaces import in_netns
from asap2.nic.kinds import BOND
from asap2.nic.kinds.bond import LACP
from asap2.nic.kinds.kind import KindLink
from asap2.nic.kinds.lacp import ETH_P_SLOW, GROUP, LONG_TIMEOUT, Negotiation
from asap2.nic.kinds.links import KindLinks

log = logging.getLogger(__name__)

_PERIOD = 0.5
"""Seconds between two looks at what is due."""
_ETH_LEN = 14
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_MULTICAST = 263, 1, 0
_MREQ = struct.Struct("=iHH8s")
"""struct packet_mreq."""


class LacpSpeaker:
    """Speaks for every bond of mode 802.3ad."""

    def __init__(
        self, links: KindLinks, selector: selectors.BaseSelector, node: int, changed: Callable[[], object]
    ) -> None:
        """*node* opens the node's network namespace; *changed* is called when a bond uses other ports than before."""
        self._changed = changed
        self._links = links
        self._selector = selector
        self._node = node
        self._talks: dict[int, Negotiation] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._due = 0.0

    def _bonds(self) -> list[KindLink]:
        bonds = (link for link in self._links if link.kind == BOND.name and link.data["mode"] == LACP)
        return [bond for bond in bonds if bond.namespace == self._links.home_of_node]

    def follow(self) -> None:
        """Links have changed."""
        bonds = self._bonds()
        if not bonds and not self._talks:
            return
        linked: set[int] = set()
        for bond in bonds:
            near = self._links.read(bond.namespace, bond.ifindex)
            ports = [port[0] for port in bond.data["ports"] if port[4]] if near is not None and near.up else []
            self._talk(bond).follow(ports, BOND.lacp_options(bond))
            linked.update(ports)
        for ifindex in self._sockets.keys() - linked:
            self._selector.unregister(self._sockets[ifindex])
            self._sockets.pop(ifindex).close()
        for ifindex in linked - self._sockets.keys():
            with contextlib.suppress(OSError):  # the port may be gone by now
                self._open(ifindex)
        for left in self._talks.keys() - {bond.id for bond in bonds}:
            del self._talks[left]
        self._due = 0
        self.tick()

    def _talk(self, bond: KindLink) -> Negotiation:
        """The negotiation of a bond. One of an earlier process goes on: partners have not been silent meanwhile."""
        if bond.id not in self._talks:
            kept = bond.data.get("lacp")
            talk = self._talks[bond.id] = Negotiation.kept(kept) if kept else Negotiation()
            for port in talk.ports.values():
                if port.expires:
                    port.expires = time.monotonic() + LONG_TIMEOUT
        return self._talks[bond.id]

    def _open(self, ifindex: int) -> None:
        def call() -> socket.socket:
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
            member = _MREQ.pack(ifindex, _PACKET_MR_MULTICAST, len(GROUP), GROUP)
            try:
                opened.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, member)
                opened.bind((socket.if_indextoname(ifindex), ETH_P_SLOW))
            except OSError:
                opened.close()
                raise
            return opened

        self._sockets[ifindex] = opened = in_netns(self._node, call)
        self._selector.register(opened, selectors.EVENT_READ, lambda _mask: self._came(ifindex))

    def _came(self, ifindex: int) -> None:
        """Something has come in by a port."""
        bond = self._links.master_of(self._links.home_of_node, ifindex)
        while ifindex in self._sockets:
            try:
                data, (_name, _protocol, kind, *_rest) = self._sockets[ifindex].recvfrom(256)
            except BlockingIOError:
                break
            except OSError as error:  # the port is down
                log.debug("LACP of port %d: %s", ifindex, error)
                break
            if bond is not None and kind != socket.PACKET_OUTGOING:
                options = BOND.lacp_options(bond)
                self._talk(bond).received(ifindex, data[_ETH_LEN:], time.monotonic(), options)
        self._due = 0
        self.tick()

    def tick(self) -> float | None:
        """Do what is due; the seconds to the next time (None: there is no such bond)."""
        if not self._talks:
            return None
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _PERIOD
            for bond in self._bonds():
                self._tick(bond, now)
        return self._due - now

    def _tick(self, bond: KindLink, now: float) -> None:
        talk, options = self._talk(bond), BOND.lacp_options(bond)
        for ifindex, data in talk.tick(now, options):
            with contextlib.suppress(OSError, KeyError):
                opened = self._sockets[ifindex]
                opened.send(GROUP + opened.getsockname()[4] + ETH_P_SLOW.to_bytes(2, "big") + data)
        kept = bond.data.get("lacp")
        if not kept or Negotiation.kept(kept).facts() != talk.facts():
            bond.data["lacp"] = talk.as_json()
            BOND.negotiated(self._links, bond)
            self._links.changed()
            self._changed()
