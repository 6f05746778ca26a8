# SPDX-License-Identifier: Apache-2.0
"""ctnetlink: list, find, change, remove and announce a node's connections (``conntrack``, ``ovs-appctl dpctl/…``).

A host has one table of connections. So what the kernel itself tracks in the node's namespace (for nftables, for
example) is shown together with what the node's datapath and NICs track.

Source: net/netfilter/nf_conntrack_netlink.c of Linux 6.12.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from asap2.netlink.codec import Attrs
from asap2.netlink.request import PASS, Answer, Message, Parts, Request, Stream
from asap2.netlink.server import Server
from asap2.netlink.tables.ctnetlink import (
    CT_DELETE,
    CT_GET,
    CT_GET_CTRZERO,
    CT_GET_DYING,
    CT_GET_STATS,
    CT_GET_STATS_CPU,
    CT_GET_UNCONFIRMED,
    CT_NEW,
    CT_REQUEST,
    STATS,
    STATS_CPU,
)
from asap2.netlink.tables.nfnetlink import (
    NFNL_SUBSYS_CTNETLINK,
    NFNL_SUBSYS_CTNETLINK_EXP,
    NFNL_SUBSYS_CTNETLINK_TIMEOUT,
    Nfgenmsg,
)
from asap2.netlink.wire import NETLINK_NETFILTER, NLM_F_DUMP_FILTERED, NLM_F_MULTI, NetlinkError
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Connection, Connections, Tuple
from asap2.nic.faces.conntrack import changes, filter, messages, nat, tuples
from asap2.nic.faces.conntrack.expectations import ExpectationRequests
from asap2.nic.faces.conntrack.filter import Filter
from asap2.nic.faces.conntrack.messages import CHANGED_BY_A_PROGRAM
from asap2.nic.faces.conntrack.policies import Policies, Store
from asap2.nic.silicon.abi import CtEvent

log = logging.getLogger(__name__)

_FOUND = 2
"""The use count of a connection that a request asked for: the table and the request."""


class ConntrackFace:
    """Serves the connections of *server*'s own namespace.

    *listened* is whether any program may be listening to events.
    """

    def __init__(self, server: Server, connections: Connections, timeouts: Store) -> None:
        self.connections = connections
        self.policies = Policies(timeouts)
        self.listened = True
        self._server = server
        self._kernel: bool | None = None
        self._handlers: dict[int, Callable[[Request], Answer]] = {
            CT_NEW: self._new,
            CT_GET: self._get,
            CT_GET_CTRZERO: self._get,
            CT_DELETE: self._delete,
            CT_GET_STATS: self._statistics,
            CT_GET_STATS_CPU: self._statistics_of_cpus,
            CT_GET_DYING: self._none,
            CT_GET_UNCONFIRMED: self._none,
        }
        server.netfilter([NFNL_SUBSYS_CTNETLINK], self._connections)
        self.expectations = ExpectationRequests(connections, self._kernels, self._kernel_tracks, self._announce)
        server.netfilter([NFNL_SUBSYS_CTNETLINK_EXP], self.expectations.answer)
        server.netfilter([NFNL_SUBSYS_CTNETLINK_TIMEOUT], self.policies.answer)

    def tell(self, connection: Connection, events: CtEvent, portid: int = 0) -> None:
        """Announce *events* of a connection, caused by the program with the socket *portid* (0: by no program)."""
        if not self.listened:
            return
        group, message = messages.event(self.seen(connection), events)
        self._announce(group, message, portid)

    def _announce(self, group: int, message: Message, portid: int) -> None:
        self._server.notify(self._server.netns, group, message, NETLINK_NETFILTER, portid)

    def gone(self, connection: Connection, portid: int = 0) -> None:
        """Announce that a connection has ended."""
        dying = replace(connection, status=connection.status | Status.DYING, stopped=time.time_ns())
        self.tell(dying, CtEvent.DESTROY, portid)

    def seen(self, connection: Connection) -> Connection:
        """A connection as programs see it: counters only with nf_conntrack_acct, times only with
        nf_conntrack_timestamp."""
        acct, timestamp = self.connections.setting("acct"), self.connections.setting("timestamp")
        if (connection.counters is None or acct) and (connection.started is None or timestamp):
            return connection
        counters = connection.counters if acct else None
        return replace(connection, counters=counters, started=connection.started if timestamp else None)

    def _connections(self, request: Request) -> Answer:
        handler = self._handlers.get(request.type)
        return PASS if handler is None else handler(request)

    def _get(self, request: Request) -> Answer:
        header, attrs = CT_REQUEST.decode(request.payload)
        if request.dump:
            wanted = filter.parsed(header.family, attrs)
            return Stream(self._all(wanted, self._kernels(request)))
        found = self._found(header.family, attrs)
        return [messages.answer(self.seen(found), use=_FOUND)] if found is not None else self._not_ours()

    def _all(self, wanted: Filter | None, more: list[Message]) -> Iterator[Message]:
        flags = 0 if wanted is None else NLM_F_DUMP_FILTERED
        answer = messages.answer
        for connection in self._selected(wanted):
            yield answer(self.seen(connection), flags)
        yield from more

    def _selected(self, wanted: Filter | None) -> Iterator[Connection]:
        return (one for one in self.connections if wanted is None or wanted(one))

    def _delete(self, request: Request) -> Answer:
        header, attrs = CT_REQUEST.decode(request.payload)
        if "filter" in attrs or not ("tuple_orig" in attrs or "tuple_reply" in attrs):
            family = header.family if header.version or "filter" in attrs else 0
            wanted = filter.parsed(family, attrs)
            return Parts(self._flush(wanted, request.client.portid), PASS if self._kernel_tracks() else None)
        found = self._found(header.family, attrs)
        if found is None:
            return self._not_ours()
        if attrs.get("id", found.id) != found.id:
            raise NetlinkError(errno.ENOENT)
        self._remove(found, request)
        return None

    def _flush(self, wanted: Filter | None, portid: int) -> Iterator[None]:
        for connection in self.connections.delete_all(self._selected(wanted)):
            self.gone(connection, portid)
            yield

    def _remove(self, connection: Connection, request: Request) -> None:
        if self.connections.delete(connection):
            self.gone(connection, request.client.portid)

    def _new(self, request: Request) -> Answer:
        header, attrs = CT_REQUEST.decode(request.payload)
        ways: dict[str, Tuple] = {}
        zone: int = attrs.get("zone", 0)
        for name in ("tuple_orig", "tuple_reply"):
            if name in attrs:
                ways[name], zone = self._tuple(attrs[name], header.family, zone)
        found = self.connections.find(zone, next(iter(ways.values()))) if ways else None
        if found is not None:
            if request.excl:
                raise NetlinkError(errno.EEXIST)
            change = changes.changed(found, attrs)
            self.connections.change(found, change)
            given = {name: value for name, value in change._asdict().items() if value is not None}
            self.tell(replace(found, **given), CHANGED_BY_A_PROGRAM | CtEvent.LABEL, request.client.portid)
            return None
        if not request.create:
            return self._not_ours()
        if len(ways) < 2 or ways["tuple_orig"].protocol != ways["tuple_reply"].protocol:
            raise NetlinkError(errno.EINVAL)
        made = changes.created(attrs, ways["tuple_orig"], ways["tuple_reply"], zone)
        made = nat.translated(made, attrs, lambda one: self.connections.find(zone, one) is not None)
        if "tuple_master" in attrs:
            tuple_, _own = tuples.parsed(attrs["tuple_master"], header.family)
            master = self.connections.find(zone, tuple_)
            if master is None:
                raise NetlinkError(errno.ENOENT)
            made = replace(made, master=master.original, status=made.status | Status.EXPECTED)
        try:
            self.connections.insert(made)
        except OSError as error:
            raise NetlinkError(error.errno or errno.ENOMEM) from None
        made = self.connections.find(zone, made.original) or made
        label = CtEvent.LABEL if "labels" in attrs else CtEvent(0)
        self.tell(made, CtEvent.NEW | CHANGED_BY_A_PROGRAM | label, request.client.portid)
        return None

    def _statistics(self, request: Request) -> Answer:
        entries = self.connections.count()
        for message in self._kernels(request):
            entries += STATS.decode(message.payload)[1]["entries"]
        body = STATS.encode(Nfgenmsg(), {"entries": entries, "max": self.connections.limit})
        return [Message(CT_GET_STATS, body, NLM_F_MULTI)]

    def _statistics_of_cpus(self, request: Request) -> Answer:
        if not request.dump:
            return None
        kernels: dict[int, Attrs] = {}
        for message in self._kernels(request):
            header, attrs = STATS_CPU.decode(message.payload)
            kernels[header.res_id] = attrs
        shown = []
        for cpu, counted in enumerate(self.connections.statistics()):
            own = kernels.get(cpu, Attrs())
            sums = {name: (value + own.get(name, 0)) & 0xFFFFFFFF for name, value in counted._asdict().items()}
            shown.append(Message(CT_GET_STATS_CPU, STATS_CPU.encode(Nfgenmsg(res_id=cpu), sums)))
        return shown

    def _none(self, request: Request) -> Answer:
        """Unconfirmed and dying connections: there are none between two packets."""
        if not request.dump:
            raise NetlinkError(errno.EOPNOTSUPP)
        return []

    def _found(self, family: int, attrs: Attrs) -> Connection | None:
        raw = attrs.get("tuple_orig", attrs.get("tuple_reply"))
        if raw is None:
            raise NetlinkError(errno.EINVAL)
        tuple_, zone = self._tuple(raw, family, attrs.get("zone", 0))
        return self.connections.find(zone, tuple_)

    @staticmethod
    def _tuple(raw: bytes, family: int, zone: int) -> tuple[Tuple, int]:
        """A tuple with its zone, which is in the message or, if it is for one direction only, in the tuple."""
        tuple_, own = tuples.parsed(raw, family)
        if own is None:
            return tuple_, zone
        if zone:
            raise NetlinkError(errno.EINVAL)
        return tuple_, own

    def _not_ours(self) -> Answer:
        """Leave the request to the kernel if it tracks connections itself; else raise NetlinkError ENOENT."""
        if self._kernel_tracks():
            return PASS
        raise NetlinkError(errno.ENOENT)

    def _kernel_tracks(self) -> bool:
        """Whether the kernel has ctnetlink."""
        if self._kernel is None:
            self._kernel = bool(self._ask_kernel(CT_GET_STATS, 0, CT_REQUEST.encode(Nfgenmsg(), {})))
        return self._kernel

    def _kernels(self, request: Request) -> list[Message]:
        """The kernel's answer about its own connections; empty if it refuses."""
        return self._ask_kernel(request.type, request.flags, request.payload) if self._kernel_tracks() else []

    def _ask_kernel(self, type: int, flags: int, payload: bytes) -> list[Message]:
        try:
            answer = self._server.kernel(self._server.netns, NETLINK_NETFILTER).request(type, flags, payload)
        except OSError as error:
            log.debug("the kernel's own connections: %s", error)
            return []
        return [Message(one.type, one.payload, one.flags & NLM_F_DUMP_FILTERED) for one in answer]
