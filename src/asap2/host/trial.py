# SPDX-License-Identifier: Apache-2.0
"""Find out which rules a NIC accepts by trying them: flower rules are added with skip_sw and removed at once.

The rules match on a destination MAC that nobody has, at the last priority that is free, so that no packet meets them.
They need an ingress qdisc, which Open vSwitch makes on its ports; none is made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asap2.host.inventory import Host, Netdev, Pf, Trial
from asap2.host.kernel import tc
from asap2.netlink.client import Connection
from asap2.netlink.tables.actions import (
    TC_ACT_PIPE,
    TC_ACT_SHOT,
    TC_ACT_STOLEN,
    TCA_EGRESS_REDIR,
    TCA_VLAN_ACT_POP,
    TCA_VLAN_ACT_PUSH,
    Generic,
    Mirred,
    Vlan,
)
from asap2.netlink.wire import NETLINK_ROUTE

IPV4, VLAN = 0x0800, 0x8100
"""Ethernet protocols (IEEE 802 Numbers)."""
NOBODY = bytes.fromhex("06a5a2000000")
"""A locally administered MAC for rules that must match nothing."""
VLAN_ID = 4094


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule to try: ``flower`` is of asap2.netlink.tables.flower.FLOWER, ``protocol`` an Ethernet protocol."""

    name: str
    netdev: Netdev
    flower: Mapping[str, Any]
    protocol: int = IPV4


def drop() -> dict[str, Any]:
    """The action that drops."""
    return {"kind": "gact", "options": {"parms": Generic(action=TC_ACT_SHOT)}}


def redirect(netdev: Netdev) -> dict[str, Any]:
    """The action that sends out of *netdev*."""
    return {
        "kind": "mirred",
        "options": {"parms": Mirred(action=TC_ACT_STOLEN, eaction=TCA_EGRESS_REDIR, ifindex=netdev.index)},
    }


def push_vlan(vlan: int) -> dict[str, Any]:
    """The action that tags."""
    parms = Vlan(action=TC_ACT_PIPE, v_action=TCA_VLAN_ACT_PUSH)
    return {"kind": "vlan", "options": {"parms": parms, "push_vlan_id": vlan, "push_vlan_protocol": VLAN}}


def pop_vlan() -> dict[str, Any]:
    """The action that takes the tag off."""
    return {"kind": "vlan", "options": {"parms": Vlan(action=TC_ACT_PIPE, v_action=TCA_VLAN_ACT_POP)}}


def flower(*actions: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Flower's options: IPv4 packets to nobody that have *keys*, and what is done with them."""
    match = {"key_eth_dst": NOBODY, "key_eth_dst_mask": b"\xff" * 6, "key_eth_type": IPV4, **keys}
    return {"act": list(actions), **match}


def rules(host: Host, pf: Pf) -> Iterator[Rule]:
    """The rules that show what *pf*'s eSwitch takes: to drop, and between VF and wire with and without a tag. A block
    that a bond shares with its ports takes none in hardware alone (skip_sw), because the bond itself is in none."""
    uplink = host.uplink(pf)
    own = uplink is not None and (qdisc := host.qdisc(uplink.name)) is not None and not qdisc.block
    representors = [netdev for _, netdev in host.representors(pf) if host.qdisc(netdev.name)]
    if uplink is None or not pf.switchdev:
        return
    for netdev in [*representors[:1], *([uplink] if own else [])]:
        yield Rule("drop", netdev, flower(drop()))
    if representors:
        one = representors[0]
        yield Rule("forward", one, flower(redirect(uplink)))
        yield Rule("vlan push", one, flower(push_vlan(VLAN_ID), redirect(uplink)))
        if own:
            keys = {"key_eth_type": VLAN, "key_vlan_id": VLAN_ID, "key_vlan_eth_type": IPV4}
            yield Rule("vlan pop", uplink, flower(pop_vlan(), redirect(one), **keys), VLAN)


def attempt(route: Connection, rule: Rule) -> Trial:
    """Try one rule; the device's qdisc must be there."""
    row = next((row for row in tc.qdiscs(route) if row.index == rule.netdev.index), None)
    if row is None:
        return Trial(rule.netdev.name, rule.name, "there is no ingress qdisc")
    error = tc.try_rule(route, row, rule.flower, rule.protocol)
    return Trial(rule.netdev.name, rule.name, None if error is None else error.text or error.strerror)


def attempt_all(host: Host, pfs: tuple[Pf, ...]) -> tuple[Trial, ...]:
    """Try :func:`rules` on the eSwitches of *pfs*."""
    found = [rule for pf in pfs for rule in rules(host, pf)]
    if not found:
        return ()
    with Connection(NETLINK_ROUTE) as route:
        return tuple(attempt(route, rule) for rule in found)
