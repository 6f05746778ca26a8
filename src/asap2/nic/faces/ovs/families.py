# SPDX-License-Identifier: Apache-2.0
"""The Open vSwitch kernel datapath's generic netlink families: ovs_datapath, ovs_vport, ovs_flow, ovs_packet.

It translates, and nothing more: :mod:`asap2.nic.faces.ovs.datapath` is the datapath. Formats, commands and errors:
include/uapi/linux/openvswitch.h and net/openvswitch/datapath.c. Meters are :mod:`asap2.nic.faces.ovs.meter`'s,
limits of connections :mod:`asap2.nic.faces.ovs.ct_limit`'s.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import struct
import time
from collections.abc import Callable
from typing import Final

from asap2.netlink.request import Answer, GenlFamily, GenlHeader, Message, Netns, Request
from asap2.netlink.server import Server
from asap2.netlink.tables import ovs as protocol
from asap2.netlink.wire import NetlinkError, attribute
from asap2.nic.faces.ovs.attributes import named, string, u16, u32, u64
from asap2.nic.faces.ovs.datapath import FEATURES, Datapath, InternalDevices
from asap2.nic.faces.ovs.delivery import Delivery, Egress
from asap2.nic.faces.ovs.execute import checked, hand_in
from asap2.nic.faces.ovs.flow_family import FlowFamily
from asap2.nic.faces.ovs.kept import Kept
from asap2.nic.faces.ovs.key import numbers
from asap2.nic.faces.ovs.meter import MeterFace
from asap2.nic.faces.ovs.numbers import (
    CHANGE,
    DEL,
    DP_MASKS_CACHE_SIZE,
    DP_MEGAFLOW_STATS,
    DP_NAME,
    DP_PER_CPU_PIDS,
    DP_STATS,
    DP_UPCALL_PID,
    DP_USER_FEATURES,
    GET,
    NEW,
    OPS,
    PKT_ACTIONS,
    PKT_HASH,
    PKT_KEY,
    PKT_MRU,
    PKT_PACKET,
    PKT_PROBE,
    PORT_IFINDEX,
    PORT_NAME,
    PORT_NETNSID,
    PORT_NO,
    PORT_STATS,
    PORT_TYPE,
    PORT_UPCALL_PID,
    PORT_UPCALL_STATS,
    SET,
    UPCALL_FAIL,
    UPCALL_SUCCESS,
)
from asap2.nic.faces.ovs.upcall import PacketPath, device_counters, is_fit, prepare
from asap2.nic.faces.ovs.vport import Vport
from asap2.nic.journal import Journal
from asap2.nic.node_ports import NodePorts

log = logging.getLogger(__name__)

_HASH_BITS = 0xFFFF_FFFF

DATAPATH_ID: Final = 0x7010
VPORT_ID: Final = 0x7011
PACKET_ID: Final = 0x7013
_BY_HAND: Final = 3
"""So often the daemon may have to go on with a packet: to put it together, to help its connection, to cut it."""
_MOST_CACHED_MASKS: Final = 4096
"""PCPU_MIN_UNIT_SIZE / sizeof(struct mask_cache_entry)."""

_S32 = struct.Struct("=i")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")


class OvsFace:
    """The four families; at most one datapath."""

    def __init__(
        self,
        server: Server,
        ports: NodePorts,
        devices: InternalDevices,
        journal: Journal,
        *,
        egress: Egress,
        counted: Callable[[int], tuple[int, ...] | None],
        on_packets: Callable[[PacketPath | None], None],
    ) -> None:
        """*egress* tells by which tunnel a packet leaves. *counted* gives what the device with this ifindex, in the
        node's namespace, shows in place of the kernel's counters of it, in the order of struct ovs_vport_stats; None
        where there is no other. *on_packets* is called when the way of packets to user space begins or ends (None)."""
        self._kept = Kept(journal)
        self._server = server
        self._ports = ports
        self._devices = devices
        self.datapath: Datapath | None = None
        self.packets: PacketPath | None = None
        self.executed: Callable[[int, bytes, int], None] | None = None
        """Called, while somebody watches, with each packet that was handed in: when, the packet, and its port."""
        self._on_packets = on_packets
        self._counted = counted
        self._dp = GenlFamily(
            "ovs_datapath",
            DATAPATH_ID,
            2,
            4,
            9,
            OPS,
            [("ovs_datapath", 0x7010)],
            {NEW: self._dp_new, DEL: self._dp_del, GET: self._dp_get, SET: self._dp_set},
        )
        self._vport = GenlFamily(
            "ovs_vport",
            VPORT_ID,
            1,
            4,
            9,
            OPS,
            [("ovs_vport", 0x7011)],
            {NEW: self._port_new, DEL: self._port_del, GET: self._port_get, SET: self._port_set},
        )
        self._packet = GenlFamily(
            "ovs_packet",
            PACKET_ID,
            1,
            4,
            11,
            ((protocol.OVS_PACKET_CMD_EXECUTE, CHANGE),),
            (),
            {protocol.OVS_PACKET_CMD_EXECUTE: self._execute},
        )
        meters = MeterFace(self._of)
        self.flows = FlowFamily(self._of)
        for family in (self._dp, self._vport, self.flows.family, self._packet, meters.family):
            family.netns = server.netns.cookie
            server.family(family)
        self.delivery = Delivery(server, self._packet.payload, PACKET_ID, egress, ports.pipeline.connections)

    # ---- datapaths

    def _find(self, header: bytes, attrs: dict[int, bytes]) -> Datapath:
        """By name if given, else by the header's ifindex; ENODEV."""
        dp, name = self.datapath, string(attrs.get(DP_NAME))
        if dp is None or (name != dp.name if name is not None else _S32.unpack(header)[0] != dp.ifindex):
            raise NetlinkError(errno.ENODEV)
        return dp

    def _of(self, header: bytes) -> Datapath:
        dp = self.datapath
        if dp is None or _S32.unpack(header)[0] != dp.ifindex:
            raise NetlinkError(errno.ENODEV)
        return dp

    def _dp_message(self, dp: Datapath, cmd: int) -> Message:
        self._settle(dp)
        looked = dp.pipeline.lookups(ovs=True)
        stats = struct.pack("=4Q", looked.hit, looked.missed, looked.lost, len(dp.flows))
        megaflow = struct.pack("=QIIQQ", looked.mask_hits, dp.flows.masks, 0, looked.cache_hits, 0)
        body = (
            _S32.pack(dp.ifindex)
            + attribute(DP_NAME, os.fsencode(dp.name) + b"\0")
            + attribute(DP_STATS, stats)
            + attribute(DP_MEGAFLOW_STATS, megaflow)
            + attribute(DP_USER_FEATURES, _U32.pack(dp.features))
            + attribute(DP_MASKS_CACHE_SIZE, _U32.pack(dp.masks_cache))
        )
        if dp.cpu_pids:
            body += attribute(DP_PER_CPU_PIDS, struct.pack(f"={len(dp.cpu_pids)}I", *dp.cpu_pids))
        return Message(DATAPATH_ID, self._dp.payload(cmd, body))

    @staticmethod
    def _features(attrs: dict[int, bytes]) -> int | None:
        features = u32(attrs.get(DP_USER_FEATURES))
        if features is not None and features & ~FEATURES:
            raise NetlinkError(errno.EOPNOTSUPP)
        return features

    @staticmethod
    def _cache_size(attrs: dict[int, bytes]) -> int | None:
        """The size of the kernel's cache of masks. The pipeline has caches of its own: the number is kept and told."""
        size = u32(attrs.get(DP_MASKS_CACHE_SIZE))
        if size is None:
            return None
        if size > _MOST_CACHED_MASKS:
            raise NetlinkError(errno.ERANGE, "integer out of range")
        if size & size - 1:
            raise NetlinkError(errno.EINVAL)
        return size

    def _dp_new(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        name = string(attrs.get(DP_NAME))
        if not name or DP_UPCALL_PID not in attrs:
            raise NetlinkError(errno.EINVAL)
        features, cache = self._features(attrs), self._cache_size(attrs)
        if self.datapath is not None:
            # An old user space meets a datapath of a newer one: the kernel then resets its features.
            if features is None:
                self.datapath.features = 0
            raise NetlinkError(errno.EEXIST if name == self.datapath.name else errno.ENOSPC)
        dp = Datapath(name, self._ports, self._devices, request.client.netns, features or 0, self._kept)
        if cache is not None:
            dp.masks_cache = cache
            dp.keep()
        self._start(dp)
        return [self._dp_message(dp, NEW)] if request.echo else None

    def restore(self, netns: Netns) -> None:
        """Take up the datapath of an earlier run, if there was one; user space is in *netns*."""
        known = self._kept.datapath()
        if known is not None:
            self._start(Datapath(known.name, self._ports, self._devices, netns, 0, self._kept, restored=known))

    def _start(self, dp: Datapath) -> None:
        self.datapath = dp
        prepare(dp.name)
        self.packets = PacketPath(self._ports.pipeline, dp.name)
        self._ports.upcall_device = dp.ifindex
        self._ports.use_vport(dp.ifindex, True)
        self._ports.use_trunk(dp.ifindex)
        self._ports.pipeline.set_upcall(dp.ifindex)
        self.delivery.start(dp)
        self._on_packets(self.packets)

    def _dp_del(self, request: Request, genl: GenlHeader) -> Answer:
        dp = self._find(genl.header, named(genl.attrs))
        message = self._dp_message(dp, DEL)
        path, self.packets = self.packets, None
        self._on_packets(None)
        if path is not None:
            path.close()
        dp.destroy()
        self.datapath = None
        return [message] if request.echo else None

    def _dp_get(self, request: Request, genl: GenlHeader) -> Answer:
        if request.dump:
            return [self._dp_message(self.datapath, GET)] if self.datapath else []
        return [self._dp_message(self._find(genl.header, named(genl.attrs)), GET)]

    def _dp_set(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        dp = self._find(genl.header, attrs)
        features, cache = self._features(attrs), self._cache_size(attrs)
        dp.kept.reserve()
        if features is not None:
            dp.features = features
        if cache is not None:
            dp.masks_cache = cache
        pids = attrs.get(DP_PER_CPU_PIDS)
        if pids is not None:
            if not pids or len(pids) % 4:
                raise NetlinkError(errno.EINVAL)
            dp.cpu_pids = struct.unpack(f"={len(pids) // 4}I", pids)
            dp.netns = request.client.netns
        dp.keep()
        return [self._dp_message(dp, SET)] if request.echo else None

    def _settle(self, dp: Datapath) -> None:
        """Before figures are told: read all that has come, so that what is missing is lost."""
        if self.packets is not None and self.delivery.collect(dp, self.packets):
            dp.pipeline.upcalls.settle()

    # ---- ports

    def _port_message(
        self, dp: Datapath, vport: Vport, cmd: int, kernels: Callable[[], dict[str, tuple[int, ...]]] = device_counters
    ) -> Message:
        pids = vport.pids or (0,)
        elsewhere = vport.netnsid is not None
        if elsewhere:
            counted = self._devices.counters(vport.far)
        else:
            counted = self._counted(vport.ifindex) or kernels().get(vport.name, (0,) * 8)
        upcalls = dp.pipeline.upcalls.counts(vport.port)
        told = attribute(UPCALL_SUCCESS, _U64.pack(upcalls.delivered)) + attribute(UPCALL_FAIL, _U64.pack(upcalls.lost))
        body = (
            _S32.pack(dp.ifindex)
            + attribute(PORT_NO, _U32.pack(vport.number))
            + attribute(PORT_TYPE, _U32.pack(vport.type))
            + attribute(PORT_NAME, os.fsencode(vport.name) + b"\0")
            + attribute(PORT_IFINDEX, _U32.pack(vport.ifindex))
            + (b"" if vport.netnsid is None else attribute(PORT_NETNSID, _S32.pack(vport.netnsid)))
            + attribute(PORT_STATS, struct.pack("=8Q", *counted))
            + attribute(PORT_UPCALL_STATS, told)
            + attribute(PORT_UPCALL_PID, struct.pack(f"={len(pids)}I", *pids))
        )
        return Message(VPORT_ID, self._vport.payload(cmd, body))

    def _port_find(self, header: bytes, attrs: dict[int, bytes]) -> tuple[Datapath, Vport]:
        """By name in any datapath if given, else by number in the header's (lookup_vport); ENODEV, EINVAL."""
        name = string(attrs.get(PORT_NAME))
        if name is not None:
            dp = self.datapath
            vport = dp.by_name(name) if dp else None
            if dp is None or vport is None or (_S32.unpack(header)[0] not in (0, dp.ifindex)):
                raise NetlinkError(errno.ENODEV)
            return dp, vport
        number = u32(attrs.get(PORT_NO))
        if number is None:
            raise NetlinkError(errno.EINVAL)
        if number >= numbers.MAX_PORTS:
            raise NetlinkError(errno.EFBIG)
        dp = self._of(header)
        if number not in dp.vports:
            raise NetlinkError(errno.ENODEV)
        return dp, dp.vports[number]

    @staticmethod
    def _pids(attrs: dict[int, bytes]) -> tuple[int, ...]:
        value = attrs.get(PORT_UPCALL_PID, b"")
        if len(value) % 4:
            raise NetlinkError(errno.EINVAL)
        return tuple(pid for pid in struct.unpack(f"={len(value) // 4}I", value) if pid)

    def _port_new(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        if not {PORT_NAME, PORT_TYPE, PORT_UPCALL_PID} <= attrs.keys():
            raise NetlinkError(errno.EINVAL)
        dp = self._of(genl.header)
        vport = dp.add_port(
            u32(attrs[PORT_TYPE]) or 0, string(attrs[PORT_NAME]) or "", u32(attrs.get(PORT_NO)), self._pids(attrs)
        )
        message = self._port_message(dp, vport, NEW)
        self._server.multicast("ovs_vport", "ovs_vport", message.payload)
        return [message] if request.echo else None

    def _port_del(self, request: Request, genl: GenlHeader) -> Answer:
        dp, vport = self._port_find(genl.header, named(genl.attrs))
        message = self._port_message(dp, vport, DEL)
        dp.remove_port(vport)
        self._server.multicast("ovs_vport", "ovs_vport", message.payload)
        return [message] if request.echo else None

    def _port_get(self, request: Request, genl: GenlHeader) -> Answer:
        if request.dump:
            dp = self._of(genl.header)
            dp.refresh()
            kernels = functools.cache(device_counters)
            ports = sorted(dp.vports.values(), key=lambda port: port.number)
            return [self._port_message(dp, port, GET, kernels) for port in ports]
        dp, vport = self._port_find(genl.header, named(genl.attrs))
        return [self._port_message(dp, vport, GET)]

    def _port_set(self, request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        dp, vport = self._port_find(genl.header, attrs)
        kind = u32(attrs.get(PORT_TYPE))
        if kind is not None and kind != vport.type:
            raise NetlinkError(errno.EINVAL)
        if PORT_UPCALL_PID in attrs:
            dp.kept.reserve()
            vport.pids = self._pids(attrs)
            dp.kept.put_port(vport)
        return [self._port_message(dp, vport, SET)] if request.echo else None

    def master(self, ifindex: int) -> int | None:
        """The datapath's own device, when *ifindex* is a port of it (netdev_master_upper_dev_link)."""
        dp = self.datapath
        vport = dp.by_port(ifindex) if dp else None
        return dp.ifindex if dp and vport and vport.type == protocol.OVS_VPORT_TYPE_NETDEV else None

    def is_datapath(self, ifindex: int) -> bool:
        """Whether *ifindex* is the datapath's own device."""
        return self.datapath is not None and self.datapath.ifindex == ifindex

    def links_changed(self) -> None:
        """Follow renames, moves and removals of devices; tell who listens. Whatever was done to it, upcalls' device is
        fit for them."""
        dp = self.datapath
        if dp is None:
            return
        if not is_fit(dp.name):
            prepare(dp.name)
        for vport in dp.refresh():
            message = self._port_message(dp, vport, DEL, dict)
            self._server.multicast("ovs_vport", "ovs_vport", message.payload)

    # ---- packets

    def _execute(self, _request: Request, genl: GenlHeader) -> Answer:
        attrs = named(genl.attrs)
        if not {PKT_PACKET, PKT_KEY, PKT_ACTIONS} <= attrs.keys():
            raise NetlinkError(errno.EINVAL)
        given = checked(attrs[PKT_PACKET], attrs[PKT_KEY], attrs[PKT_ACTIONS])
        dp = self._of(genl.header)
        if PKT_PROBE not in attrs and self.packets is not None:
            packet_hash, mru = (u64(attrs.get(PKT_HASH)) or 0) & _HASH_BITS, u16(attrs.get(PKT_MRU)) or 0
            began = time.monotonic_ns()
            hand_in(dp, self.packets, given, packet_hash, mru)
            if self.executed is not None:
                self.executed(began, attrs[PKT_PACKET], dp.port_of(given.key["in_port"]) or dp.ifindex)
            if given.key.get("ip_frag") or mru:
                for _ in range(_BY_HAND):  # the caller may look at once for what became of it
                    self.read_upcalls()
        return None

    def read_upcalls(self) -> None:
        """Take in the packets that wait for user space."""
        if self.datapath is not None and self.packets is not None:
            self.delivery.collect(self.datapath, self.packets)

    def serve_upcalls(self) -> float | None:
        """Pass some of them on; the seconds after which to do so again, None: when more have come."""
        return self.delivery.serve(self.datapath) if self.datapath is not None else None
