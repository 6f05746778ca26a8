# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch datapath actions: netlink attributes to rule actions, and their execution on one packet.

Flows run in the eBPF pipeline; :func:`execute` is for the packet that came with an upcall alone
(OVS_PACKET_CMD_EXECUTE). Numbers and layouts: enum ovs_action_attr, include/uapi/linux/openvswitch.h; checks as
net/openvswitch/flow_netlink.c, __ovs_nla_copy_actions.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from asap2.netlink.wire import NLA_TYPE_MASK, NetlinkError, attributes
from asap2.nic.rules import OVS_TABLE, Action, Drop, Goto, Output, PopVlan, PushVlan, Truncate, Upcall

OUTPUT: Final = 1
USERSPACE: Final = 2
PUSH_VLAN: Final = 4
POP_VLAN: Final = 5
RECIRC: Final = 7
TRUNC: Final = 13

USERSPACE_PID: Final = 1
USERSPACE_USERDATA: Final = 2
USERSPACE_ACTIONS: Final = 4

MAX_PORTS: Final = 65535
"""DP_MAX_PORTS (net/openvswitch/datapath.h)."""
_ETH_HLEN = 14
_VLAN_PRESENT = 0x1000


@dataclass(frozen=True, slots=True)
class PortOutput:
    """Send to datapath port ``port``."""

    port: int


@dataclass(frozen=True, slots=True)
class Userspace:
    """Give the packet to the netlink port id ``pid`` with ``userdata`` and, if asked, the flow's actions."""

    pid: int
    userdata: bytes | None
    with_actions: bool


@dataclass(frozen=True, slots=True)
class Recirc:
    """Look up again with recirculation id ``id``."""

    id: int


Step = PortOutput | Userspace | Recirc | PushVlan | PopVlan | Truncate


def _invalid(text: str) -> NetlinkError:
    return NetlinkError(errno.EINVAL, text)


def parse(payload: bytes) -> Iterator[Step]:
    """The steps of an action list; EINVAL for one that is malformed or that this datapath does not have."""
    for kind, value in attributes(payload):
        kind &= NLA_TYPE_MASK
        if kind == OUTPUT and len(value) == 4:
            port = int.from_bytes(value, "little")
            if port >= MAX_PORTS:
                raise _invalid(f"Output port {port} is out of range.")
            yield PortOutput(port)
        elif kind == USERSPACE:
            yield _userspace(value)
        elif kind == PUSH_VLAN and len(value) == 4:
            tpid, tci = struct.unpack("!HH", value)
            if tpid not in (0x8100, 0x88A8) or not tci & _VLAN_PRESENT:
                raise _invalid("Invalid VLAN tag to push.")
            yield PushVlan(tci & 0xFFF, tci >> 13, tpid)
        elif kind == POP_VLAN and not value:
            yield PopVlan()
        elif kind == RECIRC and len(value) == 4:
            yield Recirc(int.from_bytes(value, "little"))
        elif kind == TRUNC and len(value) == 4:
            length = int.from_bytes(value, "little")
            if length < _ETH_HLEN:
                raise _invalid(f"Cannot truncate to {length} bytes.")
            yield Truncate(length)
        else:
            raise _invalid(f"Unknown action type {kind}.")


def _userspace(value: bytes) -> Userspace:
    inner = {kind & NLA_TYPE_MASK: data for kind, data in attributes(value)}
    pid = inner.get(USERSPACE_PID)
    if pid is None or len(pid) != 4 or not any(pid):
        raise _invalid("A userspace action needs a port id.")
    return Userspace(int.from_bytes(pid, "little"), inner.get(USERSPACE_USERDATA), USERSPACE_ACTIONS in inner)


def to_rule(
    steps: list[Step], ifindex_of: Callable[[int], int | None], cookie_of: Callable[[Userspace], int]
) -> tuple[Action, ...]:
    """The rule actions of *steps*; an output to a port that does not exist is left out, as the kernel skips it."""
    actions: list[Action] = []
    for step in steps:
        if isinstance(step, PortOutput):
            ifindex = ifindex_of(step.port)
            if ifindex is not None:
                actions.append(Output(ifindex))
        elif isinstance(step, Userspace):
            actions.append(Upcall(cookie_of(step)))
        elif isinstance(step, Recirc):
            actions.append(Goto(OVS_TABLE | step.id))
        else:
            actions.append(step)
    return tuple(actions) or (Drop(),)


def execute(
    packet: bytes,
    steps: list[Step],
    output: Callable[[int, bytes], None],
    userspace: Callable[[Userspace, bytes], None],
) -> None:
    """Run *steps* on *packet*, a frame with its tags in line; *output* sends to a datapath port."""
    limit: int | None = None
    for step in steps:
        if isinstance(step, PortOutput | Userspace):
            sent = packet if limit is None else packet[:limit]
            limit = None
            if isinstance(step, PortOutput):
                output(step.port, sent)
            else:
                userspace(step, sent)
        elif isinstance(step, PushVlan):
            tag = struct.pack("!HH", step.tpid, step.pcp << 13 | step.vid)
            packet = packet[:12] + tag + packet[12:]
        elif isinstance(step, PopVlan):
            if packet[12:14] in (b"\x81\x00", b"\x88\xa8"):
                packet = packet[:12] + packet[16:]
        elif isinstance(step, Truncate):
            limit = step.length
