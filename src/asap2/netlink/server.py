# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of netlink, served to programs that run with the redirect library.

::

    server = Server(Path("/run/asap2/netlink.sock"), lock)
    server.route([RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER], filters)
    server.family(GenlFamily("ovs_datapath", 0x7000, version=2, hdrsize=4, handlers={3: get}))
    server.attach(selector)
    while True:
        for key, mask in selector.select():
            key.data(mask)
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from asap2.netlink import queues, sidechannel
from asap2.netlink.admission import Admission
from asap2.netlink.client import Connection, genl_family
from asap2.netlink.dispatch import Dispatcher
from asap2.netlink.groups import Groups
from asap2.netlink.listener import listen
from asap2.netlink.namespaces import Namespace, cookie_of, namespace_fd_of, own_namespace_fd
from asap2.netlink.parts import Rounds, Served, Unfinished
from asap2.netlink.peer import Peer
from asap2.netlink.request import (
    EMULATED_FAMILIES,
    EMULATED_GROUPS,
    Client,
    GenlFamily,
    Handler,
    Message,
    Netns,
)
from asap2.netlink.sidechannel import ANSWER, ASK, IFNAMSIZ, OPTION_FD, Kind, Verdict
from asap2.netlink.wire import (
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLMSG_NOOP,
    NetlinkError,
    NlMsg,
    build,
    split,
)

log = logging.getLogger(__name__)

EthtoolHandler = Callable[[Netns, str, int, bytes], "bytes | None"]
Shower = Callable[[Netns, NlMsg, int], "bytes | None"]
_READ = selectors.EVENT_READ
_LARGEST_ASK = 1 << 20
_FDS = socket.CMSG_SPACE(4 * struct.calcsize("i"))
_PEERCRED = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""
_INODE = struct.Struct("=Q")
_PROTOCOLS = (NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER)
_MOST_CLIENTS = 1024
"""Sockets of one connection that are remembered; of one with more, all are forgotten and looked at again."""
_ACCEPTED_AT_ONCE = 64
"""Connections that are taken before others' questions are answered."""


class Server:
    """Serves the Unix socket that the redirect library asks; one for each node.

    *path* is where the library looks for it; *lock* is held while a handler runs. Make it in the network namespace
    that the node's programs live in (further ones, within, are served as well). A handler must not run a program with
    the library and wait for it: that would wait for the server.
    """

    def __init__(self, path: Path, lock: threading.RLock) -> None:
        self.path = path
        self.lock = lock
        self._dispatcher = Dispatcher(lock)
        self._ethtool: EthtoolHandler | None = None
        self._showers: dict[tuple[int, int], Shower] = {}
        self._ethtool_commands: frozenset[int] = frozenset()
        self.joined: Callable[[], None] = lambda: None
        """Called, with the lock held, when a program here has joined groups of nfnetlink, which are the kernel's."""
        self.memberships_changed: Callable[[], None] = lambda: None
        """Called, with the lock held, when a program may have joined or left a group of an emulated family."""
        self.before_answer: Callable[[], None] = lambda: None
        """Called when a program's request is done, before the program goes on."""
        self._setting: frozenset[int] = frozenset()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as probe:
            cookie = cookie_of(probe)
        self._home_fd = own_namespace_fd()
        self._home = Namespace(cookie, os.dup(self._home_fd))
        self._home.holders = 1
        self._namespaces = {cookie: self._home}
        self._registry_lock = threading.Lock()
        self._groups = Groups(self._home)
        self._greeting = b""
        self._listener: socket.socket | None = None
        self._lent = False
        self._selector: selectors.BaseSelector | None = None
        self._peers: set[Peer] = set()
        self._admission = Admission()
        self._rounds = Rounds()
        self._buffer = bytearray(_LARGEST_ASK)
        self._view = memoryview(self._buffer)

    @property
    def netns(self) -> Netns:
        """The server's own network namespace."""
        return self._home.netns

    def namespace(self, cookie: int) -> int | None:
        """A descriptor of the network namespace with *cookie*, this server's or one of a program that is served."""
        namespace = self._namespaces.get(cookie)
        return namespace.netns.fd if namespace is not None else None

    def route(self, types: Iterable[int], handler: Handler) -> None:
        """Serve these rtnetlink message types: of links and TC (16-19, 36-50, 100-102), no other is diverted."""
        for type_ in types:
            self._dispatcher.route[type_] = handler

    def netfilter(self, subsystems: Iterable[int], handler: Handler) -> None:
        """Serve these subsystems of nfnetlink (NFNL_SUBSYS_*) in the server's own namespace: of connection tracking, no
        other is diverted."""
        for subsystem in subsystems:
            self._dispatcher.netfilter[subsystem] = handler

    def family(self, family: GenlFamily) -> None:
        """Serve a generic netlink family; with ``real``, its id, version and groups become the kernel's, if it has it.

        Raises:
            ValueError: an id is outside the range for emulated families or groups.
        """
        kernel = genl_family(self._home.kernel(NETLINK_GENERIC), family.name) if family.real else None
        if kernel is not None:
            family.id, family.version, family.groups = kernel.id, kernel.version, tuple(kernel.groups.items())
        else:
            family.real = False
            if family.id not in EMULATED_FAMILIES or any(id_ not in EMULATED_GROUPS for _name, id_ in family.groups):
                raise ValueError(f"generic netlink family {family.name}: id or group outside the emulated range")
            self._groups.add((id_ for _name, id_ in family.groups), family.admin_groups)
        self._dispatcher.add_family(family)

    def ethtool_ioctl(
        self, commands: Iterable[int], handler: EthtoolHandler, setting: Iterable[int] = frozenset()
    ) -> None:
        """Serve these ETHTOOL_* commands of ioctl(SIOCETHTOOL), of those that ethtool.h knows the size of; and, as
        command SIOCSIFMTU with the MTU in the buffer, what sets an MTU: there an error is the answer, or the kernel's
        own.

        The handler gets namespace, interface name, command and the caller's buffer (what it gives the kernel: for
        commands that only get, the fixed part); it gives the buffer filled in, or None for the kernel to answer; an
        OSError that it raises is the program's. The commands *setting*, which change something, need privilege.
        """
        self._ethtool, self._ethtool_commands = handler, frozenset(commands)
        self._setting = frozenset(setting)

    def show(self, protocol: int, types: Iterable[int], shower: Shower) -> None:
        """Show messages of these types that the kernel sends by itself as *shower* gives them.

        It gets the namespace of the program that has received one, the message, and how many bytes its payload may
        have; it gives another payload, or None to leave the message as it is. It may see a message that it has shown
        already. Served are RTM_NEWLINK and RTM_DELLINK, and families of the kernel's that :meth:`family` serves.
        """
        for type_ in types:
            self._showers[protocol, type_] = shower

    def attach(self, selector: selectors.BaseSelector, listener: socket.socket | None = None) -> None:
        """Listen, and register with *selector*: call ``key.data(mask)`` for each key that it reports as ready.

        *listener* is a socket that listens at the path already, and will when this server is gone
        (:mod:`asap2.netlink.listener`). Without one, a socket that is left from an earlier server is replaced.
        """
        self._lent = listener is not None
        self._greeting = sidechannel.greeting(
            time.monotonic_ns() ^ os.getpid() << 48 & (1 << 64) - 1,
            self.netns.cookie,
            self._dispatcher.route,
            (family.id for family in self._dispatcher.families.values() if family.real),
            self._ethtool_commands,
            self._dispatcher.netfilter,
        )
        listener = listener or listen(self.path)
        listener.setblocking(False)
        selector.register(listener, _READ, self._accept)
        self._listener, self._selector = listener, selector

    def close(self) -> None:
        """Close everything and remove the socket: clients go to the kernel from here on; but those of a listener that
        was lent wait for the next server."""
        if self._listener is not None and self._selector is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            if not self._lent:
                self.path.unlink(missing_ok=True)
            self._listener = None
        self._rounds.close()
        for peer in list(self._peers):
            self._drop(peer)
        for namespace in list(self._namespaces.values()):
            namespace.close()
        self._namespaces.clear()
        self._admission.close()
        os.close(self._home_fd)

    def unicast(
        self, netns: Netns, protocol: int, portid: int, type: int, payload: bytes, flags: int = 0, seq: int = 0
    ) -> None:
        """Send an unsolicited message (an upcall) to a client's socket, without waiting; its header's port id is 0.

        Raises:
            BlockingIOError: its receive buffer is full: the message is lost, as it would be in the kernel.
            ConnectionRefusedError: it is gone.
        """
        namespace = self._namespaces.get(netns.cookie)
        if namespace is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        namespace.unicast(protocol, portid, build(type, flags, seq, 0, payload))

    def waiting(self, netns: Netns, protocol: int) -> dict[int, int] | None:
        """The bytes that wait in the receive queues of a namespace's sockets, by port id; None: it cannot be known."""
        namespace = self._namespaces.get(netns.cookie)
        if namespace is None:
            return None
        try:
            return queues.waiting(namespace.kernel(queues.NETLINK_SOCK_DIAG), protocol)
        except OSError as error:
            log.debug("cannot look at receive queues: %s", error)
            return None

    def listens(self, family: str, group: str) -> bool:
        """Whether a program in the server's own namespace is a member of an emulated family's group."""
        return self._groups.has_members(self.netns, self._group(family, group)[1])

    def _group(self, family: str, group: str) -> tuple[GenlFamily, int]:
        found = next(known for known in self._dispatcher.families.values() if known.name == family)
        return found, dict(found.groups)[group]

    def multicast(self, family: str, group: str, payload: bytes, netns: Netns | None = None, *, flags: int = 0) -> None:
        """Send a message to each member of a generic netlink family's group in *netns* (None: the server's own).

        Those with a full receive buffer miss it.
        """
        found, group_id = self._group(family, group)
        namespace = self._namespaces.get((netns or self.netns).cookie)
        if namespace is None:
            return
        message = build(found.id, flags, 0, 0, payload)
        if found.real:
            namespace.multicast(NETLINK_GENERIC, group_id, message)
            return
        self._groups.send(namespace, group_id, message)

    def notify(
        self, netns: Netns, group: int, message: Message, protocol: int = NETLINK_ROUTE, portid: int = 0
    ) -> None:
        """Send a message to the members of a multicast group (RTNLGRP_*, NFNLGRP_*, up to 32) of the kernel's own.

        *portid* is the socket that has caused it, where the protocol says so.
        """
        namespace = self._namespaces.get(netns.cookie)
        if namespace is not None:
            namespace.multicast(protocol, group, build(message.type, message.flags, 0, portid, message.payload))

    def kernel(self, netns: Netns, protocol: int) -> Connection:
        """A connection to the kernel proper in that namespace, good while a request of it is served.

        Raises:
            KeyError: it is not the server's own, and none of its programs is being served.
        """
        return self._namespaces[netns.cookie].kernel(protocol)

    def _accept(self, _mask: int) -> None:
        assert self._listener is not None
        assert self._selector is not None
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("cannot accept a connection of the redirect library: %s", error)
                if self._admission.refuse(self._listener, error):
                    continue
                return
            pid, uid, _gid = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
            if not self._admission.enter(pid, uid):
                log.warning("user %d has too many connections of the redirect library", uid)
                sock.close()
                continue
            sock.setblocking(False)
            peer = Peer(sock, pid, uid)
            try:
                sock.send(self._greeting)
                self._selector.register(sock, _READ, lambda _mask, peer=peer: self._readable(peer))
            except OSError:
                self._admission.leave(pid, uid)
                sock.close()
                continue
            self._peers.add(peer)

    def _drop(self, peer: Peer) -> None:
        assert self._selector is not None
        if peer not in self._peers:
            return
        self._peers.discard(peer)
        self._selector.unregister(peer.sock)
        peer.sock.close()
        self._admission.leave(*peer.owner)
        if peer.unclaimed is not None:
            namespace, protocol, portid = peer.unclaimed
            namespace.forget(protocol, portid)
            self._retire(namespace)
        for namespace in peer.held:
            namespace.holders -= 1
            self._retire(namespace)

    def _readable(self, peer: Peer) -> None:
        """Answer one question of the library."""
        if peer not in self._peers:
            return
        fds: list[int] = []
        try:
            size, ancillary, _flags, _address = peer.sock.recvmsg_into((self._buffer,), _FDS, socket.MSG_CMSG_CLOEXEC)
            for level, type_, data in ancillary:
                if level == socket.SOL_SOCKET and type_ == socket.SCM_RIGHTS:
                    fds += struct.unpack(f"={len(data) // 4}i", data[: len(data) // 4 * 4])
            if size < ASK.size:
                self._drop(peer)
                return
            answer = self._answer(peer, size, fds[0] if fds else None)
            if answer is not None:  # else it comes when all is done
                self.before_answer()
                peer.sock.send(answer)
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("a client of the redirect library is gone: %s", error)
            self._drop(peer)
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, peer: Peer, size: int, fd: int | None) -> bytes | None:
        kind, tag, protocol, portid, cookie, options, argument = ASK.unpack_from(self._buffer)
        namespace = self._namespaces.get(cookie)
        if namespace is None:
            if kind == Kind.CALLER:
                peer.ask_for(portid, argument, bool(options))
                return None
            if fd is None:
                return ANSWER.pack(tag, Verdict.NEED_FD, 0, 0)
            try:
                namespace = self._enter(cookie, fd)
            except OSError as error:
                log.warning("cannot answer a client in its network namespace: %s", error)
                return ANSWER.pack(tag, Verdict.ERROR, error.errno or errno.ECONNREFUSED, 0)
        data = bytes(self._view[ASK.size : size])
        try:
            if kind == Kind.SUBMIT and protocol in _PROTOCOLS:
                key = (protocol, portid, cookie, options & ~OPTION_FD)
                client = peer.clients.get(key)
                if client is None or client.netns is not namespace.netns:
                    if len(peer.clients) >= _MOST_CLIENTS:
                        peer.clients.clear()
                    client = peer.clients[key] = Client(
                        protocol,
                        portid,
                        namespace.netns,
                        bool(options & sidechannel.OPTION_EXT_ACK),
                        bool(options & sidechannel.OPTION_CAP_ACK),
                        bool(options & sidechannel.OPTION_STRICT),
                        peer.may_administer(namespace.netns),
                        peer.pid,
                    )
                submitted = partial(self._submitted, peer, tag, namespace, protocol, portid)
                if namespace is not self._home:
                    return submitted(self._dispatcher.submit(namespace, client, data))
                begun = self._dispatcher.begin(namespace, client, data)
                if isinstance(begun, Unfinished):
                    assert self._selector is not None
                    self._rounds.add(self._selector, begun, lambda served: self._answered(peer, submitted(served)))
                    return None
                return submitted(begun)
            if kind == Kind.CLAIM and fd is not None:
                peer.unclaimed = None
                namespace.claim(protocol, portid, os.dup(fd), peer.pid, peer.uid)
                return ANSWER.pack(tag, Verdict.DONE, 0, 0)
            if kind == Kind.JOIN and protocol == NETLINK_NETFILTER:
                with self.lock:
                    self.joined()
                return ANSWER.pack(tag, Verdict.PASS, 0, 0)
            if kind in (Kind.JOIN, Kind.LEAVE) and len(data) == _INODE.size:
                (inode,) = _INODE.unpack(data)
                refused = self._groups.change(peer, kind == Kind.JOIN, namespace, portid, argument, inode)
                with self.lock:
                    self.memberships_changed()
                return ANSWER.pack(tag, Verdict.ERROR if refused else Verdict.DONE, refused, 0)
            if kind == Kind.ETHTOOL and self._ethtool is not None and len(data) >= IFNAMSIZ:
                if argument in self._setting and not peer.may_administer(namespace.netns):
                    return ANSWER.pack(tag, Verdict.ERROR, errno.EPERM, 0)
                return self._ioctl(tag, namespace, argument, data)
            if kind == Kind.SHOW:
                return self._show(tag, namespace, protocol, argument, data)
            return ANSWER.pack(tag, Verdict.ERROR, errno.EINVAL, 0)
        finally:
            if namespace is not self._home:
                self._retire(namespace)

    @staticmethod
    def _submitted(peer: Peer, tag: int, namespace: Namespace, protocol: int, portid: int, served: Served) -> bytes:
        """The answer to a batch of which so much was served."""
        consumed, passed = served
        verdict: int = Verdict.PASS if passed else Verdict.DONE
        if namespace.unclaimed(protocol, portid):
            verdict |= sidechannel.WAITING
            peer.unclaimed = (namespace, protocol, portid)
        return ANSWER.pack(tag, verdict, consumed, passed)

    def _answered(self, peer: Peer, answer: bytes) -> None:
        """Send an answer that came late."""
        self.before_answer()
        if peer in self._peers:
            try:
                peer.sock.send(answer)
            except OSError as error:
                log.debug("a client of the redirect library is gone: %s", error)
                self._drop(peer)

    def _show(self, tag: int, namespace: Namespace, protocol: int, room: int, data: bytes) -> bytes:
        shown, changed, spare = [], False, room - len(data)
        for message in split(data):
            shower = self._showers.get((protocol, message.type))
            payload = None
            if shower is not None:
                try:
                    with self.lock:
                        payload = shower(namespace.netns, message, max(len(message.payload) + spare, 0))
                except NetlinkError:  # the kernel sends no such message, but who asks may say that it did
                    pass
                except Exception:
                    log.exception("a message of type %d that is to be shown: %s", message.type, message.payload.hex())
            if payload is not None and len(payload) <= len(message.payload) + spare:
                changed, spare = True, spare + len(message.payload) - len(payload)
                message = message._replace(payload=payload, type=message.type if payload else NLMSG_NOOP)
            shown.append(message.pack())
        whole = b"".join(shown)
        if not changed or len(whole) > room:
            return ANSWER.pack(tag, Verdict.PASS, 0, 0)
        return ANSWER.pack(tag, Verdict.DONE, 0, 0) + whole

    def _ioctl(self, tag: int, namespace: Namespace, command: int, data: bytes) -> bytes:
        assert self._ethtool is not None
        name = data[:IFNAMSIZ].split(b"\0", 1)[0].decode(errors="surrogateescape")
        try:
            with self.lock:
                filled = self._ethtool(namespace.netns, name, command, data[IFNAMSIZ:])
        except OSError as error:
            return ANSWER.pack(tag, Verdict.ERROR, error.errno or errno.EINVAL, 0)
        except Exception:
            log.exception("ethtool command %#x of %r", command, name)
            return ANSWER.pack(tag, Verdict.ERROR, errno.EINVAL, 0)
        if filled is None:
            return ANSWER.pack(tag, Verdict.PASS, 0, 0)
        return ANSWER.pack(tag, Verdict.DONE, 0, 0) + filled

    def _enter(self, cookie: int, sock_fd: int) -> Namespace:
        """The sockets in a client's namespace that is not our own; kept while something there needs them."""
        namespace = Namespace(cookie, namespace_fd_of(sock_fd), self._home_fd)
        namespace.retired = self._retire
        with self._registry_lock:
            self._namespaces[cookie] = namespace
        return namespace

    def _retire(self, namespace: Namespace) -> None:
        """Leave a namespace that nothing needs: our sockets there would keep it alive after its deletion."""
        with self._registry_lock:
            if not namespace.idle or self._namespaces.get(namespace.netns.cookie) is not namespace:
                return
            del self._namespaces[namespace.netns.cookie]
        namespace.close()
