# SPDX-License-Identifier: Apache-2.0
"""This machine's state as a :class:`asap2.host.inventory.Host`; nothing is changed."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from asap2.host import openvswitch, platform
from asap2.host.inventory import VFIO, Filter, Host, Netdev, OpenVSwitch, Pairs, Pf, Qdisc, Vf
from asap2.host.kernel import conntrack, ethtool, namespaces, sysfs, tc
from asap2.host.kernel.devlink import Devlink
from asap2.host.kernel.ethtool import Ethtool
from asap2.host.kernel.links import (
    LINK_STATES,
    Link,
    addresses,
    cpu_hits,
    default_interfaces,
    interface_towards,
    links,
    mac_text,
)
from asap2.netlink.client import Connection
from asap2.netlink.tables.tc import TC_H_MIN_EGRESS
from asap2.netlink.wire import NETLINK_GENERIC, NETLINK_ROUTE, NetlinkError

SWITCHDEV_DRIVERS = ("mlx5_core", "ice", "bnxt_en", "nfp", "sfc", "cxgb4", "octeontx2-pf", "rvu_nicpf")
"""Drivers of NICs with an eSwitch: their PFs are told of even where SR-IOV is off."""


def observe(
    *,
    full: bool = False,
    filters: bool = True,
    openflow: bool = True,
    connections: Literal["count", "each"] | None = None,
) -> Host:
    """The host now. *full*: also what only a capture needs; *filters*: TC filters; *openflow*: count OpenFlow rules;
    *connections*: count tracked connections, or look at each. For both the kernel goes through all, which may be many.
    """
    with Connection(NETLINK_ROUTE) as route, Connection(NETLINK_GENERIC) as generic:
        switch = openvswitch.observe(full=full, openflow=openflow)
        found = links(route, vfs=True)
        netdevs = _netdevs(route, found, Ethtool(generic))
        qdiscs, rows = _tc(route, found, filters=filters, full=full)
        return Host(
            hostname=os.uname().nodename,
            taken=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            platform=platform.platform(),
            pfs=tuple(_pfs(Devlink(generic), found)),
            netdevs=netdevs,
            qdiscs=qdiscs,
            filters=rows,
            openvswitch=switch,
            reached_by=reached_by(route, netdevs, switch),
            connections=conntrack.connections(each=connections == "each") if connections else None,
        )


# ---- network devices


def _netdevs(route: Connection, found: list[Link], offloads: Ethtool) -> tuple[Netdev, ...]:
    names = {link.index: link.name for link in found}
    has, hits = addresses(route), cpu_hits(route)
    switched = [link.name for link in found if "phys_switch_id" in link.attrs or link.attrs.get("parent_dev_name")]
    features = offloads.offload(switched)
    managed = platform.NETWORK_MANAGER.is_dir()
    return tuple(
        Netdev(
            index=link.index,
            name=link.name,
            mac=mac_text(link.attrs.get("address", b"")),
            mtu=link.attrs.get("mtu", 0),
            up=link.up,
            carrier=bool(link.attrs["carrier"]) if "carrier" in link.attrs else None,
            kind=link.kind,
            master=names.get(link.attrs.get("master", 0)),
            lower=_lower(link, names),
            parent=_parent(link),
            switch_id=link.attrs["phys_switch_id"].hex() if "phys_switch_id" in link.attrs else None,
            port_name=link.attrs.get("phys_port_name"),
            hw_tc_offload=features.get(link.name),
            name_assigned=_number(sysfs.text(sysfs.SYS / "class/net" / link.name / "name_assign_type")),
            nm_managed=platform.network_manager_manages(link.index) if managed else None,
            addresses=tuple(has.get(link.index, ())),
            rx_packets=link.counter("rx_packets"),
            rx_bytes=link.counter("rx_bytes"),
            tx_packets=link.counter("tx_packets"),
            tx_bytes=link.counter("tx_bytes"),
            cpu_packets=hits.get(link.index),
        )
        for link in sorted(found, key=lambda one: one.index)
    )


def _lower(link: Link, names: dict[int, str]) -> str | None:
    """The device of this namespace that *link* is stacked on."""
    if "link_netnsid" in link.attrs or link.attrs.get("link") in (None, link.index):
        return None
    return names.get(link.attrs["link"])


def _parent(link: Link) -> str | None:
    """The PCI address behind a device: the kernel's word, or before Linux 5.14 where its link in sysfs leads."""
    if link.attrs.get("parent_dev_bus_name") == "pci":
        return str(link.attrs["parent_dev_name"])
    try:
        name = os.path.basename(os.readlink(sysfs.SYS / "class/net" / link.name / "device"))
    except OSError:
        return None
    return name if sysfs.Function(name).exists else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


# ---- NICs


def _pfs(devlink: Devlink, found: list[Link]) -> Iterable[Pf]:
    by_name = {link.name: link for link in found}
    for function in sysfs.physical_functions():
        eswitch, refusal = None, None
        try:
            eswitch = devlink.eswitch(function.address)
        except NetlinkError as error:
            refusal = error.text or os.strerror(error.errno or 0)
        total = function.number("sriov_totalvfs")
        if eswitch is None and not total and function.driver not in SWITCHDEV_DRIVERS:
            continue
        netdev = function.netdev
        versions = _tried(lambda function=function: devlink.versions(function.address))
        infos = {info["mac"].vf: info for info in by_name[netdev].vfs if "mac" in info} if netdev in by_name else {}
        numa = function.number("numa_node", -1)
        yield Pf(
            address=function.address,
            vendor=function.number("vendor"),
            device=function.number("device"),
            driver=function.driver,
            netdev=netdev,
            total_vfs=total,
            num_vfs=function.number("sriov_numvfs"),
            autoprobe=function.number("sriov_drivers_autoprobe", 1) == 1,
            numa_node=numa if numa >= 0 else None,
            local_cpus=function.text("local_cpulist") or "",
            link_speed=function.link_speed("current"),
            link_width=function.number("current_link_width"),
            max_link_speed=function.link_speed("max"),
            max_link_width=function.number("max_link_width"),
            firmware=versions.get("fw.version") or versions.get("fw") or _firmware(netdev),
            board=versions.get("fw.psid") or versions.get("board.id"),
            eswitch=eswitch,
            eswitch_refusal=refusal,
            params=tuple(sorted(_tried(lambda function=function: devlink.params(function.address)).items())),
            irqs=_irqs(function),
            vfs=_vfs(function, infos),
            vf_device=int(function.text("sriov_vf_device") or "0", 16),
        )


def _tried(ask: Any) -> dict[str, str]:
    """What *ask* gives; nothing where the kernel or the driver does not know the question."""
    try:
        return dict(ask())
    except NetlinkError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.EPERM):
            return {}
        raise


def _firmware(netdev: str | None) -> str | None:
    return (ethtool.firmware(netdev) or "").split(" ")[0] or None if netdev else None


def _irqs(function: sysfs.Function) -> Pairs:
    places = ((number, sysfs.text(Path("/proc/irq") / number / "smp_affinity_list")) for number in function.irqs)
    return tuple((number, cpus) for number, cpus in places if cpus is not None)


def _vfs(function: sysfs.Function, infos: dict[int, dict[Any, Any]]) -> tuple[Vf, ...]:
    vfs = function.vfs
    groups = {number: _number(vf.link("iommu_group")) for number, vf in vfs}
    opened = platform.opened_vfio_groups() if any(group is not None for group in groups.values()) else {}
    found = tuple(_vf(number, vf, groups[number], opened, infos.get(number, {})) for number, vf in vfs)
    elsewhere = namespaces.away(one.address for one in found if one.driver not in (None, *VFIO) and one.netdev is None)
    return tuple(dataclasses.replace(one, away=elsewhere.get(one.address)) for one in found)


def _vf(number: int, function: sysfs.Function, group: int | None, opened: dict[int, str], info: dict[Any, Any]) -> Vf:
    plain = Vf(
        index=number,
        address=function.address,
        driver=function.driver,
        driver_override=function.driver_override,
        netdev=function.netdev,
        iommu_group=group,
        opened_by=opened.get(group) if group is not None else None,
    )
    if not info:
        return plain
    vlans = info.get("vlan_list", {}).get("info", [])
    stats = info.get("stats", {})
    rate = info.get("rate")
    return dataclasses.replace(
        plain,
        mac=mac_text(info["mac"].mac[:6]),
        vlan=info["vlan"].vlan if "vlan" in info else 0,
        qos=info["vlan"].qos if "vlan" in info else 0,
        vlan_protocol=socket.ntohs(vlans[0].proto) if vlans else 0x8100,
        spoofchk=_setting(info, "spoofchk") == 1,
        trust=_setting(info, "trust") == 1,
        link_state=LINK_STATES.get(_setting(info, "link_state"), "auto"),
        rates=(rate.min_tx_rate, rate.max_tx_rate) if rate else (0, 0),
        **{name: stats.get(name, 0) for name in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")},
    )


def _setting(info: dict[Any, Any], name: str) -> int:
    """A VF's setting; all ones, which a driver gives for what it does not know, is 0."""
    found = info[name].setting if name in info else 0
    return 0 if found == 0xFFFFFFFF else int(found)


# ---- TC


def _tc(
    route: Connection, found: list[Link], *, filters: bool, full: bool
) -> tuple[tuple[Qdisc, ...], tuple[Filter, ...]]:
    names = {link.index: link.name for link in found}
    rows = [row for row in tc.qdiscs(route) if row.index in names]
    listed = []
    for row in rows if filters else ():
        try:
            found_here = list(tc.filters(route, row, terse=not full))
            if not full and len(tc.orphans(found_here)) < len(found_here):  # there are others' filters: with their keys
                found_here = list(tc.filters(route, row, terse=False))
        except NetlinkError:
            continue  # the device went away meanwhile
        ours = {id(one) for one in tc.orphans(found_here)}
        listed += [_filter(names[row.index], row, one, full or id(one) not in ours) for one in found_here]
    return tuple(Qdisc(names[row.index], row.kind, row.block) for row in rows), tuple(listed)


def _filter(netdev: str, qdisc: tc.QdiscRow, row: tc.FilterRow, full: bool) -> Filter:
    packets, octets = row.counters
    return Filter(
        netdev=netdev,
        kind=row.kind,
        prio=row.key.prio,
        protocol=row.key.protocol,
        handle=row.key.handle,
        chain=row.chain,
        egress=row.key.parent == TC_H_MIN_EGRESS,
        block=qdisc.block,
        in_hw=row.in_hw,
        skip_hw=row.skip_hw,
        skip_sw=row.skip_sw,
        cookie=row.cookie.hex(),
        packets=packets,
        bytes=octets,
        message=row.message.hex() if full else "",
    )


# ---- how the host is reached


def reached_by(route: Connection, netdevs: tuple[Netdev, ...], switch: OpenVSwitch) -> tuple[str, ...]:
    """The devices on the way to default gateways and SSH peers, and all that those are stacked on."""
    indices = default_interfaces(route)
    indices |= {index for peer in platform.ssh_peers() if (index := interface_towards(route, peer))}
    return below({one.name for one in netdevs if one.index in indices and one.name != "lo"}, netdevs, switch)


def below(names: Iterable[str], netdevs: Iterable[Netdev], switch: OpenVSwitch) -> tuple[str, ...]:
    """*names*, and the devices that carry them: what they are stacked on, and the ports of those that are bridges."""
    netdevs = list(netdevs)
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for one in netdevs:
            if one.master == name or (one.name == name and one.lower):
                waiting.add(one.name if one.master == name else one.lower or name)
        place = switch.port_of(name)
        interface = switch.interface(name)
        if place and interface and interface.type == "internal":
            waiting |= {each.name for port in place[0].ports for each in port.interfaces}
    return tuple(sorted(found))
