# SPDX-License-Identifier: Apache-2.0
"""ethtool's messages about a NIC's netdev that are the driver's to answer: settings, link settings, string sets.

The kernel answers for all other devices, and its own dumps, which the NIC's netdevs are put into.

Sources: net/ethtool/{netlink,bitset,strset,linkinfo,linkmodes,rings,channels,coalesce,pause,privflags,fec}.c of Linux
6.x.
"""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from asap2.netlink.body import Body
from asap2.netlink.request import (
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    GENL_UNS_ADMIN_PERM,
    PASS,
    Answer,
    GenlHandler,
    GenlHeader,
    Message,
    Netns,
    Proxy,
    Request,
)
from asap2.netlink.tables import ethtool as table
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NetlinkError, NlMsg
from asap2.nic.device import Driver
from asap2.nic.faces.ethtool import link as ethtool_link
from asap2.nic.faces.ethtool import settings as ethtool_settings
from asap2.nic.faces.ethtool import stats as ethtool_stats
from asap2.nic.faces.ethtool.kernel import EthtoolKernel
from asap2.nic.function import Role
from asap2.nic.netdevs import NetDev
from asap2.nic.underlay.udp_ports import ETHTOOL_TYPE, PLACES, TABLED

TUNNEL_TYPES = ("vxlan", "geneve", "vxlan-gpe")
"""udp_tunnel_type_names, by ETHTOOL_UDP_TUNNEL_TYPE_*."""
_DEVICES_OWN = (table.ETH_SS_TEST, table.ETH_SS_STATS, table.ETH_SS_PRIV_FLAGS)
"""String sets that are of a device."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of settings: its messages, what shows it, and what checks a change."""

    get: int
    reply: int
    body: Body[GenlHdr]
    show: Callable[[NetDev], dict[str, int]]
    want: Callable[[NetDev, Mapping[Any, Any]], dict[str, int]]


_KINDS = (
    _Kind(
        table.ETHTOOL_MSG_RINGS_GET,
        table.ETHTOOL_MSG_RINGS_GET_REPLY,
        table.RINGS,
        ethtool_settings.rings,
        ethtool_settings.wanted_rings,
    ),
    _Kind(
        table.ETHTOOL_MSG_CHANNELS_GET,
        table.ETHTOOL_MSG_CHANNELS_GET_REPLY,
        table.CHANNELS,
        ethtool_settings.channels,
        ethtool_settings.wanted_channels,
    ),
    _Kind(
        table.ETHTOOL_MSG_COALESCE_GET,
        table.ETHTOOL_MSG_COALESCE_GET_REPLY,
        table.COALESCE,
        ethtool_settings.coalesce,
        ethtool_settings.wanted_coalesce,
    ),
    _Kind(
        table.ETHTOOL_MSG_PAUSE_GET,
        table.ETHTOOL_MSG_PAUSE_GET_REPLY,
        table.PAUSE,
        ethtool_settings.pause,
        ethtool_settings.wanted_pause,
    ),
)
"""Each change's message is numbered one above the request to tell, each notification one above the answer."""


class EthtoolMessages:
    """Serves those messages."""

    def __init__(self, driver: Driver, kernel: EthtoolKernel, tunnel_ports: Callable[[], Iterable[int]]) -> None:
        self._driver = driver
        self._tunnel_ports = tunnel_ports
        self._kernel = kernel

    def handlers(self) -> dict[int, GenlHandler]:
        """By command."""
        handlers: dict[int, GenlHandler] = {
            table.ETHTOOL_MSG_STRSET_GET: self._strings,
            table.ETHTOOL_MSG_LINKINFO_GET: self._answers(
                table.ETHTOOL_MSG_LINKINFO_GET_REPLY, table.LINKINFO, self._link_information
            ),
            table.ETHTOOL_MSG_LINKMODES_GET: self._answers(
                table.ETHTOOL_MSG_LINKMODES_GET_REPLY, table.LINKMODES, self._link_modes
            ),
            table.ETHTOOL_MSG_PRIVFLAGS_GET: self._answers(
                table.ETHTOOL_MSG_PRIVFLAGS_GET_REPLY, table.PRIVFLAGS, self._private_flags
            ),
            table.ETHTOOL_MSG_PRIVFLAGS_SET: self._set_private_flags,
            table.ETHTOOL_MSG_TUNNEL_INFO_GET: self._answers(
                table.ETHTOOL_MSG_TUNNEL_INFO_GET_REPLY, table.TUNNEL_INFO, self._tunnels
            ),
            table.ETHTOOL_MSG_FEC_GET: self._answers(table.ETHTOOL_MSG_FEC_GET_REPLY, table.FEC, self._fec),
        }
        for kind in _KINDS:
            handlers[kind.get] = self._answers(kind.reply, kind.body, self._settings(kind))
            handlers[kind.get + 1] = functools.partial(self._change, kind)
        return handlers

    def ops(self) -> list[tuple[int, int]]:
        """Commands and who may do what, as the kernel has them."""
        asking = GENL_CMD_CAP_DO | GENL_CMD_CAP_DUMP
        changing = {kind.get + 1 for kind in _KINDS} | {table.ETHTOOL_MSG_PRIVFLAGS_SET}
        return [(cmd, GENL_CMD_CAP_DO | GENL_UNS_ADMIN_PERM if cmd in changing else asking) for cmd in self.handlers()]

    # ---- asking

    def _answers(
        self, reply: int, body: Body[GenlHdr], show: Callable[[Netns, NetDev, int], dict[str, Any]]
    ) -> GenlHandler:
        """A handler of a request to tell: *show* gives what it tells of a device, of request flags (ETHTOOL_FLAG_*)."""

        def handle(request: Request, genl: GenlHeader) -> Answer:
            netns = request.client.netns
            asked = table.HEADER_ONLY_ATTRS.decode(genl.attrs).get("header", {})
            flags = asked.get("flags", 0)

            def told(device: NetDev) -> Message:
                attrs = {"header": self._kernel.header(netns, device), **show(netns, device, flags)}
                return Message(self._kernel.family.id, body.encode(GenlHdr(reply), attrs))

            if request.dump:
                return Proxy(lambda message: self._not_ours(message, netns), self._each(netns, told))
            device = self._kernel.device(netns, asked)
            if device is None:
                return PASS
            self._has_settings(device)
            return [told(device)]

        return handle

    def _not_ours(self, message: NlMsg, netns: Netns) -> Iterable[Message]:
        attrs = table.ANY.decode(message.payload)[1]
        if self._kernel.device(netns, attrs.get("header", {})) is None:
            yield Message(message.type, message.payload)

    def _each(self, netns: Netns, told: Callable[[NetDev], Message]) -> Iterable[Message]:
        """What is told of each of the NIC's netdevs in *netns*; those that have nothing to tell are left out."""
        if netns.cookie != self._kernel.server.netns.cookie:
            return
        for device in self._kernel.netdevs.all():
            with contextlib.suppress(NetlinkError):
                if device.pf is not None:
                    yield told(device)

    @staticmethod
    def _settings(kind: _Kind) -> Callable[[Netns, NetDev, int], dict[str, Any]]:
        return lambda _netns, device, _flags: kind.show(device)

    @staticmethod
    def _has_settings(device: NetDev) -> None:
        """EOPNOTSUPP for an internal port of Open vSwitch, which has none."""
        if device.pf is None:
            raise NetlinkError(errno.EOPNOTSUPP)

    def _link_information(self, _netns: Netns, device: NetDev, _flags: int) -> dict[str, Any]:
        ethtool_link.has_settings(device)
        return ethtool_link.information()

    def _link_modes(self, netns: Netns, device: NetDev, flags: int) -> dict[str, Any]:
        ethtool_link.has_settings(device)
        names = self._kernel.strings(netns, table.ETH_SS_LINK_MODES)
        modes = ethtool_link.modes(device)
        ours = self._bitset(names, {name: i in modes for i, name in enumerate(names)}, modes, flags)
        speed, duplex = ethtool_link.speed(device, self._kernel.has_link(netns, device))
        return {"autoneg": 1, "ours": ours, "speed": speed, "duplex": duplex}

    def _private_flags(self, _netns: Netns, device: NetDev, flags: int) -> dict[str, Any]:
        return {
            "flags": self._bitset(
                list(ethtool_settings.PRIV_FLAGS), ethtool_settings.private_flags(device), None, flags
            )
        }

    def _fec(self, netns: Netns, device: NetDev, flags: int) -> dict[str, Any]:
        names = self._kernel.strings(netns, table.ETH_SS_LINK_MODES)
        return {"modes": self._bitset(names, {}, set(), flags, nomask=True), **ethtool_settings.fec(device)}

    def _tunnels(self, _netns: Netns, device: NetDev, flags: int) -> dict[str, Any]:
        """The UDP ports that the NIC knows tunnels by: a table of those of the node's devices, and IANA's."""
        if device.role is not Role.PF:
            raise NetlinkError(errno.EOPNOTSUPP, "device does not report tunnel offload info")

        def told(size: int, ports: Iterable[int], *, named: bool) -> dict[str, Any]:
            values, mask = {TUNNEL_TYPES[ETHTOOL_TYPE]: named}, {ETHTOOL_TYPE} if named else set()
            types = self._bitset(list(TUNNEL_TYPES), values, mask, flags, nomask=True)
            entries = [{"port": port, "type": ETHTOOL_TYPE} for port in ports]
            return {"size": size, "types": types, **({"entry": entries} if entries else {})}

        others = [port for port in self._tunnel_ports() if port]
        tables = [told(PLACES, others, named=True), told(1, [TABLED.port], named=False)]
        return {"udp_ports": {"table": tables}}

    @staticmethod
    def _bitset(
        names: list[str], values: dict[str, bool], mask: set[int] | None, flags: int, *, nomask: bool = False
    ) -> dict[str, Any]:
        """A bitset of *values*; *mask* are the bits that it says something of (None: all)."""
        told = set(range(len(names))) if mask is None else mask
        if flags & table.ETHTOOL_FLAG_COMPACT_BITSETS:
            value = sum(1 << i for i, name in enumerate(names) if values.get(name))
            return table.compact_bitset(len(names), value, None if nomask else sum(1 << i for i in told))
        return table.verbose_bitset(
            len(names), [(i, names[i], values.get(names[i], False)) for i in sorted(told)], nomask=nomask
        )

    # ---- changing

    def _change(self, kind: _Kind, request: Request, genl: GenlHeader) -> Answer:
        netns = request.client.netns
        attrs = kind.body.table.decode(genl.attrs)
        device = self._kernel.device(netns, attrs.get("header", {}))
        if device is None:
            return PASS
        self._apply(kind, netns, device, attrs)
        return None

    def _apply(self, kind: _Kind, netns: Netns, device: NetDev, asked: Mapping[Any, Any]) -> None:
        self._has_settings(device)
        if ethtool_settings.keep(device, kind.want(device, asked)):
            self._changed(netns, device, kind.reply + 1, kind.body, kind.show(device))

    def change(self, get: int, netns: Netns, device: NetDev, asked: Mapping[Any, Any]) -> None:
        """Change settings of the kind that message *get* asks for, as the message above it would; NetlinkError."""
        (kind,) = (one for one in _KINDS if one.get == get)
        self._apply(kind, netns, device, asked)

    def change_private_flags(self, netns: Netns, device: NetDev, on: Mapping[str, bool]) -> None:
        """Turn the driver's own flags on or off; NetlinkError."""
        self._has_settings(device)
        ethtool_settings.private_flags(device)
        if ethtool_settings.keep(device, {f"flag_{name}": int(value) for name, value in on.items()}):
            told = self._private_flags(netns, device, table.ETHTOOL_FLAG_COMPACT_BITSETS)
            self._changed(netns, device, table.ETHTOOL_MSG_PRIVFLAGS_NTF, table.PRIVFLAGS, told)

    def _set_private_flags(self, request: Request, genl: GenlHeader) -> Answer:
        netns = request.client.netns
        attrs = table.PRIVFLAGS_ATTRS.decode(genl.attrs)
        device = self._kernel.device(netns, attrs.get("header", {}))
        if device is None:
            return PASS
        self._has_settings(device)
        ethtool_settings.private_flags(device)
        if "flags" not in attrs:
            raise NetlinkError(errno.EINVAL)
        try:
            said = table.set_bits(attrs["flags"], ethtool_settings.PRIV_FLAGS)
        except LookupError:
            raise NetlinkError(errno.EINVAL) from None
        if any(name not in ethtool_settings.PRIV_FLAGS for name in said):
            raise NetlinkError(errno.EOPNOTSUPP, "bit name not found")
        self.change_private_flags(netns, device, said)
        return None

    def _changed(self, netns: Netns, device: NetDev, cmd: int, body: Body[GenlHdr], told: dict[str, Any]) -> None:
        """Have a change written down, and tell who monitors."""
        self._driver.generation += 1
        attrs = {"header": self._kernel.header(netns, device), **told}
        self._kernel.server.multicast("ethtool", "monitor", body.encode(GenlHdr(cmd), attrs), netns)

    # ---- string sets

    def _strings(self, request: Request, genl: GenlHeader) -> Answer:
        """ETHTOOL_MSG_STRSET_GET: the sets of a NIC's netdev are the driver's, those of no device the kernel's."""
        netns = request.client.netns
        attrs = table.STRSET_ATTRS.decode(genl.attrs)
        device = self._kernel.device(netns, attrs.get("header", {}))
        asked = [one.get("id") for one in attrs.get("stringsets", {}).get("stringset", [])]
        if request.dump or device is None or any(one not in _DEVICES_OWN for one in asked):
            return PASS
        sets = []
        for number in asked or _DEVICES_OWN:
            names = self.string_set(device, number)
            if names:
                strings = {"string": [{"index": i, "value": name} for i, name in enumerate(names)]}
                counted = {"id": number, "count": len(names)}
                sets.append(counted if "counts_only" in attrs else {**counted, "strings": strings})
        told = {"header": self._kernel.header(netns, device), "stringsets": {"stringset": sets} if sets else {}}
        reply = GenlHdr(table.ETHTOOL_MSG_STRSET_GET_REPLY)
        return [Message(self._kernel.family.id, table.STRSET.encode(reply, told))]

    @staticmethod
    def string_set(device: NetDev, number: int) -> list[str]:
        """The names of a device's own string set."""
        if number == table.ETH_SS_STATS and device.pf is not None:
            return ethtool_stats.names(device, ethtool_settings.of(device)["combined_count"])
        if number == table.ETH_SS_PRIV_FLAGS and device.role in (Role.PF, Role.VF):
            return list(ethtool_settings.PRIV_FLAGS)
        return []
