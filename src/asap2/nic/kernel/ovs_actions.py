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
from asap2.nic.kernel import ovs_key
from asap2.nic.rules import (
    OVS_TABLE,
    Action,
    Drop,
    Goto,
    Masked,
    Output,
    PopVlan,
    PushVlan,
    SetField,
    SetTunnel,
    Truncate,
    Upcall,
)
from asap2.nic.silicon.rewrite import rewrite

OUTPUT: Final = 1
USERSPACE: Final = 2
SET: Final = 3
PUSH_VLAN: Final = 4
POP_VLAN: Final = 5
RECIRC: Final = 7
SET_MASKED: Final = 11
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


Step = PortOutput | Userspace | Recirc | PushVlan | PopVlan | Truncate | SetField | SetTunnel


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
        elif kind in (SET, SET_MASKED):
            yield from _set(value, masked=kind == SET_MASKED)
        elif kind == RECIRC and len(value) == 4:
            yield Recirc(int.from_bytes(value, "little"))
        elif kind == TRUNC and len(value) == 4:
            length = int.from_bytes(value, "little")
            if length < _ETH_HLEN:
                raise _invalid(f"Cannot truncate to {length} bytes.")
            yield Truncate(length)
        else:
            raise _invalid(f"Unknown action type {kind}.")


_REWRITES: Final[dict[int, tuple[tuple[str, int, int], ...]]] = {
    ovs_key.ETHERNET: (("eth_src", 0, 6), ("eth_dst", 6, 6)),
    ovs_key.IPV4: (("ip_src", 0, 4), ("ip_dst", 4, 4), ("ip_tos", 9, 1), ("ip_ttl", 10, 1)),
    ovs_key.IPV6: (("ip_src", 0, 16), ("ip_dst", 16, 16), ("ip_tos", 37, 1), ("ip_ttl", 38, 1)),
    ovs_key.TCP: (("l4_src", 0, 2), ("l4_dst", 2, 2)),
    ovs_key.UDP: (("l4_src", 0, 2), ("l4_dst", 2, 2)),
}
"""Key attribute to (field, offset, octets) that a set action may rewrite."""
_KEY_LENGTHS: Final = {
    ovs_key.ETHERNET: 12,
    ovs_key.IPV4: 12,
    ovs_key.IPV6: 40,
    ovs_key.TCP: 4,
    ovs_key.UDP: 4,
}


def _set(value: bytes, *, masked: bool) -> Iterator[SetField | SetTunnel]:
    """A set action: one key attribute, followed by its mask when *masked*."""
    inner = [(kind & NLA_TYPE_MASK, bytes(data)) for kind, data in attributes(value)]
    if len(inner) != 1:
        raise _invalid("A set action takes one key.")
    kind, data = inner[0]
    if kind == ovs_key.TUNNEL and not masked:
        yield _set_tunnel(data)
        return
    length = _KEY_LENGTHS.get(kind)
    if length is None or len(data) != length * (2 if masked else 1):
        raise _invalid(f"Set of key type {kind} is not supported by this datapath.")
    key, mask = data[:length], data[length:] if masked else b"\xff" * length
    rest = bytearray(mask)
    for name, offset, octets in _REWRITES[kind]:
        bits = int.from_bytes(mask[offset : offset + octets], "big")
        rest[offset : offset + octets] = bytes(octets)
        if bits:
            yield SetField(name, Masked(int.from_bytes(key[offset : offset + octets], "big") & bits, bits))
    if masked and any(rest):
        raise _invalid(f"Set of all of key type {kind} is not supported by this datapath.")


def _set_tunnel(data: bytes) -> SetTunnel:
    found = ovs_key.tunnel_attributes(data)
    destination = found.get(ovs_key.TUN_IPV4_DST) or found.get(ovs_key.TUN_IPV6_DST)
    if destination is None:
        raise _invalid("IP tunnel dst address not specified")
    source = found.get(ovs_key.TUN_IPV4_SRC) or found.get(ovs_key.TUN_IPV6_SRC) or bytes(len(destination))
    if not found.get(ovs_key.TUN_TTL, b"\0")[0]:
        raise _invalid("IP tunnel TTL not specified.")
    return SetTunnel(
        int.from_bytes(found.get(ovs_key.TUN_ID, b""), "big"),
        source,
        destination,
        found.get(ovs_key.TUN_TOS, b"\0")[0],
        found[ovs_key.TUN_TTL][0],
        int.from_bytes(found.get(ovs_key.TUN_TP_DST, b""), "big"),
        ovs_key.TUN_CSUM in found,
        ovs_key.TUN_DONT_FRAGMENT in found,
    )


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
    output: Callable[[int, bytes, SetTunnel | None], None],
    userspace: Callable[[Userspace, bytes], None],
) -> None:
    """Run *steps* on *packet*, a frame with its tags in line; *output* sends to a datapath port, into the tunnel
    that was set last."""
    limit: int | None = None
    tunnel: SetTunnel | None = None
    for step in steps:
        if isinstance(step, PortOutput | Userspace):
            sent = packet if limit is None else packet[:limit]
            limit = None
            if isinstance(step, PortOutput):
                output(step.port, sent, tunnel)
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
        elif isinstance(step, SetTunnel):
            tunnel = step
        elif isinstance(step, SetField):
            packet = rewrite(packet, step)
