# SPDX-License-Identifier: Apache-2.0
"""From a client's batch to handlers and back: what af_netlink.c, rtnetlink.c and genetlink.c do around a handler."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

from asap2.netlink import control
from asap2.netlink.client import Connection
from asap2.netlink.parts import Served, Unfinished
from asap2.netlink.request import (
    GENL_ADMIN_PERM,
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    GENL_UNS_ADMIN_PERM,
    PASS,
    Answer,
    Client,
    GenlFamily,
    GenlHeader,
    Handler,
    Message,
    Parts,
    Pass,
    Proxy,
    Reply,
    Request,
    Stream,
)
from asap2.netlink.wire import (
    HEADER,
    HEADER_LEN,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP_FILTERED,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    NLMSG_MIN_TYPE,
    NetlinkError,
    NlMsg,
    acknowledgement,
    done,
    error_of,
    spans,
)

log = logging.getLogger(__name__)

DUMP_CHUNK = 3776
"""Bytes of a dump in one datagram: NLMSG_GOODSIZE, what the kernel gives to those who may read with a page's buffer."""
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")
_GENL_HEADER_LEN = 4
_NFGEN_LEN = 4
"""struct nfgenmsg: a shorter message of nfnetlink does nothing."""
_ADMIN = GENL_ADMIN_PERM | GENL_UNS_ADMIN_PERM


class Outlet(Protocol):
    """Where replies go, and where the kernel is asked: :class:`asap2.netlink.namespaces.Namespace`."""

    def reply(self, protocol: int, portid: int, *messages: bytes, dump: bool = False) -> None:
        """Queue replies in a client's socket."""

    def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
        """Queue the datagrams of a dump in a client's socket, as it has room for them."""

    def busy_dumping(self, protocol: int, portid: int) -> bool:
        """Whether a dump to the client is under way."""

    def kernel(self, protocol: int) -> Connection:
        """A connection to the kernel in the client's namespace."""


class _Asked(NamedTuple):
    """A message of a client's batch *data*, where it starts at *start*, and where its answer goes."""

    outlet: Outlet
    client: Client
    message: NlMsg
    data: bytes
    start: int


class Dispatcher:
    """Finds the handler of each message, and answers as the kernel would around it."""

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock
        self.route: dict[int, Handler] = {}
        self.netfilter: dict[int, Handler] = {}
        self.families: dict[int, GenlFamily] = {}
        self._ops: dict[int, dict[int, int]] = {}

    def add_family(self, family: GenlFamily) -> None:
        """Serve a generic netlink family."""
        self.families[family.id] = family
        self._ops[family.id] = dict(family.ops)

    def submit(self, outlet: Outlet, client: Client, data: bytes) -> Served:
        """Serve a batch up to the first message that is the kernel's.

        Gives how many bytes were served, and how many after them are for the client to send to the kernel (none: all
        is done; what follows those is to be submitted again).
        """
        begun = self.begin(outlet, client, data)
        return begun.complete() if isinstance(begun, Unfinished) else begun

    def begin(self, outlet: Outlet, client: Client, data: bytes) -> Served | Unfinished:
        """As :meth:`submit`, but the batch's last message may have only been begun."""
        for start, end, message in spans(data):
            asked = _Asked(outlet, client, message, data, start)
            served = self._serve(asked)
            if isinstance(served, Parts):
                unfinished = Unfinished(served.steps, self.lock, partial(self._finish, asked, served.answer))
                if end >= len(data):
                    return unfinished
                _served, passed = unfinished.complete()
                served = passed > 0
            if served:
                return start, self._kernels(client, data, end) - start
        return len(data), 0

    def _finish(self, asked: _Asked, answer: Pass | None, error: NetlinkError | None) -> Served:
        end = len(asked.data)
        if answer is PASS and error is None:
            return asked.start, end - asked.start
        self._send(asked, (), error)
        return end, 0

    def _kernels(self, client: Client, data: bytes, end: int) -> int:
        """Where, from *end* on, the next message comes that might not be the kernel's."""
        for start, _following, message in spans(data[end:]):
            if self._is_ours(client.protocol, message.type):
                return end + start
        return len(data)

    def _is_ours(self, protocol: int, type_: int) -> bool:
        if protocol == NETLINK_ROUTE:
            return type_ in self.route
        if protocol == NETLINK_NETFILTER:
            return type_ >> 8 in self.netfilter
        return type_ in self.families or type_ >= 0x7000 or type_ == control.GENL_ID_CTRL

    def _serve(self, asked: _Asked) -> bool | Parts:
        """Answer one message; True if it is the kernel's, and what there is to do if that is more."""
        outlet, client = asked.outlet, asked.client
        type_, flags, seq, _pid, payload = asked.message
        error: NetlinkError | None = None
        warning: str | None = None
        messages: Iterable[Message] = ()
        dumped = False
        if flags & NLM_F_REQUEST and type_ >= NLMSG_MIN_TYPE:
            request = Request(type_, flags, seq, payload, client)
            dumped = request.dump
            collected: list[Message] = []
            try:
                with self.lock:
                    answer = self._handle(request)
                    if answer is PASS:
                        return True
                    if dumped and outlet.busy_dumping(client.protocol, client.portid):
                        raise NetlinkError(errno.EBUSY, at_start=True)
                    if type(answer) is Stream:
                        outlet.stream(client.protocol, client.portid, _stream(answer, seq, client.portid))
                        return False
                    if type(answer) is Parts:
                        return answer
                    if type(answer) is Proxy:
                        answer = _ask_kernel(outlet, request, answer, collected)
                    if type(answer) is Reply:
                        warning = answer.warning
                        messages = answer.messages
                    elif answer is not None:
                        messages = answer  # type: ignore[assignment]
                    if type(messages) is not list:
                        for one in messages:
                            collected.append(one)
                        messages = collected
            except NetlinkError as refused:
                error, messages = refused, collected
            except OSError as failed:
                error, messages = NetlinkError(failed.errno or errno.EINVAL, at_start=True), ()
                log.warning("%r: %s", request, failed)
            except RecursionError:  # nested deeper than any handler looks
                error, messages = NetlinkError(errno.EINVAL, at_start=True), ()
            except Exception:
                log.exception("%r", request)
                error, messages = NetlinkError(errno.EINVAL, at_start=True), ()
        self._send(asked, messages, error, warning, dumped)
        return False

    def _send(
        self,
        asked: _Asked,
        messages: Iterable[Message],
        error: NetlinkError | None,
        warning: str | None = None,
        dumped: bool = False,
    ) -> None:
        outlet, client, message, data, start = asked
        protocol, portid, seq = client.protocol, client.portid, message.seq
        reply = outlet.reply
        if dumped and not (error is not None and error.at_start):
            number, text = (error.errno or errno.EINVAL, error.text) if error is not None else (0, warning)
            last = done(seq, portid, number, ext_ack=client.ext_ack, text=text)
            reply(protocol, portid, *_chunks(messages, seq, portid), last, dump=True)
            return
        if error is None:
            for type_, payload, flags in messages:
                length = HEADER_LEN + len(payload)
                reply(protocol, portid, HEADER.pack(length, type_, flags, seq, portid) + payload + _PAD[length & 3])
            if not message.flags & NLM_F_ACK or dumped:
                return
            number, text, offset = 0, warning, None
        else:
            number, text, offset = error.errno or errno.EINVAL, error.text, error.offset
        reply(
            protocol,
            portid,
            acknowledgement(
                data[start : start + HEADER_LEN + len(message.payload)],
                number,
                portid,
                ext_ack=client.ext_ack,
                cap_ack=client.cap_ack,
                text=text,
                offset=offset,
            ),
        )

    def _handle(self, request: Request) -> Answer:
        """rtnetlink_rcv_msg(), nfnetlink_rcv() and genl_rcv_msg(): the checks that come before a handler."""
        if request.client.protocol == NETLINK_NETFILTER:
            found = self.netfilter.get(request.type >> 8)
            if found is None or not request.client.privileged:
                return PASS  # who may not ask is refused by the kernel, whatever the message
            if len(request.payload) < _NFGEN_LEN:
                return None
            try:
                return found(request)
            except NetlinkError as error:
                error.at_start = True  # what a dump is to list is looked at before it begins
                raise
        if request.client.protocol != NETLINK_ROUTE:
            return self._generic(request)
        handler = self.route.get(request.type)
        if handler is None:
            return PASS
        if not request.payload:
            return None
        if request.type & 3 != 2 and not request.client.privileged:
            raise NetlinkError(errno.EPERM)
        return handler(request)

    def _generic(self, request: Request) -> Answer:
        if request.type == control.GENL_ID_CTRL:
            return control.answer(request, self.families.values())
        family = self.families.get(request.type)
        if family is None:
            if request.type < 0x7000:
                return PASS
            raise NetlinkError(errno.ENOENT, at_start=True)
        payload = request.payload
        header_end = _GENL_HEADER_LEN + ((family.hdrsize + 3) & ~3)
        if len(payload) < _GENL_HEADER_LEN + family.hdrsize:
            if family.real:
                return PASS
            raise NetlinkError(errno.EINVAL, at_start=True)
        cmd = payload[0]
        flags = self._ops[family.id].get(cmd)
        handler = family.handlers.get(cmd)
        if handler is None:
            if family.real:
                return PASS
            raise NetlinkError(errno.EOPNOTSUPP, at_start=True)
        if flags is not None:
            if flags & _ADMIN and not request.client.privileged:
                raise NetlinkError(errno.EPERM, at_start=True)
            if not flags & (GENL_CMD_CAP_DUMP if request.dump else GENL_CMD_CAP_DO):
                raise NetlinkError(errno.EOPNOTSUPP, at_start=True)
        elif family.ops and not family.real:
            raise NetlinkError(errno.EOPNOTSUPP, at_start=True)
        if family.netns is not None and family.netns != request.client.netns.cookie:
            if request.dump:
                return []
            raise NetlinkError(errno.ENODEV, at_start=True)
        answer = handler(
            request,
            GenlHeader(
                cmd, payload[1], payload[_GENL_HEADER_LEN : _GENL_HEADER_LEN + family.hdrsize], payload[header_end:]
            ),
        )
        if answer is PASS and not family.real:
            raise NetlinkError(errno.EOPNOTSUPP, at_start=True)
        return answer


def _chunks(messages: Iterable[Message], seq: int, portid: int) -> Iterator[bytes]:
    """The messages of a dump, several in a datagram."""
    chunk: list[bytes] = []
    size = 0
    for type_, payload, flags in messages:
        length = HEADER_LEN + len(payload)
        if size + length > DUMP_CHUNK and chunk:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(HEADER.pack(length, type_, flags | NLM_F_MULTI, seq, portid))
        chunk.append(payload)
        if length & 3:
            chunk.append(_PAD[length & 3])
        size += (length + 3) & ~3
    if chunk:
        yield b"".join(chunk)


def _stream(stream: Stream, seq: int, portid: int) -> Iterator[bytes]:
    """The datagrams of a dump with its end, which says so when not all could be listed."""
    number = 0
    try:
        yield from _chunks(stream.messages, seq, portid)
    except OSError as error:
        number = error.errno or errno.EINVAL
    except Exception:
        log.exception("a dump")
        number = errno.EINVAL
    yield done(seq, portid, number)


def _ask_kernel(outlet: Outlet, request: Request, proxy: Proxy, messages: list[Message]) -> list[Message]:
    """The kernel's answer to a request, rewritten; added to *messages*, which an error in the midst of a dump leaves.

    Raises:
        NetlinkError: what the kernel answered.
    """
    connection = outlet.kernel(request.client.protocol)
    connection.strict = request.client.strict
    payload = request.payload if proxy.payload is None else proxy.payload
    *answers, last = connection.exchange(request.type, request.flags, payload)
    for answer in answers:
        kept = answer.flags & (NLM_F_DUMP_INTR | NLM_F_DUMP_FILTERED)
        for type_, rewritten, flags in proxy.rewrite(answer):
            messages.append(Message(type_, rewritten, flags | kept))
    error = error_of(last)
    if error is not None:
        error.at_start = last.type == NLMSG_ERROR
        raise error
    messages.extend(proxy.extra)
    return messages
