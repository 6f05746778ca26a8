# SPDX-License-Identifier: Apache-2.0
"""Where a TC filter's rule runs: in the NIC's eSwitch as mlx5 would offload it, or in the node's software pipeline.

Refusals carry the text of mlx5's extended acknowledgements (mlx5/core/en_tc.c and en/tc/).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc import capability as tc_capability
from asap2.nic.faces.tc import judge, match_all, mpls_action
from asap2.nic.faces.tc.hardware_actions import HardwareActions, outside, resumes_of, within_tunnel
from asap2.nic.faces.tc.police_meters import is_limit
from asap2.nic.faces.tc.spec import RECEIVE, FilterSpec, Placed, Planned
from asap2.nic.faces.tc.steps import Beyond, Police, sampled, sampled_first
from asap2.nic.function import Function, Nic, Pf, Role
from asap2.nic.netdevs import CountedNetDevs, NetDev
from asap2.nic.node_ports import NodePorts
from asap2.nic.rules import (
    UNREACHED,
    Action,
    Ct,
    CtHardware,
    Decap,
    Drop,
    Enter,
    Goto,
    Match,
    Output,
    Rule,
    SetTunnel,
)
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.rule_entries import Pattern
from asap2.nic.tunnels import Udp
from asap2.nic.tunnels.options import KINDS
from asap2.nic.underlay.resolver import Tunnels

Others = Callable[[int], Iterable[tuple[tc_actions.Step, ...]]]
"""Gives what the filters on a device do that are in hardware."""


@dataclass(slots=True)
class Placement:
    """Where the rule of one filter went, and what that hung on: for others that differ in matched values only."""

    epoch: int
    device: NetDev
    state: tuple[object, ...]
    placed: Placed
    pattern: Pattern


def tc_offload_enabled(device: NetDev) -> bool:
    """The feature hw-tc-offload: representors start with it on, an uplink with it off (mlx5e_build_rep_netdev)."""
    if device.pf is None:
        return False
    return device.pf.hw_tc_offload.get(device.offload_key, device.role is Role.REPRESENTOR)


def is_receiver(device: NetDev) -> bool:
    """Whether the rules of a netdev are for what a function receives, not an eSwitch's: those of a PF in legacy mode,
    and of a VF."""
    return device.role in (Role.PF, Role.VF) and device.eswitch is None


def _settings(device: NetDev, pf: Pf) -> tuple[object, ...]:
    return pf.mode, tc_offload_enabled(device), pf.inline_mode, pf.encap


def _check_indev(ifindex: int, spec: FilterSpec) -> None:
    """A filter is for packets that come in by its own device (mlx5e_flower_parse_meta())."""
    if spec.indev < 0:
        raise tc_capability.refuse("Can't find the ingress port to match on", errno.ENOENT)
    if spec.indev not in (0, ifindex):
        raise tc_capability.refuse("Can't match on the ingress filter port")


def tracks(steps: tuple[tc_actions.Step, ...]) -> bool:
    """Whether connections are looked up: a packet of one that hardware does not carry goes on in software there."""
    return any(isinstance(step, Ct) for step in steps)


def _tunnel_of(match: Match) -> SetTunnel:
    """The tunnel of packets that *match*, as mlx5 tells of it: what the filter says (mlx5e_tc_restore_tunnel())."""
    size = 16 if max(match.tun_src.mask, match.tun_dst.mask) >> 32 else 4
    src, dst = (end.value.to_bytes(16, "big")[16 - size :] for end in (match.tun_src, match.tun_dst))
    return SetTunnel(match.tun_id.value, src, dst, match.tun_tos.value, match.tun_ttl.value, match.tun_tp_dst.value)


class Offloader:
    """Places rules for the TC face."""

    def __init__(
        self, netdevs: CountedNetDevs, silicon: Callable[[Nic], Pipeline], node: NodePorts, tunnels: Tunnels
    ) -> None:
        self._netdevs = netdevs
        self._silicon = silicon
        self._node = node
        self._tunnels = tunnels
        self._actions = HardwareActions(netdevs, silicon, node, tunnels)
        self.police = self._actions.police

    @staticmethod
    def _check_offered(spec: FilterSpec) -> None:
        """NetlinkError where the kernel offers a filter to no driver (tc_setup_offload_action)."""
        if spec.kind in match_all.KINDS:
            raise NetlinkError(errno.EOPNOTSUPP)
        if spec.ranges:
            raise tc_capability.refuse("Unsupported key")
        for step in tc_actions.flat(spec.steps):
            if isinstance(step, Beyond) and not (step.hardware or "").startswith("mlx5_core: "):
                raise NetlinkError(errno.EOPNOTSUPP, step.hardware)

    def hardware(self, ifindex: int, spec: FilterSpec, others: Others) -> list[Planned]:
        """The eSwitch rules of a filter on device *ifindex*, mostly one; a filter that drops what comes out of a
        tunnel, or sends it to another chain, has a rule in every eSwitch. NetlinkError says why there can be none."""
        self._check_offered(spec)
        device = self._netdevs.by_ifindex(ifindex)
        if spec.kind == "matchall":
            return [self._limit(device, spec)]
        if device is not None and is_receiver(device):
            return [self._received(device, spec)]
        if device is not None and (device.role is Role.INTERNAL or device.pf is not None):
            uplink = self._uplink_of_internal(spec.steps) if device.role is Role.INTERNAL else device
            return [self._rule(device, uplink, ifindex, spec, others)]
        found = []
        refusal = NetlinkError(errno.EOPNOTSUPP)
        for uplink in self._tunnel_ends(ifindex, spec.steps):
            try:
                found.append(self._rule(device, uplink, ifindex, spec, others))
            except NetlinkError as error:
                refusal = error
        if not found:
            raise refusal
        return found

    def _limit(self, device: NetDev | None, spec: FilterSpec) -> Planned:
        """The rule of a matchall, which is for policing what a function sends (mlx5e_tc_configure_matchall)."""
        if device is None or device.role is not Role.REPRESENTOR or device.function is None:
            raise NetlinkError(errno.EOPNOTSUPP)
        if spec.prio != 1:
            raise tc_capability.refuse("only priority 1 is supported", errno.EINVAL)
        return self.police.of_function(device.function, self._silicon(device.function.nic), spec, device.ifindex)

    def _rule(self, device: NetDev | None, uplink: NetDev, ifindex: int, spec: FilterSpec, others: Others) -> Planned:
        """The rule in *uplink*'s eSwitch of a filter on *device* (None: a tunnel's)."""
        internal = device is not None and device.role is Role.INTERNAL
        pf = uplink.eswitch
        if pf is None or uplink.function is None:
            raise NetlinkError(errno.EOPNOTSUPP)
        if not tc_offload_enabled(uplink):
            raise NetlinkError(errno.EOPNOTSUPP, "TC offload is disabled on net device")
        match, steps = spec.match, self._by_uplink(pf, spec.steps)
        tunnel = not internal and uplink is not device
        stays = tunnel and any(isinstance(step, Goto) for step in steps)
        if tunnel:
            self._check_tunnel_port(pf, ifindex, match)
            self._take_option(self._silicon(pf.nic), match)
            if not stays and not any(isinstance(step, Decap) for step in steps):
                steps = (Decap(), *steps)
        function = uplink.function if uplink is device else pf
        place = self._place(uplink.ifindex, spec, function, others)
        if internal or tunnel or any(isinstance(step, tc_actions.Mirred) for step in tc_actions.flat(steps)):
            place = replace(place, tunnel=tunnel, internal=internal, internal_ports=self._internal_ports(steps))
        _check_indev(ifindex, spec)
        judge.check(pf, place, match, steps)
        match, rests = tc_capability.tracked(match), () if stays else self.rests(ifindex, spec.prio, steps)
        if tunnel:
            self._check_tunnel_route(pf, ifindex, match)
        in_port = self._actions.internal(pf, ifindex) if internal else function.switched_port
        if tunnel and not stays:
            steps = outside(steps)
        steps = sampled_first(steps, ifindex, _tunnel_of(match) if tunnel else None)
        actions = within_tunnel(steps) if stays else self._actions.of(function, steps)
        rule = Rule(spec.chain, in_port, spec.priority, match, actions)
        pipeline = self._silicon(pf.nic)
        reason = pipeline.supports(rule)
        if reason is not None:
            raise tc_capability.refuse(reason)
        return Planned(pipeline, rule, ifindex, pf, rests=rests)

    def _by_uplink(self, pf: Pf, steps: tuple[tc_actions.Step, ...]) -> tuple[tc_actions.Step, ...]:
        """*steps* with *pf*'s own uplink in place of the bond that it is a port of (get_fdb_out_dev)."""
        if not pf.nic.bond:
            return steps
        own = next((device.ifindex for device in self._netdevs.all() if device.function is pf), 0)
        found: list[tc_actions.Step] = []
        for step in steps:
            if isinstance(step, tc_actions.Mirred) and step.ifindex == pf.nic.bond:
                step = replace(step, ifindex=own)
            elif isinstance(step, Police):
                step = replace(step, exceeded=self._by_uplink(pf, step.exceeded))
            found.append(step)
        return tuple(found)

    def _received(self, device: NetDev, spec: FilterSpec) -> Planned:
        """The rule of a filter for what the function *device* receives, which has no eSwitch's port there: it is where
        the node's own rules are, behind the function's far end (mlx5e_tc_add_nic_flow)."""
        pf = device.pf
        assert pf is not None
        if not tc_offload_enabled(device):
            raise NetlinkError(errno.EOPNOTSUPP, "TC offload is disabled on net device")
        peers = frozenset(peer.ifindex for peer in self._netdevs.all() if peer.nic is pf.nic and is_receiver(peer))
        vf = device.role is Role.VF
        place = tc_capability.Place(True, device.ifindex, spec.chain, spec.prio, peers=peers, vf=vf)
        _check_indev(device.ifindex, spec)
        judge.check(pf, place, spec.match, spec.steps)
        return self.software(device.ifindex, spec)._replace(pf=pf, receive=True)

    def _internal_ports(self, steps: tuple[tc_actions.Step, ...]) -> frozenset[int]:
        """The internal ports among what *steps* send to."""
        targets = {step.ifindex for step in tc_actions.flat(steps) if isinstance(step, tc_actions.Mirred)}
        devices = ((ifindex, self._netdevs.by_ifindex(ifindex)) for ifindex in targets)
        return frozenset(ifindex for ifindex, device in devices if device is not None and device.role is Role.INTERNAL)

    def placement(self, ifindex: int, placed: Placed, steps: tuple[tc_actions.Step, ...]) -> Placement | None:
        """What :meth:`again` needs; None where a placement depends on more than the devices and their settings."""
        device = self._netdevs.by_ifindex(ifindex)
        pf = placed.pf
        if device is None or device.pf is None or pf is None or not pf.nic.model.vlan_depth:
            return None
        if any(isinstance(step, SetTunnel) for step in steps) or any(resumes_of(placed.rule.actions)):
            return None
        pattern = placed.pipeline.pattern(placed.handle)
        return Placement(self._netdevs.epoch(), device, _settings(device, pf), placed, pattern)

    def again(self, placement: Placement, key: bytes) -> Placed | None:
        """Place the rule of another filter that is as the one that was placed, but for the matched values: *key*, a
        ``struct fields``. None when anything that it hung on has changed since. OSError as :meth:`Pipeline.add`."""
        like = placement.placed
        if self._netdevs.epoch() != placement.epoch or like.pf is None:
            return None
        if _settings(placement.device, like.pf) != placement.state:
            return None
        handle = like.pipeline.add_like(placement.pattern, key)
        return None if handle is None else replace(like, handle=handle)

    def _place(self, ifindex: int, spec: FilterSpec, function: Function, others: Others) -> tc_capability.Place:
        """Where a filter is to be. What is already there counts where VLANs are the VFs' ports' only."""
        place = tc_capability.Place(function is function.pf, ifindex, spec.chain, spec.prio)
        if function.nic.model.vlan_depth:
            return place
        devices = self._netdevs.all()
        wire = next((device.ifindex for device in devices if device.function is function.pf), 0)
        return replace(place, wire=wire, pushed=lambda: tc_capability.pushed(wire, others(ifindex)))

    def _tunnel_ends(self, ifindex: int, steps: tuple[tc_actions.Step, ...]) -> list[NetDev]:
        """For a filter on a tunnel device: the representor that it sends to first, whose eSwitch has it, or the uplink
        where it sends to an internal port; the uplinks of all that take packets out of tunnels, where it drops or
        sends to another chain."""
        if self._tunnels.protocol_of(ifindex) is None:
            return []
        target = next((step for step in steps if isinstance(step, tc_actions.Mirred)), None)
        if target is not None:
            device = self._netdevs.by_ifindex(target.ifindex)
            if device is not None and device.role is Role.INTERNAL:
                return self._only_uplink()
            if device is None:
                return []
            bonded = device.nic is not None and device.nic.bond
            others = [one for one in self._uplinks() if one.nic is device.nic and one.pf is not device.pf]
            return [device, *others] if bonded else [device]
        if not any(isinstance(step, Drop | Goto) for step in steps):
            return []
        return [device for device in self._netdevs.all() if device.role is Role.PF]

    def _check_tunnel_port(self, pf: Pf, ifindex: int, match: Match) -> None:
        """mlx5e_tc_tun_parse(), whose words the caller of it replaces by its own; without tunnels nobody asks it."""
        protocol = self._tunnels.protocol_of(ifindex)
        if protocol is None or protocol.name not in pf.nic.model.tunnels or not pf.encap:
            raise NetlinkError(errno.EOPNOTSUPP)
        port = match.tun_tp_dst
        if isinstance(protocol.over, Udp) and (
            port.mask != 0xFFFF or not self._tunnels.ports.knows(protocol, port.value)
        ):
            raise tc_capability.refuse("Failed to parse tunnel attributes")

    def _take_option(self, pipeline: Pipeline, match: Match) -> None:
        """Let the NIC look for the option that a filter matches on: for one kind at a time, and never for data of 0
        (mlx5e_tc_tun_parse_geneve_options, mlx5_geneve_tlv_option_add). Its words, too, the caller replaces."""
        kind = match.tun_option_kind.value
        if not kind:
            return
        others = pipeline.option_kinds.keys() - {kind}
        if not match.tun_option.value or any(
            rule.match.tun_option_kind.value in others for rule in pipeline.rules.values() if others
        ):
            raise tc_capability.refuse("Failed to parse tunnel attributes")
        pipeline.set_option_kinds({kind: KINDS.kind(kind)})

    def _check_tunnel_route(self, pf: Pf, ifindex: int, match: Match) -> None:
        """What the key names both ends of comes in by the way to the far one."""
        near, far = match.tun_dst, match.tun_src
        if near.value and far.value:
            size = 16 if max(near.mask, far.mask) >> 32 else 4
            self._tunnels.decap(pf, ifindex, near.value.to_bytes(size, "big"), far.value.to_bytes(size, "big"))

    def _uplinks(self) -> list[NetDev]:
        """The uplinks of the node's eSwitches."""
        return [device for device in self._netdevs.all() if device.role is Role.PF and device.eswitch is not None]

    def _only_uplink(self) -> list[NetDev]:
        """The uplink of the node's eSwitch, when that is the only one, or those of one bond: of others any could get
        the tunnel's packets."""
        uplinks = self._uplinks()
        bonds = {device.nic.bond for device in uplinks if device.nic is not None}
        return uplinks if len(uplinks) == 1 or (len(bonds) == 1 and bonds != {0}) else []

    def _uplink_of_internal(self, steps: tuple[tc_actions.Step, ...]) -> NetDev:
        """For a filter on an internal port: the device of the eSwitch that it sends to first."""
        bonded = {device.nic.bond: device for device in self._uplinks() if device.nic is not None and device.nic.bond}
        for step in steps:
            device = None
            if isinstance(step, tc_actions.Mirred):
                device = bonded.get(step.ifindex) or self._netdevs.by_ifindex(step.ifindex)
            if device is not None and device.role is Role.PF and device.nic is not None:
                if device.nic.model.internal_ports:
                    return device
                break
        raise NetlinkError(errno.EOPNOTSUPP)

    def begins_anew(self, ifindex: int, spec: FilterSpec) -> bool:
        """Whether software may begin anew with a packet of this filter: it is in a tunnel, and no filter of the chains
        that it is sent to may be for it."""
        return self._tunnels.protocol_of(ifindex) is not None and any(isinstance(step, Goto) for step in spec.steps)

    def beneath(self, ifindex: int, spec: FilterSpec) -> Planned:
        """The node's rule of a filter that skips software, for what hardware leaves to it within its actions: no packet
        finds it."""
        planned = self.software(ifindex, spec)
        return planned._replace(rule=replace(planned.rule, table=planned.rule.table | UNREACHED))

    def software(self, ifindex: int, spec: FilterSpec) -> Planned:
        """The node's rule of a filter; NetlinkError (EOPNOTSUPP) says why the software pipeline cannot."""
        if is_limit(spec):
            return self.police.of_device(ifindex, spec)
        there = self._netdevs.by_ifindex(ifindex)
        never = spec.indev and (spec.indev != ifindex or (there is not None and there.role is Role.INTERNAL))
        rule = Rule(
            spec.chain | UNREACHED if never else spec.chain,
            max(spec.indev, 0) if never else ifindex,
            spec.priority,
            spec.match,
            self._in_software(ifindex, spec.prio, mpls_action.settled(spec.steps, spec.match)),
        )
        reason = self._node.pipeline.supports(rule)
        if reason is not None:
            raise NetlinkError(errno.EOPNOTSUPP, reason)
        return Planned(self._node.pipeline, rule, ifindex)

    def rests(self, ifindex: int, prio: int, steps: tuple[tc_actions.Step, ...]) -> tuple[tuple[Action, ...], ...]:
        """What software does from each connection tracking on (act_miss_cookie) of a filter of *prio* on a device."""
        return tuple(
            self._in_software(ifindex, prio, steps[at:]) for at, step in enumerate(steps) if isinstance(step, Ct)
        )

    def _in_software(self, ifindex: int, prio: int, steps: tuple[tc_actions.Step, ...]) -> tuple[Action, ...]:
        """Rule actions of *steps* of a filter on device *ifindex* for the node; errors as :meth:`software`."""
        there = self._netdevs.by_ifindex(ifindex)
        egress = there is not None and there.role is Role.INTERNAL
        steps = sampled(steps, 0 if egress else ifindex, ifindex if egress else 0)

        def output(step: tc_actions.Mirred) -> int:
            device = self._netdevs.by_ifindex(step.ifindex)
            internal = device is not None and device.role is Role.INTERNAL
            if step.ingress != internal:
                way = "ingress" if step.ingress else "egress"
                raise NetlinkError(errno.EOPNOTSUPP, f"mirred {way} to this kind of device is not supported")
            self._node.sent_to(step.ifindex)
            return step.ifindex

        steps = self._entering(tuple(step for step in steps if not isinstance(step, Decap)))
        return tc_actions.to_rule(
            steps,
            output,
            Drop,  # the kernel's software drops what it is to trap
            meter=lambda step: self.police.number(self._node.pipeline, step),
            prio=prio,
        )

    def _entering(self, steps: tuple[tc_actions.Step, ...]) -> tuple[tc_actions.Step, ...]:
        """*steps* for software: what is redirected to the egress of an internal port comes in by it
        (internal_dev_xmit)."""
        last = steps[-1] if steps else None
        if not isinstance(last, tc_actions.Mirred) or not last.final or last.ingress:
            return steps
        device = self._netdevs.by_ifindex(last.ifindex)
        if device is None or device.role is not Role.INTERNAL:
            return steps
        self._node.sent_to(last.ifindex)
        return (*steps[:-1], Enter(last.ifindex))

    def may_bind(self, ifindex: int) -> None:
        """NetlinkError where a device cannot share filters that are in hardware (tcf_block_offload_bind)."""
        device = self._netdevs.by_ifindex(ifindex)
        if device is None or device.pf is None:
            if self._tunnels.protocol_of(ifindex) is None:
                raise NetlinkError(errno.EOPNOTSUPP)
        elif not tc_offload_enabled(device):
            raise NetlinkError(errno.EOPNOTSUPP, "Bind to offloaded block failed as dev has offload disabled")

    def to_host(self, ifindex: int) -> tuple[Action, ...]:
        """The actions that leave the packets of a representor to the host."""
        device = self._netdevs.by_ifindex(ifindex)
        if device is None or device.function is None:
            return (Drop(),)
        return (Output(device.function.host_port),)

    def placed(
        self, place: str, nics: dict[str, Nic], in_port: int, handle: int, steps: tuple[tc_actions.Step, ...]
    ) -> Placed:
        """A rule of an earlier run: *place* is "NIC/PF", or empty for the node's pipeline."""
        if not place or place.endswith(RECEIVE):
            for step in tc_actions.flat(steps):
                if isinstance(step, tc_actions.Mirred):
                    self._node.sent_to(step.ifindex)
        if not place:
            return Placed(self._node.pipeline, handle, in_port)
        function = place.removesuffix(RECEIVE)
        name, _, index = function.partition("/")
        nic = nics[name]
        if function != place:
            return Placed(self._node.pipeline, handle, in_port, nic.pfs[int(index)], receive=True)
        placed = Placed(self._silicon(nic), handle, in_port, nic.pfs[int(index)])
        self.police.took_up(placed, steps)
        if tracks(steps):
            placed.software = self._node.pipeline
            numbers = (one.resume for one in placed.rule.actions if isinstance(one, CtHardware))
            placed.resumes = tuple(number for number in numbers if number)
        return placed
