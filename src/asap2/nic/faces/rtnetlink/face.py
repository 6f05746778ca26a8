# SPDX-License-Identifier: Apache-2.0
"""rtnetlink's links: the NIC's netdevs shown as what they are, and the VF attributes that ``ip link set PF vf N`` sets.

The kernel answers RTM_GETLINK, and tells of changes; what it says of a device of ours is changed on the way: a veth's
peer and kind go, and what a ConnectX's netdev has comes in, each attribute where rtnl_fill_ifinfo() puts it. Requests
to change a link go on to the kernel, but for the list of VF attributes, which is the driver's.

Sources: net/core/rtnetlink.c, drivers/net/ethernet/mellanox/mlx5/core/{en_main,en_rep}.c of Linux 6.x.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

from asap2.netlink.request import PASS, Answer, Message, Netns, Proxy, Request
from asap2.netlink.server import Server
from asap2.netlink.tables.link import (
    LINK,
    LINKINFO,
    RTEXT_FILTER_SKIP_STATS,
    RTEXT_FILTER_VF,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    RTNLGRP_LINK,
    VF_INFO,
    VF_STATS,
    VFINFO_LIST,
    Ifinfomsg,
)
from asap2.netlink.wire import (
    NETLINK_ROUTE,
    NLA_F_NESTED,
    NLA_TYPE_MASK,
    NLM_F_DUMP,
    NetlinkError,
    NlMsg,
    attribute,
    attributes,
)
from asap2.nic import statistics
from asap2.nic.device import Driver
from asap2.nic.ethertypes import ETH_P_8021Q
from asap2.nic.faces.ethtool.settings import max_channels
from asap2.nic.faces.lookup import ifindex_named
from asap2.nic.faces.refusal import as_netlink
from asap2.nic.faces.rtnetlink.kinds import KindFace
from asap2.nic.faces.rtnetlink.link_message import (
    OF_A_PEER,
    has,
    ifindex_of,
    insert,
    linkinfo,
    value_of,
    without_peer,
)
from asap2.nic.faces.rtnetlink.namespaces import RTM_GETNSID, NamespaceFace
from asap2.nic.faces.rtnetlink.stats import RTM_GETSTATS, StatsFace, stats32, stats64
from asap2.nic.faces.rtnetlink.switch_ids import SwitchIds
from asap2.nic.faces.tc.root_qdiscs import root_kind, transmit_queues
from asap2.nic.function import Pf, Role, Vf
from asap2.nic.model import MAX_MTU, SHOWN_UPCALL_MTU, UPCALL_MTU
from asap2.nic.netdevs import NetDev, NetDevs

_LINK = LINK.table.numbers
_HEADER = LINK.size
_ADDRESSES = {_LINK[name] for name in ("address", "broadcast", "perm_address", "phys_port_id")}
_BEFORE_VFS = _ADDRESSES | {_LINK[name] for name in ("stats", "stats64")}
_BEFORE_MASTER = {_LINK["num_rx_queues"], _LINK["tso_max_segs"], _LINK["num_tx_queues"]}
_NAMES = {_LINK["ifname"], _LINK["alt_ifname"]}
_UPCALL_MTU = struct.pack("=I", UPCALL_MTU)
_NAMESPACE = ("net_ns_pid", "net_ns_fd", "target_netnsid")
_STATISTICS = {_LINK["stats"]: stats32, _LINK["stats64"]: stats64}
_AF_BRIDGE = 7
_NOT_OF_LINKS = (socket.AF_INET6, _AF_BRIDGE)
"""Address families whose RTM_GETLINK is another thing: IPv6's and the bridge's state of a port."""
_IFF_UP = 1
IFLA_EVENT_FEATURES = 2
_BRIDGE_FLAGS_SELF, _BRIDGE_MODE_VEB = 2, 0


class LinkFace:
    """Serves links. *master* gives the ifindex of the Open vSwitch datapath's device that the device with this ifindex
    in the node's namespace is a port of (None: of none); *immovable* whether it is the datapath's device itself, which
    stays in its namespace. *kinds* serves the devices of our own kinds."""

    def __init__(
        self,
        server: Server,
        driver: Driver,
        netdevs: NetDevs,
        *,
        master: Callable[[int], int | None],
        immovable: Callable[[int], bool],
        kinds: KindFace | None = None,
    ) -> None:
        self.driver = driver
        self._kinds = kinds
        self._switch_ids = SwitchIds(driver, netdevs, kinds.links, master) if kinds is not None else None
        self.netdevs = netdevs
        self._master = master
        self._immovable = immovable
        self._server = server
        server.route([RTM_GETLINK], self.get)
        server.route([RTM_NEWLINK, RTM_SETLINK], self.change)
        server.route([RTM_DELLINK], self.delete)
        server.route([RTM_GETSTATS], StatsFace(self.netdevs, self._device, self._hidden).get)
        self._namespaces = NamespaceFace(server, self.netdevs.hidden())
        server.route([RTM_GETNSID], self._namespaces.get)
        server.show(NETLINK_ROUTE, [RTM_NEWLINK, RTM_DELLINK], self.notified)

    def link_changed(self, netdev: NetDev, up: bool) -> None:
        """A netdev was set up or down: a VF's link follows its representor's."""
        if netdev.role is Role.REPRESENTOR and isinstance(netdev.function, Vf):
            self.driver.follow_representor(netdev.function, up)

    # ---- RTM_GETLINK

    def get(self, request: Request) -> Answer:
        """One link or all: the kernel's answer, with our devices as they are to be seen."""
        payload = request.payload
        if self._kinds is not None:
            self._kinds.settle()
        if payload[0] in _NOT_OF_LINKS:
            more = self._embedded_bridges(request) if payload[0] == _AF_BRIDGE and request.dump else ()
            return Proxy(lambda message: self._without_peer(message, request), more)
        start = _HEADER if len(payload) >= _HEADER else 4
        asked = LINK.table.decode(payload, start) if len(payload) > start else {}
        if "target_netnsid" in asked:
            return self._get_elsewhere(request, asked["target_netnsid"], asked.get("ext_mask", 0))
        mask = asked.get("ext_mask", 0)
        kind, master = asked.get("linkinfo", {}).get("kind"), asked.get("master")
        if not request.dump or (kind is None and master is None):
            return Proxy(lambda message: self._shown(message, request, mask))

        own_kind = kind == "openvswitch" or (self._kinds is not None and kind is not None and self._kinds.has(kind))
        ours = {_LINK["linkinfo"]} if own_kind else set()
        if master is not None and self._at_home(request) and self._is_internal(master):
            ours.add(_LINK["master"])
        if master is not None and self._kinds is not None and self._kinds.at(request.client.netns, master) is not None:
            ours.add(_LINK["master"])
        kept = [(t, v) for t, v in attributes(payload, start) if t & NLA_TYPE_MASK not in ours]

        def wanted(message: NlMsg) -> Iterable[Message]:
            for shown in self._shown(message, request, mask):
                _header, attrs = LINK.decode(shown.payload)
                if kind is not None and attrs.get("linkinfo", {}).get("kind") != kind:
                    continue
                if master is None or attrs.get("master") == master:
                    yield shown

        return Proxy(wanted, payload=payload[:start] + b"".join(attribute(t, v) for t, v in kept))

    def _get_elsewhere(self, request: Request, target: int, mask: int) -> Answer:
        """Links of the namespace with id *target* in the asking one."""
        netns, namespaces = request.client.netns, self._namespaces
        if target in namespaces.hidden_in(netns):
            raise NetlinkError(errno.EINVAL, "Invalid target network namespace id" if request.dump else None)
        ids: dict[int, int | None] = {}

        def id_in(descriptor: int) -> int | None:
            if descriptor not in ids:
                ids[descriptor] = namespaces.id_in(netns, target, descriptor)
            return ids[descriptor]

        def shown(message: NlMsg) -> list[Message]:
            payload = message.payload
            if message.type == RTM_NEWLINK and len(payload) >= _HEADER:
                device = self.netdevs.by_nsid(ifindex_of(payload), id_in)
                if device is not None and device.role is not Role.OTHER:
                    payload = self.rewrite(payload, device, mask)
            return [Message(message.type, payload)]

        return Proxy(shown)

    def _without_peer(self, message: NlMsg, request: Request) -> list[Message]:
        payload = message.payload
        if len(payload) >= _HEADER and self._kinds is not None:
            own = self._kinds.shown(request.client.netns, ifindex_of(payload), payload)
            if own is None:
                return []
            payload = own
        if len(payload) >= _HEADER and self._device(ifindex_of(payload), request) is not None:
            payload = without_peer(payload)
        return [Message(message.type, payload)]

    def _embedded_bridges(self, request: Request) -> Iterable[Message]:
        """What mlx5e_bridge_getlink() says of a PF whose VFs are switched as legacy mode does: a bridge in the NIC."""
        if not self._at_home(request):
            return
        kernel = self._server.kernel(request.client.netns, NETLINK_ROUTE)
        for device in self.netdevs.all():
            pf = device.pf
            if device.role is not Role.PF or pf is None or pf.switchdev or not pf.vfs:
                continue
            (answer,) = kernel.request(RTM_GETLINK, 0, LINK.encode(Ifinfomsg(index=device.ifindex), {}))
            header, link = LINK.decode(answer.payload)
            attrs = {name: link[name] for name in ("ifname", "mtu", "operstate", "master", "address") if name in link}
            attrs["af_spec"] = attribute(0, struct.pack("=H", _BRIDGE_FLAGS_SELF)) + attribute(
                1, struct.pack("=H", _BRIDGE_MODE_VEB)
            )
            protinfo = attribute(_LINK["protinfo"] | NLA_F_NESTED, b"")
            yield Message(RTM_NEWLINK, LINK.encode(header._replace(family=_AF_BRIDGE, change=0), attrs) + protinfo)

    def _is_internal(self, ifindex: int) -> bool:
        device = self.netdevs.by_ifindex(ifindex)
        return device is not None and device.role is Role.INTERNAL

    def _shown(self, message: NlMsg, request: Request, mask: int) -> list[Message]:
        payload = message.payload
        if message.type == RTM_NEWLINK and len(payload) >= _HEADER:
            ifindex = ifindex_of(payload)
            if self._kinds is not None and len(self._kinds.links):
                own = self._kinds.shown(request.client.netns, ifindex, payload)
                if own is None:
                    if not request.dump:
                        raise NetlinkError(errno.ENODEV)
                    return []
                payload = own
            device = self._device(ifindex, request)
            master = self._master(ifindex) if self._at_home(request) else None
            if device is not None or master is not None:
                payload = self.rewrite(payload, device, mask, master)
            if self._switch_ids is not None and self._at_home(request) and (device is None or device.pf is None):
                payload = self._switch_ids.put_in(payload, request)
        return [Message(message.type, payload)]

    def rewrite(
        self, payload: bytes, device: NetDev | None, mask: int, master: int | None = None, *, grow: bool = True
    ) -> bytes:
        """An RTM_NEWLINK of the kernel, as it would be if *device* were what it stands for.

        *mask* is the request's IFLA_EXT_MASK; *master* the device's master in Open vSwitch. Without *grow* the veth
        goes and nothing comes in.
        """
        own = device is not None
        counters = statistics.shown(self.netdevs, device) if device is not None else None
        found: list[tuple[int, bytes]] = []
        for type_, value in attributes(payload, _HEADER):
            number = type_ & NLA_TYPE_MASK
            if number == _LINK["linkinfo"]:
                value = linkinfo(value, device, master is not None)
                if not value:
                    continue
            if (own and number in OF_A_PEER) or (master is not None and number == _LINK["master"]):
                continue
            if number == _LINK["max_mtu"] and device is not None and device.pf is not None:
                value = struct.pack("=I", MAX_MTU)
            if number == _LINK["mtu"] and device is not None and device.role is Role.INTERNAL and value == _UPCALL_MTU:
                value = struct.pack("=I", SHOWN_UPCALL_MTU)
            if device is not None and device.pf is not None and number in _QUEUES:
                value = _QUEUES[number](device, value)
            if counters is not None and number in _STATISTICS:
                value = _STATISTICS[number](counters, len(value))
            found.append((type_, value))
        if not grow:
            return payload[:_HEADER] + b"".join(attribute(t, v) for t, v in found)
        if device is not None and device.role is Role.INTERNAL and not has(found, "linkinfo"):
            found.append((_LINK["linkinfo"], LINKINFO.encode({"kind": "openvswitch"})))
        if master is not None:
            if not has(found, "linkinfo"):
                found.append((_LINK["linkinfo"], LINKINFO.encode({"slave_kind": "openvswitch"})))
            insert(found, _BEFORE_MASTER, LINK.table.encode({"master": master}))
        if device is not None and device.pf is not None:
            self._identify(found, device, mask)
        return payload[:_HEADER] + b"".join(attribute(t, v) for t, v in found)

    def _identify(self, found: list[tuple[int, bytes]], device: NetDev, mask: int) -> None:
        """Put in what a netdev of a ConnectX has that another has not."""
        parent = device.parent
        assert parent is not None
        children = parent.vfs if isinstance(parent, Pf) else []
        vfs: dict[str, Any] = {}
        if mask & RTEXT_FILTER_VF:
            vfs["num_vf"] = len(children)
            if device.role is not Role.REPRESENTOR:
                infos = [self._vf_info(vf, mask) for vf in children]
                vfs["vfinfo_list"] = VFINFO_LIST.encode({"vf_info": infos} if infos else {})
        insert(found, _BEFORE_VFS, LINK.table.encode(vfs))
        port: dict[str, Any] = {}
        if device.role is Role.PF:
            port["perm_address"] = parent.mac
        if device.phys_port_name is not None:
            port["phys_port_name"] = device.phys_port_name
        if device.phys_switch_id is not None:
            port["phys_switch_id"] = bytes.fromhex(device.phys_switch_id)
        insert(found, _ADDRESSES, LINK.table.encode(port))
        found.extend(attributes(LINK.table.encode({"parent_dev_name": parent.bdf, "parent_dev_bus_name": "pci"})))

    def _vf_info(self, vf: Vf, mask: int) -> dict[str, Any]:
        """One VF, in the order of rtnl_fill_vfinfo()."""
        number = vf.index
        info: dict[str, Any] = {
            "mac": (number, vf.mac),
            "broadcast": (b"\xff" * 6,),
            "vlan": (number, vf.vlan, vf.qos),
            "rate": (number, vf.min_tx_rate, vf.max_tx_rate),
            "tx_rate": (number, vf.max_tx_rate),
            "spoofchk": (number, int(vf.spoofchk)),
            "link_state": (number, int(vf.link_state)),
            "rss_query_en": (number, 0),
            "trust": (number, int(vf.trust)),
            "vlan_list": {"info": [(number, vf.vlan, vf.qos, socket.htons(vf.vlan_proto))]},
        }
        if not mask & RTEXT_FILTER_SKIP_STATS:
            counters = self.netdevs.vf_counters(vf)
            names = [name for name in VF_STATS.numbers if name != "pad"]
            info["stats"] = {name: counters.get(name, 0) for name in names}
        return info

    # ---- notifications

    def notified(self, netns: Netns, message: NlMsg, room: int) -> bytes | None:
        """What the kernel tells of a link by itself, as it is to be seen: see :meth:`Server.show`."""
        payload = message.payload
        if len(payload) < _HEADER:
            return None
        ifindex = ifindex_of(payload)
        own = self._kinds.notified(netns, message) if self._kinds is not None else None
        if own is not None:
            if not own:
                return own
            payload = own
        if payload[0] in _NOT_OF_LINKS:
            return without_peer(payload) if self.netdevs.last_known(ifindex, netns.cookie) is not None else None
        info = {type_ & NLA_TYPE_MASK: value for type_, value in attributes(payload, _HEADER)}
        kind = LINKINFO.decode(info.get(_LINK["linkinfo"], b"")).get("kind")
        device = self.netdevs.last_known(ifindex, netns.cookie) if kind == "veth" else None
        if device is not None and device.role is Role.OTHER:
            device = None
        at_home = netns.cookie == self._server.netns.cookie
        master = self._master(ifindex) if at_home else None
        if device is None and master is None:
            return own
        shown = self.rewrite(payload, device, 0, master)
        return shown if len(shown) <= room else self.rewrite(payload, device, 0, master, grow=False)

    def announce(self, netns: Netns, device: NetDev, event: int | None = None) -> None:
        """Tell who listens that the driver has changed *device* (rtmsg_ifinfo()); *event* is an IFLA_EVENT_*."""
        kernel = self._server.kernel(netns, NETLINK_ROUTE)
        try:
            (answer,) = kernel.request(RTM_GETLINK, 0, LINK.encode(Ifinfomsg(index=device.ifindex), {}))
        except NetlinkError:  # gone meanwhile
            return
        header, _attrs = LINK.decode(answer.payload)
        if event is None and not header.flags & _IFF_UP:  # netdev_state_change()
            return
        at_home = netns.cookie == self._server.netns.cookie
        payload = self.rewrite(answer.payload, device, 0, self._master(device.ifindex) if at_home else None)
        if event is not None:
            payload += attribute(_LINK["event"], struct.pack("=I", event))
        self._server.notify(netns, RTNLGRP_LINK, Message(RTM_NEWLINK, payload))

    # ---- RTM_NEWLINK, RTM_SETLINK

    def change(self, request: Request) -> Answer:
        """A change to a link: the VF attributes are the driver's, all else the kernel's."""
        if self._kinds is not None and (answer := self._kinds.asked(request, self._index(request))) is not None:
            return answer
        device = self._named(request)
        if device is None:
            return PASS
        _header, attrs = LINK.decode(request.payload)
        stays = device.eswitch is not None or (
            device.role is Role.INTERNAL and self._at_home(request) and self._immovable(device.ifindex)
        )
        if stays and any(name in attrs for name in _NAMESPACE):
            raise NetlinkError(errno.EINVAL, "The interface netns is immutable")
        if device.pf is not None and attrs.get("mtu", 0) > MAX_MTU:
            raise NetlinkError(errno.EINVAL, "mtu greater than device maximum")
        if "vfinfo_list" not in attrs or device.pf is None:
            return PASS
        done = 0
        try:
            for type_, raw in attributes(value_of(request.payload, "vfinfo_list")):
                if type_ & NLA_TYPE_MASK != VFINFO_LIST.numbers["vf_info"]:
                    raise NetlinkError(errno.EINVAL)
                with as_netlink():
                    self._set_vf(device, VF_INFO.decode(raw))
                done += 1
        finally:
            if done:
                self.announce(request.client.netns, device)
        others = [
            (type_, value)
            for type_, value in attributes(request.payload, _HEADER)
            if type_ & NLA_TYPE_MASK != _LINK["vfinfo_list"]
        ]
        naming = {*_NAMES, _LINK["ext_mask"]}
        flags = request.payload[8:16] != bytes(8)
        if not flags and all(type_ & NLA_TYPE_MASK in naming for type_, _ in others):
            return None
        rest = request.payload[:_HEADER] + b"".join(attribute(type_, value) for type_, value in others)
        return Proxy(lambda message: [Message(message.type, message.payload)], payload=rest)

    def _set_vf(self, device: NetDev, info: dict[Any, Any]) -> None:
        """do_setvfinfo(): what one IFLA_VF_INFO asks for, in its order."""
        if device.role is Role.REPRESENTOR:
            raise NetlinkError(errno.EOPNOTSUPP)
        if device.role is not Role.PF:
            raise NetlinkError(errno.EPERM)
        driver, pf = self.driver, device.pf
        assert pf is not None
        if one := info.get("mac"):
            driver.set_vf_mac(pf, one.vf, one.mac[:6])
        if one := info.get("vlan"):
            driver.set_vf_vlan(pf, one.vf, one.vlan, one.qos, ETH_P_8021Q)
        if "vlan_list" in info:
            vlans = info["vlan_list"].get("info", [])
            if len(vlans) != 1:
                raise NetlinkError(errno.EOPNOTSUPP if vlans else errno.EINVAL)
            one = vlans[0]
            driver.set_vf_vlan(pf, one.vf, one.vlan, one.qos, socket.ntohs(one.proto))
        if one := info.get("tx_rate"):
            driver.set_vf_rate(pf, one.vf, driver.vf(pf, one.vf).min_tx_rate, one.rate)
        if one := info.get("rate"):
            driver.set_vf_rate(pf, one.vf, one.min_tx_rate, one.max_tx_rate)
        if one := info.get("spoofchk"):
            driver.set_vf_flag(pf, one.vf, "spoofchk", bool(one.setting))
        if one := info.get("link_state"):
            driver.set_vf_link_state(pf, one.vf, one.setting)
        if "rss_query_en" in info:
            raise NetlinkError(errno.EOPNOTSUPP)
        if one := info.get("trust"):
            driver.set_vf_flag(pf, one.vf, "trust", bool(one.setting))
        if one := info.get("ib_node_guid") or info.get("ib_port_guid"):
            driver.set_vf_guid(pf, one.vf)

    # ---- RTM_DELLINK

    def delete(self, request: Request) -> Answer:
        """A netdev with hardware behind it, or of a datapath, is not for deletion by rtnetlink: EOPNOTSUPP."""
        device = self._named(request)
        if device is not None:
            raise NetlinkError(errno.EOPNOTSUPP)
        if self._kinds is not None:
            self._kinds.check_removal(request, self._index(request))
        if len(request.payload) >= _HEADER:
            header, attrs = LINK.decode(request.payload)
            if header.index == 0 and "group" in attrs and self._in_group(request, attrs["group"]):
                raise NetlinkError(errno.EOPNOTSUPP)
        return PASS

    def _in_group(self, request: Request, group: int) -> bool:
        """Whether a device of ours is in *group*."""
        kernel = self._server.kernel(request.client.netns, NETLINK_ROUTE)
        links = map(
            LINK.decode, (m.payload for m in kernel.request(RTM_GETLINK, NLM_F_DUMP, LINK.encode(Ifinfomsg(), {})))
        )
        return any(
            attrs.get("group") == group and self._device(header.index, request) is not None for header, attrs in links
        )

    # ---- finding

    def _hidden(self, ifindex: int, request: Request) -> bool:
        return self._kinds is not None and self._kinds.hides(request.client.netns, ifindex)

    def _at_home(self, request: Request) -> bool:
        return request.client.netns.cookie == self._server.netns.cookie

    def _device(self, ifindex: int, request: Request) -> NetDev | None:
        device = self.netdevs.by_ifindex(ifindex, request.client.netns.cookie)
        return None if device is None or device.role is Role.OTHER else device

    def _named(self, request: Request) -> NetDev | None:
        """The device of ours that the request is about."""
        ifindex = self._index(request)
        return None if ifindex is None else self._device(ifindex, request)

    def _index(self, request: Request) -> int | None:
        """The ifindex of the link that the request is about, which may have it by name; None: it names none."""
        if len(request.payload) < _HEADER:
            return None
        ifindex = ifindex_of(request.payload)
        if ifindex > 0:
            return ifindex
        for type_, value in attributes(request.payload, _HEADER):
            if type_ & NLA_TYPE_MASK in _NAMES:
                name = value.split(b"\0", 1)[0].decode(errors="surrogateescape")
                return ifindex_named(self._server, request.client.netns, name)
        return None


def _qdisc(device: NetDev, value: bytes) -> bytes:
    return f"{root_kind(device)}\0".encode() if value == b"noqueue\0" else value


_QUEUES = {
    _LINK["num_tx_queues"]: lambda device, _value: struct.pack("=I", transmit_queues(device)),
    _LINK["num_rx_queues"]: lambda _device, _value: struct.pack("=I", max_channels()),
    _LINK["qdisc"]: _qdisc,
}
