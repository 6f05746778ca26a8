# SPDX-License-Identifier: Apache-2.0
"""ctnetlink: list, find and remove the connections that a node's helpers expect (``conntrack -L expect``).

Source: net/netfilter/nf_conntrack_netlink.c of Linux 6.12.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol

from asap2.netlink.codec import Attrs
from asap2.netlink.request import PASS, Answer, Message, Request
from asap2.netlink.tables.ctnetlink import EXP_DELETE, EXP_GET, EXP_NEW, EXPECT, EXPECT_REQUEST
from asap2.netlink.tables.nfnetlink import NFNLGRP_CONNTRACK_EXP_DESTROY, NFNLGRP_CONNTRACK_EXP_NEW, Nfgenmsg
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_EXCL, NLM_F_MULTI, NetlinkError
from asap2.nic.conntrack.view import Connection, Expectation, Tuple
from asap2.nic.faces.conntrack import tuples

_FULL: Final = {socket.AF_INET: b"\xff" * 4, socket.AF_INET6: b"\xff" * 16}
_FOLLOW_MASTER: Final = "nat-follow-master"


class Table(Protocol):
    """The expectations of a node."""

    def find(self, zone: int, tuple: Tuple) -> Connection | None:
        """The connection with *tuple* in one of its directions."""

    def expectations(self) -> list[Expectation]:
        """The connections that helpers expect."""

    def unexpect(self, expectation: Expectation) -> bool:
        """No longer expect one; return False if it is no longer expected."""


class ExpectationRequests:
    """Answers requests about the expectations of *table*, together with the kernel's.

    *kernels* is the kernel's answer to a request (empty if it has none), *kernel_tracks* whether it tracks connections.
    *tell* announces a message to a group.
    """

    def __init__(
        self,
        table: Table,
        kernels: Callable[[Request], list[Message]],
        kernel_tracks: Callable[[], bool],
        tell: Callable[[int, Message, int], None],
    ) -> None:
        self._table = table
        self._kernels = kernels
        self._kernel_tracks = kernel_tracks
        self._tell = tell
        self._handlers = {EXP_GET: self._get, EXP_DELETE: self._delete, EXP_NEW: self._new}

    def answer(self, request: Request) -> Answer:
        """Answer a request; the counters of CPUs are the kernel's."""
        handler = self._handlers.get(request.type)
        return PASS if handler is None else handler(request)

    def expected(self, one: Expectation) -> None:
        """Announce a new expectation."""
        message = _message(one, NLM_F_CREATE | NLM_F_EXCL)
        self._tell(NFNLGRP_CONNTRACK_EXP_NEW, message, 0)

    def gone(self, one: Expectation, portid: int = 0) -> None:
        """Announce that a connection is no longer expected."""
        message = _message(one, 0)._replace(type=EXP_DELETE)
        self._tell(NFNLGRP_CONNTRACK_EXP_DESTROY, message, portid)

    def _get(self, request: Request) -> Answer:
        header, attrs = EXPECT_REQUEST.decode(request.payload)
        if not request.dump:
            found = self._found(header.family, attrs)
            return self._not_ours() if found is None else [_message(found)]
        of = tuples.parsed(attrs["master"], header.family)[0] if "master" in attrs else None
        ours = [one for one in self._table.expectations() if header.family in (0, one.tuple.family)]
        shown = [_message(one) for one in ours if of is None or of == one.master]
        if of is not None and self._table.find(attrs.get("zone", 0), of) is None:
            return self._not_ours()
        return shown + self._kernels(request)

    def _delete(self, request: Request) -> Answer:
        header, attrs = EXPECT_REQUEST.decode(request.payload)
        if "tuple" in attrs:
            found = self._found(header.family, attrs)
            if found is None:
                return self._not_ours()
            self._remove(found, request)
            return None
        helper = attrs.get("help_name")
        for one in self._table.expectations():
            if helper in (None, one.helper):
                self._remove(one, request)
        return PASS if self._kernel_tracks() else None

    def _new(self, request: Request) -> Answer:
        """Programs create no expectations here: the helpers that there are do not come from user space."""
        header, attrs = EXPECT_REQUEST.decode(request.payload)
        if not {"tuple", "mask", "master"} <= attrs.keys():
            raise NetlinkError(errno.EINVAL)
        if self._found(header.family, attrs) is None:
            return PASS if self._kernel_tracks() else self._refused(request)
        if request.excl:
            raise NetlinkError(errno.EEXIST)
        raise NetlinkError(errno.EOPNOTSUPP)

    @staticmethod
    def _refused(request: Request) -> Answer:
        raise NetlinkError(errno.EOPNOTSUPP if request.create else errno.ENOENT)

    def _found(self, family: int, attrs: Attrs) -> Expectation | None:
        """The expectation with the tuple that a request names, and its id, if it names one."""
        raw = attrs.get("tuple", attrs.get("master"))
        if raw is None:
            raise NetlinkError(errno.EINVAL)
        wanted, _zone = tuples.parsed(raw, family)
        zone = attrs.get("zone", 0)
        for one in self._table.expectations():
            if one.zone == zone and one.tuple == wanted._replace(src_port=0):
                if attrs.get("id", one.id) != one.id:
                    raise NetlinkError(errno.ENOENT)
                return one
        return None

    def _remove(self, one: Expectation, request: Request) -> None:
        if self._table.unexpect(one):
            self.gone(one, request.client.portid)

    def _not_ours(self) -> Answer:
        if self._kernel_tracks():
            return PASS
        raise NetlinkError(errno.ENOENT)


def _message(one: Expectation, flags: int = NLM_F_MULTI) -> Message:
    """An expectation as ctnetlink_exp_dump_expect() shows it. A source port of 0 is any."""
    family = one.tuple.family
    full = _FULL[socket.AddressFamily(family)]
    mask = Tuple(family, one.tuple.protocol, full, full, 0, 0xFFFF)
    attrs: dict[str, Any] = {
        "tuple": tuples.shown(one.tuple),
        "mask": tuples.shown(mask),
        "master": tuples.shown(one.master),
    }
    if one.port:
        empty = bytes(len(full))
        announced = Tuple(family, one.master.protocol, empty, empty, one.port)
        attrs["nat"] = {"dir": one.way, "tuple": tuples.shown(announced)}
    attrs |= {"timeout": one.timeout, "id": one.id, "flags": 0, "class": 0}
    if one.helper:
        attrs["help_name"] = one.helper
    if one.port:
        attrs["fn"] = _FOLLOW_MASTER
    return Message(EXP_NEW, EXPECT.encode(Nfgenmsg(family), attrs), flags)
