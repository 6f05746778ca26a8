# SPDX-License-Identifier: Apache-2.0
"""Timeout policies, which ``ct(timeout=NAME)`` names, and the default timeouts of connections without one.

Source: net/netfilter/nfnetlink_cttimeout.c of Linux 6.12.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from asap2.netlink.codec import Attrs, RawString
from asap2.netlink.request import Answer, Message, Request
from asap2.netlink.tables.cttimeout import (
    NAME_MAX,
    TIMEOUT,
    TIMEOUT_DEFAULT_GET,
    TIMEOUT_DEFAULT_SET,
    TIMEOUT_DELETE,
    TIMEOUT_GET,
    TIMEOUT_NEW,
    timeouts,
)
from asap2.netlink.tables.nfnetlink import Nfgenmsg
from asap2.netlink.wire import NLM_F_MULTI, NetlinkError
from asap2.nic.faces.conntrack import nests
from asap2.nic.silicon.timeouts import TimeoutPolicy, Timeouts


class Store(Protocol):
    """Holds the policies and the default timeouts, all in seconds."""

    def __iter__(self) -> Iterator[TimeoutPolicy]:
        """All policies."""

    def get(self, name: str) -> TimeoutPolicy | None:
        """The policy called *name*; None if there is none."""

    def put(self, policy: TimeoutPolicy) -> None:
        """Add or replace a policy.

        Raises:
            OSError: ENOMEM if there is no room.
        """

    def delete(self, name: str) -> None:
        """Remove a policy."""

    def defaults(self, protocol: int) -> Timeouts | None:
        """The default timeouts of *protocol*; None if it has none of its own."""

    def set_defaults(self, protocol: int, timeouts: Timeouts) -> None:
        """Set the default timeouts of *protocol*."""


class Policies:
    """Serves requests for the timeout policies in *store*, and for its default timeouts."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._handlers: dict[int, Callable[[Request, Attrs], Answer]] = {
            TIMEOUT_NEW: self._new,
            TIMEOUT_GET: self._get,
            TIMEOUT_DELETE: self._delete,
            TIMEOUT_DEFAULT_SET: self._set_default,
            TIMEOUT_DEFAULT_GET: self._get_default,
        }

    def answer(self, request: Request) -> Answer:
        """Serve a request."""
        _header, attrs = TIMEOUT.decode(request.payload)
        _check_name(attrs)
        handler = self._handlers.get(request.type)
        if handler is None:
            raise NetlinkError(errno.EINVAL)
        return handler(request, attrs)

    def _new(self, request: Request, attrs: Attrs) -> None:
        name, family, protocol, data = nests.all_needed(attrs, "name", "l3proto", "l4proto", "data")
        known = self.store.get(name)
        if known is not None and request.excl:
            raise NetlinkError(errno.EEXIST)
        defaults = self._of(protocol)
        if known is None:
            self.store.put(TimeoutPolicy(name, family, protocol, _changed(defaults, data)))
        elif not request.replace:
            raise NetlinkError(errno.EBUSY)
        elif (known.family, known.protocol) != (family, protocol):
            raise NetlinkError(errno.EINVAL)
        else:
            self.store.put(replace(known, timeouts=_changed(defaults, data)))

    def _get(self, request: Request, attrs: Attrs) -> list[Message]:
        if request.dump:
            return [_shown(policy) for policy in self.store]
        return [_shown(self._named(nests.needed(attrs, "name")))]

    def _delete(self, _request: Request, attrs: Attrs) -> None:
        if "name" not in attrs:
            for policy in list(self.store):
                if not policy.uses:
                    self.store.delete(policy.name)
            return
        policy = self._named(attrs["name"])
        if policy.uses:
            raise NetlinkError(errno.EBUSY)
        self.store.delete(policy.name)

    def _set_default(self, _request: Request, attrs: Attrs) -> None:
        _family, protocol, data = nests.all_needed(attrs, "l3proto", "l4proto", "data")
        self.store.set_defaults(protocol, _changed(self._of(protocol), data))

    def _get_default(self, _request: Request, attrs: Attrs) -> list[Message]:
        family, protocol = nests.all_needed(attrs, "l3proto", "l4proto")
        values = {"l3proto": family, "l4proto": protocol, "data": _nest(self._of(protocol))}
        return [Message(TIMEOUT_DEFAULT_SET, TIMEOUT.encode(Nfgenmsg(), values), NLM_F_MULTI)]

    def _named(self, name: str) -> TimeoutPolicy:
        policy = self.store.get(name)
        if policy is None:
            raise NetlinkError(errno.ENOENT)
        return policy

    def _of(self, protocol: int) -> Timeouts:
        defaults = self.store.defaults(protocol)
        if defaults is None:
            raise NetlinkError(errno.EOPNOTSUPP)
        return defaults


def _check_name(attrs: Attrs) -> None:
    """Check a name as the kernel's policy does: a NUL-terminated string of at most 31 characters."""
    name = attrs.get("name")
    if name is not None and (len(name.encode(errors="surrogateescape")) >= NAME_MAX or _unended(name)):
        raise NetlinkError(errno.EINVAL, "Attribute failed policy validation")


def _unended(name: str) -> bool:
    return isinstance(name, RawString) and b"\0" not in name.raw


def _changed(defaults: Timeouts, raw: bytes) -> Timeouts:
    """The timeouts in the nested attributes *raw*, and *defaults* for the others."""
    given = nests.decoded(timeouts(len(defaults)), raw)
    return tuple(given.get(str(number), usual) for number, usual in enumerate(defaults, 1))


def _nest(values: Timeouts) -> bytes:
    return timeouts(len(values)).encode({str(number): value for number, value in enumerate(values, 1)})


def _shown(policy: TimeoutPolicy) -> Message:
    attrs = {
        "name": policy.name,
        "l3proto": policy.family,
        "l4proto": policy.protocol,
        "use": policy.uses + 1,
        "data": _nest(policy.timeouts),
    }
    return Message(TIMEOUT_NEW, TIMEOUT.encode(Nfgenmsg(), attrs), NLM_F_MULTI)
