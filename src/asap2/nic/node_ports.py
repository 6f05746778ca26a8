# SPDX-License-Identifier: Apache-2.0
"""Which netdevs of the node run the node's pipeline, and what for: TC rules, Open vSwitch's datapath, or packets of
which a NIC tells where it gave up.

The pipeline's port id of a device is its ifindex. A device that is only sent to has a port too, without a program.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from asap2.nic.links import Link
from asap2.nic.port_ids import TRUNK_PORT
from asap2.nic.rules import OVS_TABLE
from asap2.nic.silicon.abi import UPCALL_SLOTS
from asap2.nic.silicon.hooks import Hook
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind

LEAST_UPCALLS, MOST_UPCALLS = 16, 2048
"""Bounds of what one port may have on its way to user space: at most about what a kernel's socket holds."""


@dataclass(slots=True)
class _Use:
    tc: bool = False
    vport: bool = False
    resumes: bool = False
    mac: bytes = bytes(6)


class NodePorts:
    """The node pipeline's ports."""

    def __init__(
        self,
        pipeline: Pipeline,
        is_internal: Callable[[int], bool],
        tunnel_port: Callable[[int], int | None] = lambda _ifindex: None,
        link: Callable[[int], Link | None] = lambda _ifindex: None,
        promiscuous: Callable[[int, bool], None] = lambda _ifindex, _on: None,
    ) -> None:
        """*promiscuous* makes a device that, or no longer."""
        self.pipeline = pipeline
        self._tunnel_port = tunnel_port
        self._link = link
        self._promiscuous = promiscuous
        self.is_internal = is_internal
        self._uses: dict[int, _Use] = {}
        self._elsewhere: set[int] = set()
        self.upcall_device = 0
        """The device that upcalls leave by: its own traffic is nobody's, so it runs the program for what goes on there
        alone (:meth:`.Pipeline.attach_onward`)."""
        self._together: set[int] | None = None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What devices are used for is put into effect at the end, all at once: a process that takes up from an earlier
        one learns of it bit by bit, while packets go on as before."""
        self._together = set()
        try:
            yield
        finally:
            learnt, self._together = self._together, None
            for ifindex in learnt.intersection(self._uses):
                self._apply(ifindex)

    def use_tc(self, ifindex: int, on: bool) -> None:
        """The device has, or no longer has, an ingress qdisc."""
        self._use(ifindex).tc = on
        self._apply(ifindex)

    def use_trunk(self, ifindex: int) -> None:
        """The device is the datapath's own: what comes in by it is internal ports' in other network namespaces, and
        says whose. That is another port than the device's own, which packets of user space are handed in at."""
        self.pipeline.set_port(Port(TRUNK_PORT, ifindex, PortKind.NODE, tables=(), miss=Miss.PASS, resumes=True))
        self.pipeline.attach(ifindex, None, "ingress")

    def number_of(self, port: int) -> int:
        """The number that says of a packet which comes in by that device that it is the port's, for good until
        :meth:`remove_elsewhere`."""
        return self.pipeline.resumes.hold(0, port)

    def add_elsewhere(self, port: int, tell: int) -> None:
        """*port* is a port of the datapath in another network namespace: packets for it are sent to that device's other
        end, with the number *tell*."""
        self._elsewhere.add(port)
        self.pipeline.set_port(
            Port(
                port,
                self.upcall_device,
                PortKind.NODE,
                deliver=Deliver.PEER,
                peer_any=True,
                tables=(OVS_TABLE,),
                miss=Miss.UPCALL,
                tell=tell,
            )
        )
        self._share()

    def remove_elsewhere(self, port: int) -> None:
        """Undo :meth:`add_elsewhere`, of this or of an earlier process."""
        self._elsewhere.discard(port)
        if port in self.pipeline.ports:
            self.pipeline.remove_port(port)
        self.pipeline.resumes.give_back(0, port)
        self._share()

    def left(self, ifindex: int) -> None:
        """The device is in another network namespace: its program there would take others for those of the node."""
        for hook in ("ingress", "egress"):
            self.pipeline.detach(ifindex, hook)
        self.gone(ifindex)

    def use_vport(self, ifindex: int, on: bool) -> None:
        """The device is, or no longer is, a port of the Open vSwitch datapath."""
        use = self._use(ifindex)
        if use.vport != on:
            self._promiscuous(ifindex, on)
        use.vport = on
        self._apply(ifindex)
        self._share()

    def use_eswitch(self, macs: Mapping[int, bytes]) -> None:
        """These are the devices, with their addresses, that stand for ports of an eSwitch: uplinks and representors in
        switchdev mode. Each reads what the NIC tells of a packet, whatever else it is used for."""
        for ifindex in {*macs, *(known for known, use in self._uses.items() if use.resumes)}:
            use, mac = self._use(ifindex), macs.get(ifindex)
            wanted = mac is not None, mac or bytes(6)
            if (use.resumes, use.mac) != wanted:
                use.resumes, use.mac = wanted
                self._apply(ifindex)

    def sent_to(self, ifindex: int) -> None:
        """A rule sends to the device."""
        if ifindex not in self._uses:
            self._use(ifindex)
            self._apply(ifindex)

    def gone(self, ifindex: int) -> None:
        """The device is no more, and its program with it."""
        if ifindex == self.upcall_device and TRUNK_PORT in self.pipeline.ports:
            self.pipeline.remove_port(TRUNK_PORT)
        if self._uses.pop(ifindex, None) is not None:
            self.pipeline.remove_port(ifindex)
            self._share()

    def links_changed(self) -> None:
        """Forget the devices that are no more; of the datapath's ports the datapath knows itself which those are."""
        there = {ifindex for ifindex, _ in socket.if_nameindex()}
        for ifindex, use in list(self._uses.items()):
            if ifindex not in there and not use.vport and not self.is_internal(ifindex):
                self.gone(ifindex)

    def _share(self) -> None:
        """Divide the room for packets on their way to user space among the ports of the datapath."""
        vports = sum(use.vport for use in self._uses.values()) + len(self._elsewhere) or 1
        slots = UPCALL_SLOTS * 8 // 9  # the program may go beyond the limit by an eighth
        self.pipeline.upcalls.limit = max(LEAST_UPCALLS, min(MOST_UPCALLS, slots // vports))

    def known(self) -> list[int]:
        """Every device that has a port."""
        return list(self._uses)

    def _use(self, ifindex: int) -> _Use:
        return self._uses.setdefault(ifindex, _Use())

    def _apply(self, ifindex: int) -> None:
        if self._together is not None:
            self._together.add(ifindex)
            return
        use = self._uses[ifindex]
        internal, tunnel_port = self.is_internal(ifindex), self._tunnel_port(ifindex)
        link = self._link(ifindex) if use.vport else None
        tables = ((0,) if use.tc else ()) + ((OVS_TABLE,) if use.vport else ())
        if ifindex == self.upcall_device:
            tables = ()
        self.pipeline.set_port(
            Port(
                ifindex,
                ifindex,
                PortKind.INTERNAL if internal else PortKind.NODE,
                deliver=Deliver.INGRESS if internal else Deliver.EGRESS,
                tables=tables,
                miss=Miss.UPCALL if use.vport else Miss.PASS,
                metadata=tunnel_port is not None,
                tunnel_port=tunnel_port or 0,
                mac=use.mac,
                peer_any=use.resumes,
                resumes=use.resumes,
                # What has room for an Ethernet header cannot go back to the network stack.
                bare=link is not None and link.bare,
                veiled=link is not None and link.veiled,
            )
        )
        hook: Hook = "egress" if internal else "ingress"
        try:
            if ifindex == self.upcall_device:
                self.pipeline.attach_onward(ifindex, None)
            elif tables or use.resumes:
                # At a tunnel device of ours another program gives the packet its metadata first.
                self.pipeline.attach(ifindex, None, hook, first=tunnel_port is None)
            else:
                self.pipeline.detach(ifindex, hook)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENOENT):  # the device may be gone by now
                raise
