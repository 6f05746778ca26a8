# SPDX-License-Identifier: Apache-2.0
"""Internal ports of Open vSwitch's datapath: where each is, and how packets get to one in another network namespace.

An internal port is a veth, whose far end is in the silicon of the node's first NIC. At home the node's pipeline reads
and reaches its device itself. A program can send to devices of its own namespace only, so the packets of a port that
was moved, as OpenStack's DHCP and L3 agents do, go through the silicon, and between there and the node by the pair of
the datapath's own device, both ways with a number that says which port they are of (:attr:`.Port.tell`)::

    tap1 ── int7 ─[silicon's pipeline]─ int5 ── ovs-system ─[node's pipeline]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from asap2.nic.node_ports import NodePorts
from asap2.nic.port_ids import TRUNK_PORT, elsewhere_port, node_side_port
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind
from asap2.nic.silicon.resumes import DELIVER


@dataclass(frozen=True, slots=True)
class Place:
    """Where an internal port is.

    *far* is the name of its far end, which stays the same; *number* the far end's ifindex. *ifindex*, *name* and *mac*
    are the device's, in the network namespace that it is in. *netnsid* is that one's id in the node's namespace (-1 for
    one without an id there); None at home.
    """

    far: str
    number: int
    ifindex: int
    name: str
    mac: bytes
    netnsid: int | None = None

    @property
    def port(self) -> int:
        """The port's id in the node's pipeline."""
        return self.ifindex if self.netnsid is None else elsewhere_port(self.number)


class FarEnds(Protocol):
    """What this needs of :class:`asap2.nic.veth.VethNetDevs`."""

    def create_internal(self, name: str) -> str:
        """Make an internal port; its far end. OSError as the kernel gives it (EEXIST, EINVAL for a bad name)."""

    def destroy_internal(self, far: str) -> None:
        """Remove one."""

    def internal_places(self) -> dict[str, Place]:
        """Where they all are, by far end."""

    def internal_counters(self, far: str) -> tuple[int, ...]:
        """A device's counters, in the order of struct ovs_vport_stats."""

    @property
    def internal_pipeline(self) -> Pipeline:
        """The pipeline of the silicon that the far ends are in."""

    def attach_internal(self, far: str) -> None:
        """Run that pipeline on what comes to a far end."""

    def detach_internal(self, number: int) -> None:
        """Do so no more, for the far end with that ifindex."""


class InternalPorts:
    """The internal ports of the node's datapath."""

    def __init__(self, far_ends: FarEnds, node: NodePorts) -> None:
        self._far_ends = far_ends
        self._node = node
        self._elsewhere: dict[str, Place] = {}

    def create(self, name: str) -> Place:
        """Make one at home. OSError as the kernel gives it (EEXIST, EINVAL for a bad name)."""
        far = self._far_ends.create_internal(name)
        return self._far_ends.internal_places()[far]

    def destroy(self, far: str) -> None:
        """Remove one, wherever it is."""
        self._leave(far)
        self._far_ends.destroy_internal(far)

    def place(self, far: str) -> Place | None:
        """Where one is; None when it went with its network namespace."""
        return self._far_ends.internal_places().get(far)

    def counters(self, far: str) -> tuple[int, ...]:
        """A device's counters, in the order of struct ovs_vport_stats."""
        return self._far_ends.internal_counters(far)

    def follow(self, far: str, trunk: str) -> None:
        """Make both pipelines reach the port where it is now; *trunk* is the far end of the datapath's own device."""
        place, across = self.place(far), self.place(trunk)
        if place is None or place.netnsid is None or across is None:
            self._leave(far)
        elif self._elsewhere.get(far) != place:
            self._reach(place, across)

    def forget(self, port: int) -> None:
        """*port* of the node's pipeline, which was one in another namespace, is no more."""
        self._clear(port - elsewhere_port(0))

    def _reach(self, place: Place, across: Place) -> None:
        pipeline, number = self._far_ends.internal_pipeline, place.number
        inward = self._node.number_of(elsewhere_port(number))
        outward = pipeline.resumes.hold(DELIVER, elsewhere_port(number))
        pipeline.set_port(
            Port(TRUNK_PORT, across.number, PortKind.NODE, tables=(), miss=Miss.PASS, resumes=True),
        )
        pipeline.set_port(
            Port(
                node_side_port(number),
                across.number,
                PortKind.NODE,
                deliver=Deliver.PEER,
                peer_any=True,
                tables=(),
                tell=inward,
            )
        )
        pipeline.set_port(
            Port(
                elsewhere_port(number),
                number,
                PortKind.NODE,
                mac=place.mac,
                deliver=Deliver.PEER,
                tables=(),
                miss=Miss.REDIRECT,
                miss_port=node_side_port(number),
            )
        )
        self._node.add_elsewhere(elsewhere_port(number), outward)
        for far in (across.far, place.far):
            self._far_ends.attach_internal(far)
        self._elsewhere[place.far] = place

    def _leave(self, far: str) -> None:
        place = self._elsewhere.pop(far, None)
        if place is not None:
            self._clear(place.number)

    def _clear(self, number: int) -> None:
        pipeline = self._far_ends.internal_pipeline
        self._far_ends.detach_internal(number)
        self._node.remove_elsewhere(elsewhere_port(number))
        for port in (elsewhere_port(number), node_side_port(number)):
            if port in pipeline.ports:
                pipeline.remove_port(port)
        pipeline.resumes.give_back(DELIVER, elsewhere_port(number))
