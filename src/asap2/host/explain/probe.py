# SPDX-License-Identifier: Apache-2.0
"""A flow's rule tried: in TC as Open vSwitch would put it in, and in the NIC alone; and what of it the NIC refuses.

A rule that is tried matches a MAC that nobody has, in the flow's own chain at a priority that is free, so no packet
meets it. It is taken out at once.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import struct
from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

from asap2.host import trial
from asap2.host.explain.flow import CT_STATES, Flow, parse
from asap2.host.explain.rule import Rule, rule
from asap2.host.explain.rule_actions import Device, UnbuildableError
from asap2.host.inventory import FlowTrial, Host
from asap2.host.kernel import tc
from asap2.netlink.client import Connection
from asap2.netlink.tables.actions import Police
from asap2.netlink.tables.flower import TCA_CLS_FLAGS_SKIP_HW, TCA_CLS_FLAGS_SKIP_SW
from asap2.netlink.wire import NETLINK_ROUTE, NetlinkError

POLICIES = {"skip_sw": TCA_CLS_FLAGS_SKIP_SW, "skip_hw": TCA_CLS_FLAGS_SKIP_HW}
NEEDED = ("key_eth_type", "key_vlan_eth_type", "key_cvlan_eth_type", "key_eth_dst", "key_ip_proto")
"""Keys that others rest on."""
VALUES = (*NEEDED, "key_flags", "key_ct_state", "act")
"""Options of which the value counts for what a NIC takes, not the mask alone."""
TC_NEW, TC_ESTABLISHED, TC_TRACKED, TC_INVALID, TC_REPLY = 1, 2, 8, 16, 32
"""TCA_FLOWER_KEY_CT_FLAGS_* (pkt_cls.h)."""
UNTRIED = -1
"""FlowTrial's error of a rule that could not be tried."""


def cookie_of(ufid: str) -> str:
    """The cookie, hexadecimal, of the TC filter of the flow with that id: its four words as they lie in memory."""
    digits = ufid.removeprefix("ufid:").replace("-", "")
    return struct.pack("=4I", *(int(digits[at : at + 8], 16) for at in range(0, 32, 8))).hex()


def try_flows(host: Host, flows: list[Flow]) -> tuple[FlowTrial, ...]:
    """Try the rules of *flows* on this machine, whose state *host* is."""
    if not flows:
        return ()
    with Connection(NETLINK_ROUTE) as route:
        prober = _Prober(route, host)
        return tuple(one for flow in flows for one in prober.trials(flow))


def tried(host: Host, flows: list[Flow]) -> Host:
    """*host* with what came of trying the rules of *flows* on this machine, and connection tracking in TC."""
    return dataclasses.replace(host, flow_trials=try_flows(host, flows), ct_states=ct_states(host) if flows else None)


def ct_states(host: Host) -> int | None:
    """The states of connection tracking that TC matches, tried as Open vSwitch does when it starts
    (probe_ct_state_support); None when there is no ingress qdisc to try it on."""
    with Connection(NETLINK_ROUTE) as route:
        ports = {one.index for one in host.netdevs if host.openvswitch.datapath_type(one.name) == ""}
        qdisc = next((row for row in tc.qdiscs(route) if row.index in ports), None)
        if qdisc is None:
            return None

        def takes(state: int) -> bool:
            options = trial.flower(trial.drop(), key_ct_state=state, key_ct_state_mask=state)
            return tc.try_rule(route, qdisc, options, trial.IPV4, flags=TCA_CLS_FLAGS_SKIP_HW) is None

        if not takes(TC_NEW | TC_TRACKED):
            return 0
        found = sum(CT_STATES[word] for word in ("new", "est", "rel", "trk"))
        if takes(0xFFFF) or not takes(TC_TRACKED | TC_INVALID):
            return found
        found |= CT_STATES["inv"]
        return found | (CT_STATES["rpl"] if takes(TC_TRACKED | TC_ESTABLISHED | TC_REPLY) else 0)


def not_offloaded(lines: tuple[str, ...]) -> list[Flow]:
    """The flows in the lines of a dump that are not in hardware."""
    found = (parse(line) for line in lines)
    return [flow for flow in found if flow.offloaded != "yes"]


class _Prober:
    """What is tried on one host."""

    def __init__(self, route: Connection, host: Host) -> None:
        self._route, self._host = route, host
        self._qdiscs = {row.index: row for row in tc.qdiscs(route)}
        self._rows: dict[int, list[tc.FilterRow]] = {}
        self._known: dict[object, tuple[NetlinkError | None, tuple[str, ...]]] = {}

    def trials(self, flow: Flow) -> Iterator[FlowTrial]:
        """In TC as the switch would do it, and in the NIC."""
        ufid = flow.ufid or ""
        netdev = self._host.netdev(flow.in_port)
        qdisc = self._qdiscs.get(netdev.index) if netdev else None
        if netdev is None or qdisc is None:
            what = "its port is no network device here" if netdev is None else f"{flow.in_port} has no ingress qdisc"
            yield FlowTrial(ufid, False, UNTRIED, what)
            return
        row = self._present(flow, qdisc)
        try:
            made = _dumped(row) if row else rule(flow, self._device)
        except UnbuildableError as error:
            yield FlowTrial(ufid, False, UNTRIED, f"no rule can be made of it: {error}")
            return
        skips = bool(row and row.attrs["options"].get("flags", 0) & TCA_CLS_FLAGS_SKIP_HW)
        flags = POLICIES.get(self._host.openvswitch.option("tc-policy") or "", 0)
        tried = self._tried(ufid, qdisc, made, flags)
        yield dataclasses.replace(tried, skip_hw=skips)
        if flags != TCA_CLS_FLAGS_SKIP_SW and not self._internal(flow.in_port):
            yield self._tried(ufid, qdisc, made, TCA_CLS_FLAGS_SKIP_SW)

    def _internal(self, port: str) -> bool:
        return self._host.openvswitch.datapath_type(port) == "internal"

    def _device(self, port: str) -> Device | None:
        netdev = self._host.netdev(port)
        return Device(netdev.index, self._internal(port)) if netdev else None

    def _present(self, flow: Flow, qdisc: tc.QdiscRow) -> tc.FilterRow | None:
        """The filter of a flow that is in TC already."""
        if flow.dp != "tc" or not flow.ufid:
            return None
        if qdisc.index not in self._rows:
            self._rows[qdisc.index] = list(tc.filters(self._route, qdisc, terse=False))
        cookie = cookie_of(flow.ufid)
        return next((row for row in self._rows[qdisc.index] if row.cookie.hex() == cookie), None)

    def _tried(self, ufid: str, qdisc: tc.QdiscRow, made: Rule, flags: int) -> FlowTrial:
        skip_sw = flags == TCA_CLS_FLAGS_SKIP_SW
        shape = (qdisc.index, flags, made.protocol, made.chain, *_shape(made.options))
        if shape not in self._known:
            error = self._try(qdisc, made, flags)
            look = error if skip_sw and error is not None and error.errno != errno.ENOSPC else None
            self._known[shape] = error, tuple(self._culprits(qdisc, made, flags, look)) if look else ()
        error, culprits = self._known[shape]
        if error is None:
            return FlowTrial(ufid, skip_sw)
        number = error.errno or errno.EINVAL
        return FlowTrial(ufid, skip_sw, number, error.text or os.strerror(number), bool(error.text), culprits)

    def _try(self, qdisc: tc.QdiscRow, made: Rule, flags: int) -> NetlinkError | None:
        """Put the rule where the switch would: what comes from an internal port is behind the port's egress."""
        name = next((one.name for one in self._host.netdevs if one.index == qdisc.index), "")
        egress = self._internal(name)
        return tc.try_rule(
            self._route, qdisc, made.options, made.protocol, chain=made.chain, flags=flags, egress=egress
        )

    def _culprits(self, qdisc: tc.QdiscRow, made: Rule, flags: int, error: NetlinkError) -> Iterator[str]:
        """The parts of a rule, which *error* refuses, without any one of which it is taken; where there is none, and
        the error has no words, the few without all of which it is, in one."""
        parts = list(_parts(made))
        found = False
        for part in parts:
            if self._try(qdisc, _without(made, {part}), flags) is None:
                found = True
                yield _word(made, part)
        if found or error.text:
            return
        left = set(parts)
        if self._try(qdisc, _without(made, left), flags) is not None:
            return
        for part in parts:
            if self._try(qdisc, _without(made, left - {part}), flags) is None:
                left.remove(part)
        yield " and ".join(dict.fromkeys(_word(made, part) for part in parts if part in left))


def _parts(made: Rule) -> Iterator[str | int]:
    """The parts of a rule that can be left out: its matches by name, its actions by position."""
    for name in made.options:
        if name.startswith("key_") and not name.endswith("_mask") and name not in NEEDED:
            yield name
    yield from range(len(made.options["act"]))


def _without(made: Rule, parts: Set[str | int]) -> Rule:
    """*made* without *parts*; a rule that does nothing else drops."""
    options = {name: value for name, value in made.options.items() if name.removesuffix("_mask") not in parts}
    options["act"] = [one for at, one in enumerate(made.options["act"]) if at not in parts] or [trial.drop()]
    return Rule(options, made.protocol, made.chain)


def _word(made: Rule, part: str | int) -> str:
    if isinstance(part, str):
        return f"match {part.removeprefix('key_')}"
    return f"action {made.options['act'][part]['kind']}"


def _dumped(row: tc.FilterRow) -> Rule:
    """The rule of a filter as the kernel has it, but for nobody's MAC."""
    dumped: Mapping[str, Any] = row.attrs["options"]
    options = {name: value for name, value in dumped.items() if str(name).startswith("key_")}
    options |= {"key_eth_dst": trial.NOBODY, "key_eth_dst_mask": b"\xff" * 6}
    options["act"] = [_alone(tc.asked(one, cookie=False)) for one in dumped.get("act", {}).values()]
    return Rule(options, row.key.protocol, row.chain)


def _alone(action: dict[str, Any]) -> dict[str, Any]:
    """The action as one of its own: a meter that other filters share takes none of a filter with another flag, and what
    a NIC says of a policer does not rest on its rate."""
    if action["kind"] != "police":
        return action
    told = action["options"]
    police = told["tbf"]
    limited = police.rate or "pktrate64" in told
    alone = {"tbf": Police(action=police.action, mtu=police.mtu), "result": told.get("result", 0)}
    return {"kind": "police", "options": alone | ({"pktrate64": 1000, "pktburst64": _BURST} if limited else {})}


_BURST: Final = 1_000_000
"""Ticks of a policer's burst."""


def _shape(options: Mapping[str, Any]) -> Iterator[object]:
    """What of a rule a NIC's answer rests on: which keys with which masks, and what is done; not the keys' values."""
    for name in sorted(options):
        counts = name in VALUES or name.endswith("_mask")
        yield name, str(options[name]) if counts else None
