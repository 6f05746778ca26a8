# SPDX-License-Identifier: Apache-2.0
"""ethtool: the feature hw-tc-offload of a NIC's netdevs, and where its other parts are put together.

Features are the kernel's own but for hw-tc-offload, in its answers and in what it tells who monitors. Settings and
string sets are in :mod:`asap2.nic.faces.ethtool.messages`, the ioctl in :mod:`asap2.nic.faces.ethtool.ioctl`.

Sources: net/ethtool/{features,bitset}.c, drivers/net/ethernet/mellanox/mlx5/core/{en_main,en_rep}.c of Linux 6.x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.request import (
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    GENL_UNS_ADMIN_PERM,
    PASS,
    Answer,
    GenlFamily,
    GenlHandler,
    GenlHeader,
    Message,
    Netns,
    Proxy,
    Request,
)
from asap2.netlink.server import Server
from asap2.netlink.tables.ethtool import (
    ETH_SS_FEATURES,
    ETHTOOL_FLAG_COMPACT_BITSETS,
    ETHTOOL_MSG_FEATURES_GET,
    ETHTOOL_MSG_FEATURES_GET_REPLY,
    ETHTOOL_MSG_FEATURES_NTF,
    ETHTOOL_MSG_FEATURES_SET,
    ETHTOOL_MSG_FEATURES_SET_REPLY,
    FEATURES,
    FEATURES_ATTRS,
    number_of,
    set_bits,
    words_of,
)
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NETLINK_GENERIC, NlMsg
from asap2.nic.device import Driver
from asap2.nic.faces.ethtool.ioctl import SETTING, EthtoolIoctl
from asap2.nic.faces.ethtool.kernel import EthtoolKernel
from asap2.nic.faces.ethtool.messages import EthtoolMessages
from asap2.nic.function import Pf, Role
from asap2.nic.kinds.kind import LinkKind
from asap2.nic.netdevs import NetDev, NetDevs

FAMILY_ID = 0x7020
"""Where the kernel has no such family."""
HW_TC_OFFLOAD: Final = "hw-tc-offload"
_DO, _DUMP = GENL_CMD_CAP_DO, GENL_CMD_CAP_DUMP


class EthtoolFace:
    """Serves ethtool."""

    def __init__(
        self,
        server: Server,
        driver: Driver,
        netdevs: NetDevs,
        *,
        tunnel_ports: Callable[[], Iterable[int]],
        features_changed: Callable[[Netns, NetDev], None],
        kind_of: Callable[[Netns, str], LinkKind | None] = lambda _netns, _name: None,
    ) -> None:
        """*tunnel_ports* gives the UDP ports, besides IANA's, that the NIC knows tunnels by; *features_changed* is
        called when a device's features have changed, which links report too; *kind_of* gives the kind of the device
        with a name, where that is one of our own."""
        self.driver = driver
        self.netdevs = netdevs
        self._features_changed = features_changed
        self._server = server
        self._family = family = GenlFamily("ethtool", FAMILY_ID, groups=(("monitor", FAMILY_ID),), real=True)
        self._kernel = EthtoolKernel(server, family, self.netdevs)
        messages = EthtoolMessages(self.driver, self._kernel, tunnel_ports)
        family.handlers = {
            ETHTOOL_MSG_FEATURES_GET: self.features_get,
            ETHTOOL_MSG_FEATURES_SET: self.features_set,
            **{cmd: self._where_real(handler) for cmd, handler in messages.handlers().items()},
        }
        family.ops = (
            (ETHTOOL_MSG_FEATURES_GET, _DO | _DUMP),
            (ETHTOOL_MSG_FEATURES_SET, _DO | GENL_UNS_ADMIN_PERM),
            *messages.ops(),
        )
        server.family(family)
        if family.real:
            server.show(NETLINK_GENERIC, [family.id], self.notified)
        ioctl = EthtoolIoctl(self.driver, self._kernel, messages, kind_of)
        server.ethtool_ioctl(ioctl.commands, ioctl, SETTING)

    def _where_real(self, handler: GenlHandler) -> GenlHandler:
        """Where the kernel has no such family there is nothing to answer with."""
        return lambda request, header: handler(request, header) if self._family.real else PASS

    # ---- features

    def offload(self, device: NetDev) -> bool:
        """Whether TC rules of *device* go to hardware: of an uplink or a representor to the eSwitch."""
        assert device.pf is not None
        return device.pf.hw_tc_offload.get(device.offload_key, device.role is Role.REPRESENTOR)

    def set_offload(self, device: NetDev, on: bool) -> bool:
        """Turn hw-tc-offload of *device* on or off; what it is then. An uplink's stays on while rules are offloaded."""
        pf = device.pf
        assert pf is not None
        before = self.offload(device)
        if on == before or (not on and self._held(device, pf)):
            return before
        pf.hw_tc_offload[device.offload_key] = on
        self.driver.generation += 1
        return on

    def _held(self, device: NetDev, pf: Pf) -> bool:
        return device.role is Role.PF and self.driver.offloaded_rules(pf) > 0

    def features_get(self, request: Request, _header: GenlHeader) -> Answer:
        """ETHTOOL_MSG_FEATURES_GET: the kernel's answer with our bit in it."""
        if not self._family.real:
            return PASS
        netns = request.client.netns
        if HW_TC_OFFLOAD not in self._names(netns):
            return PASS
        return Proxy(lambda message: [self._shown(message, netns)])

    def _shown(self, message: NlMsg, netns: Netns) -> Message:
        header, attrs = FEATURES.decode(message.payload)
        device = self._of_nic(attrs, netns)
        if header.cmd not in (ETHTOOL_MSG_FEATURES_GET_REPLY, ETHTOOL_MSG_FEATURES_NTF) or device is None:
            return Message(message.type, message.payload)
        on = self.offload(device)
        for name, value in (("hw", True), ("wanted", on), ("active", on), ("nochange", False)):
            if name in attrs:
                self._put(netns, attrs[name], value)
        return Message(message.type, FEATURES.encode(header, attrs))

    def notified(self, netns: Netns, message: NlMsg, _room: int) -> bytes | None:
        """What the kernel tells who monitors, with our bit in it: see :meth:`Server.show`."""
        if message.payload[:1] != bytes((ETHTOOL_MSG_FEATURES_NTF,)) or HW_TC_OFFLOAD not in self._names(netns):
            return None
        shown = self._shown(message, netns).payload
        return shown if shown != message.payload else None

    def _of_nic(self, attrs: Attrs, netns: Netns) -> NetDev | None:
        """The netdev of a NIC that the header of a message is about."""
        device = self._kernel.device(netns, attrs.get("header", {}))
        return device if device is not None and device.pf is not None else None

    def _names(self, netns: Netns) -> list[str]:
        """The names of the kernel's feature bits, in their order."""
        return self._kernel.strings(netns, ETH_SS_FEATURES)

    def features_set(self, request: Request, header: GenlHeader) -> Answer:
        """ETHTOOL_MSG_FEATURES_SET: our bit here, all others by the kernel, and its answer with our bit in it."""
        if not self._family.real:
            return PASS
        netns = request.client.netns
        attrs = FEATURES_ATTRS.decode(header.attrs)
        try:
            said = set_bits(attrs.get("wanted", {}), self._names(netns))
        except LookupError:  # no bit set that can be read: the kernel says what is wrong with it
            return PASS
        if HW_TC_OFFLOAD not in said:
            return PASS
        device = self._of_nic(self._kernel.features(netns, attrs.get("header", {})), netns)
        if device is None:
            return PASS
        on, was = said.pop(HW_TC_OFFLOAD), self.offload(device)
        bits = [{"name": name, **({"value": True} if value else {})} for name, value in said.items()]
        attrs["wanted"] = {"bits": {"bit": bits} if bits else {}}
        others = FEATURES.encode(GenlHdr(header.cmd, header.version), attrs)
        answers = self._server.kernel(netns, NETLINK_GENERIC).request(self._family.id, 0, others)
        now = self.set_offload(device, on)
        if now is not was:
            self._notify(netns, device)
        return [Message(answer.type, self._result(netns, answer.payload, was, on, now)) for answer in answers]

    def _result(self, netns: Netns, payload: bytes, was: bool, asked: bool, now: bool) -> bytes:
        """The kernel's answer to a change, with what became of our bit: asked for in vain, or changed."""
        header, attrs = FEATURES.decode(payload)
        if header.cmd == ETHTOOL_MSG_FEATURES_SET_REPLY:
            if now is not asked:
                self._put(netns, attrs["wanted"], asked)
            if now is not was:
                self._put(netns, attrs["active"], now)
        return FEATURES.encode(header, attrs)

    def _notify(self, netns: Netns, device: NetDev) -> None:
        """ETHTOOL_MSG_FEATURES_NTF to those who monitor, and word to links (netdev_features_change())."""
        flags = {"dev_index": device.ifindex, "flags": ETHTOOL_FLAG_COMPACT_BITSETS}
        attrs = self._kernel.features(netns, flags)
        message = NlMsg(0, 0, 0, 0, FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_GET_REPLY), attrs))
        shown = self._shown(message, netns).payload
        self._server.multicast("ethtool", "monitor", bytes((ETHTOOL_MSG_FEATURES_NTF,)) + shown[1:], netns)
        self._features_changed(netns, device)

    def _put(self, netns: Netns, bitset: dict[Any, Any], value: bool) -> None:
        """Put our bit into a decoded bitset of the kernel's, compact or not, as *value*, and into its mask."""
        index = self._names(netns).index(HW_TC_OFFLOAD)
        if "bits" not in bitset:
            for name, bit in (("value", value), ("mask", True)):
                if name in bitset:
                    number = number_of(bitset[name]) & ~(1 << index) | bit << index
                    bitset[name] = words_of(number, len(bitset[name]))
            return
        others = [bit for bit in bitset["bits"].get("bit", []) if bit["index"] != index]
        ours: dict[str, Any] = {"index": index, "name": HW_TC_OFFLOAD}
        if value and not bitset.get("nomask"):
            ours["value"] = True
        if value or not bitset.get("nomask"):
            others.append(ours)
        bitset["bits"]["bit"] = sorted(others, key=lambda bit: bit["index"])
