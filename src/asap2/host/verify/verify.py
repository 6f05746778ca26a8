# SPDX-License-Identifier: Apache-2.0
"""``asap2 host verify``: send traffic through a VF, count what the host saw and what the flows counted, and judge."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from asap2.errors import Asap2Error
from asap2.host import openvswitch
from asap2.host.explain.explain import Explanation, explain
from asap2.host.explain.flow import Flow, parse
from asap2.host.explain.probe import tried
from asap2.host.inventory import Host
from asap2.host.observe import observe
from asap2.host.verify import agent, traffic, watch
from asap2.host.verify.endpoint import Guest, Port

SETTLE = 3.0
"""Seconds that flows' counters may lag: those of the NIC are read once a second."""
FIRST = 10
"""Packets that may reach the host before a flow's rules are in place; or one in a hundred, if that is more."""
IP = (0x0800, 0x86DD)
MEANWHILE = "its flows are in hardware, and came to be only meanwhile: try again"
IN_HARDWARE = (
    "its flows counted them in hardware, and the NIC gave them to the host, as it does while a tunnel's neighbour is "
    "not known"
)


@dataclass(frozen=True, slots=True)
class FlowSeen:
    """A flow that carried the traffic: ``packets`` are those that it counted meanwhile, ``way`` "out" or "in" as the
    guest sees it; ``through`` are tags and tunnels that it puts on or takes off. ``reason`` is why it is not in
    hardware: a code of docs/reasons.md with what it is about; None when it is."""

    ufid: str
    way: str
    packets: int
    offloaded: bool
    through: tuple[str, ...]
    reason: str | None = None
    found: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one kind of traffic. ``total`` packets went and came, of which ``by_host`` passed the representor,
    so the host; ``how`` is traffic.Sent's, or "observed"."""

    protocol: str
    offloaded: bool
    verdict: str
    total: int
    by_host: int
    how: str
    flows: tuple[FlowSeen, ...] = ()


def send(host: Host, port: Port, guest: Guest, peer: str, protocol: str, count: int, number: int) -> Result:
    """Send *count* packets of a *protocol* from the *guest* to *peer*, and judge. *number* is UDP's and TCP's port."""
    need_switch(host)
    source = guest.address_for(peer)
    kind = traffic.PROTOCOLS[protocol]
    if protocol == "icmp" and ":" in peer:
        kind = 58
    before = counted(port)
    with watch.Watch(port.representor.name, watch.between(source, peer, kind)) as seen:
        request = {"do": "send", "netns": guest.netns, "device": guest.device, "peer": peer}
        try:
            answer = agent.ask({**request, "protocol": protocol, "count": count, "port": number})
        except Asap2Error as error:
            carried = tuple(_flows(host, port, before, counted(port), kind))
            return Result(protocol, False, str(error), 0, seen.count(), "none", carried)
        sent = traffic.Sent(**answer)
        after = _settled(port, before, kind, sent)
        by_host = seen.count()
    flows = tuple(_flows(host, port, before, after, kind))
    total = sent.sent + sent.received
    offloaded, words = judge(total, by_host, flows)
    return Result(protocol, offloaded, words, total, by_host, sent.how, flows)


def listen(host: Host, port: Port, seconds: float, wait: Callable[[float], None] = time.sleep) -> Result:
    """Watch the VF's own traffic for *seconds*, and judge."""
    need_switch(host)
    before, vf_before = counted(port), _vf_packets(host, port)
    with watch.Watch(port.representor.name) as seen:
        wait(seconds)
        by_host = seen.count()
    after, now = counted(port), observe(filters=False, openflow=False)
    flows = tuple(_flows(host, port, before, after, None))
    total = _vf_packets(now, port) - vf_before
    if total <= 0:  # a driver that does not count for its VFs
        total = max(by_host, sum(one.packets for one in flows))
    offloaded, words = judge(total, by_host, flows)
    return Result("any", offloaded, words, total, by_host, "observed", flows)


def need_switch(host: Host) -> None:
    """Raise Asap2Error if no switch runs."""
    if host.openvswitch.trouble:
        raise Asap2Error(f"{host.openvswitch.trouble}; `asap2 host check` says more")


def judge(total: int, by_host: int, flows: tuple[FlowSeen, ...]) -> tuple[bool, str]:
    """Whether traffic was offloaded, in words: few packets came to the host, and no flow of it was in software."""
    soft = [one for one in flows if not one.offloaded]
    if not total:
        return False, "nothing was seen: no packet came or went"
    figures = f"{by_host} of {total} packets reached the host"
    if by_host <= max(FIRST, total // 100):
        if any(one.offloaded for one in flows):
            return True, f"offloaded: {figures}"
        return False, f"not proven: {figures}, and no flow in hardware counted any"
    reasons = "; ".join(dict.fromkeys(f"{one.reason}: {one.found}" for one in soft if one.reason))
    if not soft:
        counted = sum(one.packets for one in flows)
        reasons = "no flow carried them" if not flows else IN_HARDWARE if counted >= total * 0.8 else MEANWHILE
    return False, f"not offloaded: {figures} ({reasons})"


# ---- flows


def counted(port: Port) -> dict[str, Flow]:
    """The flows that come in at the representor or go out of it, by id."""
    name = port.representor.name
    flows = (parse(line) for line in openvswitch.dump_flows()[0])
    return {flow.ufid: flow for flow in flows if flow.ufid and (flow.in_port == name or name in flow.outputs)}


def _settled(port: Port, before: dict[str, Flow], kind: int, sent: traffic.Sent) -> dict[str, Flow]:
    """The flows, once their counters have caught up or time is up."""
    end = time.monotonic() + SETTLE
    while True:
        after = counted(port)
        mine = [flow for flow in after.values() if flow.in_port == port.representor.name and carries(flow, kind)]
        out = sum(_grown(before, flow) for flow in mine)
        if out >= sent.sent * 0.95 or time.monotonic() > end:
            return after
        time.sleep(0.1)


def _grown(before: dict[str, Flow], flow: Flow) -> int:
    """The packets that a flow has counted since."""
    old = before.get(flow.ufid or "")
    return max(0, flow.packets - (old.packets if old else 0))


def carries(flow: Flow, kind: int | None) -> bool:
    """Whether packets of an IP protocol (None: any packet) could be the flow's."""
    if kind is None:
        return True
    if flow.eth_type not in IP:
        return False
    value, mask = flow.part("ipv6" if flow.eth_type == IP[1] else "ipv4", "proto", 8)
    return not mask or value == kind


def through(flow: Flow) -> tuple[str, ...]:
    """The VLANs and tunnels that a flow's packets go through, for people."""
    found = []
    tunnel = flow.levels[0].get("tunnel")
    if tunnel:
        found.append(f"tunnel {flow.part('tunnel', 'tun_id', 64)[0]} at {flow.in_port}")
    for level in flow.levels[:-1]:
        if "vlan" in level:
            found.append(f"vlan {level['vlan'].partition('vid=')[2].partition(',')[0]}")
    for action in flow.actions:
        if action.name == "push_vlan":
            found.append(f"vlan {action.parts.get('vid', '')}")
        for field in action.inner if action.name == "set" else ():
            if field.name == "tunnel":
                parts = field.parts
                key = int(parts.get("tun_id", "0"), 0)
                other = parts.get("dst") or parts.get("ipv6_dst", "")
                found.append(f"tunnel {key} to {other} over {', '.join(flow.outputs)}")
    return tuple(found)


def _flows(
    host: Host, port: Port, before: dict[str, Flow], after: dict[str, Flow], kind: int | None
) -> Iterator[FlowSeen]:
    carried = [flow for flow in after.values() if carries(flow, kind) and _grown(before, flow)]
    why = reasons(host, [flow for flow in carried if flow.offloaded != "yes"])
    for flow in sorted(carried, key=lambda flow: flow.in_port != port.representor.name):
        way = "out" if flow.in_port == port.representor.name else "in"
        said = why.get(flow.ufid or "")
        yield FlowSeen(
            flow.ufid or "",
            way,
            _grown(before, flow),
            flow.offloaded == "yes",
            through(flow),
            said.code if said else None,
            said.found if said else None,
        )


def reasons(host: Host, flows: list[Flow]) -> dict[str, Explanation]:
    """Why *flows* are not offloaded, by id."""
    if not flows:
        return {}
    now = observe(full=True, filters=False, openflow=False)
    now = dataclasses.replace(tried(now, flows), hostname=host.hostname)
    return {one.ufid or "": one for one in explain(now, flows)}


def _vf_packets(host: Host, port: Port) -> int:
    pf = host.pf(port.pf.address)
    vf = next((vf for vf in pf.vfs if vf.index == port.vf.index), None) if pf else None
    return vf.rx_packets + vf.tx_packets if vf else 0
