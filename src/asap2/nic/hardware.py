# SPDX-License-Identifier: Apache-2.0
"""One NIC's hardware: the network namespace that holds the far ends of its netdevs, and its pipeline.

The far ends are described in :mod:`asap2.nic.veth`.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from asap2.namespaces import in_netns
from asap2.netlink.monitor import monitor
from asap2.nic import eswitch
from asap2.nic.fdb import Fdb
from asap2.nic.function import Function, Nic, Pf
from asap2.nic.link_changes import LinkChanges
from asap2.nic.links import Link, LinkReader
from asap2.nic.model import MAX_MTU
from asap2.nic.rates import RateLimits
from asap2.nic.silicon.pipeline import Pipeline

_SEEN = 4096
"""Netdevs that are remembered after they have gone or moved."""
RTMGRP_LINK = 1
RTMGRP_NSID = 1 << 27
"""Of a namespace that goes nothing else is told to others (RTNLGRP_NSID)."""


class Silicon:
    """One NIC's namespace: its links, its pipeline, and a socket that tells when links change."""

    def __init__(self, nic: Nic, pipeline: Pipeline, node: LinkReader, node_fd: int) -> None:
        """*node* reads the links of the node's network namespace, which is open at *node_fd*."""
        self.nic = nic
        self.pipeline = pipeline
        self.node = node
        self.node_fd = node_fd
        self.fd = os.open(nic.netns, os.O_RDONLY | os.O_CLOEXEC)
        self.changes = in_netns(self.fd, LinkChanges)
        self.reader = in_netns(self.fd, LinkReader)
        self.far: dict[str, Link] = {}
        self.attached: dict[str, int] = {}
        self.monitor = in_netns(self.fd, lambda: monitor(RTMGRP_LINK | RTMGRP_NSID, everywhere=True))
        self._fdbs: dict[int, Fdb] = {}
        self.rates = RateLimits(pipeline, self.changes, self.fd)
        self.seen: dict[tuple[int | None, int], str] = {}
        """Far ends by where their near ends are or were: network namespace's id and ifindex there."""

    # ---- links

    def refresh(self) -> None:
        """Read every link of the silicon again."""
        self.far = {link.name: link for link in self.reader.all()}
        self.attached = {name: index for name, index in self.attached.items() if name in self.far}
        for far in self.far.values():
            if far.peer:
                self.seen.pop((far.nsid, far.peer), None)
                self.seen[far.nsid, far.peer] = far.name
        for oldest in list(self.seen)[:-_SEEN]:
            del self.seen[oldest]

    def node_nsid(self) -> int | None:
        """The id that the node's network namespace has in the silicon's."""
        return self.reader.nsid(self.node_fd)

    def pair(self, far: str, near: str, mac: bytes, *, up: bool = True) -> int:
        """Make a pair, the far end *up*; the near end's ifindex. A zero *mac* lets the kernel choose one."""
        self.changes.add_veth(far, MAX_MTU, near, self.node_fd, mac if any(mac) else None)
        self.refresh()
        link = self.far[far]
        if up:
            self.changes.set_up(link.ifindex, True)
        return link.peer

    def remove(self, far: str, port: int) -> None:
        """Remove a pair and its port."""
        self.pipeline.remove_port(port)
        with contextlib.suppress(OSError):
            self.changes.delete(far)
        self.attached.pop(far, None)

    def _set_up(self, name: str, up: bool) -> None:
        """Set a far end up or down: the near end has carrier, or not."""
        far = self.far.get(name)
        if far is not None and far.up != up:
            self.changes.set_up(far.ifindex, up)
            self.far[name] = replace(far, up=up)

    # ---- the pipeline

    def attach(self, far: str, ifindex: int) -> None:
        """Have the program run at the far end called *far*."""
        if self.attached.get(far) != ifindex:
            self.pipeline.attach(ifindex, self.fd, "ingress")
            self.attached[far] = ifindex

    def detach(self, ifindex: int) -> None:
        """Take the program off the far end with *ifindex*."""
        self.pipeline.detach(ifindex)
        self.attached = {far: index for far, index in self.attached.items() if index != ifindex}

    def fdb(self, pf: Pf) -> Fdb:
        """The legacy eSwitch of *pf*."""
        if pf.index not in self._fdbs:
            self._fdbs[pf.index] = Fdb(self.pipeline, pf.index)
        return self._fdbs[pf.index]

    def program(self, pf: Pf) -> None:
        """Make ports, rules and links what the eSwitch's present mode and functions want."""
        ends = self._ends(pf)
        switch = eswitch.legacy_switch(pf, ends)
        fdb = self.fdb(pf)
        fdb.extend(switch)
        for name, port in eswitch.ports(pf, ends, switch).items():
            self.attach(name, port.ifindex)
            self.pipeline.set_port(port)
        if (way := eswitch.bonded(pf, ends)) is not None:
            self.pipeline.set_port(way)
        fdb.prune()
        vfs = (vf for one in self.nic.pfs for vf in one.vfs)
        self.rates.apply({vf.port: vf.max_tx_rate for vf in vfs if vf.max_tx_rate})
        for name, up in eswitch.links(pf, ends).items():
            self._set_up(name, up)

    def _ends(self, pf: Pf) -> dict[str, eswitch.End]:
        """The pairs of *pf* that there are, and the cables of all ports."""
        names = [pf.far, *(one.wire for one in self.nic.pfs)]
        names += [name for vf in pf.vfs for name in (vf.far, vf.representor)]
        home, here = self.node_nsid(), {link.ifindex: link for link in self.node.all()}
        found = {}
        for name in names:
            if far := self.far.get(name):
                near = None
                if far.nsid is not None:
                    near = here.get(far.peer) if far.nsid == home else self.reader.one(far.peer, far.nsid)
                mac, promiscuous = (near.mac, near.promiscuous) if near else (b"", False)
                found[name] = eswitch.End(far.ifindex, mac, promiscuous, far.carrier, far.nsid is None)
        return found

    def lost(self, function: Function) -> bool:
        """Whether a function that is bound has no netdev any more: its network namespace has gone."""
        return function.bound and function.far not in self.far
