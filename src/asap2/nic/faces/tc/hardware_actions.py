# SPDX-License-Identifier: Apache-2.0
"""The actions of a filter as a NIC's eSwitch does them: from steps to the actions of a rule there."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc import capability
from asap2.nic.faces.tc.police_meters import PoliceMeters
from asap2.nic.faces.tc.steps import GoOn, Mirred, Police, Step
from asap2.nic.function import Function, Nic, Pf
from asap2.nic.netdevs import NetDevs, reaches
from asap2.nic.node_ports import NodePorts
from asap2.nic.port_ids import internal_port
from asap2.nic.rules import (
    Action,
    Ct,
    CtClear,
    CtHardware,
    Decap,
    Enter,
    Goto,
    Meter,
    ModifyVlan,
    Output,
    Pass,
    PopVlan,
    PushVlan,
    SetTunnel,
)
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Miss, Port, PortKind
from asap2.nic.silicon.resumes import DELIVER
from asap2.nic.underlay.resolver import Tunnels


def resumes_of(actions: Iterable[Action]) -> Iterator[int]:
    """The numbers by which software goes on with packets that *actions* leave to it."""
    for action in actions:
        if isinstance(action, Output | Goto | Enter | CtHardware) and action.resume:
            yield action.resume
        elif isinstance(action, Meter):
            yield from resumes_of(action.exceeded)


def rewritten_tags(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """*steps* as the NIC does them: a tag that is changed, or taken off and another put on, has its VLAN id rewritten,
    and keeps its priority (mlx5e_tc_act_vlan_add_rewrite_action)."""
    done: list[Step] = []
    popped: int | None = None
    for step in steps:
        if isinstance(step, PopVlan):
            popped = len(done)
        elif isinstance(step, PushVlan) and popped is not None:
            del done[popped]
            done.append(ModifyVlan(step.vid, None, step.tpid))
            popped = None
            continue
        elif isinstance(step, Mirred | Ct):
            popped = None
        done.append(replace(step, pcp=None) if isinstance(step, ModifyVlan) else step)
    return tuple(done)


def outside(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """*steps* of a filter on a tunnel device as the NIC does them, which takes the packet out of its tunnel first."""
    return (Decap(), *(step for step in steps if not isinstance(step, Decap)))


def within_tunnel(steps: tuple[Step, ...]) -> tuple[Action, ...]:
    """Rule actions of *steps* that lead to another chain, whose filters match on the tunnel again.

    The packet stays in its tunnel until then, and the host gets it as it came in where hardware cannot go on. So
    nothing of it may have changed: NetlinkError, where mlx5 would take the filter."""
    done: list[Action] = []
    for step in steps:
        match step:
            case Ct():
                done.append(CtHardware(step.zone, step.nat is not None, 0, inside=True))
            case CtClear() | Goto():
                done.append(step)
            case GoOn():
                pass
            case _:
                raise NetlinkError(errno.EOPNOTSUPP)
    return tuple(done)


class HardwareActions:
    """Translates steps for the eSwitches of a node's NICs, whose pipelines *silicon* gives."""

    def __init__(self, netdevs: NetDevs, silicon: Callable[[Nic], Pipeline], node: NodePorts, tunnels: Tunnels) -> None:
        self._netdevs = netdevs
        self._silicon = silicon
        self._node = node
        self._tunnels = tunnels
        self.police = PoliceMeters(netdevs, node.pipeline, self._pipelines)

    def _pipelines(self) -> list[Pipeline]:
        """The pipelines of the node's NICs."""
        nics = {id(device.nic): device.nic for device in self._netdevs.all() if device.nic is not None}
        return [self._silicon(nic) for nic in nics.values()]

    def of(self, function: Function, steps: tuple[Step, ...]) -> tuple[Action, ...]:
        """Rule actions of *steps* for what comes from *function*, from the wire where that is a PF; a tunnel whose
        neighbour is not known yet leaves the packet to the host."""
        done = self._prepared(function, steps)
        if done is None:
            return (Output(function.host_port),)
        return tc_actions.to_rule(
            done,
            lambda step: self._vport(function, step),
            lambda: Output(function.host_port),
            meter=lambda step: self.police.number(self._silicon(function.nic), step),
        )

    def _prepared(self, function: Function, steps: tuple[Step, ...]) -> tuple[Step, ...] | None:
        """*steps* as hardware does them; None: the host is to have the packet."""
        pf, nic, host = function.pf, function.nic, function.host_port
        done: list[Step] = []
        tunnel: SetTunnel | None = None
        steps = rewritten_tags(steps)
        for index, step in enumerate(steps):
            if isinstance(step, SetTunnel):
                tunnel = step
            elif tunnel is not None and isinstance(step, Mirred) and self._offloads(nic, step.ifindex):
                encap = self._tunnels.encap(pf, step.ifindex, tunnel)
                if encap is None:
                    return None
                last = index + 1 == len(steps)
                if encap.vf is not None:
                    if not last:
                        raise capability.elsewhere()
                    done += [*encap.actions, Enter(encap.vf.port)]
                elif not encap.internal:
                    done += [*encap.actions, Output(pf.out_port)] + ([] if last else [Decap()])
                elif last and nic.model.internal_ports:
                    done += [*encap.actions, self._in(pf, encap.internal)]
                else:
                    raise capability.elsewhere()
            elif isinstance(step, Mirred) and step.ingress:
                done.append(self._to_internal(host, step))
            elif isinstance(step, Pass):
                done.append(Output(host))  # nothing here is for the packet, as where no rule is
            elif isinstance(step, Goto):
                done.append(replace(step, resume=self._number(step.table)))
            elif isinstance(step, Police):
                exceeded = self._prepared(function, step.exceeded)
                done.append(replace(step, exceeded=(Output(host),) if exceeded is None else exceeded))
            elif isinstance(step, Ct):
                done.append(CtHardware(step.zone, step.nat is not None, 0))
            else:
                done.append(step)
        return tuple(done)

    def _offloads(self, nic: Nic, ifindex: int) -> bool:
        """Whether a device is of a tunnel that the NIC puts on (mlx5e_tc_tun_device_to_offload)."""
        protocol = self._tunnels.protocol_of(ifindex)
        return protocol is not None and protocol.name in nic.model.tunnels

    def _vport(self, function: Function, step: Mirred) -> int:
        """The eSwitch's port behind a representor or uplink that what comes from *function* may be sent to."""
        device = self._netdevs.by_ifindex(step.ifindex)
        if device is None or device.function is None or not reaches(function, device):
            raise capability.elsewhere()
        return device.function.out_port if isinstance(device.function, Pf) else device.function.switched_port

    def _to_internal(self, host: int, step: Mirred) -> Output:
        """The action that has the host receive a packet on an internal port.

        The node gets it by *host*, the port that it gets all by that no rule is for: that one is up.
        """
        self._node.sent_to(step.ifindex)
        return Output(host, self._number(DELIVER, step.ifindex))

    def _in(self, pf: Pf, ifindex: int) -> Enter:
        """The action that has a packet come in by the internal port *ifindex*."""
        return Enter(self.internal(pf, ifindex), self._number(0, ifindex))

    def internal(self, pf: Pf, ifindex: int) -> int:
        """The eSwitch's port that stands for the internal port *ifindex*; what no rule is for goes on in the node."""
        port = internal_port(ifindex)
        self._silicon(pf.nic).set_port(Port(port, 0, PortKind.NODE, miss=Miss.REDIRECT, miss_port=pf.host_port))
        return port

    def _number(self, table: int, port: int = 0) -> int:
        """The node's number for going on with a packet at *table*, as one of *port*.

        Those that no rule has any more are taken back if need be.
        """
        resumes = self._node.pipeline.resumes
        try:
            return resumes.at(table, port)
        except OSError:
            lists = [actions for pipeline in self._pipelines() for actions in pipeline.action_lists()]
            resumes.keep(number for actions in lists for number in resumes_of(actions))
        try:
            return resumes.at(table, port)
        except OSError as error:
            raise NetlinkError(error.errno or errno.ENOSPC) from None
