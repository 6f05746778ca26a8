# SPDX-License-Identifier: Apache-2.0
"""Why none of the rules was for a packet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from asap2.nic.rules import Masked, Match, Output, Rule
from asap2.nic.silicon import abi
from asap2.nic.silicon.watching import Record
from asap2.trace.known_rules import KnownRules
from asap2.trace.node import NodeWatch, PortOf
from tests.unit.trace.frames import echo

PORT = PortOf("nic0", 7, "p0", "UPLINK", None, 0, (0,), "DROP")
MISSED = Record(100, 1, 0, abi.EVENT_NO_MATCH, 0, 0, 0x21 << 48, 98, 0, 0, b"")


def rule(match: Match, port: int = 7) -> Rule:
    """A rule of the first table."""
    return Rule(0, port, 1, match, (Output(5),))


def why(rules: dict[int, Rule], left: set[int], *, whole: bool = True) -> str:
    """Why an echo request missed *rules*, of which those *left* are still there."""
    node = cast(
        NodeWatch, SimpleNamespace(name="hv1", rule=lambda _nic, handle: rules[handle] if handle in left else None)
    )
    known = KnownRules()
    known.know(node, "nic0", rules, whole=whole)
    return known.why_not(node, PORT, MISSED, echo(8, 1))


IPV4 = Masked(0x0800, 0xFFFF)
TCP = Match(eth_type=IPV4, ip_proto=Masked(6, 0xFF))
UDP_BY_ROUTERS = Match(eth_type=IPV4, ip_proto=Masked(17, 0xFF), ip_ttl=Masked(1, 0xFF))


def test_the_rule_that_differs_least_is_named_with_what_it_wants() -> None:
    assert why({1: rule(TCP)}, {1}) == "the one rule in chain 0 wants ip_proto TCP"
    both = {1: rule(UDP_BY_ROUTERS), 2: rule(TCP), 3: rule(Match(), port=8)}
    assert why(both, {1, 2}) == "the nearest of 2 rules in chain 0 wants ip_proto TCP"


def test_a_rule_that_matched_and_was_removed_is_none_any_more() -> None:
    gone = {1: rule(Match(eth_type=IPV4)), 2: rule(TCP)}
    assert why(gone, {2}) == "the one rule in chain 0 wants ip_proto TCP"
    assert why({1: gone[1]}, set()) == "the NIC has no rule for packets of this port in chain 0"
    assert why({1: gone[1]}, set(), whole=False) == "none of the rules of the NIC in chain 0 matches"


def test_a_rule_whose_octets_match_wants_what_they_do_not_show() -> None:
    tunnel = Match(eth_type=IPV4, tun_id=Masked(98, (1 << 32) - 1))
    assert why({1: rule(tunnel)}, {1}).startswith("the rule for such packets wants another connection, or a tunnel")
    tracked = Match(eth_type=IPV4, ct_state=Masked(2, 2))
    assert why({1: rule(tracked)}, {1}) == "the one rule in chain 0 wants ct_state +est"
