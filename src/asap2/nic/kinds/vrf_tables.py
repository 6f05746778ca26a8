# SPDX-License-Identifier: Apache-2.0
"""The routes and rules that make a VRF of devices and tables (rtnetlink(7), ip-rule(8)).

The kernel's own VRF devices have hooks in its IP stack. Without them a VRF is rules, which send what comes in by its
ports, goes out by them, or belongs to a socket bound to it, to its tables. It has two: the one that its user named, and
a *mirror* of it, in which each route leads to the VRF's device. The kernel insists that a route of a socket that is
bound to a device leads to that device; from there the VRF's program sends the packet on by the user's table.

Sources: drivers/net/vrf.c, net/ipv4/fib_frontend.c, include/uapi/linux/{rtnetlink,fib_rules}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from asap2.netlink.client import Connection
from asap2.netlink.wire import (
    NLA_F_NESTED,
    NLA_TYPE_MASK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkError,
    attribute,
    attributes,
)

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS = 1, 4, 5, 6, 7, 8
RTA_CACHEINFO, RTA_TABLE = 12, 15
RTAX_MTU = 2
RTN_UNICAST, RTN_LOCAL, RTN_BROADCAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 1, 2, 3, 6, 7, 8
RT_TABLE_MAIN, RT_TABLE_LOCAL, RT_TABLE_COMPAT = 254, 255, 252
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTPROT_KERNEL, RTPROT_RA = 2, 9
RTNH_F_ONLINK = 4
RTM_F_CLONED = 0x200
FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_TABLE, FRA_OIFNAME, FRA_PROTOCOL = 2, 3, 6, 15, 17, 21
FR_ACT_TO_TBL = 1

PRIORITY: Final = 1000
"""Of the rules: that of the kernel's rule for its own VRF devices (FIB_RULE_PREF in vrf.c)."""
PROTOCOL: Final = 0xA2
"""Who made a rule or a route (RTPROT_*), so that ours are known again; a number that rt_protos(5) leaves free."""
MIRRORS: Final = 0xA2F0_0000
"""The number of a VRF's mirror is this and its id."""
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_RULE: Final = struct.Struct("=BBBBBxxBI")
_U32: Final = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Route:
    """A route of one table: of ``struct rtmsg`` what tells routes apart, and its attributes but for the table."""

    family: int
    bits: int
    """Length of the destination's prefix."""
    tos: int
    protocol: int
    scope: int
    type: int
    flags: int
    attrs: tuple[tuple[int, bytes], ...]

    def get(self, kind: int) -> bytes:
        """An attribute; empty where there is none."""
        return dict(self.attrs).get(kind, b"")

    @property
    def oif(self) -> int:
        """The ifindex that it leads out of; 0: it names none, or several."""
        return int.from_bytes(self.get(RTA_OIF), sys.byteorder)

    @property
    def to(self) -> bytes:
        """The destination, as many octets as an address has."""
        return self.get(RTA_DST) or bytes(4 if self.family == socket.AF_INET else 16)


@dataclass(frozen=True, slots=True)
class Rule:
    """One of our rules: to ``table``, for packets in by ``iif``, out by ``oif`` (names), or from ``source``."""

    family: int
    table: int
    iif: str = ""
    oif: str = ""
    source: bytes = b""


@dataclass(frozen=True, slots=True)
class Vrf:
    """What is known of a VRF: names and MTUs of its ports by ifindex, the device itself among them."""

    table: int
    mirror: int
    device: int
    far: str
    """The name of the far end, as which its program looks for routes."""
    names: Mapping[int, str]
    mtus: Mapping[int, int]


def rules(vrf: Vrf, addresses: Iterable[Route]) -> set[Rule]:
    """The rules of a VRF whose own *addresses* have these local routes."""
    found = set()
    for family in _FAMILIES:
        found.add(Rule(family, vrf.table, iif=vrf.far))
        found.add(Rule(family, vrf.mirror, oif=vrf.names[vrf.device]))
        for ifindex, name in vrf.names.items():
            found.add(Rule(family, vrf.table, iif=name))
            if ifindex != vrf.device:
                found.add(Rule(family, vrf.table, oif=name))
    # Answers that no socket sends, as to a ping, name no device in IPv4. In IPv6 they do, and such a rule would let
    # programs in that are not bound to the VRF: the kernel looks again with a source that it has chosen.
    own = (route for route in addresses if route.family == socket.AF_INET)
    found |= {Rule(route.family, vrf.table, iif="lo", source=route.to) for route in own}
    return found


def _is_link_local(route: Route) -> bool:
    return route.family == socket.AF_INET6 and (
        route.to[0] == 0xFF or (route.to[:1] == b"\xfe" and route.to[1] >> 6 == 2)
    )


def addresses(local: Iterable[Route], vrf: Vrf) -> list[Route]:
    """Those of the table *local* that are the addresses of a VRF's ports, or of its device."""
    return [one for one in local if one.type == RTN_LOCAL and one.oif in vrf.names and not _is_link_local(one)]


def taken(main: Iterable[Route], local: Iterable[Route], vrf: Vrf) -> list[Route]:
    """What the kernel made for a port, in its usual tables, and would have made in the VRF's."""
    found = [
        one
        for one in main
        if one.oif in vrf.names and one.protocol in (RTPROT_KERNEL, RTPROT_RA) and not _is_link_local(one)
    ]
    broadcasts = [one for one in local if one.type == RTN_BROADCAST and one.oif in vrf.names]
    return [*found, *addresses(local, vrf), *broadcasts]


def stale(table: Iterable[Route], own: Iterable[Route], vrf: Vrf) -> list[Route]:
    """Routes that the VRF's *table* has from the kernel for addresses that its ports have no more: *own* are theirs."""
    there = {(one.family, one.to) for one in own}
    found = []
    for route in table:
        if route.protocol != RTPROT_KERNEL or route.oif not in vrf.names or _is_link_local(route):
            continue
        source = route.get(RTA_PREFSRC) or (route.to if route.type == RTN_LOCAL else b"")
        if source and (route.family, source) not in there:
            found.append(route)
    return found


def mirrored(table: Iterable[Route], own: list[Route], vrf: Vrf) -> set[Route]:
    """The mirror of *table*, in a VRF with its *own* addresses."""
    found = set()
    device = _U32.pack(vrf.device)
    for route in table:
        kept = tuple((kind, value) for kind, value in route.attrs if kind in (RTA_DST, RTA_PRIORITY))
        if route.type in (RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
            found.add(Route(route.family, route.bits, route.tos, PROTOCOL, RT_SCOPE_UNIVERSE, route.type, 0, kept))
            continue
        if route.type not in (RTN_UNICAST, RTN_LOCAL) or _is_link_local(route):
            continue
        source = route.get(RTA_PREFSRC) or _source(route, own, vrf)
        if route.type == RTN_LOCAL:
            source = route.to
        more = [(RTA_OIF, device)]
        if source:
            more.append((RTA_PREFSRC, source))
        if (mtu := vrf.mtus.get(route.oif, 0)) and route.oif != vrf.device:
            more.append((RTA_METRICS, attribute(RTAX_MTU, _U32.pack(mtu))))
        scope = RT_SCOPE_LINK if route.family == socket.AF_INET else RT_SCOPE_UNIVERSE
        found.add(
            Route(route.family, route.bits, route.tos, PROTOCOL, scope, RTN_UNICAST, 0, tuple(sorted([*kept, *more])))
        )
    return found


def _same(one: Route, other: Route) -> bool:
    """Whether two routes of two tables are the same, whatever metric the kernel has given them."""
    return (one.family, one.bits, one.to, one.type, one.oif) == (
        other.family,
        other.bits,
        other.to,
        other.type,
        other.oif,
    )


def _plain(route: Route) -> Route:
    """A route of a mirror without what the kernel has added."""
    kinds = {RTA_DST, RTA_PRIORITY}
    if route.type == RTN_UNICAST:
        kinds |= {RTA_OIF, RTA_PREFSRC, RTA_METRICS}
    return replace(route, flags=0, attrs=tuple(pair for pair in route.attrs if pair[0] in kinds))


def _source(route: Route, own: list[Route], vrf: Vrf) -> bytes:
    """inet_select_addr(): the address from which packets go by a *route* that names none."""
    same = [one for one in own if one.family == route.family]
    of_port = [one for one in same if one.oif == route.oif] or [one for one in same if one.oif == vrf.device] or same
    return of_port[0].to if of_port else b""


class Tables:
    """Routes and rules of the network namespace that it is made in. OSError."""

    def __init__(self) -> None:
        self._kernel = Connection()
        self._kernel.strict = True

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()

    def routes(self) -> dict[int, list[Route]]:
        """Every route, by table."""
        found: dict[int, list[Route]] = {}
        for family in _FAMILIES:
            for answer in self._kernel.request(RTM_GETROUTE, NLM_F_DUMP, _RTMSG.pack(family, *[0] * 8)):
                if answer.type != RTM_NEWROUTE:
                    continue
                _, bits, _src, tos, table, protocol, scope, type_, flags = _RTMSG.unpack_from(answer.payload)
                attrs = {kind & NLA_TYPE_MASK: value for kind, value in attributes(answer.payload, _RTMSG.size)}
                number = int.from_bytes(attrs.pop(RTA_TABLE, bytes([table])), sys.byteorder)
                attrs.pop(RTA_CACHEINFO, None)
                if flags & RTM_F_CLONED:
                    continue
                route = Route(
                    family, bits, tos, protocol, scope, type_, flags & RTNH_F_ONLINK, tuple(sorted(attrs.items()))
                )
                found.setdefault(number, []).append(route)
        return found

    def add(self, route: Route, table: int) -> None:
        """Have *route* in *table*, instead of one with the same destination and metric."""
        self._ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route, table)

    def remove(self, route: Route, table: int) -> None:
        """Have it there no more."""
        try:
            self._ask(RTM_DELROUTE, 0, route, table)
        except NetlinkError as error:
            if error.errno not in (errno.ESRCH, errno.ENOENT):
                raise

    def _ask(self, kind: int, flags: int, route: Route, table: int) -> None:
        header = _RTMSG.pack(
            *(route.family, route.bits, 0, route.tos, table if table < RT_TABLE_COMPAT else 0),
            *(route.protocol, route.scope, route.type, route.flags),
        )
        nested = {RTA_METRICS}
        body = b"".join(attribute(k | (NLA_F_NESTED if k in nested else 0), value) for k, value in route.attrs)
        self._kernel.request(kind, flags, header + body + attribute(RTA_TABLE, _U32.pack(table)))

    def rules(self) -> set[Rule]:
        """Those that are ours."""
        found = set()
        for family in _FAMILIES:
            for answer in self._kernel.request(RTM_GETRULE, NLM_F_DUMP, _RULE.pack(family, *[0] * 6)):
                attrs = {kind & NLA_TYPE_MASK: value for kind, value in attributes(answer.payload, _RULE.size)}
                if answer.type == RTM_NEWRULE and attrs.get(FRA_PROTOCOL) == bytes([PROTOCOL]):
                    (table,) = _U32.unpack(attrs[FRA_TABLE])
                    iif, oif = (
                        attrs.get(name, b"").rstrip(b"\0").decode(errors="surrogateescape")
                        for name in (FRA_IIFNAME, FRA_OIFNAME)
                    )
                    found.add(Rule(family, table, iif, oif, attrs.get(FRA_SRC, b"")))
        return found

    def add_rule(self, rule: Rule) -> None:
        """Have *rule*."""
        self._ask_rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule)

    def remove_rule(self, rule: Rule) -> None:
        """Have it no more."""
        self._ask_rule(RTM_DELRULE, 0, rule)

    def _ask_rule(self, kind: int, flags: int, rule: Rule) -> None:
        body = _RULE.pack(rule.family, 0, 8 * len(rule.source), 0, 0, FR_ACT_TO_TBL, 0)
        body += attribute(FRA_TABLE, _U32.pack(rule.table)) + attribute(FRA_PROTOCOL, bytes([PROTOCOL]))
        # behind the others: a socket that is bound has its own
        body += attribute(FRA_PRIORITY, _U32.pack(PRIORITY + bool(rule.source)))
        for name, value in ((FRA_IIFNAME, rule.iif), (FRA_OIFNAME, rule.oif)):
            if value:
                body += attribute(name, value.encode(errors="surrogateescape") + b"\0")
        if rule.source:
            body += attribute(FRA_SRC, rule.source)
        self._kernel.request(kind, flags, body)


class Space(Protocol):
    """What :func:`settle` needs of a network namespace: see :class:`Tables`."""

    def routes(self) -> dict[int, list[Route]]: ...

    def rules(self) -> set[Rule]: ...

    def add(self, route: Route, table: int) -> None: ...

    def remove(self, route: Route, table: int) -> None: ...

    def add_rule(self, rule: Rule) -> None: ...

    def remove_rule(self, rule: Rule) -> None: ...


def leave(tables: Space, table: int, ifindex: int) -> None:
    """Take out of a VRF's *table* what the kernel made for a port that leaves it. NetlinkError."""
    for route in tables.routes().get(table, []):
        if route.oif == ifindex and route.protocol == RTPROT_KERNEL:
            tables.remove(route, table)


def settle(tables: Space, vrfs: Iterable[Vrf]) -> list[str]:
    """Make routes and rules of a network namespace what its *vrfs*, all of them, want; what the kernel refused."""
    there = tables.routes()
    local, main = there.get(RT_TABLE_LOCAL, []), there.get(RT_TABLE_MAIN, [])
    wanted_rules: set[Rule] = set()
    wanted_mirrors: dict[int, set[Route]] = {number: set() for number in there if number & ~0xFFFFF == MIRRORS}
    errors: list[str] = []

    def attempt(what: str, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except NetlinkError as error:
            errors.append(f"{what}: {error}")

    for vrf in vrfs:
        own = addresses(local, vrf)
        table = list(there.get(vrf.table, []))
        for route in stale(table, own, vrf):
            table.remove(route)
            attempt("an old route", tables.remove, route, vrf.table)
        for route in taken(main, local, vrf):
            if not any(_same(route, one) for one in table):
                table.append(route)
                attempt("a port's route", tables.add, route, vrf.table)
            if route in main:
                attempt("a port's route", tables.remove, route, RT_TABLE_MAIN)
        wanted_mirrors[vrf.mirror] = mirrored(table, own, vrf)
        wanted_rules |= rules(vrf, own)
    for number, wanted in wanted_mirrors.items():
        has = {_plain(route) for route in there.get(number, [])}
        for route in has - wanted:
            attempt("a mirrored route", tables.remove, route, number)
        for route in sorted(wanted - has, key=lambda one: -one.bits):
            attempt("a mirrored route", tables.add, route, number)
    has_rules = tables.rules()
    for rule in has_rules - wanted_rules:
        attempt("a rule", tables.remove_rule, rule)
    for rule in wanted_rules - has_rules:
        attempt("a rule", tables.add_rule, rule)
    return errors
