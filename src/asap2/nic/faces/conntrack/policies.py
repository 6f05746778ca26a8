# SPDX-License-Identifier: Apache-2.0
"""Timeout policies, which ``ct(timeout=NAME)`` names, and the timeouts of connections without one.

Sources: net/netfilter/nfnetlink_cttimeout.c and nf_conntrack_proto_*.c of Linux 6.12.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

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

Timeouts = tuple[int, ...]
"""A protocol's timeouts in seconds, in the order of CTA_TIMEOUT_<PROTOCOL>_*."""

UDPLITE = 136
GENERIC = 255
DEFAULTS: Final[Mapping[int, Timeouts]] = {
    socket.IPPROTO_TCP: (120, 60, 432000, 120, 60, 30, 120, 10, 120, 300, 300),
    socket.IPPROTO_UDP: (30, 120),
    UDPLITE: (30, 120),
    socket.IPPROTO_ICMP: (30,),
    socket.IPPROTO_ICMPV6: (30,),
    socket.IPPROTO_GRE: (30, 180),
    socket.IPPROTO_SCTP: (10, 3, 3, 210, 3, 3, 3, 30, 0),
    GENERIC: (600,),
}
"""By protocol: of TCP SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE, SYN_SENT2,
RETRANS, UNACK; of those with two, before and after a reply; GENERIC are all others."""


@dataclass(slots=True)
class Policy:
    """A timeout policy for connections of *protocol* over *family*; *uses* counts the flows that name it."""

    name: str
    family: int
    protocol: int
    timeouts: Timeouts
    uses: int = 0


class Policies:
    """A node's timeout policies, by name, and its default timeouts, by protocol."""

    def __init__(self) -> None:
        self.named: dict[str, Policy] = {}
        self.defaults: dict[int, Timeouts] = dict(DEFAULTS)

    def set_default(self, protocol: int, timeouts: Timeouts) -> None:
        """Set the timeouts of connections without a policy."""
        self.defaults[protocol] = timeouts

    def answer(self, request: Request) -> Answer:
        """Serve a request."""
        _header, attrs = TIMEOUT.decode(request.payload)
        _check_name(attrs)
        match request.type:
            case type_ if type_ == TIMEOUT_NEW:
                self._new(request, attrs)
            case type_ if type_ == TIMEOUT_GET:
                return self._get(request, attrs)
            case type_ if type_ == TIMEOUT_DELETE:
                self._delete(attrs)
            case type_ if type_ == TIMEOUT_DEFAULT_SET:
                self._set_default(attrs)
            case type_ if type_ == TIMEOUT_DEFAULT_GET:
                return [self._default(attrs)]
            case _:
                raise NetlinkError(errno.EINVAL)
        return None

    def _new(self, request: Request, attrs: Attrs) -> None:
        if any(name not in attrs for name in ("name", "l3proto", "l4proto", "data")):
            raise NetlinkError(errno.EINVAL)
        name, family, protocol = attrs["name"], attrs["l3proto"], attrs["l4proto"]
        known = self.named.get(name)
        if known is not None and request.excl:
            raise NetlinkError(errno.EEXIST)
        defaults = self._of(protocol)
        if known is None:
            self.named[name] = Policy(name, family, protocol, _changed(defaults, attrs["data"]))
        elif not request.replace:
            raise NetlinkError(errno.EBUSY)
        elif (known.family, known.protocol) != (family, protocol):
            raise NetlinkError(errno.EINVAL)
        else:
            known.timeouts = _changed(defaults, attrs["data"])

    def _get(self, request: Request, attrs: Attrs) -> Iterator[Message] | list[Message]:
        if request.dump:
            return [_shown(policy) for policy in self.named.values()]
        if "name" not in attrs:
            raise NetlinkError(errno.EINVAL)
        return [_shown(self._named(attrs["name"]))]

    def _delete(self, attrs: Attrs) -> None:
        if "name" not in attrs:
            self.named = {name: policy for name, policy in self.named.items() if policy.uses}
            return
        policy = self._named(attrs["name"])
        if policy.uses:
            raise NetlinkError(errno.EBUSY)
        del self.named[policy.name]

    def _set_default(self, attrs: Attrs) -> None:
        if any(name not in attrs for name in ("l3proto", "l4proto", "data")):
            raise NetlinkError(errno.EINVAL)
        defaults = self._of(attrs["l4proto"])
        self.set_default(attrs["l4proto"], _changed(defaults, attrs["data"]))

    def _default(self, attrs: Attrs) -> Message:
        if "l3proto" not in attrs or "l4proto" not in attrs:
            raise NetlinkError(errno.EINVAL)
        protocol = attrs["l4proto"]
        values = {"l3proto": attrs["l3proto"], "l4proto": protocol, "data": _nest(self._of(protocol))}
        return Message(TIMEOUT_DEFAULT_SET, TIMEOUT.encode(Nfgenmsg(), values), NLM_F_MULTI)

    def _named(self, name: str) -> Policy:
        policy = self.named.get(name)
        if policy is None:
            raise NetlinkError(errno.ENOENT)
        return policy

    def _of(self, protocol: int) -> Timeouts:
        defaults = self.defaults.get(protocol)
        if defaults is None:
            raise NetlinkError(errno.EOPNOTSUPP)
        return defaults


def _check_name(attrs: Attrs) -> None:
    """NLA_NUL_STRING of at most 31 letters."""
    name = attrs.get("name")
    if name is not None and (len(name.encode(errors="surrogateescape")) >= NAME_MAX or _unended(name)):
        raise NetlinkError(errno.EINVAL, "Attribute failed policy validation")


def _unended(name: str) -> bool:
    return isinstance(name, RawString) and b"\0" not in name.raw


def _changed(defaults: Timeouts, raw: bytes) -> Timeouts:
    """The timeouts that the nest *raw* gives, and *defaults* for the others."""
    given = nests.decoded(timeouts(len(defaults)), raw)
    return tuple(given.get(str(number), usual) for number, usual in enumerate(defaults, 1))


def _nest(values: Timeouts) -> bytes:
    return timeouts(len(values)).encode({str(number): value for number, value in enumerate(values, 1)})


def _shown(policy: Policy) -> Message:
    attrs = {
        "name": policy.name,
        "l3proto": policy.family,
        "l4proto": policy.protocol,
        "use": policy.uses + 1,
        "data": _nest(policy.timeouts),
    }
    return Message(TIMEOUT_NEW, TIMEOUT.encode(Nfgenmsg(), attrs), NLM_F_MULTI)
