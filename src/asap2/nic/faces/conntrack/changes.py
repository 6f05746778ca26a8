# SPDX-License-Identifier: Apache-2.0
"""What a request changes about a connection, or creates: ctnetlink_change_conntrack(), ctnetlink_create_conntrack()."""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import replace

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.ctnetlink import HELP, LABELS_SIZE, PROTOINFO
from asap2.netlink.wire import NetlinkError
from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import Change, Connection, Sctp, Tcp, Tuple
from asap2.nic.faces.conntrack import nests

_UNCHANGEABLE = (
    Status.SRC_NAT_DONE | Status.DST_NAT_DONE | Status.SRC_NAT | Status.DST_NAT
    | Status.EXPECTED | Status.CONFIRMED | Status.DYING | Status.SEQ_ADJUST
    | Status.TEMPLATE | Status.NAT_CLASH | Status.OFFLOAD | Status.HW_OFFLOAD
)  # fmt: skip
"""IPS_UNCHANGEABLE_MASK."""
HELPERS = frozenset({("ftp", socket.IPPROTO_TCP), ("tftp", socket.IPPROTO_UDP)})
"""The helpers that there are, by name and protocol."""
_ONLY_SET = Status.SEEN_REPLY | Status.ASSURED
_TCP_STATES = 14
"""TCP_CONNTRACK_TIMEOUT_MAX."""
_LONGEST = 0x7FFFFFFF
"""The longest timeout, in ticks of 1/HZ."""
_HZ = 250
"""CONFIG_HZ of Debian's kernels."""


def changed(connection: Connection, attrs: Attrs) -> Change:
    """The change to *connection* that a request asks for.

    Raises:
        NetlinkError: EOPNOTSUPP for NAT, a master or a new helper; EPERM for a fixed timeout; EBUSY for a status bit or
            helper that cannot be changed; EINVAL or ERANGE for an invalid value.
    """
    if any(name in attrs for name in ("nat_src", "nat_dst", "tuple_master")):
        raise NetlinkError(errno.EOPNOTSUPP)
    if "help" in attrs:
        _check_helper(connection, attrs)
    timeout = _timeout(attrs)
    if timeout is not None and connection.status & Status.FIXED_TIMEOUT:
        raise NetlinkError(errno.EPERM)
    status = _status(connection, attrs)
    tcp, sctp = _protoinfo(connection, attrs)
    return Change(timeout, status, _mark(connection, attrs), _labels(connection, attrs), tcp, sctp)


def created(attrs: Attrs, original: Tuple, reply: Tuple, zone: int) -> Connection:
    """The connection that a request creates, before NAT and without its master.

    Raises:
        NetlinkError: EINVAL without a timeout; EOPNOTSUPP for a helper that there is none of; as :func:`changed`.
    """
    timeout = _timeout(attrs)
    if timeout is None:
        raise NetlinkError(errno.EINVAL)
    helper = ""
    if "help" in attrs:
        helper = nests.needed(nests.decoded(HELP, attrs["help"]), "name")
        if (helper, original.protocol) not in HELPERS:
            raise NetlinkError(errno.EOPNOTSUPP)
    tcp = Tcp(0) if original.protocol == socket.IPPROTO_TCP else None
    sctp = Sctp(0) if original.protocol == socket.IPPROTO_SCTP else None
    known = Status.CONFIRMED | Status.HELPER if helper else Status.CONFIRMED
    new = Connection(0, original, reply, zone, int(known), timeout, tcp=tcp, sctp=sctp, helper=helper)
    tcp, sctp = _protoinfo(new, attrs)
    status = _status(new, attrs)
    return replace(
        new,
        status=new.status if status is None else status,
        mark=_mark(new, attrs) or 0,
        labels=_labels(new, attrs) or new.labels,
        tcp=tcp or new.tcp,
        sctp=sctp or new.sctp,
        started=time.time_ns(),
    )


def _check_helper(connection: Connection, attrs: Attrs) -> None:
    """Refuse to set a helper: a request may only repeat the one that the connection has."""
    name = nests.needed(nests.decoded(HELP, attrs["help"]), "name")
    if connection.master is not None:
        if name != connection.helper or not name:
            raise NetlinkError(errno.EBUSY)
    elif name and name != connection.helper:
        raise NetlinkError(errno.EBUSY if connection.helper else errno.EOPNOTSUPP)


def _timeout(attrs: Attrs) -> int | None:
    timeout: int | None = attrs.get("timeout")
    return None if timeout is None else min(timeout, _LONGEST // _HZ)


def _status(connection: Connection, attrs: Attrs) -> int | None:
    wanted: int | None = attrs.get("status")
    if wanted is None:
        return None
    different = connection.status ^ wanted
    if different & (Status.EXPECTED | Status.CONFIRMED | Status.DYING):
        raise NetlinkError(errno.EBUSY)
    if different & _ONLY_SET & ~wanted:
        raise NetlinkError(errno.EBUSY)
    return connection.status | wanted & ~int(_UNCHANGEABLE)


def _protoinfo(connection: Connection, attrs: Attrs) -> tuple[Tcp | None, Sctp | None]:
    if "protoinfo" not in attrs:
        return None, None
    info = nests.decoded(PROTOINFO, attrs["protoinfo"])
    tcp, sctp = connection.tcp, connection.sctp
    if tcp is not None and "tcp" in info:
        given = info["tcp"]
        state = given.get("state", tcp.state)
        if state >= _TCP_STATES:
            raise NetlinkError(errno.EINVAL)
        flags = list(tcp.flags)
        for way, name in enumerate(("flags_original", "flags_reply")):
            if name in given:
                flags[way] = flags[way] & ~given[name].mask | given[name].flags & given[name].mask
        scales = (given.get("wscale_original"), given.get("wscale_reply"))
        known = None not in scales
        return Tcp(state, scales if known else tcp.wscale, (flags[0], flags[1])), None
    if sctp is not None and "sctp" in info:
        given = info["sctp"]
        state, original, reply = nests.all_needed(given, "state", "vtag_original", "vtag_reply")
        return None, Sctp(state, (original, reply))
    return None, None


def _mark(connection: Connection, attrs: Attrs) -> int | None:
    mark: int | None = attrs.get("mark")
    if mark is None:
        return None
    kept: int = ~attrs.get("mark_mask", 0xFFFFFFFF) & 0xFFFFFFFF
    return connection.mark & kept ^ mark


def _labels(connection: Connection, attrs: Attrs) -> bytes | None:
    labels: bytes | None = attrs.get("labels")
    if labels is None:
        return None
    if len(labels) > LABELS_SIZE:
        raise NetlinkError(errno.ERANGE)
    mask: bytes | None = attrs.get("labels_mask")
    if len(labels) % 4 or (mask is not None and (not mask or len(mask) != len(labels))):
        raise NetlinkError(errno.EINVAL)
    kept = bytes(len(labels)) if mask is None else bytes(~octet & 0xFF for octet in mask)
    new = bytes(old & keep ^ set_ for old, keep, set_ in zip(connection.labels, kept, labels, strict=False))
    return new + bytes(LABELS_SIZE - len(new)) if mask is None else new + connection.labels[len(new) :]
