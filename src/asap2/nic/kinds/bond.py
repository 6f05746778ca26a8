# SPDX-License-Identifier: Apache-2.0
"""Bonds: several devices used as one (drivers/net/bonding/{bond_main,bond_netlink,bond_options}.c).

Kept of each: its options, and ``ports`` with what was theirs before. The link of a port is its carrier, followed as
it changes, where the kernel polls every ``miimon``; without miimon every port counts as up, as in the kernel. What LACP
has found out (:mod:`asap2.nic.kinds.lacp_speaker`) is in ``lacp``; without it 802.3ad uses every port with a link.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asap2.namespaces import in_netns
from asap2.netlink.tables.link import BOND_SLAVE
from asap2.netlink.wire import NetlinkError
from asap2.nic.kinds.kind import IFF_MASTER, IFF_SLAVE, KindLink, Made, MasterKind, Wanted
from asap2.nic.kinds.lacp import NOBODY, Negotiation, Options, Participant, Port

if TYPE_CHECKING:
    from asap2.nic.kinds.links import KindLinks
    from asap2.nic.links import Link

log = logging.getLogger(__name__)

ROUND_ROBIN, ACTIVE_BACKUP, XOR, BROADCAST, LACP, TLB, ALB = range(7)
MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")
HASH_POLICIES = ("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac")
WITH_ACTIVE = (ACTIVE_BACKUP, TLB, ALB)
_PORTS = 16
_KEY_SHIFT, _KEY_10G = 6, 7 << 1 | 1
"""Where a port's key has the user's part, and the key of a port of 10 Gbit/s, full duplex (AD_LINK_SPEED_10000MBPS)."""
_BOND = struct.Struct("=IIII16I")
_PORT = struct.Struct("=II")

DEFAULTS: dict[str, int] = {
    "mode": ROUND_ROBIN,
    "miimon": 0,
    "updelay": 0,
    "downdelay": 0,
    "peer_notif_delay": 0,
    "use_carrier": 1,
    "arp_interval": 0,
    "arp_validate": 0,
    "arp_all_targets": 0,
    "primary_reselect": 0,
    "fail_over_mac": 0,
    "xmit_hash_policy": 0,
    "resend_igmp": 1,
    "num_peer_notif": 1,
    "all_slaves_active": 0,
    "min_links": 0,
    "lp_interval": 1,
    "packets_per_slave": 1,
    "lacp_active": 1,
    "lacp_rate": 0,
    "ad_select": 0,
    "tlb_dynamic_lb": 1,
    "arp_missed_max": 2,
    "ad_actor_sys_prio": 65535,
    "ad_user_port_key": 0,
}
"""The options with a number, as a new bond has them."""

MOST: dict[str, int] = {
    "mode": 6,
    "use_carrier": 1,
    "arp_validate": 6,
    "arp_all_targets": 1,
    "primary_reselect": 2,
    "fail_over_mac": 2,
    "xmit_hash_policy": 5,
    "resend_igmp": 255,
    "all_slaves_active": 1,
    "lacp_active": 1,
    "lacp_rate": 1,
    "ad_select": 2,
    "tlb_dynamic_lb": 1,
}
"""The greatest value of an option, where its attribute has room for more."""

_WITHOUT_PORTS = ("mode", "fail_over_mac")
_WHILE_DOWN = ("mode", "lacp_rate", "ad_select", "lacp_active", "tlb_dynamic_lb", "ad_user_port_key")
_ONLY_IN = {
    "lacp_rate": (LACP,),
    "lacp_active": (LACP,),
    "ad_actor_sys_prio": (LACP,),
    "ad_user_port_key": (LACP,),
    "primary": WITH_ACTIVE,
    "active_slave": WITH_ACTIVE,
    "arp_validate": (ACTIVE_BACKUP, ROUND_ROBIN, XOR, BROADCAST),
    "packets_per_slave": (ROUND_ROBIN,),
    "tlb_dynamic_lb": (TLB, ALB),
}


class Bond(MasterKind):
    """See the module. A port is ``[ifindex, MAC, MTU, failures, whether its link is up]``: address and MTU are those
    that it gets back, and a port without a link was seen with one before each failure."""

    name = "bond"
    driver = ("bonding", "", "2")
    flags = IFF_MASTER
    beside_itself = True
    movable = False
    port_flags = IFF_SLAVE
    port_table = BOND_SLAVE

    def make(self, links: KindLinks, namespace: int, wanted: Wanted) -> Made:
        """See :class:`LinkKind`. bond_newlink()."""
        kept: dict[str, Any] = {
            **DEFAULTS,
            "ports": [],
            "active": 0,
            "primary": 0,
            "own_mac": "address" in wanted.attrs,
            "promiscuous": False,
        }
        kept["mac"] = ""
        _set(kept, wanted.data or {}, up=False)
        return Made({"num_tx_queues": _PORTS, "num_rx_queues": _PORTS}, kept)

    def install(self, links: KindLinks, link: KindLink, netns: int) -> None:
        """See :class:`LinkKind`."""
        near = links.read(link.namespace, link.ifindex)
        assert near is not None
        link.data["mac"], link.data["mtu"] = near.mac.hex(), near.mtu
        links.programs.run("bond_out", link.id, link.far, netns)
        notify_peers(netns, link.ifindex)
        self._choose(links, link)

    def change(self, links: KindLinks, link: KindLink, data: Mapping[Any, Any], netns: int) -> None:
        """See :class:`LinkKind`. bond_changelink()."""
        near = links.read(link.namespace, link.ifindex)
        _set(link.data, data, up=near is not None and near.up)
        self._choose(links, link)

    # ---- ports

    def enslave(self, links: KindLinks, link: KindLink, port: Link, netns: int) -> None:
        """bond_enslave()."""
        ports = link.data["ports"]
        if port.ifindex == link.ifindex:
            raise NetlinkError(errno.EPERM, "Cannot enslave bond to itself.")
        if not port.ethernet:
            raise NetlinkError(errno.EINVAL, "Device type is different from other slaves")
        if port.up:
            raise NetlinkError(errno.EPERM, "Device can not be enslaved while up")
        if len(ports) >= _PORTS:
            raise NetlinkError(errno.ENOSPC)
        near = links.read(link.namespace, link.ifindex)
        if near is None:
            raise NetlinkError(errno.ENODEV)
        address = near.mac
        if not ports and not link.data["own_mac"]:
            address = port.mac
            links.set_near(link, address=address)
            link.data["mac"] = address.hex()
        if port.mac != address:
            links.set_link(link.far_namespace, port.ifindex, address=address)
        if port.mtu != near.mtu:
            links.set_link(link.far_namespace, port.ifindex, mtu=near.mtu)
        if near.promiscuous:
            links.set_link(link.far_namespace, port.ifindex, promiscuous=True)
        ports.append([port.ifindex, port.mac.hex(), port.mtu, 0, True])
        number = links.id_of(link.far_namespace, port.ifindex)
        links.programs["bond_ports"].update(struct.pack("=I", number), _PORT.pack(link.far, 0))
        links.programs.run("bond_in", number, port.ifindex, netns)
        links.set_link(link.far_namespace, port.ifindex, up=True)
        self.follow(links, link)

    def release(self, links: KindLinks, link: KindLink, ifindex: int) -> None:
        """bond_release(): the port is as it was, and down."""
        for port in list(link.data["ports"]):
            if port[0] == ifindex:
                link.data["ports"].remove(port)
                self._leave(links, link, port)
                self._left(links, link)
        self._choose(links, link)

    def _left(self, links: KindLinks, link: KindLink) -> None:
        """A bond without ports has no address of theirs any more."""
        if not link.data["ports"]:
            address = bytes((os.urandom(1)[0] & 0xFC | 2, *os.urandom(5)))
            links.set_near(link, address=address)
            link.data["mac"], link.data["own_mac"] = address.hex(), False

    def _leave(self, links: KindLinks, link: KindLink, port: list[Any]) -> None:
        ifindex, mac, mtu, *_ = port
        number = links.id_of(link.far_namespace, ifindex)
        links.programs.stop("bond_in", number)
        links.clear("bond_ports", struct.pack("=I", number))
        try:
            if (now := links.read(link.far_namespace, ifindex)) is not None:
                off = False if link.data["promiscuous"] else None
                links.set_link(link.far_namespace, ifindex, up=False, promiscuous=off)
                if now.mac.hex() != mac:
                    links.set_link(link.far_namespace, ifindex, address=bytes.fromhex(mac))
                if now.mtu != mtu:
                    links.set_link(link.far_namespace, ifindex, mtu=mtu)
        except OSError as error:
            log.warning("a bond's port %d is not as it was: %s", ifindex, error)

    def follow(self, links: KindLinks, link: KindLink) -> bool:
        """See :class:`LinkKind`. The links of ports; addresses, MTU and promiscuity are those of their bond
        (bond_set_promiscuity)."""
        data, near = link.data, links.read(link.namespace, link.ifindex)
        if near is None:
            return True
        for port in list(data["ports"]):
            now = links.read(link.far_namespace, port[0])
            if now is None:
                data["ports"].remove(port)
                self._left(links, link)
                continue
            if near.mac.hex() != data["mac"]:
                links.set_link(link.far_namespace, port[0], address=near.mac)
            if near.mtu != data["mtu"]:
                links.set_link(link.far_namespace, port[0], mtu=near.mtu)
            if near.promiscuous != data["promiscuous"]:
                links.set_link(link.far_namespace, port[0], promiscuous=near.promiscuous)
            linked = now.carrier if data["miimon"] else True
            port[3] += port[4] and not linked
            port[4] = linked
        if near.mac.hex() != data["mac"] and data["ports"]:
            data["own_mac"], data["mac"] = True, near.mac.hex()
        data["mtu"], data["promiscuous"] = near.mtu, near.promiscuous
        self._choose(links, link)
        return True

    def _choose(self, links: KindLinks, link: KindLink) -> None:
        """bond_select_active_slave(), bond_set_carrier(), and the same to the programs.

        The kernel tells neighbours of the new port (bond_send_peer_notif) when its address is set once more.
        """
        data, before = link.data, link.data["active"]
        usable = self._usable(data)
        known = [port[0] for port in data["ports"]]
        if data["primary"] not in known:
            data["primary"] = 0
        if data["mode"] in WITH_ACTIVE:
            if data["active"] not in usable:
                data["active"] = usable[0] if usable else 0
                if data["primary"] in usable:
                    data["active"] = data["primary"]
            elif data["primary"] in usable and data["primary_reselect"] == 0:
                data["active"] = data["primary"]
        else:
            data["active"] = 0
        order = sorted(usable, key=lambda ifindex: ifindex != data["active"])
        links.programs["bonds"].update(
            struct.pack("=I", link.id),
            _BOND.pack(data["mode"], data["xmit_hash_policy"], 0, len(order), *order, *[0] * (_PORTS - len(order))),
        )
        for ifindex in known:
            number = links.id_of(link.far_namespace, ifindex)
            listens = data["active"] in (0, ifindex) and (data["mode"] != LACP or ifindex in usable)
            listens = listens or bool(data["all_slaves_active"]) or data["mode"] == ALB
            links.programs["bond_ports"].update(struct.pack("=I", number), _PORT.pack(link.far, listens))
        links.set_far_up(link, len(usable) >= max(1, data["min_links"] if data["mode"] == LACP else 1))
        if before and data["active"] not in (0, before) and data["num_peer_notif"]:
            links.set_near(link, address=bytes.fromhex(data["mac"]))

    def forget(self, links: KindLinks, link: KindLink) -> None:
        """See :class:`LinkKind`."""
        ports, link.data["ports"] = link.data["ports"], []
        for port in ports:
            self._leave(links, link, port)
        links.clear("bonds", struct.pack("=I", link.id))

    @staticmethod
    def _usable(data: Mapping[str, Any]) -> list[int]:
        """The ports with a link and, where LACP is spoken, those that it allows."""
        linked = [port[0] for port in data["ports"] if port[4]]
        if data["mode"] != LACP or not data.get("lacp"):
            return linked
        allowed = set(Negotiation.kept(data["lacp"]).used())
        return [ifindex for ifindex in linked if ifindex in allowed]

    def negotiated(self, links: KindLinks, link: KindLink) -> None:
        """LACP has found something out."""
        self._choose(links, link)

    def lacp_options(self, link: KindLink) -> Options:
        """What LACP is to say of a bond."""
        data = link.data
        return Options(
            data["mac"],
            data["ad_actor_sys_prio"],
            data["ad_user_port_key"] << _KEY_SHIFT | _KEY_10G,
            bool(data["lacp_active"]),
            bool(data["lacp_rate"]),
            data["ad_select"],
        )

    def lacp(self, link: KindLink) -> Negotiation | None:
        """What LACP has found out; None: it is not spoken."""
        kept = link.data.get("lacp") if link.data["mode"] == LACP else None
        return Negotiation.kept(kept) if kept else None

    def aggregator(self, link: KindLink) -> tuple[int, int, Participant] | None:
        """The number of the active aggregator, how many ports it has, and its partner; None: there is none."""
        talk = self.lacp(link)
        if talk is None:
            linked = sum(port[4] for port in link.data["ports"])
            return (1, linked, NOBODY) if linked else None
        ports = [port for port in talk.ports.values() if port.aggregator == talk.active]
        return (talk.active, len(ports), ports[0].partner) if ports else None

    def lacp_port(self, link: KindLink, ifindex: int) -> Port | None:
        """What LACP has found out about a port; None: it is not spoken there."""
        talk = self.lacp(link)
        return talk.ports.get(str(ifindex)) if talk is not None else None

    def sends(self, link: KindLink) -> dict[int, bool]:
        """Whether a bond sends by each of its ports (netdev_lag_lower_state_info), by ifindex."""
        usable = self._usable(link.data)
        return {port[0]: port[0] in usable and link.data["active"] in (0, port[0]) for port in link.data["ports"]}

    # ---- showing

    def shown(self, links: KindLinks, link: KindLink) -> dict[str, Any]:
        """See :class:`LinkKind`. bond_fill_info()."""
        data = link.data
        lacp = data["mode"] == LACP
        found = {name: data[name] for name in DEFAULTS if lacp or not name.startswith("ad_") or name == "ad_select"}
        for name in ("active", "primary"):
            if data[name]:
                found["active_slave" if name == "active" else name] = data[name]
        if lacp:
            found["ad_actor_system"] = bytes(6)
            if (found_one := self.aggregator(link)) is not None:
                number, ports, partner = found_one
                found["ad_info"] = {
                    "aggregator": number,
                    "num_ports": ports,
                    "actor_key": self.lacp_options(link).key,
                    "partner_key": partner.key,
                    "partner_mac": bytes.fromhex(partner.system),
                }
        return found

    def port_shown(self, link: KindLink, ifindex: int) -> dict[str, Any]:
        """IFLA_INFO_SLAVE_DATA of a port: bond_fill_slave_info()."""
        data = link.data
        port = next(port for port in data["ports"] if port[0] == ifindex)
        idle = data["active"] not in (0, ifindex) or not (port[4] or data["mode"] in WITH_ACTIVE)
        if data["mode"] == LACP:
            idle = ifindex not in self._usable(data)
        shown: dict[str, Any] = {
            "state": int(idle),
            "mii_status": 0 if port[4] else 2,
            "link_failure_count": port[3],
            "perm_hwaddr": bytes.fromhex(port[1]),
            "queue_id": 0,
            "prio": 0,
        }
        if (spoken := self.lacp_port(link, ifindex)) is not None:
            shown |= {
                "ad_aggregator_id": spoken.aggregator,
                "ad_actor_oper_port_state": spoken.state,
                "ad_partner_oper_port_state": spoken.partner.state,
            }
        return shown


def notify_peers(netns: int, ifindex: int) -> None:
    """Have the kernel announce the addresses of a device whenever its MAC is set: gratuitous ARP and unsolicited
    neighbour advertisements (arp_notify, ndisc_notify)."""

    def call() -> None:
        name = socket.if_indextoname(ifindex)
        for setting in (f"ipv4/conf/{name}/arp_notify", f"ipv6/conf/{name}/ndisc_notify"):
            with contextlib.suppress(OSError), open(f"/proc/sys/net/{setting}", "w") as file:
                file.write("1")

    in_netns(netns, call)


def _set(kept: dict[str, Any], data: Mapping[Any, Any], *, up: bool) -> None:
    """__bond_opt_set() of each option in *data*; nothing is changed where one is refused."""
    new = dict(kept)
    for name in sorted((name for name in data if isinstance(name, str)), key=lambda name: name != "mode"):
        value = data[name]
        if name not in DEFAULTS and name not in ("active_slave", "primary"):
            continue
        if name in _WITHOUT_PORTS and kept["ports"]:
            raise NetlinkError(errno.ENOTEMPTY, "unable to set option because the bond device has slaves")
        if name in _ONLY_IN and new["mode"] not in _ONLY_IN[name]:
            raise NetlinkError(errno.EACCES, "option not supported in mode")
        if name in _WHILE_DOWN and up:
            raise NetlinkError(errno.EBUSY, "unable to set option because the bond is up")
        if value > MOST.get(name, value):
            raise NetlinkError(errno.EINVAL, "invalid option value")
        if name in ("active_slave", "primary"):
            if value and value not in [port[0] for port in kept["ports"]]:
                raise NetlinkError(errno.EINVAL, "invalid option value")
            new["active" if name == "active_slave" else name] = value
            continue
        new[name] = value
        if name == "arp_interval" and value and new["miimon"]:
            raise NetlinkError(errno.EINVAL, "ARP monitoring cannot be used with MII monitoring")
    kept.update(new)
