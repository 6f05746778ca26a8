# SPDX-License-Identifier: Apache-2.0
"""A flow's rule tried: in TC as Open vSwitch would put it in, and in the NIC alone; and what of it the NIC refuses.

A rule that is tried matches a MAC that nobody has, in the flow's own chain at a priority that is free, so no packet
meets it. It is taken out at once.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from asap2.host import trial
from asap2.host.explain.flow import Flow, parse
from asap2.host.explain.rule import Device, Rule, UnbuildableError, rule
from asap2.host.inventory import FlowTrial, Host
from asap2.host.kernel import tc
from asap2.netlink.client import Connection
from asap2.netlink.tables.flower import TCA_CLS_FLAGS_SKIP_HW, TCA_CLS_FLAGS_SKIP_SW
from asap2.netlink.wire import NETLINK_ROUTE, NetlinkError

POLICIES = {"skip_sw": TCA_CLS_FLAGS_SKIP_SW, "skip_hw": TCA_CLS_FLAGS_SKIP_HW}
NEEDED = ("key_eth_type", "key_vlan_eth_type", "key_cvlan_eth_type", "key_eth_dst", "key_ip_proto")
"""Keys that others rest on."""
VALUES = (*NEEDED, "key_flags", "key_ct_state", "act")
"""Options of which the value counts for what a NIC takes, not the mask alone."""
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
        if netdev is None or qdisc is None or self._internal(flow.in_port):
            what = "its port is no network device here" if netdev is None else f"{flow.in_port} has no ingress qdisc"
            yield FlowTrial(ufid, False, UNTRIED, what if qdisc is None else "it comes from the host itself")
            return
        try:
            made = self._present(flow, qdisc) or rule(flow, self._device)
        except UnbuildableError as error:
            yield FlowTrial(ufid, False, UNTRIED, f"no rule can be made of it: {error}")
            return
        flags = POLICIES.get(self._host.openvswitch.option("tc-policy") or "", 0)
        yield self._tried(ufid, qdisc, made, flags)
        if flags != TCA_CLS_FLAGS_SKIP_SW:
            yield self._tried(ufid, qdisc, made, TCA_CLS_FLAGS_SKIP_SW)

    def _internal(self, port: str) -> bool:
        return self._host.openvswitch.datapath_type(port) == "internal"

    def _device(self, port: str) -> Device | None:
        netdev = self._host.netdev(port)
        return Device(netdev.index, self._internal(port)) if netdev else None

    def _present(self, flow: Flow, qdisc: tc.QdiscRow) -> Rule | None:
        """The rule of a flow that is in TC already, as the kernel has it."""
        if flow.dp != "tc" or not flow.ufid:
            return None
        if qdisc.index not in self._rows:
            self._rows[qdisc.index] = list(tc.filters(self._route, qdisc, terse=False))
        cookie = cookie_of(flow.ufid)
        row = next((row for row in self._rows[qdisc.index] if row.cookie.hex() == cookie), None)
        if row is None:
            return None
        dumped: Mapping[str, Any] = row.attrs["options"]
        options = {name: value for name, value in dumped.items() if str(name).startswith("key_")}
        options |= {"key_eth_dst": trial.NOBODY, "key_eth_dst_mask": b"\xff" * 6}
        options["act"] = [tc.asked(one, cookie=False) for one in dumped.get("act", {}).values()]
        return Rule(options, row.key.protocol, row.chain)

    def _tried(self, ufid: str, qdisc: tc.QdiscRow, made: Rule, flags: int) -> FlowTrial:
        skip_sw = flags == TCA_CLS_FLAGS_SKIP_SW
        shape = (qdisc.index, flags, made.protocol, made.chain, *_shape(made.options))
        if shape not in self._known:
            error = self._try(qdisc, made, flags)
            look = skip_sw and error is not None and error.errno != errno.ENOSPC
            self._known[shape] = error, tuple(self._culprits(qdisc, made, flags)) if look else ()
        error, culprits = self._known[shape]
        if error is None:
            return FlowTrial(ufid, skip_sw)
        number = error.errno or errno.EINVAL
        return FlowTrial(ufid, skip_sw, number, error.text or os.strerror(number), bool(error.text), culprits)

    def _try(self, qdisc: tc.QdiscRow, made: Rule, flags: int) -> NetlinkError | None:
        return tc.try_rule(self._route, qdisc, made.options, made.protocol, chain=made.chain, flags=flags)

    def _culprits(self, qdisc: tc.QdiscRow, made: Rule, flags: int) -> Iterator[str]:
        """The parts of a rule without any one of which it is taken."""
        for name in made.options:
            if not name.startswith("key_") or name.endswith("_mask") or name in NEEDED:
                continue
            rest = {key: value for key, value in made.options.items() if key not in (name, f"{name}_mask")}
            if self._try(qdisc, Rule(rest, made.protocol, made.chain), flags) is None:
                yield f"match {name.removeprefix('key_')}"
        actions = made.options["act"]
        for at, action in enumerate(actions):
            others = [*actions[:at], *actions[at + 1 :]]
            less = Rule({**made.options, "act": others}, made.protocol, made.chain)
            if others and self._try(qdisc, less, flags) is None:
                yield f"action {action['kind']}"


def _shape(options: Mapping[str, Any]) -> Iterator[object]:
    """What of a rule a NIC's answer rests on: which keys with which masks, and what is done; not the keys' values."""
    for name in sorted(options):
        counts = name in VALUES or name.endswith("_mask")
        yield name, str(options[name]) if counts else None
