# SPDX-License-Identifier: Apache-2.0
"""What /sys and /proc say of devices of our own kinds: class/net, bonding, /proc/net/vlan, /proc/net/bonding.

Sources: net/core/net-sysfs.c, drivers/net/bonding/{bond_sysfs,bond_sysfs_slave,bond_procfs}.c, net/8021q/vlanproc.c
of Linux 6.1 and later.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.sysfs import kstrto
from asap2.nic.faces.sysfs.tree import VIRTUAL_NET, Attribute, Directory, Link, Tree
from asap2.nic.kinds import BOND
from asap2.nic.kinds.bond import HASH_POLICIES, LACP, MODES, WITH_ACTIVE
from asap2.nic.kinds.kind import KindLink
from asap2.nic.kinds.lacp import NOBODY, PORT_PRIORITY, SYNC
from asap2.nic.kinds.links import FAR_NAMES, KindLinks
from asap2.nic.kinds.vlan import REORDER_HDR

CLASS_NET = "class/net"
_NAMED: dict[str, tuple[str, ...]] = {
    "mode": MODES,
    "xmit_hash_policy": HASH_POLICIES,
    "ad_select": ("stable", "bandwidth", "count"),
    "lacp_rate": ("slow", "fast"),
    "lacp_active": ("off", "on"),
    "fail_over_mac": ("none", "active", "follow"),
    "primary_reselect": ("always", "better", "failure"),
    "arp_validate": ("none", "active", "backup", "all", "filter", "filter_active", "filter_backup"),
    "arp_all_targets": ("any", "all"),
}
"""Options whose values have names."""
_FILES = {
    **{name: name for name in (*_NAMED, "miimon", "updelay", "downdelay", "peer_notif_delay", "use_carrier")},
    **{name: name for name in ("arp_interval", "arp_missed_max", "resend_igmp", "all_slaves_active", "min_links")},
    **{name: name for name in ("lp_interval", "packets_per_slave", "tlb_dynamic_lb")},
    "num_grat_arp": "num_peer_notif",
    "num_unsol_na": "num_peer_notif",
}
"""Files of the directory ``bonding``, and their options."""
_MODE_NAMES = (
    *("load balancing (round-robin)", "fault-tolerance (active-backup)", "load balancing (xor)"),
    *("fault-tolerance (broadcast)", "IEEE 802.3ad Dynamic link aggregation", "transmit load balancing"),
    "adaptive load balancing",
)
_BINDS = r"[\w.:@-]+"


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class KindFiles:
    """Puts them into a tree."""

    def __init__(self, links: KindLinks) -> None:
        self._links = links

    def put_in(self, tree: Tree, namespace: int | None, real: Path) -> None:
        """Put in what *tree*, over the sysfs *real* of *namespace*, has of them."""
        virtual, by_class = tree.root.at(VIRTUAL_NET), tree.root.at(CLASS_NET)
        virtual.without = by_class.without = FAR_NAMES
        if namespace is None:
            return
        names = {int(self._read(real / CLASS_NET / name / "ifindex")): name for name in os.listdir(real / CLASS_NET)}
        bonds = []
        for link in self._links:
            name = names.get(link.ifindex) if link.namespace == namespace else None
            if name is None:
                continue
            own = virtual.at(name)
            lower = names.get(link.lower) if link.far_namespace == namespace else None
            own.entries["iflink"] = Attribute(functools.partial(_number, link.lower or link.ifindex))
            if lower is not None:
                self._stack(virtual, tree, name, lower)
            if link.kind == BOND.name:
                bonds.append(name)
                self._bond(own, link, names)
                for port in link.data["ports"]:
                    if (port_name := names.get(port[0])) is not None:
                        self._stack(virtual, tree, name, port_name)
                        self._port(self._at(virtual, tree, port_name), link, port, name)
        if bonds:  # the kernel has the file once its module is loaded
            by_class.entries["bonding_masters"] = Attribute(lambda: " ".join(bonds) + "\n")

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text()
        except OSError:  # class/net has other files, and devices go
            return "0"

    @staticmethod
    def _at(virtual: Directory, tree: Tree, name: str) -> Directory:
        """The directory of a device, wherever it is shown."""
        return tree.root.at(tree.moved[name]) if name in tree.moved else virtual.at(name)

    def _stack(self, virtual: Directory, tree: Tree, upper: str, lower: str) -> None:
        place = tree.moved.get(lower, f"{VIRTUAL_NET}/{lower}")
        virtual.at(upper).entries[f"lower_{lower}"] = Link(os.path.relpath(f"/{place}", f"/{VIRTUAL_NET}/{upper}"))
        to = Link(os.path.relpath(f"/{VIRTUAL_NET}/{upper}", f"/{place}"))
        self._at(virtual, tree, lower).entries[f"upper_{upper}"] = to

    # ---- bonds

    def _bond(self, own: Directory, link: KindLink, names: dict[int, str]) -> None:
        bonding = Directory()
        own.entries["bonding"] = bonding
        data = link.data

        def ports() -> list[str]:
            return [names[port[0]] for port in data["ports"] if port[0] in names]

        def name_of(option: str) -> str:
            return f"{names[data[option]]}\n" if data[option] in names else ""

        for file, option in _FILES.items():
            bonding.entries[file] = Attribute(
                functools.partial(_option, data, option), functools.partial(self._set, link, option)
            )
        for file, option in (("active_slave", "active"), ("primary", "primary")):
            bonding.entries[file] = Attribute(
                functools.partial(name_of, option), functools.partial(self._set_port, link, file)
            )
        bonding.entries["slaves"] = Attribute(
            lambda: " ".join(ports()) + "\n" if ports() else "", functools.partial(self._enslave, link)
        )
        bonding.entries["queue_id"] = Attribute(lambda: " ".join(f"{name}:0" for name in ports()) + "\n")
        bonding.entries["mii_status"] = Attribute(
            lambda: "up\n" if any(port[4] for port in data["ports"]) else "down\n"
        )

        def of_lacp(file: str) -> str:
            return f"{_lacp(link)[file]}\n" if data["mode"] == LACP else ""

        for file in _LACP_FILES:
            bonding.entries[file] = Attribute(functools.partial(of_lacp, file))
        bonding.entries["arp_ip_target"] = Attribute(lambda: "")

    def _port(self, own: Directory, link: KindLink, port: list[Any], bond: str) -> None:
        place = Directory()
        own.entries["bonding_slave"] = place
        own.entries["master"] = own.entries[f"upper_{bond}"]
        shown = functools.partial(BOND.port_shown, link, port[0])

        def of_lacp(file: str) -> str:
            return str(shown().get(file, "N/A"))

        files: tuple[tuple[str, Callable[[], str]], ...] = (
            ("state", lambda: "backup" if shown()["state"] else "active"),
            ("mii_status", lambda: "down" if shown()["mii_status"] else "up"),
            ("link_failure_count", lambda: str(shown()["link_failure_count"])),
            ("perm_hwaddr", lambda: shown()["perm_hwaddr"].hex(":")),
            ("queue_id", lambda: "0"),
            *((file, functools.partial(of_lacp, file)) for file in _LACP_PORT_FILES),
        )
        for name, show in files:
            place.entries[name] = Attribute(functools.partial(_line, show))

    def _set(self, link: KindLink, option: str, written: bytes) -> None:
        """bonding_sysfs_store_option(): a number, or the name of a value."""
        text = kstrto.line(written).strip()
        values = _NAMED.get(option, ())
        if text in values:
            number = values.index(text)
        elif text.isdecimal():
            number = int(text)
        else:
            raise _error(errno.EINVAL)
        self._change(link, {option: number})

    def _set_port(self, link: KindLink, option: str, written: bytes) -> None:
        name = kstrto.line(written).strip()
        with self._links.opened(link.namespace) as netns:
            self._change(link, {option: self._links.index_of(netns, name) if name else 0})

    def _change(self, link: KindLink, options: dict[str, int]) -> None:
        with self._links.opened(link.namespace) as netns:
            try:
                BOND.change(self._links, link, options, netns)
            except NetlinkError as error:
                raise _error(error.errno or errno.EINVAL) from None
        self._links.changed()

    def _enslave(self, link: KindLink, written: bytes) -> None:
        """bond_option_slaves_set(): +NAME or -NAME."""
        text = kstrto.line(written).strip()
        if not re.fullmatch(rf"[+-]{_BINDS}", text):
            raise _error(errno.EINVAL)
        with self._links.opened(link.namespace) as netns:
            port = self._links.read(link.namespace, self._links.index_of(netns, text[1:]))
            if port is None:
                raise _error(errno.ENODEV)
            try:
                if text[0] == "-":
                    BOND.release(self._links, link, port.ifindex)
                else:
                    BOND.enslave(self._links, link, port, netns)
            except NetlinkError as error:
                raise _error(error.errno or errno.EINVAL) from None
        self._links.changed()

    # ---- /proc

    def proc(self, namespace: int | None, real: Path) -> dict[str, Attribute]:
        """Files of /proc of the network namespace, by their path there."""
        of_kinds = [link for link in self._links if link.namespace == namespace]
        if not of_kinds:
            return {}
        names = {int(self._read(real / CLASS_NET / name / "ifindex")): name for name in os.listdir(real / CLASS_NET)}
        vlans = {names[link.ifindex]: link for link in of_kinds if link.kind == "vlan" and link.ifindex in names}
        found = {}
        if vlans:
            found["net/vlan/config"] = Attribute(functools.partial(_vlan_config, vlans, names))
        for name, link in vlans.items():
            counters = functools.partial(self._counters, real / CLASS_NET / name / "statistics")
            found[f"net/vlan/{name}"] = Attribute(functools.partial(_vlan_file, name, link, names, counters))
        for link in of_kinds:
            if link.kind == BOND.name and link.ifindex in names:
                found[f"net/bonding/{names[link.ifindex]}"] = Attribute(functools.partial(_bond_file, link, names))
        return found

    def _counters(self, directory: Path) -> list[int]:
        files = ("rx_packets", "rx_bytes", "multicast", "tx_packets", "tx_bytes")
        return [int(self._read(directory / name)) for name in files]


def _number(number: int) -> str:
    return f"{number}\n"


def _line(show: Callable[[], str]) -> str:
    return f"{show()}\n"


def _option(data: dict[str, Any], option: str) -> str:
    value = data[option]
    return f"{_NAMED[option][value]} {value}\n" if option in _NAMED else f"{value}\n"


def _vlan_config(vlans: dict[str, KindLink], names: dict[int, str]) -> str:
    lines = [f"{name:<15}| {link.data['id']}  | {names.get(link.lower, '')}\n" for name, link in vlans.items()]
    head = "VLAN Dev name\t | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n"
    return head + "".join(lines)


def _vlan_file(name: str, link: KindLink, names: dict[int, str], counters: Callable[[], list[int]]) -> str:
    data = link.data
    ingress, rx, rx_bytes, multicast, tx, tx_bytes = dict(data["ingress"]), *counters()
    maps = "".join(f"{pcp}:{ingress.get(pcp, 0)}{' ' if pcp > 5 else '  '}" for pcp in range(7))
    egress = "".join(f"{priority}:{pcp} " for priority, pcp in data["egress"])
    return (
        f"{name}  VID: {data['id']}\t REORDER_HDR: {int(bool(data['flags'] & REORDER_HDR))}  dev->priv_flags: 81021\n"
        f"         total frames received {rx:12}\n          total bytes received {rx_bytes:12}\n"
        f"      Broadcast/Multicast Rcvd {multicast:12}\n\n"
        f"      total frames transmitted {tx:12}\n       total bytes transmitted {tx_bytes:12}\n"
        f"Device: {names.get(link.lower, '')}\n"
        f"INGRESS priority mappings: {maps}7:{ingress.get(7, 0)}\n EGRESS priority mappings: {egress}\n"
    )


_LACP_FILES = (
    *("ad_aggregator", "ad_num_ports", "ad_actor_key", "ad_partner_key", "ad_partner_mac"),
    *("ad_actor_system", "ad_actor_sys_prio", "ad_user_port_key"),
)
_LACP_PORT_FILES = ("ad_aggregator_id", "ad_actor_oper_port_state", "ad_partner_oper_port_state")


def _lacp(link: KindLink) -> dict[str, object]:
    """The values of the files of a bond of mode 802.3ad that are about LACP."""
    number, ports, partner = BOND.aggregator(link) or (0, 0, NOBODY)
    data = link.data
    values = (number, ports, BOND.lacp_options(link).key, partner.key, _mac(partner.system), "00:00:00:00:00:00")
    return dict(zip(_LACP_FILES, (*values, data["ad_actor_sys_prio"], data["ad_user_port_key"]), strict=True))


def _aggregator_lines(link: KindLink, name: str) -> list[str]:
    """What /proc/net/bonding says of the active aggregator."""
    values, options = _lacp(link), BOND.lacp_options(link)
    lines = [f"System priority: {options.priority}", f"System MAC address: {_mac(options.system)}"]
    if not values["ad_aggregator"]:
        return [*lines, f"bond {name} has no active aggregator"]
    return [
        *(*lines, "Active Aggregator Info:"),
        f"\tAggregator ID: {values['ad_aggregator']}",
        f"\tNumber of ports: {values['ad_num_ports']}",
        f"\tActor Key: {values['ad_actor_key']}",
        f"\tPartner Key: {values['ad_partner_key']}",
        f"\tPartner Mac Address: {values['ad_partner_mac']}",
    ]


def _lacp_port_lines(link: KindLink, ifindex: int) -> list[str]:
    """What /proc/net/bonding says of LACP at a port."""
    port = BOND.lacp_port(link, ifindex)
    if port is None:
        return ["Aggregator ID: N/A"]
    options = BOND.lacp_options(link)
    lines = [f"Aggregator ID: {port.aggregator}"]
    for who, state in (("Actor", port.state), ("Partner", port.partner.state)):
        lines.append(f"{who} Churn State: {'none' if state & SYNC else 'monitoring'}")
    lines += ["Actor Churned Count: 0", "Partner Churned Count: 0"]
    actor = (options.priority, options.system, options.key, PORT_PRIORITY, port.number, port.state)
    for who, key, values in (("actor", "port key", actor), ("partner", "oper key", tuple(port.partner))):
        priority, system, number, port_priority, at, told = values
        lines += [
            f"details {who} lacp pdu:",
            *(f"    system priority: {priority}", f"    system mac address: {_mac(str(system))}"),
            *(f"    {key}: {number}", f"    port priority: {port_priority}"),
            *(f"    port number: {at}", f"    port state: {told}"),
        ]
    return lines


def _mac(address: str) -> str:
    return bytes.fromhex(address).hex(":")


def _bond_file(link: KindLink, names: dict[int, str]) -> str:
    """bond_info_show_master() and _slave()."""
    data = link.data
    lacp, up = data["mode"] == LACP, any(port[4] for port in data["ports"])
    lines = [
        f"Ethernet Channel Bonding Driver: v{os.uname().release}",
        "",
        f"Bonding Mode: {_MODE_NAMES[data['mode']]}",
    ]
    if data["mode"] in WITH_ACTIVE:
        primary = names.get(data["primary"], "None")
        if primary != "None":
            primary += f" (primary_reselect {_NAMED['primary_reselect'][data['primary_reselect']]})"
        lines += [f"Primary Slave: {primary}", f"Currently Active Slave: {names.get(data['active'], 'None')}"]
    if data["mode"] in (2, LACP, 5):
        policy = data["xmit_hash_policy"]
        lines.append(f"Transmit Hash Policy: {HASH_POLICIES[policy]} ({policy})")
    lines += [
        f"MII Status: {'up' if up else 'down'}",
        f"MII Polling Interval (ms): {data['miimon']}",
        f"Up Delay (ms): {data['updelay']}",
        f"Down Delay (ms): {data['downdelay']}",
        f"Peer Notification Delay (ms): {data['peer_notif_delay']}",
    ]
    if lacp:
        lines += [
            *("", "802.3ad info", f"LACP active: {_NAMED['lacp_active'][data['lacp_active']]}"),
            f"LACP rate: {_NAMED['lacp_rate'][data['lacp_rate']]}",
            f"Min links: {data['min_links']}",
            f"Aggregator selection policy (ad_select): {_NAMED['ad_select'][data['ad_select']]}",
            *_aggregator_lines(link, names[link.ifindex]),
        ]
    for port in data["ports"]:
        lines += [
            *("", f"Slave Interface: {names.get(port[0], '')}", f"MII Status: {'up' if port[4] else 'down'}"),
            *("Speed: 10000 Mbps", "Duplex: full", f"Link Failure Count: {port[3]}"),
            *(f"Permanent HW addr: {bytes.fromhex(port[1]).hex(':')}", "Slave queue ID: 0"),
        ]
        if lacp:
            lines += _lacp_port_lines(link, port[0])
    return "\n".join(lines) + "\n"
