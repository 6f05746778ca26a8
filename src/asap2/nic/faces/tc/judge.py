# SPDX-License-Identifier: Apache-2.0
"""Decide whether mlx5 would take a filter: its match first, then its actions one by one, then the whole.

The order is that of parse_tc_fdb_actions() and parse_tc_nic_actions() (mlx5/core/en_tc.c), so that a filter with
several faults is refused for the one that mlx5 would name.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from socket import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP
from typing import assert_never

from asap2.netlink.tables.actions import TC_ACT_JUMP, has_opcode
from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS
from asap2.nic.faces.tc.capability import (
    Place,
    can_track,
    check_congestion,
    check_match,
    check_meter,
    check_tracking,
    depth,
    elsewhere,
    refuse,
)
from asap2.nic.faces.tc.steps import (
    NO_MARK,
    AtRandom,
    Beyond,
    Continue,
    Csum,
    GoOn,
    Mirred,
    PacketType,
    Police,
    PushLabel,
    Step,
    Trap,
)
from asap2.nic.fields import REWRITABLE, Depth
from asap2.nic.function import Pf
from asap2.nic.layer_actions import LayerChange, PopEthernet, PopMpls, PushEthernet, PushMpls
from asap2.nic.model import MAX_DESTINATIONS, MAX_VLANS
from asap2.nic.rules import (
    VLAN_PRESENT,
    AddTtl,
    Branch,
    Ct,
    CtClear,
    CtHardware,
    Decap,
    Drop,
    Encap,
    Enter,
    Goto,
    Hash,
    LookOn,
    Masked,
    Match,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    Psample,
    PushVlan,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)

_VID, _PCP = 0xFFF, 0xE000
_DSCP = 0xFC
"""The bits of the type of service that hardware can rewrite (MLX5_ACTION_IN_FIELD_OUT_IP_DSCP)."""
_PACKET_HOST = 0
_MARK_BITS = 16
"""Width of a flow's mark (MLX5E_TC_FLOW_ID_MASK)."""
_CHECKSUMS = 1 | 8 | 16
"""TCA_CSUM_UPDATE_FLAG_IPV4HDR, _TCP, _UDP: the checksums that hardware updates when it rewrites."""
_NOT_OF_TC = Output | Upcall | Truncate | Hash | LookOn | Enter | Encap | Branch | LayerChange | CtHardware
"""Actions of rules that no TC action has been translated to when its filter is judged."""


def check(pf: Pf, place: Place, match: Match, steps: tuple[Step, ...]) -> None:
    """Check that *pf*'s NIC takes a filter at *place* that does *steps* with packets that *match*.

    Raises:
        NetlinkError: the first fault that mlx5 would report, with its number and text.
    """
    model = pf.nic.model
    if place.chain and not model.chains:
        raise refuse("Requested chain is out of supported range")
    check_match(model, match)
    if place.tunnel:
        check_congestion(match)
    if place.peers is not None and match.cvlan_tci.value:
        raise refuse("Matching on CVLAN is not supported")
    if not place.uplink and Depth.NONE != pf.inline_mode < depth(match):
        raise refuse("Flow is not offloaded due to min inline setting")
    check_tracking(model, place, match)
    _Actions(pf, place, match).check(steps)
    if place.peers is not None and place.prio > 1 and (place.vf or not model.chains):
        raise refuse()


class _Actions:
    """The state of parsing an action list (struct mlx5_esw_flow_attr, mlx5e_tc_act_parse_state)."""

    def __init__(self, pf: Pf, place: Place, match: Match) -> None:
        self.model, self.pf, self.place, self.match = pf.nic.model, pf, place, match
        self.outputs: list[int] = []
        self.split = 0
        self.vlans = 0
        self.pop = False
        self.push: int | None = None
        self.rewrites = 0
        self.rewriting = False
        """Whether there was a rewrite, even one without effect (MLX5_FLOW_CONTEXT_ACTION_MOD_HDR)."""
        self.encap: SetTunnel | None = None
        self.encaps: list[SetTunnel] = []
        self.decap = False
        self.host = False
        self.bare = False
        """Whether the Ethernet header was taken away, which hardware does only before it puts labels on."""
        self.labelled = False
        """Whether a label was pushed."""
        self.goto = 0
        self.forwards = self.drops = False
        self.beyond_ttl = False
        self.later: NetlinkError | None = None
        """A fault of the rewrites that is reported only when all are known."""
        self.before: list[tuple[NetlinkError | None, int]] = []
        """``later`` and ``rewrites`` of each earlier part. An action ct or police ends a part; in hardware each part is
        a rule of its own (mlx5e_clone_flow_attr_for_post_act())."""
        self.rewritten = False
        """Whether an earlier part rewrites."""
        self.policed = self.samples = False
        self.cleared = False
        """Whether the state of connection tracking is cleared, which rewrites registers."""

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
                case PushMpls() | PushLabel():
                    self._push_label(step)
                case PopMpls():
                    self._pop_label(at)
                case Ct() | CtClear():
                    self._track(step, steps[at + 1 :])
                case Psample():
                    self._sample(steps[at + 1 :])
                case PushEthernet():
                    raise refuse("Not implemented offload action") if receive else refuse()
                case PopEthernet() if receive:
                    raise refuse("Not implemented offload action")
                case AtRandom():
                    pass  # the kernel offers such an action as if it had only its first verdict
                case PopEthernet():
                    self._vlan(step)
                case Police():
                    self._police(step, steps[at + 1 :])
                case Continue():
                    pass  # the action with this verdict has been refused already
                case _:
                    if isinstance(step, _NOT_OF_TC):
                        raise refuse("Not implemented offload action")
                    assert_never(step)
        self._whole()

    def _push_label(self, step: PushMpls | PushLabel) -> None:
        """A label in front of the packet that goes into a tunnel (tc_act_can_offload_mpls_push())."""
        if self.place.peers is not None:
            raise refuse("Not implemented offload action")
        if not self.model.tunnels or step.ethertype != ETH_P_MPLS[0]:
            raise refuse("mpls push is supported only for mpls_uc protocol")
        self.labelled = True

    def _pop_label(self, at: int) -> None:
        """A label behind the header of a tunnel that no device here has (tc_act_can_offload_mpls_pop())."""
        if self.place.peers is not None:
            raise refuse("Not implemented offload action")
        if at > 1 or (at and not self.decap):
            raise refuse("mpls pop supported only as first action or with decap")
        raise refuse("mpls pop supported only on bareudp devices")

    def _track(self, step: Ct | CtClear, rest: tuple[Step, ...]) -> None:
        if not can_track(self.model, self.place):
            raise refuse("offload of ct action isn't available")
        self.split = len(self.outputs)
        if isinstance(step, CtClear):
            self.cleared = True
            return
        self.forwards = True  # to the connection table
        self._next_part(rest)

    def _police(self, step: Police, rest: tuple[Step, ...]) -> None:
        """A limit on rate or packet length; the actions after it are a rule of their own (en/tc/act/police.c)."""
        if self.place.peers is not None:
            raise refuse("Not implemented offload action")
        check_meter(step)
        if not self.model.meters:
            raise refuse()
        if all(has_opcode(verdict, TC_ACT_JUMP) for verdict in (step.exceed, step.conform)):
            raise refuse("Cannot offload flows with nested jumps")
        self.policed = True
        if any(isinstance(one, Mirred) for one in step.exceeded):
            _Actions(self.pf, self.place, self.match).check(step.exceeded)
        self._next_part(rest)

    def _sample(self, rest: tuple[Step, ...]) -> None:
        """A flow sampler; the actions after it are a rule of their own (en/tc/act/sample.c)."""
        if self.place.peers is not None:
            raise refuse("Not implemented offload action")
        self.samples = True
        self._next_part(rest)

    def _next_part(self, rest: tuple[Step, ...]) -> None:
        if all(isinstance(one, GoOn) for one in rest):
            return
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

    def _vlan(self, push: PushVlan | PopEthernet | None) -> None:
        if self.vlans >= MAX_VLANS:
            raise refuse("Total vlans used is greater than supported")
        if isinstance(push, PopEthernet):
            self.vlans += 1
            self.split = len(self.outputs)
            self.bare = True
            return
        if self.vlans >= max(1, self.model.vlan_depth):
            what = (
                "vlan push action is not supported for vlan depth > 1" if push else "vlan pop action is not supported"
            )
            raise refuse(what)
        if push and not self.model.vlan_depth and (push.tpid != ETH_P_8021Q or push.pcp):
            raise refuse("vlan push action is not supported")
        self.vlans += 1
        self.split = len(self.outputs)
        if push is None:
            self.pop = True
        elif self.push is None:
            self.push = push.vid

    def _rewrite_vlan(self, vid: int, pcp: int) -> None:
        tag = self.match.vlan_tci
        if not tag.value & VLAN_PRESENT or self.match.vlan_tpid.value not in (0, ETH_P_8021Q):
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
        if self.labelled:
            raise refuse("mpls is supported only through a bareudp device")
        if self.bare:
            raise refuse("vlan pop eth is supported only with mpls push")
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
        """An output from a function's receive side to another function (tc_act_can_offload_mirred_nic())."""
        if step.ingress or not step.final:
            raise refuse("Not implemented offload action")
        if step.ifindex not in peers:
            raise elsewhere()

    def _ingress(self, step: Mirred) -> None:
        """A redirect to the host through an internal port, never a copy (tc_act_can_offload_redirect_ingress())."""
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
        """Check what depends on the whole list."""
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
            and self.match.eth_type.value in (ETH_P_IP, ETH_P_IPV6)
            and self.match.ip_proto.value not in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP)
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
        if self.samples and not self.model.sampling:
            raise refuse()

    def _rewrites_fit(self, later: NetlinkError | None, rewrites: int) -> None:
        if later is not None:
            raise later
        if rewrites > self.model.header_rewrites:
            raise refuse("too many pedit actions, can't offload", errno.ENOSPC)

    def _verdicts(self) -> None:
        """Check the packets' fate: forward or drop (actions_match_supported())."""
        if not self.forwards and not self.drops and not self.policed:
            raise refuse("Rule must have at least one forward/drop action")
        if self.forwards and self.drops:
            raise refuse("Rule cannot support forward+drop action")
        if (self.rewriting or self.cleared) and self.drops:
            raise refuse("Drop with modify header action is not supported")

    def _emulated_vlan(self) -> None:
        """Check VLAN actions that the VF's port does instead of the rule (esw_add_vlan_action_check())."""
        first = self.outputs[0] if self.outputs else None
        to_wire = first == self.place.wire
        if (self.vlans and first is None) or (self.push is not None and self.place.uplink) or (self.pop and to_wire):
            raise refuse()
        if to_wire and not self.place.uplink and self.place.pushed() not in (None, self.push or 0):
            raise refuse()
