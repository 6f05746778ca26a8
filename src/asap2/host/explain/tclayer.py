# SPDX-License-Identifier: Apache-2.0
"""What Open vSwitch's TC layer makes no rule of, told from the flow's text in the order in which it looks.

After lib/dpif-netlink.c (parse_flow_put), lib/netdev-offload-tc.c (netdev_tc_flow_put, test_key_and_mask,
netdev_tc_parse_nl_actions) and lib/tc.c (nl_msg_put_flower_acts) of Open vSwitch 3.1, and what
:mod:`asap2.host.explain.releases` has of others. The OpenFlow-only matches that it lists besides (registers, metadata,
conj_id, actset_output, IGMP) are in no datapath's key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass

from asap2.host.explain import releases
from asap2.host.explain.flow import CT_STATES, Call, Flow, masked, matched

MAX_ACTIONS = 16
"""TCA_ACT_MAX_NUM in lib/tc.h."""
ARP, RARP, IPV4, IPV6, MPLS = 0x0806, 0x8035, 0x0800, 0x86DD, (0x8847, 0x8848)
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
IGMP, IPIP, GRE, SCTP, UDPLITE = 2, 4, 47, 132, 136
CHECKSUMMED = (TCP, UDP, ICMP, ICMPV6)
OTHERS = (IGMP, IPIP, GRE, SCTP, UDPLITE)
"""IP protocols whose headers are rewritten, too, since releases.OTHER_PROTOCOLS."""
COVERED = (TCP, UDP, ICMPV6, UDPLITE)
"""IP protocols whose checksum covers what set() changes (tc_will_add_l4_checksum)."""
MAX_CHAIN = 0x0FFFFFFF
"""TC_ACT_EXT_VAL_MASK (include/uapi/linux/pkt_cls.h)."""
TC_CT_STATES = sum(CT_STATES[word] for word in ("new", "est", "rel", "rpl", "inv", "trk"))
SET_PARTS = {
    "eth": {"src", "dst"},
    "ipv4": {"src", "dst", "ttl", "tos"},
    "ipv6": {"src", "dst", "hlimit", "tclass"},
    "tcp": {"src", "dst"},
    "udp": {"src", "dst"},
    "mpls": {"label", "tc", "ttl", "bos"},
    "eth_type": set(),
}
"""What set() can set, by attribute (set_flower_map)."""
TUNNEL_SET = {"tun_id", "src", "dst", "ipv6_src", "ipv6_dst", "tos", "ttl", "tp_src", "tp_dst", "geneve", "flags"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reason's code, and what of the flow it is about."""

    code: str
    found: str


@dataclass(frozen=True, slots=True)
class Layer:
    """What the switch and its kernel are: the ports of the datapath by name and number, each with its type ("internal",
    "vxlan"; "" for a device), or none when not known; the switch's version; whether the kernel shares recirculation ids
    with TC (None: not known), whether its TC tracks connections, and which states of them it matches (OVS_CS_F_*,
    None: not known); whether its TC has the group-based policy of VXLAN and the flags of tunnels; the recirculation
    ids that flows in TC lead to (None: not known)."""

    ports: Mapping[str, str]
    version: str = "3.1"
    recirculates: bool | None = None
    tracks: bool = True
    ct_states: int | None = None
    gbp: bool = True
    encap_flags: bool = False
    chains: Set[int] | None = None

    def has(self, change: tuple[releases.Release, ...]) -> bool:
        """Whether the switch has a *change* of :mod:`asap2.host.explain.releases`."""
        return releases.has(self.version, change)


def refusals(flow: Flow, layer: Layer) -> Iterator[Refusal]:
    """Why no TC rule is made of *flow*: the first is the switch's reason, the others would come next."""
    yield from _ports(flow, layer)
    yield from _chain(flow, layer)
    for look in MATCHES:
        yield from look(flow, layer)
    yield from _connection(flow, layer)
    actions = _Actions(flow, layer)
    yield from actions.refusals()
    recirculates = flow.recirc_id or any(action.name == "recirc" for action in flow.actions)
    if recirculates and layer.recirculates is False:
        yield Refusal("action.recirculate", f"recirc_id({flow.recirc_id:#x})" if flow.recirc_id else "recirc()")
    yield from actions.late


def _ports(flow: Flow, layer: Layer) -> Iterator[Refusal]:
    if not layer.ports:
        return
    if flow.in_port not in layer.ports:
        yield Refusal("port.gone", f"in_port({flow.in_port})")
    for port in flow.outputs:
        if port not in layer.ports:
            yield Refusal("port.gone", f"output to {port}")


# ---- matches


def _chain(flow: Flow, layer: Layer) -> Iterator[Refusal]:
    number = flow.recirc_id
    if number > MAX_CHAIN and layer.has(releases.CHAINS_BOUNDED):
        yield Refusal("match.recirculation", f"recirc_id({number:#x}), which is no number of a TC chain")
    elif number and layer.has(releases.CHAINS_IN_USE) and layer.chains is not None and number not in layer.chains:
        yield Refusal("match.recirculation", f"recirc_id({number:#x}), to which no flow in TC leads")


def _vlans(flow: Flow, _layer: Layer) -> Iterator[Refusal]:
    for level in flow.levels[:2]:
        if "vlan" not in level:
            continue
        parts = Call("vlan", level["vlan"]).parts
        vid, pcp = masked(parts.get("vid"), 12)[1], masked(parts.get("pcp"), 3)[1]
        tci = masked(parts.get("tci"), 16)
        if "tci" in parts and tci == (0, 0xFFFF):
            continue
        if vid not in (0, 0xFFF) or pcp not in (0, 7) or not (vid or pcp):
            yield Refusal("match.vlan-mask", f"vlan({level['vlan']})")


def _metadata(flow: Flow, _layer: Layer) -> Iterator[Refusal]:
    outer = flow.levels[0]
    value, mask = flow.value("skb_mark")
    if mask and (value or mask != 0xFFFFFFFF):
        yield Refusal("match.skb-mark", f"skb_mark({outer['skb_mark']})")
    if flow.value("dp_hash")[1]:
        yield Refusal("match.dp-hash", f"dp_hash({outer['dp_hash']})")
    if flow.value("skb_priority")[1]:
        yield Refusal("match.skb-priority", f"skb_priority({outer['skb_priority']})")
    if "eth" not in outer and "skb_mark" in outer and flow.ufid:  # a dump of every attribute, and none of Ethernet
        yield Refusal("match.packet-type", "it has no Ethernet header")
    elif "packet_type" in outer:
        namespace, kind = flow.part("packet_type", "ns", 16), flow.part("packet_type", "id", 16)
        if namespace[0] & namespace[1] or kind[0] & kind[1]:
            yield Refusal("match.packet-type", f"packet_type({outer['packet_type']})")


def _network(flow: Flow, layer: Layer) -> Iterator[Refusal]:
    inside = flow.inside
    stack = inside.get("mpls", "")
    if "lse1" in stack or stack.count("label=") > 1:
        yield Refusal("match.mpls-stack", f"mpls({stack})")
    if not flow.eth_type:
        yield Refusal("match.no-ethertype", "it has no Ethernet type")
    if "ipv6" in inside and flow.eth_type == IPV6:
        frag = Call("ipv6", inside["ipv6"]).parts.get("frag", "no")
        if frag not in ("no", "") or flow.part("ipv6", "proto", 8) == (44, 0xFF):
            yield Refusal("match.ipv6-fragment", f"frag={frag}")
        if flow.part("ipv6", "label", 20)[1]:
            yield Refusal("match.other", "the IPv6 flow label")
    if layer.has(releases.CAREFUL_FRAGMENTS) and flow.eth_type in (IPV4, IPV6):
        name = "ipv6" if flow.eth_type == IPV6 else "ipv4"
        text = inside.get("eth_type", "")
        if "/" in text and masked(text, 16)[1] != 0xFFFF:
            yield Refusal("match.incomplete", f"eth_type({text})")
        elif "frag" not in Call(name, inside.get(name)).parts:
            yield Refusal("match.incomplete", f"{name}({inside.get(name, '')}) without frag")
    if flow.eth_type == RARP and matched("arp", inside.get("arp", "")):
        yield Refusal("match.other", "fields of RARP")
    for name, code in (("nd", "match.nd"), ("nd_ext", "match.nd"), ("nsh", "match.nsh")):
        if name in inside and matched(name, inside[name]):
            yield Refusal(code, f"{name}({inside[name]})")


def _connection(flow: Flow, layer: Layer) -> Iterator[Refusal]:
    outer = flow.levels[0]
    beyond = flow.value("ct_state")[1] & ~(TC_CT_STATES if layer.ct_states is None else layer.ct_states)
    if beyond:
        yield Refusal("match.ct-state", f"ct_state({outer['ct_state']})")
    for name in ("ct_zone", "ct_mark", "ct_label") if not layer.tracks else ():
        if flow.value(name, 128)[1]:
            yield Refusal("match.ct-state", f"{name}({outer[name]})")
    for name in ("ct_tuple4", "ct_tuple6"):
        if name in outer and matched(name, outer[name]):
            yield Refusal("match.ct-tuple", f"{name}({outer[name]})")


def _tunnel(flow: Flow, layer: Layer) -> Iterator[Refusal]:
    parts = Call("tunnel", flow.levels[0].get("tunnel")).parts
    for name, text in parts.items():
        if name.startswith("flags"):  # as "flags(+oam)", and in a dump without -m as "flags"
            if "oam" in text and not (layer.encap_flags and layer.has(releases.ENCAP_FLAGS)):
                yield Refusal("match.tunnel", f"tunnel flags {text}")
        elif name == "vxlan" and layer.has(releases.VXLAN_GBP):
            continue  # the kernel's TC has it or not
        elif name in ("vxlan", "erspan", "gtpu") or (name == "geneve" and text and "genev" not in flow.in_port):
            yield Refusal("match.tunnel", f"{name}({text})")


MATCHES: tuple[Callable[[Flow, Layer], Iterator[Refusal]], ...] = (_vlans, _metadata, _network, _tunnel)


# ---- actions


class _Actions:
    """The action list as the TC layer goes through it, with what it remembers."""

    def __init__(self, flow: Flow, layer: Layer) -> None:
        self.flow, self.layer = flow, layer
        self.count = 0
        self.sent = False
        self.late: list[Refusal] = []
        """What is refused only when the rule's message is written, behind all else."""

    def refusals(self) -> Iterator[Refusal]:
        for action in self.flow.actions:
            yield from self._one(action)

    def _one(self, action: Call) -> Iterator[Refusal]:
        if self.count == MAX_ACTIONS:
            yield Refusal("action.too-many", f"{len(self.flow.actions)} actions")
        self.count += 1
        name = action.name
        simple = SIMPLE.get(name)
        if name == "userspace":
            yield _userspace(action)
        elif name == "sample":
            yield Refusal("action.sampling", str(action))
        elif name == "set":
            yield from self._set(action)
        elif name == "ct":
            if not self.layer.tracks:
                yield Refusal("action.ct", str(action))
            elif "helper" in action.parts:
                yield Refusal("action.ct-helper", str(action))
        elif name == "meter":
            if not self.layer.has(releases.METERS):
                yield Refusal("action.meter", str(action))
        elif name == "check_pkt_len":
            yield from self._check_length(action)
        elif name == "recirc":
            if self.sent and "tunnel" in self.flow.levels[0]:
                self.late.append(Refusal("action.tunnel-mirror", str(action)))
        elif simple is not None:
            yield Refusal(simple, str(action))
        elif action.is_port:
            self.sent = True
        elif name not in KNOWN:
            yield Refusal("action.other", str(action))

    def _check_length(self, action: Call) -> Iterator[Refusal]:
        if not self.layer.has(releases.METERS):
            yield Refusal("action.check-length", str(action))
            return
        for branch in action.inner:
            if branch.name in ("gt", "le"):
                for one in branch.inner:
                    for refusal in self._one(one):
                        if branch.name == "gt" and refusal.code == "action.controller":
                            size = action.parts.get("size", "")
                            words = (
                                f"check_pkt_len(size={size}): longer packets go to the controller (OVN: gateway_mtu)"
                            )
                            refusal = Refusal(refusal.code, words)
                        yield refusal

    def _set(self, action: Call) -> Iterator[Refusal]:
        for field in action.inner:
            parts = field.parts
            if field.name == "tunnel":
                allowed = TUNNEL_SET - {"tp_src"} if self.layer.has(releases.NO_TUNNEL_SOURCE) else TUNNEL_SET
                if self.layer.gbp and self.layer.has(releases.VXLAN_GBP):
                    allowed = allowed | {"vxlan"}
                beyond = [part for part in parts if part not in allowed and not part.startswith("flags")]
                if beyond or "oam" in (field.text or ""):
                    yield Refusal("action.tunnel-option", str(action))
                continue
            known = SET_PARTS.get(field.name)
            if known is None:
                yield Refusal("action.set-field", str(action))
                continue
            if self._fragment(field.name):
                yield Refusal("action.set-fragment", str(action))
                continue
            whole = "frag" in parts  # set without a mask, all of which is copied
            changed = {part for part, text in parts.items() if part in known or (not whole and masked(text, 128)[1])}
            changed = {part for part in changed if masked(parts[part], 128)[1]}
            if changed - known:
                yield Refusal("action.set-field", f"set({field.name}({', '.join(sorted(changed - known))}))")
            elif field.name in ("ipv4", "ipv6", "tcp", "udp") and changed:
                rewritten = CHECKSUMMED + OTHERS if self.layer.has(releases.OTHER_PROTOCOLS) else CHECKSUMMED
                if self._protocol() not in rewritten:
                    self.late.append(Refusal("action.set-protocol", str(action)))

    def _protocol(self) -> int:
        return self.flow.part("ipv6" if self.flow.eth_type == IPV6 else "ipv4", "proto", 8)[0]

    def _fragment(self, header: str) -> bool:
        """Whether the flow is of fragments, and to set fields of *header* would change a checksum of layer 4."""
        if not self.layer.has(releases.CAREFUL_FRAGMENTS) or header not in ("ipv4", "ipv6", "tcp", "udp"):
            return False
        ip = "ipv6" if self.flow.eth_type == IPV6 else "ipv4"
        frag = Call(ip, self.flow.inside.get(ip)).parts.get("frag", "no")
        return frag in ("first", "later") and self._protocol() in COVERED


SIMPLE = {
    "trunc": "action.truncate",
    "hash": "action.hash",
    "lb_output": "action.hash",
    "clone": "action.clone",
    "push_eth": "action.ethernet",
    "pop_eth": "action.ethernet",
    "push_nsh": "action.nsh",
    "pop_nsh": "action.nsh",
    "add_mpls": "action.other",
    "dec_ttl": "action.other",
}
KNOWN = frozenset({"push_vlan", "pop_vlan", "push_mpls", "pop_mpls", "ct_clear", "drop"})


def _userspace(action: Call) -> Refusal:
    text = action.text or ""
    if "slow_path(" in text:
        why = text.partition("slow_path(")[2].partition(")")[0]
        return Refusal("action.controller" if why == "controller" else "action.slow-path", f"slow_path({why})")
    for word, code in (
        ("controller", "action.controller"),
        ("sFlow", "action.sampling"),
        ("ipfix", "action.sampling"),
        ("flow_sample", "action.sampling"),
    ):
        if word in text:
            return Refusal(code, str(action))
    return Refusal("action.userspace", str(action))
