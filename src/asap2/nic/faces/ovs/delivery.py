# SPDX-License-Identifier: Apache-2.0
"""Upcalls on their way to Open vSwitch: each port's in turn, no more than it reads, and every loss counted.

A packet waits in one of three places. The packet socket is first in, first out, so it is emptied at once. The socket of
Open vSwitch's handler is so too: little is put there. In between, a packet waits in its port's own queue. The program
bounds what one port may have in all three (:mod:`asap2.nic.silicon.upcall_accounts`). Packets of ARP and neighbour
discovery have a queue of their own at each port: by a wire come those of many guests, with what floods it.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from asap2.netlink.server import Server
from asap2.netlink.tables import ovs as protocol
from asap2.netlink.wire import NETLINK_GENERIC, attribute
from asap2.nic.conntrack.table import Connections
from asap2.nic.faces.ovs import actions as act
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.datapath import PER_CPU_PID, Datapath
from asap2.nic.faces.ovs.extract import extract, tunnel_metadata
from asap2.nic.faces.ovs.helping import Helping
from asap2.nic.faces.ovs.numbers import (
    PKT_ACTIONS,
    PKT_EGRESS_TUN_KEY,
    PKT_HASH,
    PKT_KEY,
    PKT_LEN,
    PKT_MRU,
    PKT_PACKET,
    PKT_USERDATA,
)
from asap2.nic.faces.ovs.reassembly import Reassembly
from asap2.nic.faces.ovs.receivers import ROOM, SHARED_ROOM, Receivers, receiver_of
from asap2.nic.faces.ovs.spare_time import SpareTime
from asap2.nic.faces.ovs.turns import Turns
from asap2.nic.faces.ovs.upcall import BATCH, PacketPath
from asap2.nic.faces.ovs.vport import Vport
from asap2.nic.fields import TRACKED
from asap2.nic.rules import BARE, OVS_TABLE, SetTunnel
from asap2.nic.silicon.events import UpcallContext, UpcallKind
from asap2.nic.silicon.tunnel import source_port

log = logging.getLogger(__name__)

_ETH_HLEN = 14
_IN_A_ROW = 16
"""Packets given in one go; then others that wait for the daemon have their turn."""
_SHARED_NS = 1_000_000_000
"""How long queues are taken to compete after packets of two have come."""
_LOOK_AGAIN = 0.001
"""Seconds after which receivers that had no room are looked at again."""
_NOBODY = (0, False)
_KNOWN = ("dp_hash", "skb_mark", "skb_priority", *sorted(TRACKED))
"""What the pipeline knows of a packet that the packet does not show."""
_S32, _U16, _U32, _U64 = (struct.Struct(f"={letter}") for letter in "iHIQ")


Egress = Callable[[int, SetTunnel], tuple[bytes, int] | None]
"""The own address and the UDP port with which a packet in a tunnel leaves by a device; None: by no tunnel."""


Given = Callable[[int, bytes, int], None]
"""Takes the mark of a packet that Open vSwitch was given, what it was given of it, and the socket's port id."""


class _Waiting(NamedTuple):
    """A frame for user space, and the units of its packet that it stands for."""

    context: UpcallContext
    frame: bytes
    units: int


class Delivery:
    """Gives packets to user space through *server*; *message* makes one of the packet family's of a command and what
    follows the header; *egress* tells by which tunnel a packet leaves; *connections* are the node's."""

    def __init__(
        self,
        server: Server,
        message: Callable[[int, bytes], bytes],
        family: int,
        egress: Egress,
        connections: Connections,
    ) -> None:
        self._egress = egress
        self.spare_time = SpareTime(time.monotonic_ns)
        self._server = server
        self._message = message
        self._family = family
        self._turns: Turns[_Waiting] = Turns()
        self._receivers = Receivers(lambda: None)
        self._last_owner = _NOBODY
        self._shared_until = 0
        self.reassembly = Reassembly()
        self._by_hand = (self.reassembly, Helping(connections))
        self.given: Given | None = None
        """Called with each packet that Open vSwitch was given, while somebody watches."""

    def start(self, dp: Datapath) -> None:
        """A datapath begins, or goes on in a new process."""
        self._turns = Turns()
        self._receivers = Receivers(lambda: self._server.waiting(dp.netns, NETLINK_GENERIC))
        dp.pipeline.upcalls.restart()

    def collect(self, dp: Datapath, path: PacketPath) -> bool:
        """Put the packets that have come, at most a batch, where they are served in turn; whether that were all."""
        accounts = dp.pipeline.upcalls
        count = 0
        for context, frame in path.upcalls():
            count += 1
            if self._taken(dp, path, context, frame):
                accounts.done(context.port, accounts.arrived(context), delivered=True)
                continue
            owner = context.port, context.about_neighbours
            if owner != self._last_owner:
                self._last_owner, self._shared_until = owner, time.monotonic_ns() + _SHARED_NS
            self._turns.put(owner, _Waiting(context, frame, accounts.arrived(context)))
        return count < BATCH

    def _taken(self, dp: Datapath, path: PacketPath, context: UpcallContext, frame: bytes) -> bool:
        """Do what the pipeline leaves to the daemon; False: the packet is for user space."""
        if context.kind in (UpcallKind.MISS, UpcallKind.ACTION):
            return False
        try:
            return any(one.take(dp.pipeline.handing, path, context, frame) for one in self._by_hand)
        except OSError as error:
            log.debug("a packet that does not go on (%s) is lost: %s", context.kind.name, error)
            return True

    def serve(self, dp: Datapath) -> float | None:
        """Give user space some of what waits; the seconds after which to come again, None: nothing waits."""
        if not self._turns:
            return None
        with self.spare_time.spent():
            return self._serve(dp)

    def _serve(self, dp: Datapath) -> float | None:
        self._receivers.begin()
        shared = time.monotonic_ns() < self._shared_until
        room = SHARED_ROOM if shared else ROOM
        ports = {vport.port: vport for vport in dp.vports.values()}
        accounts = dp.pipeline.upcalls
        vport: Vport | None = None
        step: act.Userspace | None = None
        receiver = 0

        def ready(waiting: _Waiting, new: bool) -> bool:
            nonlocal vport, step, receiver
            vport = ports.get(waiting.context.port)
            if vport is None:
                return True
            if not self.spare_time.left and accounts.floods(vport.port):
                return False
            step = _step(dp, waiting)
            if step is not None and step.pid != PER_CPU_PID:
                receiver = step.pid
            else:
                receiver = receiver_of(dp.pids_for(vport), waiting.context.skb_hash, shared=shared, new=new)
            return self._receivers.has_room(receiver, ROOM if new else room)

        for _ in range(_IN_A_ROW):
            waiting = self._turns.take(ready)
            if waiting is None:
                return _LOOK_AGAIN if self._turns else None
            delivered = False
            try:
                delivered = vport is not None and self._give(dp, vport, waiting, step, receiver)
            finally:
                accounts.done(waiting.context.port, waiting.units, delivered)
        return 0 if self._turns else None

    def _give(self, dp: Datapath, vport: Vport, waiting: _Waiting, step: act.Userspace | None, receiver: int) -> bool:
        context, frame = waiting.context, waiting.frame
        is_action = context.kind is UpcallKind.ACTION
        if len(frame) < _ETH_HLEN or (is_action and step is None):
            return False
        key = extract(frame, _metadata(vport, context), ethernet=context.has_ethernet)
        if key is None:
            return False
        if not context.has_ethernet:
            frame = frame[_ETH_HLEN:]
        body = _S32.pack(dp.ifindex) + attribute(PKT_KEY, ovs_key.emit(key, key)) + self._of_action(dp, context, step)
        if context.mru:
            body += attribute(PKT_MRU, _U16.pack(min(context.mru, 0xFFFF)))
        given = frame[: context.max_length or None]
        if len(given) < len(frame):
            body += attribute(PKT_LEN, _U32.pack(len(frame)))
        body += attribute(PKT_HASH, _U64.pack(context.skb_hash)) + attribute(PKT_PACKET, given)
        cmd = protocol.OVS_PACKET_CMD_ACTION if is_action else protocol.OVS_PACKET_CMD_MISS
        sent = self._send(dp, receiver, cmd, body)
        if sent and self.given is not None:
            self.given(context.mark, given, receiver)
        return sent

    def _of_action(self, dp: Datapath, context: UpcallContext, step: act.Userspace | None) -> bytes:
        """What the action that gives a packet to user space has to say."""
        if step is None:
            return b""
        told = b"" if step.userdata is None else attribute(PKT_USERDATA, step.userdata)
        if step.egress is not None and step.tunnel:
            told += self._egress_tunnel(dp, context, step.egress, step.tunnel)
        return told if step.actions is None else told + attribute(PKT_ACTIONS, act.echoed(step.actions))

    def _egress_tunnel(self, dp: Datapath, context: UpcallContext, number: int, tunnel: bytes) -> bytes:
        """The tunnel that a packet would leave by, out of port *number*, as it would be on the wire
        (dev_fill_metadata_dst); nothing where the port is no tunnel device, or nobody knows the way."""
        fields: ovs_key.Fields = {}
        ovs_key.read_tunnel(tunnel, fields)
        port = dp.port_of(number)
        found = self._egress(port, act.tunnel_of(fields)) if port is not None else None
        if found is None:
            return b""
        source, fields["tun_tp_dst"] = found
        fields["tun_src"], fields["tun_tp_src"] = int.from_bytes(source, "big"), source_port(context.skb_hash)
        return attribute(
            PKT_EGRESS_TUN_KEY, ovs_key.emit_tunnel(fields, fields["tun_proto"], fields.get("tun_opts_len", 0))
        )

    def _send(self, dp: Datapath, pid: int, cmd: int, body: bytes) -> bool:
        if not pid:
            return False
        try:
            self._server.unicast(dp.netns, NETLINK_GENERIC, pid, self._family, self._message(cmd, body), seq=0)
        except OSError as error:
            log.debug("upcall to port id %d lost: %s", pid, error)
            return False
        self._receivers.sent(pid, len(body))
        return True


def _metadata(vport: Vport, context: UpcallContext) -> ovs_key.Fields:
    """What a packet that was given to user space does not show itself."""
    fields = context.fields
    known = {name: fields[name] for name in _KNOWN}
    known |= {"in_port": vport.number, "recirc_id": context.table & ~(OVS_TABLE | BARE)}
    return known | tunnel_metadata(fields, context.options) if context.in_tunnel else known


def _step(dp: Datapath, waiting: _Waiting) -> act.Userspace | None:
    """The action that a packet is for user space by."""
    context = waiting.context
    return dp.userspace.get(context.cookie) if context.kind is UpcallKind.ACTION else None
