# SPDX-License-Identifier: Apache-2.0
"""What a NIC's driver takes of a TC filter, and how it refuses the rest: by model, inline mode and what is there.

The order of the checks and the texts are those of mlx5 in Linux 6.1 (drivers/net/ethernet/mellanox/mlx5/core: en_tc.c,
__parse_cls_flower() and parse_tc_fdb_actions(); en/tc/act/*.c; eswitch_offloads.c, esw_add_vlan_action_check()), and
of connection tracking, of which drivers before 6.4 refuse more, in Linux 6.12 (en/tc_ct.c, en/tc/act/ct.c). Where it
gives an error without a text, so does this.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import assert_never

from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.steps import NO_MARK, Beyond, Continue, Csum, GoOn, Mirred, PacketType, Police, Step, Trap
from asap2.nic.fields import FIELDS, REWRITABLE, TRACKED, Depth
from asap2.nic.function import Pf
from asap2.nic.model import MAX_DESTINATIONS, MAX_VLANS, Model
from asap2.nic.rules import (
    VLAN_PRESENT,
    AddTtl,
    Branch,
    Ct,
    CtClear,
    CtHardware,
    CtState,
    Decap,
    Drop,
    Encap,
    Enter,
    Frag,
    Goto,
    Hash,
    LayerChange,
    Masked,
    Match,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)

_ICMP, _TCP, _UDP, _ICMPV6 = 1, 6, 17, 58
_UNKNOWN = frozenset(field.name for field in FIELDS if field.depth is None) - TRACKED
"""Keys that mlx5 has no use for (FLOW_DISSECTOR_KEY_ARP and others)."""
_NETWORK = frozenset(field.name for field in FIELDS if field.depth is Depth.NETWORK)
_TRANSPORT = frozenset(field.name for field in FIELDS if field.depth is Depth.TRANSPORT)
_ARP = (0x0806, 0x8035)
_VID, _PCP = 0xFFF, 0xE000
_DSCP = 0xFC
"""What hardware rewrites of the type of service (MLX5_ACTION_IN_FIELD_OUT_IP_DSCP)."""
_ECN, _ECT_1 = 3, 1
"""The congestion bits of the type of service, and the value that says ECT(1)."""
_PACKET_HOST = 0
_MARK_BITS = 16
"""Of a flow's tag (MLX5E_TC_FLOW_ID_MASK)."""
_CHECKSUMS = 1 | 8 | 16
"""TCA_CSUM_UPDATE_FLAG_IPV4HDR, _TCP, _UDP: those that hardware keeps right when it rewrites."""

_METER_VERDICTS = (ta.TC_ACT_PIPE, ta.TC_ACT_OK, ta.TC_ACT_SHOT)

_WHOLE = {"ct_zone": 0xFFFF, "ct_labels": (1 << 128) - 1}

_NOT_OF_TC = Output | Upcall | Truncate | Hash | Enter | Encap | Branch | LayerChange | CtHardware
"""Actions of rules that no TC action becomes before its filter is judged."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a filter is to be: on the representor of a VF, or (``uplink``) on the PF's netdev, which stands for the
    wire, or on what leads there; ``ifindex`` is that of representor or PF.

    ``wire`` is the uplink's, and ``pushed`` tells which VLAN rules from the same VF to the wire push already (0: they
    push none, None: there are none). They count where the model's ``vlan_depth`` is 0.
    """

    uplink: bool
    ifindex: int
    chain: int = 0
    prio: int = 1
    wire: int = 0
    pushed: Callable[[], int | None] = lambda: None
    tunnel: bool = False
    """Whether the filter is on a tunnel's device: the rule takes packets out of the tunnel."""
    internal: bool = False
    """Whether the filter is on an internal port of Open vSwitch."""
    internal_ports: frozenset[int] = frozenset()
    """The internal ports that the filter sends to, whichever way."""
    peers: frozenset[int] | None = None
    """For a filter on a function's receive side, without an eSwitch (parse_tc_nic_actions): the netdevs of functions of
    the same hardware. None: the filter is for an eSwitch."""
    vf: bool = False
    """Whether such a function is a VF, whose firmware leaves chains to trusted ones."""


def pushed(wire: int, others: Iterable[tuple[Step, ...]]) -> int | None:
    """The VLAN that the first action list pushes which sends to *wire* first, 0 if it pushes none."""
    for steps in others:
        output = next((step.ifindex for step in steps if isinstance(step, Mirred)), None)
        if output == wire:
            return next((step.vid for step in steps if isinstance(step, PushVlan)), 0)
    return None


def refuse(text: str = "", number: int = errno.EOPNOTSUPP) -> NetlinkError:
    """The driver's refusal, to be raised; NL_SET_ERR_MSG_MOD() puts the module's name before the text."""
    return NetlinkError(number, f"mlx5_core: {text}" if text else None)


def elsewhere() -> NetlinkError:
    """The refusal to send to a device of other hardware."""
    return refuse("devices are not on same switch HW, can't offload forwarding")


def check(pf: Pf, place: Place, match: Match, steps: tuple[Step, ...]) -> None:
    """NetlinkError when *pf*'s NIC takes no filter that does *steps* with what matches."""
    model = pf.nic.model
    if place.chain and not model.chains:
        raise refuse("Requested chain is out of supported range")
    _check_match(model, match)
    if place.tunnel:
        _check_congestion(match)
    if place.peers is not None and match.cvlan_tci.value:
        raise refuse("Matching on CVLAN is not supported")
    if not place.uplink and Depth.NONE != pf.inline_mode < depth(match):
        raise refuse("Flow is not offloaded due to min inline setting")
    _check_tracking(model, place, match)
    _Actions(pf, place, match).check(steps)
    if place.peers is not None and place.prio > 1 and (place.vf or not model.chains):
        raise refuse()


# ---- matches


def _check_match(model: Model, match: Match) -> None:
    used = match.used().keys()
    if not _UNKNOWN.isdisjoint(used) or (match.eth_type.value in _ARP and not _NETWORK.isdisjoint(used)):
        raise refuse("Unsupported key")
    if match.cvlan_tci.value and not model.match_cvlan:
        raise refuse("Matching on CVLAN is not supported")
    if match.ip_frag.mask & Frag.FIRST:
        raise refuse("Match on frag first/later is not supported")
    if match.ip_ttl.mask and not model.match_ttl:
        raise refuse("Matching on TTL is not supported")
    if match.l4_src.mask or match.l4_dst.mask:
        protocol = match.ip_proto.value
        if protocol in (_ICMP, _ICMPV6):
            if not model.match_icmp:
                name = "ICMP" if protocol == _ICMP else "ICMPV6"
                raise refuse(f"Match on Flex protocols for {name} is not supported")
        elif protocol not in (_TCP, _UDP):
            raise refuse("Only UDP and TCP transports are supported for L4 matching", errno.EINVAL)


def _check_congestion(match: Match) -> None:
    """Taking a packet out of a tunnel may change its congestion bits (mlx5e_tc_verify_tunnel_ecn, RFC 6040)."""
    outer, inner = (Masked(f.value & _ECN, f.mask & _ECN) for f in (match.tun_tos, match.ip_tos))
    if outer.mask not in (0, _ECN):
        raise refuse("Partial match on enc_tos ecn bits isn't supported")
    if not inner.mask:
        return
    if not outer.mask:
        raise refuse("Matching on tos ecn bits without also matching enc_tos ecn bits isn't supported")
    if inner.mask != _ECN:
        raise refuse("Partial match on tos ecn bits with match on enc_tos ecn bits isn't supported")
    if outer.value == _ECT_1:
        raise refuse("Match on enc_tos ecn = ECT(1) isn't supported")
    if outer.value == _ECN and inner.value != _ECN:
        raise refuse("Match on tos enc_tos ecn = CE while match on tos ecn != CE isn't supported")


def depth(match: Match) -> Depth:
    """How deep *match* looks: for how much of a packet must be in its descriptor (match_level)."""
    used = match.used().keys() - TRACKED
    if not _TRANSPORT.isdisjoint(used):
        return Depth.TRANSPORT
    if not _NETWORK.isdisjoint(used) or match.ip_frag.value & Frag.IS_FRAGMENT:
        return Depth.NETWORK
    return Depth.LINK if used else Depth.NONE


def _tracks(model: Model, place: Place) -> bool:
    """Whether the driver has connection tracking there. A function's receive side has none: it needs what firmware
    leaves to few functions."""
    return model.connection_tracking and place.peers is None


def _check_tracking(model: Model, place: Place, match: Match) -> None:
    """mlx5_tc_ct_match_add()."""
    if TRACKED.isdisjoint(match.used()):
        return
    if not _tracks(model, place):
        raise refuse("offload of ct matching isn't available")
    for state, name in ((CtState.REL, "rel"), (CtState.INV, "inv")):
        if match.ct_state.value & state:
            raise refuse(f"matching on ct_state +{name} isn't supported")


def tracked(match: Match) -> Match:
    """*match* as the NIC does it: its registers have a zone, and a number for each set of labels, so that of these all
    bits count (MLX5_CT_ZONE_MASK, MLX5_CT_LABELS_MASK)."""
    whole = {name: Masked(match.used()[name].value, mask) for name, mask in _WHOLE.items() if name in match.used()}
    return match.but(**whole) if whole else match


# ---- policing


def check_limit(steps: tuple[Step, ...]) -> Police:
    """The action of a matchall filter on a representor, which limits all that the function sends (mlx5: its vport);
    NetlinkError where it is another one (tc_matchall_police_validate)."""
    found = [step for step in steps if not isinstance(step, Beyond | GoOn | Continue | Pass | Drop)]
    if not steps:
        raise refuse("matchall called with no action", errno.EINVAL)
    if len(found) > 1:
        raise refuse("matchall policing support only a single action")
    if not found or not isinstance(found[0], Police):
        raise refuse("mlx5 supports only police action for matchall")
    police = found[0]
    if police.conform != ta.TC_ACT_UNSPEC:
        raise refuse("Offload not supported when conform action is not continue")
    if police.exceed != ta.TC_ACT_SHOT:
        raise refuse("Offload not supported when exceed action is not drop")
    if police.rates.peak or police.rates.overhead:
        raise refuse("Offload not supported when peakrate/avrate/overhead is configured")
    return police


def meters(step: Police) -> bool:
    """Whether the verdicts of an action police are ones that hardware has (police_act_validate)."""
    return all(verdict in _METER_VERDICTS or _is_jump(verdict) for verdict in (step.exceed, step.conform))


def _is_jump(verdict: int) -> bool:
    return verdict & ~ta.TC_ACT_EXT_VAL_MASK == ta.TC_ACT_JUMP


# ---- actions


class _Actions:
    """What has been seen of an action list so far (struct mlx5_esw_flow_attr, mlx5e_tc_act_parse_state)."""

    def __init__(self, pf: Pf, place: Place, match: Match) -> None:
        self.model, self.pf, self.place, self.match = pf.nic.model, pf, place, match
        self.outputs: list[int] = []
        self.split = 0
        self.vlans = 0
        self.pop = False
        self.push: int | None = None
        self.rewrites = 0
        self.rewriting = False
        """Whether there was a rewrite, even one of no effect (MLX5_FLOW_CONTEXT_ACTION_MOD_HDR)."""
        self.encap: SetTunnel | None = None
        self.encaps: list[SetTunnel] = []
        self.decap = False
        self.host = False
        self.goto = 0
        self.forwards = self.drops = False
        self.beyond_ttl = False
        self.later: NetlinkError | None = None
        """What is found wrong with the rewrites when all are known."""
        self.before: list[tuple[NetlinkError | None, int]] = []
        """That, and how many rewrites there are, of the parts of the list that end in connection tracking: each part is
        a rule of its own in hardware (mlx5e_clone_flow_attr_for_post_act)."""
        self.rewritten = False
        """Whether a part before rewrites."""
        self.policed = False
        self.cleared = False
        """Whether connection tracking is forgotten, which is a rewrite of registers."""

    def check(self, steps: Iterable[Step]) -> None:
        steps = tuple(steps)
        if not steps:
            raise refuse("Flow action doesn't have any entries", errno.EINVAL)
        receive = self.place.peers is not None
        for at, step in enumerate(steps):
            match step:
                case Beyond() if receive and step is NO_MARK:
                    continue
                case Beyond(hardware):
                    raise NetlinkError(errno.EOPNOTSUPP, hardware)
                case Trap() | PopVlan() | PushVlan() | ModifyVlan() | PacketType() | SetTunnel() | Decap() if receive:
                    raise refuse("Not implemented offload action")
                case SetField("skb_mark", to):
                    if to.value >> _MARK_BITS:
                        raise refuse("Bad flow mark, only 16 bit supported")
                    self.forwards = True
                case Trap():
                    if len(steps) > 1:
                        raise refuse("action trap is supported as a sole action only")
                    self.forwards = True
                case PopVlan():
                    self._vlan(None)
                case PushVlan(vid, pcp, _) if self.pop:
                    self.pop = False
                    self._rewrite_vlan(vid, pcp)
                case PushVlan():
                    self._vlan(step)
                case ModifyVlan(vid, pcp, _):
                    self._rewrite_vlan(vid, pcp or 0)
                case SetField(name, to):
                    self._rewrite(name, to)
                case AddTtl():
                    self._may_rewrite()
                    self.rewrites += 1
                case Csum(headers):
                    self._checksum(headers)
                case PacketType(kind):
                    if kind != _PACKET_HOST:
                        raise refuse("skbedit ptype is only supported with type host")
                    self.host = True
                case SetTunnel():
                    self._tunnel()
                    self.encap = step
                case Decap():
                    self._tunnel()
                    self.decap = True
                case Mirred():
                    self._output(step)
                    self.forwards = True
                case Goto(chain):
                    self._goto(chain)
                    self.forwards = True
                case Pass():
                    self.forwards = True
                case Drop():
                    self.drops = True
                case GoOn():
                    pass
                case Ct() | CtClear():
                    self._track(step, last=all(isinstance(one, GoOn) for one in steps[at + 1 :]))
                case Police():
                    self._police(step, last=all(isinstance(one, GoOn) for one in steps[at + 1 :]))
                case Continue():
                    pass  # the action that says so is refused already
                case _:
                    if isinstance(step, _NOT_OF_TC):
                        raise refuse("Not implemented offload action")
                    assert_never(step)
        self._whole()

    def _track(self, step: Ct | CtClear, *, last: bool) -> None:
        if not _tracks(self.model, self.place):
            raise refuse("offload of ct action isn't available")
        self.split = len(self.outputs)
        if isinstance(step, CtClear):
            self.cleared = True
            return
        self.forwards = True  # to the table of connections
        if not last:
            self._next_part()

    def _police(self, step: Police, *, last: bool) -> None:
        """By a meter, or by packets' length; what follows is a rule of its own (en/tc/act/police.c)."""
        if self.place.peers is not None:
            raise refuse("Not implemented offload action")
        verdicts = step.exceed, step.conform
        if not meters(step):
            raise refuse("Offload not supported when conform-exceed action is not pipe, ok, jump or drop")
        if step.rates.peak or step.rates.overhead:
            raise refuse("Offload not supported when peakrate/avrate/overhead is configured")
        if not self.model.meters:
            raise refuse()
        if all(map(_is_jump, verdicts)):
            raise refuse("Cannot offload flows with nested jumps")
        self.policed = True
        if any(isinstance(one, Mirred) for one in step.exceeded):
            _Actions(self.pf, self.place, self.match).check(step.exceeded)
        if not last:
            self._next_part()

    def _next_part(self) -> None:
        self.before.append((self.later, self.rewrites))
        self.rewritten |= self.rewriting
        self.outputs, self.later = [], None
        self.split = self.rewrites = self.goto = 0
        self.rewriting = self.cleared = self.forwards = self.pop = False

    def _goto(self, chain: int) -> None:
        if not self.model.chains and chain <= self.place.chain:
            raise refuse("Goto lower numbered chain isn't supported")
        if chain and not self.model.chains:
            raise refuse("Requested destination chain is out of supported range")
        self.goto = chain

    def _vlan(self, push: PushVlan | None) -> None:
        if self.vlans >= MAX_VLANS:
            raise refuse("Total vlans used is greater than supported")
        if self.vlans >= max(1, self.model.vlan_depth):
            what = (
                "vlan push action is not supported for vlan depth > 1" if push else "vlan pop action is not supported"
            )
            raise refuse(what)
        if push and not self.model.vlan_depth and (push.tpid != 0x8100 or push.pcp):
            raise refuse("vlan push action is not supported")
        self.vlans += 1
        self.split = len(self.outputs)
        if push is None:
            self.pop = True
        elif self.push is None:
            self.push = push.vid

    def _rewrite_vlan(self, vid: int, pcp: int) -> None:
        tag = self.match.vlan_tci
        if not tag.value & VLAN_PRESENT or self.match.vlan_tpid.value not in (0, 0x8100):
            raise refuse("VLAN rewrite action must have VLAN protocol match")
        if pcp << 13 != tag.value & _PCP:
            raise refuse("Changing VLAN prio is not supported")
        self._rewrite("vlan", Masked(vid, _VID))

    def _may_rewrite(self) -> None:
        if not self.model.header_rewrites:
            raise refuse("The pedit offload action is not supported")
        self.split = len(self.outputs)
        self.rewriting = True

    def _rewrite(self, name: str, to: Masked) -> None:
        self._may_rewrite()
        self.beyond_ttl |= name in ("ip_src", "ip_dst", "ip_tos")
        starts = REWRITABLE[name].parts if name in REWRITABLE else (0,)
        ends = (*starts[1:], None)
        matched = self.match.vlan_tci if name == "vlan" else self.match.used().get(name, Masked(0, 0))
        for start, end in zip(starts, ends, strict=True):
            part = ((1 << end) - 1 if end else -1) >> start << start
            mask, value = to.mask & part, to.value & part
            if name == "ip_tos":
                if mask & ~_DSCP:
                    self.later = self.later or refuse("attempt to offload an unsupported field")
                mask, value = mask & _DSCP, value & _DSCP
            if not mask or (mask & matched.mask == mask and matched.value & mask == value):
                continue  # the packets have that value already
            bits = mask >> (mask & -mask).bit_length() - 1
            if bits & bits + 1:
                self.later = refuse("rewrite of few sub-fields isn't supported")
            self.rewrites += 1

    def _checksum(self, headers: int) -> None:
        if not self.rewriting:
            raise refuse("TC csum action is only offloaded with pedit")
        if headers & ~_CHECKSUMS:
            raise refuse("can't offload TC csum action for some header/s")

    def _tunnel(self) -> None:
        if not self.model.tunnels or not self.pf.encap:
            raise refuse()

    def _output(self, step: Mirred) -> None:
        if self.place.peers is not None:
            self._hairpin(step, self.place.peers)
            return
        if step.ingress:
            self._ingress(step)
            return
        if len(self.outputs) >= MAX_DESTINATIONS:
            raise refuse("can't support more output ports, can't offload forwarding")
        if self.encap is not None:
            self.encaps.append(self.encap)
            self.encap = None
            self.outputs.append(-1)
            return
        if step.ifindex in self.outputs:
            raise refuse("can't duplicate output to same device")
        if step.ifindex == self.place.ifindex and not (self.place.tunnel or self.place.internal):
            if not self.place.uplink:
                raise refuse("can't forward from a VF to itself")
            if not self.model.hairpin:
                raise refuse("devices are both uplink, can't offload forwarding")
        self.outputs.append(step.ifindex)

    @staticmethod
    def _hairpin(step: Mirred, peers: frozenset[int]) -> None:
        """From a function's receive side to another function (tc_act_can_offload_mirred_nic)."""
        if step.ingress or not step.final:
            raise refuse("Not implemented offload action")
        if step.ifindex not in peers:
            raise elsewhere()

    def _ingress(self, step: Mirred) -> None:
        """To the host by an internal port (tc_act_can_offload_redirect_ingress); a copy cannot go there."""
        if not step.final:
            raise refuse("Not implemented offload action")
        if step.ifindex not in self.place.internal_ports:
            raise refuse("redirect to ingress is supported only for OVS internal ports")
        if self.place.internal:
            raise refuse("redirect to ingress is not supported from internal port")
        if not self.host:
            raise refuse("redirect to int port ingress requires ptype=host action")
        if self.outputs:
            raise refuse("redirect to int port ingress is supported only as single destination")
        if not self.model.internal_ports:
            raise refuse()
        self.outputs.append(step.ifindex)

    def _whole(self) -> None:
        """What only the whole list tells."""
        if self.decap and self.goto:
            raise refuse("Decap with goto isn't supported")
        first, *later = *self.before, (self.later, self.rewrites)
        for part in reversed(later):
            self._rewrites_fit(*part)
        internal = self.place.internal or any(port in self.place.internal_ports for port in self.outputs)
        if internal and len(self.outputs) > 1:
            raise refuse("Rules with internal port can have only one destination")
        self._rewrites_fit(*first)
        if not self.rewrites and self.rewriting:
            self.rewriting = False
            self.split = self.split if self.vlans else 0
        self._verdicts()
        beyond_ttl = (self.rewriting or self.rewritten) and self.beyond_ttl
        if (
            beyond_ttl
            and self.match.eth_type.value in (0x0800, 0x86DD)
            and self.match.ip_proto.value not in (_TCP, _UDP, _ICMP)
        ):
            raise refuse("can't offload re-write of non TCP/UDP")
        if self.split > 0 and not self.model.split_mirror:
            raise refuse("current firmware doesn't support split rule for port mirroring")
        if self.place.internal and self.place.chain:
            raise refuse("Internal port rule is only supported on chain 0")
        if self.place.internal and self.goto:
            raise refuse("Internal port rule offload doesn't support goto action")
        if len(set(self.encaps)) < len(self.encaps):
            raise refuse("can't duplicate encap action")
        if not self.model.vlan_depth:
            self._emulated_vlan()

    def _rewrites_fit(self, later: NetlinkError | None, rewrites: int) -> None:
        if later is not None:
            raise later
        if rewrites > self.model.header_rewrites:
            raise refuse("too many pedit actions, can't offload", errno.ENOSPC)

    def _verdicts(self) -> None:
        """What becomes of the packets in the end (actions_match_supported)."""
        if not self.forwards and not self.drops and not self.policed:
            raise refuse("Rule must have at least one forward/drop action")
        if self.forwards and self.drops:
            raise refuse("Rule cannot support forward+drop action")
        if (self.rewriting or self.cleared) and self.drops:
            raise refuse("Drop with modify header action is not supported")

    def _emulated_vlan(self) -> None:
        """The VF's port pushes and pops instead of the rule: esw_add_vlan_action_check()."""
        first = self.outputs[0] if self.outputs else None
        to_wire = first == self.place.wire
        if (self.vlans and first is None) or (self.push is not None and self.place.uplink) or (self.pop and to_wire):
            raise refuse()
        if to_wire and not self.place.uplink and self.place.pushed() not in (None, self.push or 0):
            raise refuse()
