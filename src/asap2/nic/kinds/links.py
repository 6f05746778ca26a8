# SPDX-License-Identifier: Apache-2.0
"""The node's devices of our own kinds: made, followed, removed, and taken up by the next daemon.

Each is a veth pair. The near end is what programs see. The far end is beside the device below, in that one's network
namespace, or, without one, in the silicon's; faces hide it. Removing the near end removes both, so that the kernel
itself cleans up, and a program that removes a device needs no help of ours.

Links are asked for from the silicon's network namespace, where each that we know has an id, and where a change in any
of them is announced. To change one, a namespace must be entered: a descriptor that is kept would keep alive what its
user has removed, so that it is looked for each time (*open_namespace*).
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asap2.namespaces import in_netns
from asap2.netlink.monitor import drained, monitor
from asap2.netlink.namespaces import cookie_of
from asap2.netlink.wire import NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, NetlinkError
from asap2.nic.kinds import KINDS, VRF
from asap2.nic.kinds.kind import KindLink
from asap2.nic.kinds.programs import Programs
from asap2.nic.kinds.tunnel_programs import TunnelPrograms
from asap2.nic.link_changes import LinkChanges
from asap2.nic.links import Link, LinkReader
from asap2.nic.snapshot import Snapshot

log = logging.getLogger(__name__)

_GONE = 512
"""Devices that are remembered after they have gone: what the kernel tells of their end is still to be read."""

_ROUTE_GROUPS = 7, 11
"""RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE."""

FAR_NAME = "a2far{:08x}"
"""What a far end is called."""
FAR_NAMES = re.compile(r"a2far[0-9a-f]{8}")


class KindLinks:
    """All of them. *home* opens the silicon's network namespace, *reader* reads links from there."""

    def __init__(
        self,
        programs: Programs,
        reader: LinkReader,
        home: int,
        state: Snapshot,
        open_namespace: Callable[[Callable[[int], bool]], int | None],
        node: int,
    ) -> None:
        """*node* opens the node's network namespace; *open_namespace* gives a new descriptor of one of which a function
        says that it is the one."""
        self.programs = programs
        self.reader = reader
        self.home = home
        self._state = state
        self._open = open_namespace
        self._links: dict[int, KindLink] = {}
        self._below: dict[tuple[int | None, int], int] = {}
        """Ids of devices that ours stand on, by namespace and ifindex."""
        self._near: dict[tuple[int | None, int], KindLink] = {}
        self._far: dict[tuple[int | None, int], KindLink] = {}
        self._gone: OrderedDict[tuple[int | None, int], KindLink | None] = OrderedDict()
        self._namespaces: dict[int, int] = {}
        self._entered: tuple[int, int] | None = None
        self._kept = ""
        reader.give_nsid(node)
        self.home_of_node = reader.nsid(node)
        """The id of the node's network namespace."""
        self.version = 0
        """Another number whenever one of them may have changed."""
        self.tunnel_programs: dict[int | None, TunnelPrograms] = {}
        """Those of tunnel devices, by network namespace, once there are any."""
        self.routes = in_netns(home, lambda: monitor(0, everywhere=True))
        """Readable when routes change in any network namespace, while there are VRFs; see :meth:`routes_changed`."""
        self._restore()

    # ---- finding

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[KindLink]:
        return iter(list(self._links.values()))

    def namespace(self, cookie: int, fd: int) -> int | None:
        """The id in the silicon of the network namespace that *fd* opens; None: it has none, and nothing of ours."""
        found = self._namespaces.get(cookie)
        if found is None:
            found = self.reader.nsid(fd)
            if found is not None:
                self._namespaces[cookie] = found
        return found

    def namespace_for_good(self, cookie: int, fd: int) -> int:
        """As :meth:`namespace`; one without an id gets one."""
        found = self.namespace(cookie, fd)
        if found is None:
            self.reader.give_nsid(fd)
            found = self.namespace(cookie, fd)
            assert found is not None
        return found

    def namespace_with(self, cookie: int) -> int | None:
        """The id of the network namespace with that *cookie*, if there are devices of ours in it."""
        there = {link.namespace for link in self}
        for namespace in there - set(self._namespaces.values()):
            with contextlib.suppress(OSError), self.opened(namespace) as fd:
                self._namespaces[in_netns(fd, _own_cookie)] = namespace
        found = self._namespaces.get(cookie)
        return found if found in there else None

    def at(self, namespace: int | None, ifindex: int) -> KindLink | None:
        """The device with *ifindex* there."""
        return self._near.get((namespace, ifindex))

    def last_at(self, namespace: int | None, ifindex: int) -> KindLink | None:
        """As :meth:`at`; where there is none now, the one that has gone from there."""
        return self._near.get((namespace, ifindex)) or self._gone.get((namespace, ifindex))

    def hides(self, namespace: int | None, ifindex: int) -> bool:
        """Whether what has *ifindex* there is, or was, a far end."""
        place = namespace, ifindex
        return place in self._far or (place in self._gone and self._gone[place] is None)

    def above(self, namespace: int | None, ifindex: int) -> list[KindLink]:
        """The devices that stand on the one with *ifindex* there."""
        return [link for link in self._links.values() if (link.far_namespace, link.lower) == (namespace, ifindex)]

    def index_of(self, netns: int, name: str) -> int:
        """The ifindex of the link called *name* in the network namespace open at *netns*. OSError."""
        return in_netns(netns, lambda: socket.if_nametoindex(name))

    def master_of(self, namespace: int | None, ifindex: int) -> KindLink | None:
        """The bond or VRF that the device with *ifindex* there is a port of."""
        place = namespace, ifindex
        return next((link for link in self._links.values() if place in link.others()), None)

    def read(self, namespace: int | None, ifindex: int) -> Link | None:
        """What the kernel says of a link; None when there is none."""
        return self.reader.one(ifindex, namespace)

    def as_seen(self, link: Link, namespace: int | None) -> Link:
        """What the kernel says of a *link* of *namespace*, with the kind, the tag and the device below of ours."""
        found = self.at(namespace, link.ifindex)
        return link if found is None else KINDS[found.kind].as_seen(found, link)

    # ---- making and removing

    @contextlib.contextmanager
    def entering(self, namespace: int, fd: int) -> Iterator[None]:
        """While this lasts *fd* is a descriptor of *namespace*."""
        self._entered = namespace, fd
        try:
            yield
        finally:
            self._entered = None

    def new_id(self) -> int:
        """An id that nothing has."""
        return max([0, *self._links, *self._below.values()]) + 1

    def add(self, link: KindLink, netns: int) -> None:
        """*link* has been made, by a request from the network namespace open at *netns*: make its packet path, or
        remove it when that fails."""
        self._note(link)
        try:
            KINDS[link.kind].install(self, link, netns)
        except BaseException:
            self.delete(link)
            raise
        self._keep()

    def delete(self, link: KindLink) -> None:
        """Remove a device, with what stands on it."""
        with contextlib.suppress(OSError):
            self._change(link.far_namespace, lambda changes: changes.delete_index(link.far))
        self._forget(link)
        self.follow()

    def changed(self) -> None:
        """What is kept of a device has changed."""
        self._keep()

    def follow(self) -> None:
        """Links have changed: devices follow what they stand on."""
        again = bool(self._links)
        self.version += again
        while again:
            again = False
            for link in self:
                if link.id in self._links and not self._follow(link):
                    again = True
        self._follow_routes()
        self._keep()

    def _follow(self, link: KindLink) -> bool:
        """False when the device has gone."""
        far = self.read(link.far_namespace, link.far)
        if far is None or not far.peer:
            self._forget(link)
            return False
        place = (far.nsid if far.nsid is not None else link.far_namespace), far.peer
        if place != (link.namespace, link.ifindex) and place[0] is not None:
            self._gone[self._place(link)] = link
            del self._near[self._place(link)]
            link.namespace, link.ifindex = place[0], place[1]
            self._near[self._place(link)] = link
        try:
            stays = KINDS[link.kind].follow(self, link)
        except OSError as error:
            log.warning("device %d of kind %s: %s", link.ifindex, link.kind, error)
            return True
        if not stays:
            self.delete(link)
        return stays

    # ---- routes

    def listen_to_routes(self) -> None:
        """There is a VRF, which follows routes."""
        for group in _ROUTE_GROUPS:
            self.routes.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def routes_changed(self) -> None:
        """Have VRFs follow the routes that have changed since the last call, if any have."""
        if drained(self.routes):
            self._follow_routes()

    def _follow_routes(self) -> None:
        for namespace in {link.namespace for link in self if link.kind == VRF.name}:
            VRF.follow_routes(self, namespace)

    # ---- what kinds do with them

    def set_far_up(self, link: KindLink, up: bool) -> None:
        """Give the device a carrier, or take it away."""
        far = self.read(link.far_namespace, link.far)
        if far is not None and far.up != up:
            self._change(link.far_namespace, lambda changes: changes.set_up(link.far, up))

    def set_near(
        self, link: KindLink, *, up: bool | None = None, mtu: int | None = None, address: bytes | None = None
    ) -> None:
        """Change the device itself."""
        self.set_link(link.namespace, link.ifindex, up=up, mtu=mtu, address=address)

    def set_link(
        self,
        namespace: int | None,
        ifindex: int,
        *,
        up: bool | None = None,
        mtu: int | None = None,
        address: bytes | None = None,
        promiscuous: bool | None = None,
    ) -> None:
        """Change a link of *namespace*."""
        self._change(
            namespace,
            lambda changes: changes.set(ifindex, up=up, mtu=mtu, address=address, promiscuous=promiscuous),
        )

    def below(self, link: KindLink) -> int:
        """The id of the device that *link* stands on."""
        return self.id_of(link.far_namespace, link.lower)

    def id_of(self, namespace: int | None, ifindex: int) -> int:
        """The id of a device that one of ours stands on."""
        place = namespace, ifindex
        if place not in self._below:
            self._below[place] = self.new_id()
        return self._below[place]

    def run_below(self, link: KindLink, program: str, netns: int) -> None:
        """Run *program* at the ingress of the device below."""
        below = self.below(link)
        if not self.programs.runs(program, below):
            self.programs.run(program, below, link.lower, netns)

    def clear(self, name: str, key: bytes) -> None:
        """Remove an entry of a map that may be there."""
        with contextlib.suppress(OSError):
            self.programs[name].delete(key)

    @contextlib.contextmanager
    def opened(self, namespace: int | None) -> Iterator[int]:
        """A descriptor of a network namespace. ENODEV when it cannot be found."""
        if namespace is None:
            yield self.home
        elif self._entered is not None and self._entered[0] == namespace:
            yield self._entered[1]
        else:
            fd = self._open(lambda fd: self.reader.nsid(fd) == namespace)
            if fd is None:
                raise OSError(errno.ENODEV, f"no process is in network namespace {namespace}, to change a link there")
            try:
                yield fd
            finally:
                os.close(fd)

    def _change(self, namespace: int | None, change: Callable[[LinkChanges], None]) -> None:
        with self.opened(namespace) as fd:
            changes = in_netns(fd, LinkChanges)
            try:
                change(changes)
            finally:
                changes.close()

    # ---- keeping

    def _place(self, link: KindLink) -> tuple[int | None, int]:
        return link.namespace, link.ifindex

    def _note(self, link: KindLink) -> None:
        self._links[link.id] = link
        for place in (self._place(link), (link.far_namespace, link.far)):
            self._gone.pop(place, None)
        self._near[self._place(link)] = link
        self._far[link.far_namespace, link.far] = link

    def _forget(self, link: KindLink) -> None:
        if self._links.pop(link.id, None) is None:
            return
        self._near.pop(self._place(link), None)
        self._far.pop((link.far_namespace, link.far), None)
        self._gone[self._place(link)] = link
        self._gone[link.far_namespace, link.far] = None
        while len(self._gone) > _GONE:
            self._gone.popitem(last=False)
        KINDS[link.kind].forget(self, link)
        self.programs.stop_all(link.id)
        self.clear("devices", link.id.to_bytes(4, "little"))
        for place, below in list(self._below.items()):
            if not any(place == (one.far_namespace, one.lower) or place in one.others() for one in self):
                self.programs.stop_all(below)
                del self._below[place]

    def _keep(self) -> None:
        kept = json.dumps(
            {
                "links": [
                    [one.id, one.kind, one.namespace, one.ifindex, one.far_namespace, one.far, one.lower, one.data]
                    for one in self
                ],
                "below": [[*place, number] for place, number in self._below.items()],
            }
        )
        if kept != self._kept:
            self.version += 1
            self._state.write(kept.encode())
            self._kept = kept

    def _restore(self) -> None:
        if self._state.state is None:
            return
        kept: dict[str, Any] = json.loads(self._state.state)
        for one in kept["links"]:
            if one[1] in KINDS:
                self._note(KindLink(*one))
        self._below = {(namespace, ifindex): number for namespace, ifindex, number in kept["below"]}
        if any(link.kind == VRF.name for link in self):
            self.listen_to_routes()


def _own_cookie() -> int:
    """The cookie of the network namespace of this thread."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return cookie_of(probe)


def kernel_has(kind: str, changes: LinkChanges) -> bool:
    """Whether the kernel has links of a *kind* itself: it refuses to make one with an impossible name otherwise."""
    try:
        changes.add(kind, "a/b")
    except NetlinkError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def open_state(state: Path) -> Snapshot:
    """Where :class:`KindLinks` keeps what it has, below the node's directory *state*."""
    return Snapshot(state / "kinds", 1 << 16)
