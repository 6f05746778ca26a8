# SPDX-License-Identifier: Apache-2.0
"""What a VRF takes of a host's routes, and what its mirror has."""

from __future__ import annotations

import socket
import struct

from asap2.netlink.wire import attribute
from asap2.nic.kinds import vrf_tables as t

VRF = t.Vrf(10, t.MIRRORS + 1, 9, "a2far00000001", {9: "red", 3: "eth0"}, {9: 65535, 3: 1500})
HOST = socket.inet_aton("10.0.0.1")


def _route(
    to: str, bits: int, oif: int, type_: int = t.RTN_UNICAST, protocol: int = t.RTPROT_KERNEL, source: bytes = b""
) -> t.Route:
    attrs = [(t.RTA_DST, socket.inet_aton(to))] if bits else []
    if oif:
        attrs.append((t.RTA_OIF, struct.pack("=I", oif)))
    if source:
        attrs.append((t.RTA_PREFSRC, source))
    return t.Route(socket.AF_INET, bits, 0, protocol, 0, type_, 0, tuple(sorted(attrs)))


LOCAL = [_route("10.0.0.1", 32, 3, t.RTN_LOCAL, source=HOST), _route("10.0.1.1", 32, 4, t.RTN_LOCAL)]
CONNECTED = _route("10.0.0.0", 24, 3, source=HOST)


def test_a_vrf_takes_what_the_kernel_made_for_its_ports_and_nothing_else() -> None:
    typed = _route("10.8.0.0", 16, 3, protocol=4)
    other = _route("10.0.1.0", 24, 4)
    broadcast = _route("10.0.0.255", 32, 3, t.RTN_BROADCAST)
    assert t.taken([CONNECTED, typed, other], [*LOCAL, broadcast], VRF) == [CONNECTED, LOCAL[0], broadcast]


def test_link_local_routes_stay_where_they_are() -> None:
    attrs = ((t.RTA_DST, socket.inet_pton(socket.AF_INET6, "fe80::")), (t.RTA_OIF, struct.pack("=I", 3)))
    assert t.taken([t.Route(socket.AF_INET6, 64, 0, t.RTPROT_KERNEL, 0, t.RTN_UNICAST, 0, attrs)], [], VRF) == []


def test_routes_of_an_address_that_has_gone_are_stale_and_those_of_users_are_not() -> None:
    own = t.addresses(LOCAL, VRF)
    gone = _route("10.2.0.0", 24, 3, source=socket.inet_aton("10.2.0.1"))
    typed = _route("10.3.0.0", 24, 3, protocol=4, source=socket.inet_aton("10.2.0.1"))
    assert t.stale([CONNECTED, gone, typed, LOCAL[0]], own, VRF) == [gone]


def test_each_route_of_the_mirror_leads_to_the_device_with_the_source_and_mtu_of_the_port() -> None:
    default = t.Route(
        *(socket.AF_INET, 0, 0, 4, 0, t.RTN_UNICAST, 0),
        ((t.RTA_OIF, struct.pack("=I", 3)), (t.RTA_GATEWAY, socket.inet_aton("10.0.0.9"))),
    )
    (found,) = t.mirrored([default], t.addresses(LOCAL, VRF), VRF)
    assert (found.oif, found.get(t.RTA_PREFSRC), found.get(t.RTA_GATEWAY)) == (9, HOST, b"")
    assert found.get(t.RTA_METRICS) == attribute(t.RTAX_MTU, struct.pack("=I", 1500))


def test_a_refusal_is_mirrored_as_a_refusal() -> None:
    (found,) = t.mirrored([_route("0.0.0.0", 0, 0, t.RTN_UNREACHABLE, 4)], [], VRF)
    assert (found.type, found.oif) == (t.RTN_UNREACHABLE, 0)


def test_a_vrf_has_rules_for_its_ports_and_both_ends_of_its_device_and_for_answers_that_no_socket_sends() -> None:
    rules = {rule for rule in t.rules(VRF, t.addresses(LOCAL, VRF)) if rule.family == socket.AF_INET}
    assert rules == {
        t.Rule(socket.AF_INET, 10, iif="a2far00000001"),
        t.Rule(socket.AF_INET, VRF.mirror, oif="red"),
        t.Rule(socket.AF_INET, 10, iif="red"),
        t.Rule(socket.AF_INET, 10, iif="eth0"),
        t.Rule(socket.AF_INET, 10, oif="eth0"),
        t.Rule(socket.AF_INET, 10, iif="lo", source=HOST),
    }


class _Kernel:
    """A namespace whose kernel has routes and rules, and counts what is asked of it."""

    def __init__(self, tables: dict[int, list[t.Route]]) -> None:
        self.tables, self.has_rules, self.asked = tables, set[t.Rule](), 0

    def routes(self) -> dict[int, list[t.Route]]:
        return {table: list(routes) for table, routes in self.tables.items()}

    def rules(self) -> set[t.Rule]:
        return set(self.has_rules)

    def add(self, route: t.Route, table: int) -> None:
        self.asked += 1
        self.tables.setdefault(table, []).append(route)

    def remove(self, route: t.Route, table: int) -> None:
        self.asked += 1
        self.tables[table].remove(route)

    def add_rule(self, rule: t.Rule) -> None:
        self.asked += 1
        self.has_rules.add(rule)

    def remove_rule(self, rule: t.Rule) -> None:
        self.asked += 1
        self.has_rules.remove(rule)


def test_once_all_is_settled_nothing_is_asked_of_the_kernel_again_and_a_vrf_that_goes_takes_its_own() -> None:
    kernel = _Kernel({t.RT_TABLE_MAIN: [CONNECTED], t.RT_TABLE_LOCAL: list(LOCAL)})
    assert t.settle(kernel, [VRF]) == []
    assert kernel.tables[t.RT_TABLE_MAIN] == []
    assert CONNECTED in kernel.tables[10]
    asked = kernel.asked
    t.settle(kernel, [VRF])
    assert kernel.asked == asked
    t.settle(kernel, [])
    assert kernel.tables[VRF.mirror] == []
    assert kernel.has_rules == set()
