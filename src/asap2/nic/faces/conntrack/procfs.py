# SPDX-License-Identifier: Apache-2.0
"""A node's connections as files of /proc: net/nf_conntrack, net/stat/nf_conntrack and sys/net/netfilter/nf_conntrack_*.

Source: net/netfilter/nf_conntrack_standalone.c of Linux 6.12.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator

from asap2.nic.conntrack.states import Status
from asap2.nic.conntrack.view import (
    PROTOCOLS_WITH_PORTS,
    SETTINGS,
    Connection,
    Connections,
    Counters,
    Statistics,
    Tuple,
)
from asap2.nic.faces.conntrack.face import ConntrackFace
from asap2.nic.faces.conntrack.policies import Store
from asap2.nic.faces.sysfs.tree import Attribute
from asap2.nic.silicon.timeouts import DEFAULTS, GENERIC, Timeouts

_FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
_PROTOCOLS = {
    socket.IPPROTO_TCP: "tcp",
    socket.IPPROTO_UDP: "udp",
    socket.IPPROTO_ICMP: "icmp",
    socket.IPPROTO_ICMPV6: "icmpv6",
    socket.IPPROTO_SCTP: "sctp",
    socket.IPPROTO_GRE: "gre",
    136: "udplite",
}
_TCP = (
    *("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"),
    "SYN_SENT2",
)
_SCTP = (
    *("NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD"),
    *("SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"),
)
_TIMEOUTS = {
    "generic_timeout": (GENERIC, 0),
    "gre_timeout": (socket.IPPROTO_GRE, 0),
    "gre_timeout_stream": (socket.IPPROTO_GRE, 1),
    "icmp_timeout": (socket.IPPROTO_ICMP, 0),
    "icmpv6_timeout": (socket.IPPROTO_ICMPV6, 0),
    "udp_timeout": (socket.IPPROTO_UDP, 0),
    "udp_timeout_stream": (socket.IPPROTO_UDP, 1),
    **{f"sctp_timeout_{name.lower()}": (socket.IPPROTO_SCTP, place) for place, name in enumerate(_SCTP[1:])},
    **{
        f"tcp_timeout_{name.lower()}": (socket.IPPROTO_TCP, place)
        for place, name in enumerate((*_TCP[1:], "MAX_RETRANS", "UNACKNOWLEDGED"))
        if name != "SYN_SENT2"
    },
}
"""For each sysctl, the protocol and the index of its timeout (timeouts.DEFAULTS)."""
_STAT = (
    "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  "
    "expect_new expect_create expect_delete search_restart\n"
)


def files(face: ConntrackFace) -> dict[str, Attribute]:
    """The files by their path below /proc."""
    connections = face.connections
    sysctls = {
        **{name: _setting(connections, name, most) for name, most in SETTINGS.items()},
        "count": _number(connections.count),
        "max": _number(lambda: connections.limit, lambda value: setattr(connections, "limit", value)),
        "buckets": _number(lambda: connections.limit),
        "expect_max": _number(lambda: 4096),
        **{name: _timeout(face.policies.store, *which) for name, which in _TIMEOUTS.items()},
    }
    return {
        "net/nf_conntrack": Attribute(lambda: "".join(_lines(face)), alone=True),
        "net/stat/nf_conntrack": Attribute(lambda: _STAT + "".join(_statistics(face))),
        **{f"sys/net/netfilter/nf_conntrack_{name}": attribute for name, attribute in sysctls.items()},
    }


def timeouts_of(store: Store, protocol: int) -> Timeouts:
    """The timeouts, in seconds, of connections of *protocol* without a policy."""
    return store.defaults(protocol) or DEFAULTS[protocol]


def _lines(face: ConntrackFace) -> Iterator[str]:
    gre = timeouts_of(face.policies.store, socket.IPPROTO_GRE)
    for connection in face.connections:
        yield line(face.seen(connection), gre)


def line(c: Connection, gre: tuple[int, ...] = DEFAULTS[socket.IPPROTO_GRE]) -> str:
    """A connection's line of /proc/net/nf_conntrack (ct_seq_show()); a GRE line shows the timeouts *gre*."""
    family, protocol = c.original.family, c.original.protocol
    parts = [
        f"{_FAMILIES[socket.AddressFamily(family)]:<8} {family} {_PROTOCOLS.get(protocol, 'unknown'):<8} {protocol}"
    ]
    if not c.status & Status.OFFLOAD:
        parts.append(str(c.timeout))
        if c.tcp is not None:
            parts.append(_TCP[c.tcp.state])
        if c.sctp is not None:
            parts.append(_SCTP[c.sctp.state])
        if protocol == socket.IPPROTO_GRE:
            parts.append(f"timeout={gre[0]}, stream_timeout={gre[1]}")
    original, reply = c.counters or (None, None)
    parts += [*_way(c.original), *_counted(original)]
    if not c.status & Status.SEEN_REPLY:
        parts.append("[UNREPLIED]")
    parts += [*_way(c.reply), *_counted(reply)]
    if c.status & Status.HW_OFFLOAD:
        parts.append("[HW_OFFLOAD]")
    elif c.status & Status.OFFLOAD:
        parts.append("[OFFLOAD]")
    elif c.status & Status.ASSURED:
        parts.append("[ASSURED]")
    return " ".join((*parts, f"mark={c.mark} zone={c.zone} use=2\n"))


def _way(one: Tuple) -> Iterator[str]:
    if one.family == socket.AF_INET:
        yield f"src={socket.inet_ntop(socket.AF_INET, one.src)} dst={socket.inet_ntop(socket.AF_INET, one.dst)}"
    else:
        yield f"src={one.src.hex(':', 2)} dst={one.dst.hex(':', 2)}"
    if one.protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
        yield f"type={one.dst_port >> 8} code={one.dst_port & 0xFF} id={one.src_port}"
    elif one.protocol == socket.IPPROTO_GRE:
        yield f"srckey=0x{one.src_port:x} dstkey=0x{one.dst_port:x}"
    elif one.protocol in PROTOCOLS_WITH_PORTS:
        yield f"sport={one.src_port} dport={one.dst_port}"


def _counted(counters: Counters | None) -> Iterator[str]:
    if counters is not None:
        yield f"packets={counters.packets} bytes={counters.octets}"


def _statistics(face: ConntrackFace) -> Iterator[str]:
    """A line of each CPU (ct_cpu_seq_show()); columns that count nothing any more are 0."""
    entries = face.connections.count()
    for one in face.connections.statistics():
        yield _stat_line(entries, one)


def _stat_line(entries: int, s: Statistics) -> str:
    before = (entries, s.clash_resolve, s.found, 0, s.invalid, 0, 0, s.chain_toolong)
    after = (s.insert, s.insert_failed, s.drop, s.early_drop, s.error)
    first, *rest = (f"{value & 0xFFFFFFFF:08x}" for value in (*before, *after))
    zero = f"{0:08x}"
    return f"{first}  {' '.join(rest)}  {zero} {zero} {zero} {s.search_restart & 0xFFFFFFFF:08x}\n"


def _number(show: Callable[[], int], store: Callable[[int], None] | None = None) -> Attribute:
    """A sysctl that holds a number (proc_dointvec())."""

    def write(text: bytes) -> None:
        assert store is not None
        store(_parsed(text))

    return Attribute(lambda: f"{show()}\n", write if store is not None else None)


def _setting(connections: Connections, name: str, most: int) -> Attribute:
    """A sysctl with a largest value (proc_dou8vec_minmax())."""

    def write(value: int) -> None:
        if value > most:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        connections.set(name, value)

    return _number(lambda: connections.setting(name), write)


def _timeout(store: Store, protocol: int, place: int) -> Attribute:
    def write(seconds: int) -> None:
        timeouts = list(timeouts_of(store, protocol))
        timeouts[place] = seconds
        store.set_defaults(protocol, tuple(timeouts))

    return _number(lambda: timeouts_of(store, protocol)[place], write)


def _parsed(text: bytes) -> int:
    word = text.strip(b" \t\n\0")
    if not word.isdigit() or int(word) > 0x7FFFFFFF:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return int(word)
