# SPDX-License-Identifier: Apache-2.0
"""Why flows are not offloaded: a function of a host's inventory, with the flows, the log and the trials in it.

The order is that in which a packet's rule meets refusals: the switch's settings, the port, the switch's TC layer, the
kernel, the driver. What was looked at is the evidence.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asap2.errors import Asap2Error
from asap2.host import switch_log, versions
from asap2.host.attachment import Attachment, attachment
from asap2.host.explain import nic
from asap2.host.explain.flow import Flow, parse
from asap2.host.explain.reasons import (
    NEIGHBOURS,
    NIC_UNEXPLAINED,
    OFFLOADED,
    REASONS,
    TAKEN_NOW,
    TC_UNEXPLAINED,
    UNEXPLAINED,
)
from asap2.host.explain.tclayer import ARP, IPV6, RARP, Layer, Refusal, refusals
from asap2.host.inventory import FlowTrial, Host, Netdev, Pf
from asap2.host.logical import LogicalPath
from asap2.netlink.tables.ovs import OVS_DP_F_TC_RECIRC_SHARING

DISCOVERY = range(133, 138)
"""ICMPv6's types of neighbour discovery (RFC 4861)."""
TUNNELS = ("vxlan", "geneve", "gre", "ip6gre", "erspan", "ip6erspan", "gtpu", "bareudp")
SAID = {
    "action.recirculate": "recirc_id sharing not supported",
    "action.set-protocol": "can't offload rewrite of IP/IPV6",
    "tc.no-priority": "couldn't get tc prio",
    "port.no-qdisc": "failed to offload flow: Invalid argument",
}
"""What the log says at its usual level, by code."""
LOGGED = (
    ("match.skb-mark", "", "attribute pkt_mark"),
    ("match.skb-priority", "", "attribute skb_priority"),
    ("match.dp-hash", "", "attribute dp_hash"),
    ("match.packet-type", "", "attribute packet_type"),
    ("match.no-ethertype", "", "non-ethernet"),
    ("match.mpls-stack", "", "multiple mpls_lses"),
    ("match.ipv6-fragment", "", "IPv6 fragments"),
    ("match.tunnel", "", "Tunnel options are in the wrong format|Unable to parse geneve options"),
    ("match.recirculation", "", "match for chain .* failed|exceeds the chain id"),
    ("match.other", r"match\..*", "offloading attribute|unknown attribute"),
    ("action.too-many", "", r"Can only support \d+ actions"),
    ("action.recirculate", "", "recirc_id sharing"),
    ("action.set-fragment", "", "not supported on fragments"),
    ("action.set-protocol", "", "can't offload rewrite"),
    ("action.set-field", "", "unsupported set action|unsupported sub attribute|too many pedit offsets"),
    ("action.tunnel-option", "", "unsupported tunnel key|error parsing VXLAN options"),
    ("action.other", r"action\..*", "unsupported put action"),
    ("tc.no-priority", "", "couldn't get tc prio"),
)
"""What the debug log says of a flow: code, a pattern of other codes that it may be said for, and of what is said. It
decides: these refusals rest on the flow and the switch alone."""
STATE = (
    ("action.flow-api", "Flow API provider mismatch"),
    ("port.gone", "Can't find netdev for output port|Can't find offloaded netdev"),
    ("port.no-flow-api", "failed to get ifindex|find ifindex"),
)
"""What it says of ports, by code: the ports may have changed since."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was looked at, and what was seen: ``source`` is "flow", "host", "log" or "trial"."""

    source: str
    seen: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A flow with its reason. ``found`` is what of the flow or the host it is about, ``others`` codes of what would be
    in the way next; ``attachments`` whose ports it is from and to, where Open vSwitch knows; ``logical`` the logical
    flows of OVN that are behind it."""

    ufid: str | None
    flow: str
    in_port: str
    outputs: tuple[str, ...]
    packets: int
    bytes: int
    dp: str | None
    code: str
    found: str
    why: str
    fix: str
    evidence: tuple[Evidence, ...]
    others: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    logical: LogicalPath | None = None


def select(flows: Iterable[Flow], what: str) -> list[Flow]:
    """The *flows* that *what* names: by a flow id (or its beginning), or by a port that they enter or leave through."""
    flows = list(flows)
    word = what.removeprefix("ufid:").lower()
    found = [flow for flow in flows if len(word) >= 4 and flow.ufid and flow.ufid.lower().startswith(word)]
    return found or [flow for flow in flows if what == flow.in_port or what in flow.outputs]


def flows_of(host: Host) -> list[Flow]:
    """The flows of a capture, those of userspace datapaths too."""
    switch = host.openvswitch
    found = [parse(line) for line in switch.datapath_flows]
    return found + [parse(line, "netdev@ovs-netdev") for line in switch.userspace_flows]


def explain(host: Host, flows: Iterable[Flow]) -> list[Explanation]:
    """The reason of each flow; Asap2Error when the host has no running switch."""
    if host.openvswitch.silent:
        raise Asap2Error(f"{host.openvswitch.trouble}, so its flows are not known; {host.openvswitch.remedy}")
    if host.openvswitch.trouble:
        raise Asap2Error(f"{host.openvswitch.trouble}, so it has no flows; `asap2 host check` says more")
    explainer = _Explainer(host)
    return [explainer.explain(flow) for flow in flows]


def counted(explanations: Iterable[Explanation]) -> dict[str, int]:
    """The number of flows of each code, largest first."""
    return dict(Counter(one.code for one in explanations).most_common())


Reason = tuple[Refusal, tuple[Evidence, ...]]


class _Explainer:
    """One host, and the flow at hand."""

    def __init__(self, host: Host) -> None:
        self.host, self.switch = host, host.openvswitch
        features = self.switch.datapath_features
        log = self.switch.log
        states = switch_log.ct_states(log)
        states = host.ct_states if states is None else states
        self.said, self.without_flow_api = switch_log.refusals(log), switch_log.without_flow_api(log)
        self.usual = {code: line for line in log for code, words in SAID.items() if words in line}
        types = {one.name: one.type for one in self.switch.datapath_ports}
        types |= {str(one.number): one.type for one in self.switch.datapath_ports}
        probed = switch_log.probes(log)
        self.layer = Layer(
            types,
            self.switch.version or self.switch.installed or "3.1",
            None if features is None else bool(features & OVS_DP_F_TC_RECIRC_SHARING),
            states is None or states != 0,
            states,
            probed is None or "vxlan gbp is supported" in probed,
            probed is not None and "enc flags are supported" in probed,
            frozenset(switch_log.chains(self.switch.datapath_flows)),
        )
        self.trials: dict[str, list[FlowTrial]] = {}
        for one in host.flow_trials:
            self.trials.setdefault(one.ufid, []).append(one)
        self.logical = {one.ufid: one for one in host.logical}

    def explain(self, flow: Flow) -> Explanation:
        """The flow's reason. A value in it that cannot be read leaves the reasons that were found before."""
        reasons = []
        try:
            for one in self._reasons(flow):
                reasons.append(one)
        except ValueError as error:
            unread = Evidence("flow", f"it has a value that cannot be read: {error}")
            reasons.append((Refusal(TC_UNEXPLAINED, "it could not be read whole"), (unread,)))
        reasons = self._decided(flow, reasons)
        first, evidence = reasons[0]
        others = tuple(dict.fromkeys(one.code for one, _ in reasons[1:] if one.code not in (first.code, *UNDECIDED)))
        meaning = REASONS[first.code]
        return Explanation(
            flow.ufid,
            flow.text,
            flow.in_port,
            flow.outputs,
            flow.packets,
            flow.bytes,
            flow.dp,
            first.code,
            first.found,
            meaning.why,
            self._fix(flow, first, meaning.fix),
            (*evidence, *self._logged(flow, first.code)),
            others,
            tuple(who for port in (flow.in_port, *flow.outputs) if (who := attachment(self.host, port))),
            self.logical.get(flow.ufid or ""),
        )

    def _fix(self, flow: Flow, refusal: Refusal, fix: str) -> str:
        """What to do about a *refusal* of *flow*: *fix*, with names in place of what stands for them."""
        if refusal.code.startswith(("match.", "nic.match")) and _of_neighbours(flow):
            return NEIGHBOURS
        ports = [flow.in_port, *flow.outputs]
        pf = next((found for port in ports if (found := self._pf(port))), None)
        place = next((one for port in ports if (one := self.switch.port_of(port))), None)
        words = {
            "port": flow.in_port,
            "bridge": place[0].name if place else "BRIDGE",
            "service": self.switch.service or "openvswitch",
            "pf": pf.name if pf else "PF",
            "address": pf.address if pf else "ADDRESS",
        }
        for name, word in words.items():
            fix = fix.replace(f"{{{name}}}", word)
        return fix

    def _pf(self, port: str) -> Pf | None:
        """The PF whose uplink or representor *port* is; of a host with one alone, that."""
        netdev = self.host.netdev(port)
        own = [pf for pf in self.host.pfs if pf.netdev == port]
        if not own and netdev and netdev.switch_id:
            own = [pf for pf in self.host.pfs if any(one.name == port for _, one in self.host.representors(pf))]
        return next(iter(own or (self.host.pfs if len(self.host.pfs) == 1 else ())), None)

    def _decided(self, flow: Flow, reasons: list[Reason]) -> list[Reason]:
        """*reasons*, first those of the switch's settings, then what its log says of the flow, if that says why."""
        said = self.said.get(flow.ufid or "")
        found = next(((code, also) for code, also, words in LOGGED if said and re.search(words, said)), None)
        if said is None or found is None or flow.dp == "tc" or flow.offloaded == "yes":
            return reasons
        code, also = found
        settings = [one for one in reasons if one[0].code.startswith("switch.")]
        fitting = [one for one in reasons if re.fullmatch(rf"{code}|{also}" if also else code, one[0].code)]
        if not fitting:
            fitting = [(Refusal(code, f"the switch's log says: {said}"), ())]
        rest = [one for one in reasons if one not in settings and one not in fitting]
        return [*settings, *fitting, *rest]

    # ---- who refuses, in order

    def _reasons(self, flow: Flow) -> Iterator[Reason]:
        if flow.offloaded == "yes":
            yield Refusal(OFFLOADED, "offloaded:yes"), (Evidence("flow", f"offloaded:yes, dp:{flow.dp}"),)
            return
        yield from self._settings(flow)
        if flow.dp == "tc":
            yield from self._port(flow)
            yield from self._driver(flow)
        else:
            yield from self._elsewhere((flow.in_port,))
            for one in refusals(flow, self.layer):
                yield one, (Evidence("flow", one.found),)
            yield from self._elsewhere(flow.outputs)
            yield from self._no_qdisc(flow)
            yield from self._no_flow_api(flow)
            yield from self._kernel(flow)
            yield from self._said(flow)
        yield self._nothing(flow)

    def _settings(self, flow: Flow) -> Iterator[Reason]:
        switch = self.switch
        if not flow.datapath.startswith("system@"):
            yield Refusal("switch.userspace", flow.datapath), (Evidence("host", f"it is a flow of {flow.datapath}"),)
        elif switch.offloaded_flows is not None or flow.dp == "tc":
            yield from self._policy(flow)
        elif not switch.hw_offload:
            said = switch.option("hw-offload") or "not set"
            yield Refusal("switch.off", f"hw-offload {said}"), (Evidence("host", f"other_config:hw-offload is {said}"),)
        else:
            seen = Evidence("host", "`upcall/show` has no line of offloaded flows")
            yield Refusal("switch.not-in-force", "hw-offload true, but not in force"), (seen,)

    def _policy(self, flow: Flow) -> Iterator[Reason]:
        """The policy in force, which the flow's filter shows: the database's counts from the switch's next start."""
        tried = self.trials.get(flow.ufid or "", [])
        wanted = self.switch.option("tc-policy") == "skip_hw"
        if any(one.skip_hw for one in tried):
            seen = Evidence("trial", "the flow's filter in TC has the flag skip_hw")
            since = "" if wanted else ", and is in force until the switch's next start"
            yield Refusal("switch.skip-hw", f"tc-policy was skip_hw when the switch started{since}"), (seen,)
        elif wanted and flow.dp == "tc" and not tried:
            seen = Evidence("host", "other_config:tc-policy is skip_hw")
            yield Refusal("switch.skip-hw", "tc-policy skip_hw"), (seen,)

    def _port(self, flow: Flow) -> Iterator[Reason]:
        """What the port that a flow in TC comes in at is, if no switchdev NIC's."""
        kind = self.layer.ports.get(flow.in_port)
        netdev = self.host.netdev(flow.in_port)
        if kind == "internal":
            seen = Evidence("host", f"{flow.in_port} is an internal port of the datapath")
            yield Refusal("port.internal", flow.in_port), (seen,)
        elif kind in TUNNELS or (netdev and netdev.kind in TUNNELS):
            yield from self._tunnel_end(flow)
        elif netdev is None:
            yield Refusal("port.gone", flow.in_port), (Evidence("host", f"there is no device {flow.in_port}"),)
        elif netdev.switch_id is None:
            pf = next((pf for pf in self.host.pfs if pf.netdev == netdev.name), None)
            if pf and pf.eswitch:
                seen = Evidence("host", f"{pf.address}: eSwitch mode {pf.eswitch.mode}")
                yield Refusal("port.legacy", f"{netdev.name}: {pf.eswitch.mode}"), (seen,)
            else:
                kind = netdev.kind or "device"
                seen = Evidence("host", f"{netdev.name} is a {kind} without a switch id")
                yield Refusal("port.not-nic", f"{netdev.name}, a {kind}"), (seen,)
        elif netdev.hw_tc_offload is False:
            seen = Evidence("host", f"ethtool: hw-tc-offload of {netdev.name} is off")
            yield Refusal("port.feature-off", netdev.name), (seen,)

    def _tunnel_end(self, flow: Flow) -> Iterator[Reason]:
        """A tunnel's far end: in hardware when it goes to a representor or nowhere, and the NIC may encapsulate."""
        targets = [self.host.netdev(port) for port in flow.outputs]
        pfs = [pf for pf in self.host.pfs if pf.switchdev]
        if not (any(one and one.switch_id for one in targets) if targets else pfs):
            names = ", ".join(flow.outputs) or "nowhere"
            seen = Evidence("host", f"{names}: no port of a switchdev NIC")
            yield Refusal("port.tunnel-elsewhere", f"{flow.in_port} to {names}"), (seen,)
        elif pfs and all(pf.eswitch and pf.eswitch.encap_mode == "none" for pf in pfs):
            yield Refusal("nic.tunnel", "encap-mode none"), (Evidence("host", "devlink: encap-mode none"),)

    def _driver(self, flow: Flow) -> Iterator[Reason]:
        """The NIC's own word on a rule that TC has in software."""
        tried = self._trial(flow, skip_sw=True)
        refused = bool(tried and tried.error > 0)
        code = nic.code(tried) if tried and refused else None
        without = self._no_tunnels(flow)
        if tried and refused and without and (not tried.in_words or code == "nic.refused"):
            yield Refusal("nic.tunnel", without), (Evidence("host", without), _seen(tried))
        if code in (None, "nic.other-switch", "nic.to-host", "nic.refused"):
            for reason, seen in self._other_switch(flow):
                yield reason, (*seen, *([_seen(tried)] if tried and refused else ()))
        if tried and code:
            yield Refusal(code, nic.words(tried)), (_seen(tried),)
        if tried and tried.error == 0:
            yield Refusal(TAKEN_NOW, "the NIC took the rule when it was tried"), (_seen(tried),)

    def _no_tunnels(self, flow: Flow) -> str | None:
        """Why no NIC here encapsulates what *flow* wants encapsulated; None when one does, or it wants nothing."""
        wants = any(field.name == "tunnel" for one in flow.actions if one.name == "set" for field in one.inner)
        seen = []
        for pf in self.host.pfs if wants else ():
            device = versions.DEVICES.get((pf.vendor, pf.device))
            if device and not device.tunnels:
                seen.append(f"{pf.name} is a {device.name}, which has no tunnel offload")
            elif pf.eswitch and pf.eswitch.encap_mode == "none":
                seen.append(f"encap-mode of {pf.name} is none")
            else:
                return None
        return "; ".join(seen) or None

    def _other_switch(self, flow: Flow) -> Iterator[Reason]:
        one = self.host.netdev(flow.in_port)
        for port in flow.outputs:
            other = self.host.netdev(port)
            if not one or not one.switch_id or not other or _reaches(one, other):
                continue
            ids = [f"{netdev.switch_id or 'none'} ({netdev.port_name or 'no port'})" for netdev in (one, other)]
            seen = Evidence("host", f"switch id of {one.name}: {ids[0]}; of {port}: {ids[1]}")
            if self.layer.ports.get(port) == "internal":
                yield Refusal("nic.to-host", f"output to {port}"), (seen,)
            elif self.layer.ports.get(port) not in TUNNELS and other.kind not in TUNNELS:
                yield Refusal("nic.other-switch", f"output to {port}"), (seen,)

    def _elsewhere(self, ports: tuple[str, ...]) -> Iterator[Reason]:
        """Ports of the datapath that are in another network namespace."""
        for port in ports:
            if self.switch.datapath_type(port) is not None and self.host.netdev(port) is None:
                seen = [Evidence("host", f"{port} is a port of the datapath, and no device of this network namespace")]
                said = next((line for line in self.switch.log if f"failed to get ifindex for {port}:" in line), None)
                if said:
                    seen.append(Evidence("log", switch_log.words(said)))
                yield Refusal("port.other-namespace", port), tuple(seen)

    def _no_qdisc(self, flow: Flow) -> Iterator[Reason]:
        """What a rule is put into."""
        if self.switch.offloaded_flows is None or self.host.netdev(flow.in_port) is None:
            return
        said = self.without_flow_api.get(flow.in_port)
        if self.host.qdisc(flow.in_port) is None:
            seen = Evidence("host", f"{flow.in_port} has neither an ingress nor a clsact qdisc")
            if said:
                yield Refusal("port.no-flow-api", flow.in_port), (seen, Evidence("log", switch_log.words(said)))
            else:
                yield Refusal("port.no-qdisc", flow.in_port), (seen,)

    def _no_flow_api(self, flow: Flow) -> Iterator[Reason]:
        """Ports that it sends to, of which the log says that they have no flow API."""
        for port in flow.outputs:
            said = self.without_flow_api.get(port)
            if said:
                yield Refusal("action.flow-api", f"output to {port}"), (Evidence("log", switch_log.words(said)),)

    def _said(self, flow: Flow) -> Iterator[Reason]:
        """What the switch's own log says of the flow that does not decide."""
        said = self.said.get(flow.ufid or "")
        if said and not any(re.search(words, said) for _, _, words in LOGGED):
            code = next((code for code, words in STATE if re.search(words, said)), "tc.refused")
            yield Refusal(code, f"the switch's log says: {said}"), (Evidence("log", said),)

    def _kernel(self, flow: Flow) -> Iterator[Reason]:
        """What the kernel, or with tc-policy skip_sw the NIC, says of a rule that the switch would make."""
        policy = self.switch.option("tc-policy") == "skip_sw"
        tried = self._trial(flow, skip_sw=policy)
        if tried and tried.error > 0:
            if policy:
                yield Refusal(nic.code(tried), nic.words(tried)), (_seen(tried),)
            elif tried.error == errno.ENOSPC:
                yield Refusal("nic.full", tried.refusal), (_seen(tried),)
            else:
                yield Refusal("tc.refused", f"TC says: {tried.refusal}"), (_seen(tried),)
        elif tried and tried.error < 0 and any(action.name == "meter" for action in flow.actions):
            meter = next(str(one) for one in flow.actions if one.name == "meter")
            yield Refusal("action.meter", meter), (_seen(tried),)
        elif tried and tried.error == 0:
            yield Refusal(TAKEN_NOW, "TC took the rule when it was tried"), (_seen(tried),)

    def _nothing(self, flow: Flow) -> Reason:
        tried = self.trials.get(flow.ufid or "")
        seen = [Evidence("flow", "matches and actions are ones that the switch's TC layer has")]
        seen.append(Evidence("host", f"{flow.in_port} is a port with hw-tc-offload and an ingress qdisc, or not known"))
        seen += [_seen(one) for one in tried] if tried else [Evidence("trial", "no rule was tried")]
        code = NIC_UNEXPLAINED if flow.dp == "tc" else TC_UNEXPLAINED
        return Refusal(code, "nothing was found"), tuple(seen)

    # ---- what there is of evidence

    def _trial(self, flow: Flow, *, skip_sw: bool) -> FlowTrial | None:
        found = self.trials.get(flow.ufid or "", [])
        return next((one for one in found if one.skip_sw == skip_sw), None)

    def _logged(self, flow: Flow, code: str) -> Iterator[Evidence]:
        said = self.said.get(flow.ufid or "")
        if said:
            yield Evidence("log", said)
        line = self.usual.get(code)
        if line:
            yield Evidence("log", switch_log.words(line))


def _reaches(one: Netdev, other: Netdev) -> bool:
    """Whether a rule of *one* can send to *other*. The ports of a NIC have one switch id, but of two of them only VFs
    reach each other."""
    if other.switch_id != one.switch_id or one.pf_number is None or other.pf_number is None:
        return other.switch_id == one.switch_id
    return one.pf_number == other.pf_number or None not in (one.vf_number, other.vf_number)


def _of_neighbours(flow: Flow) -> bool:
    """Whether its packets are ARP or neighbour discovery."""
    if flow.eth_type in (ARP, RARP):
        return True
    return flow.eth_type == IPV6 and flow.part("icmpv6", "type", 8)[0] in DISCOVERY


UNDECIDED = (*UNEXPLAINED, TAKEN_NOW)
"""Codes that are not refusals."""


def _seen(tried: FlowTrial) -> Evidence:
    how = "with skip_sw" if tried.skip_sw else "as the switch puts it in"
    if tried.error < 0:
        return Evidence("trial", f"not tried: {tried.refusal}")
    if tried.error == 0:
        return Evidence("trial", f"the rule, tried {how}, was taken")
    name = errno.errorcode.get(tried.error, str(tried.error))
    without = f"; taken without {' or '.join(tried.culprits)}" if tried.culprits else ""
    return Evidence("trial", f"the rule, tried {how}: {name}: {tried.refusal}{without}")
