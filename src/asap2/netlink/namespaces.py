# SPDX-License-Identifier: Apache-2.0
"""The server's netlink sockets in a network namespace: replies into the clients' sockets, questions to the kernel.

A process with CAP_NET_ADMIN may send to another process's netlink socket by port id (net/netlink/af_netlink.c). What a
client's receive buffer has no room for is sent by a thread that waits for room, as the kernel continues a dump.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from asap2 import socket_filter
from asap2.namespaces import CLONE_NEWNET, setns
from asap2.netlink.client import Connection
from asap2.netlink.request import Netns
from asap2.netlink.sendmmsg import MOST, send_many
from asap2.netlink.sidechannel import SERVER_PORTID
from asap2.netlink.wire import NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE

log = logging.getLogger(__name__)

SO_NETNS_COOKIE = 71
SO_SNDBUFFORCE = 32
SIOCGSKNS = 0x894C
_SEND_BUFFER = 8 << 20
_MOST_WAITING = 16 << 20
"""Bytes of replies kept for a client that does not read them; a dump is kept whole, since none else begins before."""
MOST_CLAIMS = 64
"""Clients of one user, other than root, that may leave replies unread at the same time, in one network namespace."""
_MADE_AT_ONCE = 64
"""Datagrams of a long dump that are made before the client has read those before them."""
_libc = ctypes.CDLL(None, use_errno=True)


def cookie_of(sock: socket.socket) -> int:
    """The cookie of a socket's network namespace (SO_NETNS_COOKIE, since Linux 5.14)."""
    cookie: int = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
    return cookie


def namespace_fd_of(sock_fd: int) -> int:
    """A new descriptor of the network namespace that a socket belongs to (SIOCGSKNS)."""
    return fcntl.ioctl(sock_fd, SIOCGSKNS)


def own_namespace_fd() -> int:
    """A new descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _socket(protocol: int) -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)


def socket_in(namespace_fd: int, protocol: int, home_fd: int) -> socket.socket:
    """A netlink socket in another network namespace, opened by the calling thread, which returns to *home_fd*.

    Raises:
        OSError: the namespace cannot be entered.
    """
    setns(namespace_fd, CLONE_NEWNET)
    try:
        return _socket(protocol)
    finally:
        setns(home_fd, CLONE_NEWNET)


def _deafen(sock: socket.socket) -> None:
    """Have a socket receive nothing: what is sent to it is dropped, and the sender is not told."""
    socket_filter.attach(sock, socket_filter.NOTHING)


class _Waiting:
    """Messages for one client whose receive buffer is full; *fd* is its socket, once the library has handed it over."""

    __slots__ = ("dumping", "fd", "messages", "more", "pid", "size", "uid")

    def __init__(self, messages: Sequence[bytes], dumping: bool, more: Iterable[bytes] = ()) -> None:
        """*more* is what follows, made when it is needed."""
        self.more = iter(more)
        self.messages = deque(messages)
        self.size = sum(map(len, messages))
        self.dumping = dumping
        self.fd = -1
        self.pid = self.uid = 0


def holds_socket(pid: int, inode: int) -> bool:
    """Whether a process has a socket open, by the socket's inode; False too if there is no such process."""
    name = f"socket:[{inode}]"
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{fd}") == name:
                    return True
            except OSError:
                continue
    except OSError:
        return False
    return False


class Namespace:
    """The server's sockets in one network namespace, bound to :data:`SERVER_PORTID`.

    *fd* is the namespace's, and closed with this; *home_fd* that of the calling thread's own namespace.

    Raises:
        OSError: EADDRINUSE, another server is in this namespace.
    """

    def __init__(self, cookie: int, fd: int, home_fd: int | None = None) -> None:
        self.netns = Netns(cookie, fd)
        self.holders = 0
        self.retired: Callable[[Namespace], None] | None = None
        self._home_fd = home_fd
        self._lock = threading.Lock()
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._kernel: dict[int, Connection] = {}
        self._closed = False
        self._sockets: dict[int, socket.socket] = {}
        try:
            for protocol in self._protocols():
                self._sockets[protocol] = sock = self._open(protocol)
                sock.bind((SERVER_PORTID, 0))
                _deafen(sock)
                sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, _SEND_BUFFER)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        except OSError:
            for sock in self._sockets.values():
                sock.close()
            raise

    def _protocols(self) -> tuple[int, ...]:
        """Those that are served here: connections only at home, and where the kernel has nfnetlink."""
        try:
            if self._home_fd is None:
                _socket(NETLINK_NETFILTER).close()
                return NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_NETFILTER
        except OSError as error:
            log.info("no connection tracking by netlink: %s", error)
        return NETLINK_ROUTE, NETLINK_GENERIC

    def _open(self, protocol: int) -> socket.socket:
        if self._home_fd is None:
            return _socket(protocol)
        return socket_in(self.netns.fd, protocol, self._home_fd)

    @property
    def idle(self) -> bool:
        """Whether nothing needs this any longer: no holder, and no reply under way."""
        return not self.holders and not self._waiting

    def busy_dumping(self, protocol: int, portid: int) -> bool:
        """Whether a dump to this client is still under way: another gets EBUSY meanwhile, as from the kernel."""
        waiting = self._waiting.get((protocol, portid))
        return waiting is not None and waiting.dumping

    def reply(self, protocol: int, portid: int, *messages: bytes, dump: bool = False) -> None:
        """Queue replies in a client's socket: now or, when that is full, as it reads. One that is gone gets none."""
        if self._waiting:
            with self._lock:
                waiting = self._waiting.get((protocol, portid))
                if waiting is not None:
                    for message in messages:
                        if dump or waiting.size < _MOST_WAITING:
                            waiting.dumping |= dump
                            waiting.messages.append(message)
                            waiting.size += len(message)
                    return
        try:
            if len(messages) == 1:
                self._sockets[protocol].sendto(messages[0], socket.MSG_DONTWAIT, (portid, 0))
            else:
                sent = send_many(self._sockets[protocol].fileno(), portid, messages, socket.MSG_DONTWAIT)
                if sent < len(messages):
                    self._waiting[(protocol, portid)] = _Waiting(messages[sent:], dump)
        except BlockingIOError:
            self._waiting[(protocol, portid)] = _Waiting(messages, dump)
        except ConnectionRefusedError:
            pass
        except OSError as error:
            log.warning("netlink reply to port %d lost: %s", portid, error)

    def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
        """Queue the datagrams of a dump in a client's socket; from the one on for which there is no room, as it reads.

        They are made by the calling thread as far as there is room at once, and by another after that.
        """
        with self._lock:
            waiting = self._waiting.get((protocol, portid))
            if waiting is not None:
                waiting.messages.append(next(chunks))  # while one is there, _drain() goes on
                waiting.size += len(waiting.messages[-1])
                waiting.dumping, waiting.more = True, chunks
                return
        for chunk in chunks:
            try:
                self._sockets[protocol].sendto(chunk, socket.MSG_DONTWAIT, (portid, 0))
            except BlockingIOError:
                self._waiting[(protocol, portid)] = _Waiting([chunk], True, chunks)
                return
            except OSError:
                return

    def unclaimed(self, protocol: int, portid: int) -> bool:
        """Whether replies wait for a client whose socket we have not been given."""
        waiting = self._waiting.get((protocol, portid))
        return waiting is not None and waiting.fd < 0

    def claim(self, protocol: int, portid: int, fd: int, pid: int, uid: int) -> None:
        """Send what waits for a client as it reads. *fd*, which is closed in the end, is its socket; *pid* the client.

        While we hold the socket, no other can get its port id, and with it replies that are not its own. Each takes a
        thread, so users but root have :data:`MOST_CLAIMS` at most: what waits for one more is lost.
        """
        with self._lock:
            waiting = self._waiting.get((protocol, portid))
            if waiting is None or waiting.fd >= 0:
                os.close(fd)
                return
            if uid and sum(other.fd >= 0 and other.uid == uid for other in self._waiting.values()) >= MOST_CLAIMS:
                del self._waiting[(protocol, portid)]
                os.close(fd)
                return
            waiting.fd, waiting.pid, waiting.uid = fd, pid, uid
        threading.Thread(
            target=self._drain, args=(protocol, portid, waiting), name="netlink-replies", daemon=True
        ).start()

    def forget(self, protocol: int, portid: int) -> None:
        """Drop what waits for a client that has not handed its socket over."""
        with self._lock:
            if self.unclaimed(protocol, portid):
                del self._waiting[(protocol, portid)]

    def _drain(self, protocol: int, portid: int, waiting: _Waiting) -> None:
        """Send what waits for a client, blocking; in a thread."""
        sent = 0
        while True:
            made = list(islice(waiting.more, _MADE_AT_ONCE)) if len(waiting.messages) <= sent else []
            with self._lock:
                for _ in range(sent):
                    waiting.size -= len(waiting.messages.popleft())
                waiting.messages.extend(made)
                waiting.size += sum(map(len, made))
                if not waiting.messages:
                    del self._waiting[(protocol, portid)]
                    break
                messages = list(islice(waiting.messages, MOST))
            sent = self._send_blocking(protocol, portid, messages, waiting)
            if not sent:
                with self._lock:
                    del self._waiting[(protocol, portid)]
                break
        os.close(waiting.fd)
        if self.idle and self.retired is not None:
            self.retired(self)

    def _send_blocking(self, protocol: int, portid: int, messages: list[bytes], waiting: _Waiting) -> int:
        """How many of *messages* could be sent: none when this was closed, or the client has closed its socket."""
        while not self._closed:
            try:
                return send_many(self._sockets[protocol].fileno(), portid, messages)
            except BlockingIOError:  # for a second there was no room: is anyone still there to read?
                if not holds_socket(waiting.pid, os.fstat(waiting.fd).st_ino):
                    return 0
            except OSError:
                return 0
        return 0

    def unicast(self, protocol: int, portid: int, message: bytes) -> None:
        """Send to a client without waiting.

        Raises:
            BlockingIOError: its receive buffer is full.
            ConnectionRefusedError: no such socket.
        """
        self._sockets[protocol].sendto(message, socket.MSG_DONTWAIT, (portid, 0))

    def multicast(self, protocol: int, group: int, message: bytes) -> None:
        """Send to the members of a multicast group of the kernel's own, at most 32, if the protocol is served.

        netlink_sendmsg() sends it to one port besides: to this socket itself, which is deaf, and not to the kernel, for
        which it would be a request.
        """
        sock = self._sockets.get(protocol)
        try:
            if sock is not None:
                sock.sendto(message, socket.MSG_DONTWAIT, (SERVER_PORTID, 1 << (group - 1)))
        except (ConnectionRefusedError, BlockingIOError):
            return

    def kernel(self, protocol: int) -> Connection:
        """A connection to the kernel in this namespace, opened when first asked for."""
        connection = self._kernel.get(protocol)
        if connection is None:
            connection = self._kernel[protocol] = Connection(protocol, self._open(protocol))
        return connection

    def close(self) -> None:
        """Close the sockets and the namespace's descriptor."""
        self._closed = True
        for sock in self._sockets.values():
            sock.close()
        for connection in self._kernel.values():
            connection.close()
        os.close(self.netns.fd)
