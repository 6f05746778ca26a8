# SPDX-License-Identifier: Apache-2.0
"""rtnetlink's links of our own kinds: made, changed and shown as the kernel's own would be.

A request for a new device becomes one for a veth pair; an answer of the kernel about one end is changed into one
about the device, and there is none about the other end.

Sources: net/core/rtnetlink.c of Linux 6.x.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from asap2.namespaces import in_netns
from asap2.netlink.request import PASS, Answer, Message, Netns, Proxy, Request
from asap2.netlink.server import Server
from asap2.netlink.tables.link import LINK, LINKINFO, RTM_GETLINK, RTM_NEWLINK, RTNLGRP_LINK, Ifinfomsg
from asap2.netlink.wire import (
    NETLINK_ROUTE,
    NLA_TYPE_MASK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkError,
    NlMsg,
    attribute,
    attributes,
)
from asap2.nic.faces.lookup import ifindex_named
from asap2.nic.kinds import KINDS
from asap2.nic.kinds.kind import ETH_MAX_MTU, IFF_PROMISC, IFF_UP, KindLink, LinkKind, MasterKind, Wanted
from asap2.nic.kinds.links import FAR_NAME, KindLinks, kernel_has
from asap2.nic.link_changes import LinkChanges

_LINK = LINK.table.numbers
_HEADER = LINK.size
_NOT_A_VETHS = {_LINK[name] for name in ("linkinfo", "link", "link_netnsid", "net_ns_pid", "net_ns_fd", "master")}
_ADDRESSES = {_LINK["address"], _LINK["broadcast"]}
_OF_A_PEER = {_LINK["link"], _LINK["link_netnsid"]}
_OPER_UNKNOWN, _OPER_DOWN, _OPER_LOWERLAYERDOWN, _OPER_UP = 0, 2, 3, 6
_VETH_INFO_PEER = 1
_IFINFO = struct.Struct("=BxHiII")


class KindFace:
    """Serves them. *links* has the devices; *unsettled* says whether links have changed that they did not follow."""

    def __init__(self, server: Server, links: KindLinks, unsettled: Callable[[], bool]) -> None:
        self._server = server
        self.links = links
        self._unsettled = unsettled
        self._served: dict[str, bool] = {}

    def settle(self) -> None:
        """What a program has just done to a link is known before it asks the next."""
        if len(self.links):
            if self._unsettled():
                self.links.follow()
            self.links.routes_changed()

    def asked(self, request: Request, ifindex: int | None) -> Answer:
        """The answer to a request to make or change the link *ifindex*; None where that is no business of ours."""
        try:
            header, attrs = LINK.decode(request.payload)
        except NetlinkError:
            return None
        self.settle()
        netns = request.client.netns
        kind = attrs.get("linkinfo", {}).get("kind")
        link = self.at(netns, ifindex) if ifindex is not None else None
        if request.type == RTM_NEWLINK and request.create and kind is not None and self.serves(kind):
            if link is None or request.excl:
                return self.create(request, header, attrs)
        elif ifindex is not None and self.hides(netns, ifindex):
            raise NetlinkError(errno.ENODEV)
        if "master" in attrs and ifindex is not None:
            remaining = self._set_master(request, ifindex, attrs["master"])
            if remaining is not None:
                return remaining
        return self.change(request, link, header, attrs) if link is not None else None

    def _set_master(self, request: Request, ifindex: int, master: int) -> Answer:
        """do_set_master() where the new master or the old one is a bond or VRF of ours; None: neither is."""
        netns = request.client.netns
        namespace = self.links.namespace_for_good(netns.cookie, netns.fd)
        new, old = self.links.at(namespace, master), self.links.master_of(namespace, ifindex)
        if new is not None and not isinstance(KINDS[new.kind], MasterKind):
            raise NetlinkError(errno.EOPNOTSUPP)
        if new is None and old is None:
            return None
        with self.links.entering(namespace, netns.fd):
            if old is not None and old is not new:
                self._master(old).release(self.links, old, ifindex)
            if new is not None and old is not new:
                port = self.links.read(namespace, ifindex)
                if port is None:
                    raise NetlinkError(errno.ENODEV)
                self._master(new).enslave(self.links, new, port, netns.fd)
        self.links.changed()
        for bond in {one.id: one for one in (old, new) if one is not None}.values():
            self.announce(netns, bond)
        return _without(request, "master")

    @staticmethod
    def _master(link: KindLink) -> MasterKind:
        kind = KINDS[link.kind]
        assert isinstance(kind, MasterKind)
        return kind

    def check_removal(self, request: Request, ifindex: int | None) -> None:
        """Refuse to remove a far end, which is not there for programs."""
        if ifindex is not None and len(self.links) and self.hides(request.client.netns, ifindex):
            raise NetlinkError(errno.ENODEV)

    def notified(self, netns: Netns, message: NlMsg) -> bytes | None:
        """What the kernel tells of a link by itself, as it is to be seen; None: as it is, empty: not at all."""
        ifindex = int.from_bytes(message.payload[4:8], sys.byteorder, signed=True)
        shown = self.shown(netns, ifindex, message.payload)
        if shown is None:
            return b""
        return None if shown == message.payload else shown

    # ---- finding

    def at(self, netns: Netns, ifindex: int) -> KindLink | None:
        """The device with *ifindex* in a network namespace."""
        return self.links.at(self._namespace(netns), ifindex) if len(self.links) else None

    def kind_called(self, netns: Netns, name: str) -> LinkKind | None:
        """The kind of the device called *name* there; None where that is none of ours."""
        ifindex = ifindex_named(self._server, netns, name) if len(self.links) else None
        link = self.at(netns, ifindex) if ifindex is not None else None
        return None if link is None else KINDS[link.kind]

    def hides(self, netns: Netns, ifindex: int) -> bool:
        """Whether what has *ifindex* there is a far end, which nobody is to see."""
        return self.links.hides(self._namespace(netns), ifindex)

    def _namespace(self, netns: Netns) -> int | None:
        found = self.links.namespace(netns.cookie, netns.fd)
        return -1 if found is None else found  # None is the silicon's

    def serves(self, kind: str) -> bool:
        """Whether devices of a *kind* are ours: the kernel has none such."""
        if kind not in KINDS:
            return False
        if kind not in self._served:
            changes = LinkChanges()
            self._served[kind] = not kernel_has(kind, changes)
            changes.close()
        return self._served[kind]

    def has(self, kind: str) -> bool:
        """Whether there are devices of a *kind* that are ours; the kernel, which might load a module, is not asked."""
        return any(link.kind == kind for link in self.links)

    # ---- making

    def create(self, request: Request, header: Ifinfomsg, attrs: Mapping[Any, Any]) -> Answer:
        """rtnl_newlink() of a kind that is ours."""
        info = attrs["linkinfo"]
        kind = KINDS[info["kind"]]
        netns, kernel = request.client.netns, self._server.kernel(request.client.netns, NETLINK_ROUTE)
        namespace = self.links.namespace_for_good(netns.cookie, netns.fd)
        data = info.get("data") if isinstance(info.get("data"), Mapping) else None
        if "link_netnsid" in attrs:
            raise NetlinkError(errno.EOPNOTSUPP, "The device below must be in the same network namespace")
        lower = self.links.read(namespace, attrs["link"]) if "link" in attrs else None
        lower = self.links.as_seen(lower, namespace) if lower is not None else None
        wanted = Wanted(attrs, data, lower)
        kind.check(wanted)
        name = attrs.get("ifname")
        if name and "%" not in name and ifindex_named(self._server, netns, name) is not None:
            raise NetlinkError(errno.EEXIST)
        with self.links.entering(namespace, netns.fd), self._target(request, attrs) as target:
            made = kind.make(self.links, namespace, wanted)
            kept = [
                (type_, value)
                for type_, value in attributes(request.payload, _HEADER)
                if type_ & NLA_TYPE_MASK not in _NOT_A_VETHS
            ]
            given = {type_ & NLA_TYPE_MASK for type_, _value in kept}
            names = {"ifname": f"{kind.name}%d", "num_tx_queues": 1, "num_rx_queues": 1, **made.defaults}
            more = LINK.table.encode({key: value for key, value in names.items() if _LINK[key] not in given})
            if target is not None:
                more += attribute(_LINK["net_ns_fd"], struct.pack("=I", target))
            link_id = self.links.new_id()
            far_name = FAR_NAME.format(link_id)
            far = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + LINK.table.encode({"ifname": far_name})
            beside = lower is not None or kind.beside_itself
            if not beside:
                far += attribute(_LINK["net_ns_fd"], struct.pack("=I", self.links.home))
            else:
                far += LINK.table.encode({"mtu": min(kind.mtus[1] or ETH_MAX_MTU, ETH_MAX_MTU)})
            pair = attribute(1, b"veth\0") + attribute(2, attribute(_VETH_INFO_PEER, far))
            flags = made.flags | (header.flags & header.change)
            change = made.flags | made.without | header.change
            payload = _IFINFO.pack(socket.AF_UNSPEC, 0, header.index, flags & ~IFF_UP, change & ~IFF_UP)
            payload += b"".join(attribute(type_, value) for type_, value in kept) + more
            payload += attribute(_LINK["linkinfo"], pair)
            kernel.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload)
            link = self._made(kind, link_id, far_name, namespace if beside else None, made.data)
            link.lower = lower.ifindex if lower is not None else 0
            self.links.add(link, netns.fd)
            if header.flags & header.change & IFF_UP:
                self.links.set_near(link, up=True)
        return ()

    def _made(
        self, kind: LinkKind, link_id: int, far_name: str, far_namespace: int | None, data: dict[str, Any]
    ) -> KindLink:
        """The device whose far end is called *far_name*."""
        with self.links.opened(far_namespace) as fd:
            far = quiet(fd, far_name)
        found = self.links.read(far_namespace, far)
        assert found is not None
        near_namespace = found.nsid if found.nsid is not None else far_namespace
        assert near_namespace is not None
        return KindLink(link_id, kind.name, near_namespace, found.peer, far_namespace, far, 0, data)

    @contextlib.contextmanager
    def _target(self, request: Request, attrs: Mapping[Any, Any]) -> Iterator[int | None]:
        """A descriptor of the network namespace that the request wants the device in; None: its own."""
        path = None
        if "net_ns_pid" in attrs:
            path = f"/proc/{attrs['net_ns_pid']}/ns/net"
        elif "net_ns_fd" in attrs:
            path = f"/proc/{request.client.pid}/fd/{attrs['net_ns_fd']}"
        if path is None:
            yield None
            return
        try:
            # nothing but a namespace is to be opened: a FIFO would hold us up
            if os.stat(path).st_dev != os.stat("/proc/self/ns/net").st_dev:
                raise NetlinkError(errno.EINVAL)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NetlinkError(errno.ESRCH if "net_ns_pid" in attrs else errno.EINVAL) from None
        try:
            yield fd
        finally:
            os.close(fd)

    # ---- changing

    def change(self, request: Request, link: KindLink, header: Ifinfomsg, attrs: Mapping[Any, Any]) -> Answer:
        """A change to a device of ours: what is the kind's is done here, the rest by the kernel."""
        kind, info, netns = KINDS[link.kind], attrs.get("linkinfo", {}), request.client.netns
        if request.create and request.excl:
            raise NetlinkError(errno.EEXIST)
        if "data" in info and info.get("kind") != link.kind:
            raise NetlinkError(errno.EOPNOTSUPP)
        if not kind.movable and any(name in attrs for name in ("net_ns_pid", "net_ns_fd", "target_netnsid")):
            raise NetlinkError(errno.EINVAL, "The interface netns is immutable")
        up = bool(header.flags & header.change & IFF_UP)
        near = self.links.read(link.namespace, link.ifindex)
        kind.check_change(self.links, link, attrs, up and near is not None and not near.up)
        if "linkinfo" in attrs:
            if isinstance(info.get("data"), Mapping):
                with self.links.entering(link.namespace, netns.fd):
                    kind.change(self.links, link, info["data"], netns.fd)
                self.links.changed()
                self.announce(netns, link)
            return _without(request, "linkinfo")
        return PASS

    def announce(self, netns: Netns, link: KindLink) -> None:
        """Tell who listens that a device is another."""
        kernel = self._server.kernel(netns, NETLINK_ROUTE)
        try:
            (answer,) = kernel.request(RTM_GETLINK, 0, LINK.encode(Ifinfomsg(index=link.ifindex), {}))
        except NetlinkError:  # gone meanwhile
            return
        self._server.notify(netns, RTNLGRP_LINK, Message(RTM_NEWLINK, self.rewrite(answer.payload, link, netns)))

    # ---- showing

    def shown(self, netns: Netns, ifindex: int, payload: bytes) -> bytes | None:
        """An RTM_NEWLINK of the kernel as programs are to see it; None: not at all."""
        namespace = self._namespace(netns)
        if self.links.hides(namespace, ifindex):
            return None
        if (link := self.links.last_at(namespace, ifindex)) is not None:
            payload = self.rewrite(payload, link, netns)
        if (master := self.links.master_of(namespace, ifindex)) is not None:
            payload = self._as_port(payload, master, ifindex)
        return payload

    def _as_port(self, payload: bytes, master: KindLink, ifindex: int) -> bytes:
        """The same of a port of a bond or VRF."""
        family, type_, index, flags, change = _IFINFO.unpack_from(payload)
        kind = self._master(master)
        slave = {"slave_kind": kind.name, "slave_data": kind.port_table.encode(kind.port_shown(master, ifindex))}
        found: list[bytes] = []
        info = b""
        for number_, value in attributes(payload, _HEADER):
            number = number_ & NLA_TYPE_MASK
            if number == _LINK["linkinfo"]:
                info = value
                continue
            if number == _LINK["num_rx_queues"]:
                found.append(LINK.table.encode({"master": master.ifindex}))
            found.append(attribute(number_, value))
        found.append(attribute(_LINK["linkinfo"], info + LINKINFO.encode(slave)))
        hidden = IFF_PROMISC if kind.port_flags else 0  # that of a bond is its own
        return _IFINFO.pack(family, type_, index, (flags | kind.port_flags) & ~hidden, change) + b"".join(found)

    def rewrite(self, payload: bytes, link: KindLink, netns: Netns) -> bytes:
        """An RTM_NEWLINK of the kernel about the near end, as it would be about the device."""
        kind = KINDS[link.kind]
        family, type_, ifindex, flags, change = _IFINFO.unpack_from(payload)
        more, without = kind.shown_flags(link)
        flags = (flags | more) & ~without
        type_ = kind.hardware if kind.hardware is not None else type_
        own = kind.shown_addresses(link)
        least, most = kind.limits(link)
        found: list[bytes] = []
        for number_, value in attributes(payload, _HEADER):
            number = number_ & NLA_TYPE_MASK
            if number in _OF_A_PEER:
                if number == _LINK["link"] and (link.lower or kind.shows_lower):
                    found.append(self._lower(link, netns))
                continue
            if number == _LINK["linkinfo"]:
                value = self._linkinfo(value, kind, link)
            elif own is not None and number in _ADDRESSES:
                value = own[number == _LINK["broadcast"]]
            elif own is not None and number == _LINK["perm_address"]:
                continue
            elif number == _LINK["mtu"]:
                value = struct.pack("=I", kind.shown_mtu(*struct.unpack("=I", value)))
            elif number == _LINK["min_mtu"]:
                value = struct.pack("=I", least)
            elif number == _LINK["max_mtu"]:
                value = struct.pack("=I", most)
            elif number == _LINK["operstate"] and not kind.has_carrier and value == bytes([_OPER_UP]):
                value = bytes([_OPER_UNKNOWN])
            elif number == _LINK["operstate"] and not link.lower and value == bytes([_OPER_LOWERLAYERDOWN]):
                value = bytes([_OPER_DOWN])
            found.append(attribute(number_, value))
        return _IFINFO.pack(family, type_, ifindex, flags, change) + b"".join(found)

    def _lower(self, link: KindLink, netns: Netns) -> bytes:
        attrs: dict[str, Any] = {"link": link.lower}
        here = self._namespace(netns)
        if link.far_namespace != here and link.far_namespace is not None and here is not None:
            attrs["link_netnsid"] = self.links.reader.nsid_as_seen_from(here, link.far_namespace)
        return LINK.table.encode(attrs)

    def _linkinfo(self, value: bytes, kind: LinkKind, link: KindLink) -> bytes:
        info: dict[Any, Any] = LINKINFO.decode(value)
        shown: dict[Any, Any] = {"kind": kind.name}
        data = kind.shown(self.links, link)
        if data is not None:
            shown["data"] = data
        shown.update({name: info[name] for name in ("slave_kind", "slave_data") if name in info})
        return LINKINFO.encode(shown)


def _without(request: Request, name: str) -> Proxy:
    """What is left of a request for the kernel without an attribute."""
    kept = [
        (type_, value) for type_, value in attributes(request.payload, _HEADER) if type_ & NLA_TYPE_MASK != _LINK[name]
    ]
    rest = request.payload[:_HEADER] + b"".join(attribute(type_, value) for type_, value in kept)
    return Proxy(lambda message: [Message(message.type, message.payload)], payload=rest)


def quiet(netns: int, name: str) -> int:
    """Let a new far end in the network namespace open at *netns* send nothing by itself; its ifindex."""

    def call() -> int:
        for setting in ("disable_ipv6", "addr_gen_mode"):
            with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{name}/{setting}", "w") as file:
                file.write("1")
        return socket.if_nametoindex(name)

    return in_netns(netns, call)
