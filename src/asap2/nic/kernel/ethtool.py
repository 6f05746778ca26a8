# SPDX-License-Identifier: Apache-2.0
"""ethtool: the feature hw-tc-offload of the eSwitch's netdevs, the port's speed, and who drives a netdev.

Features and speed come by generic netlink; all but hw-tc-offload and the speed are the kernel's own. Driver information
and the permanent address come by ioctl(SIOCETHTOOL).

Sources: net/ethtool/{features,bitset,ioctl}.c, drivers/net/ethernet/mellanox/mlx5/core/{en_ethtool,en_rep}.c of Linux
6.x, include/uapi/linux/ethtool.h.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.request import (
    GENL_CMD_CAP_DO,
    GENL_CMD_CAP_DUMP,
    GENL_UNS_ADMIN_PERM,
    PASS,
    Answer,
    GenlFamily,
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
    ETHTOOL_GDRVINFO,
    ETHTOOL_MSG_FEATURES_GET,
    ETHTOOL_MSG_FEATURES_GET_REPLY,
    ETHTOOL_MSG_FEATURES_NTF,
    ETHTOOL_MSG_FEATURES_SET,
    ETHTOOL_MSG_FEATURES_SET_REPLY,
    ETHTOOL_MSG_LINKMODES_GET,
    ETHTOOL_MSG_LINKMODES_GET_REPLY,
    ETHTOOL_MSG_LINKSTATE_GET,
    ETHTOOL_MSG_STRSET_GET,
    FEATURES,
    FEATURES_ATTRS,
    LINKMODES,
    LINKSTATE,
    STRSET,
    set_bits,
)
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NETLINK_GENERIC, NetlinkError, NlMsg
from asap2.nic.device import Driver, Nic, Pf
from asap2.nic.kernel.lookup import netdev_named
from asap2.nic.netdevs import NetDev, NetDevs, Role

FAMILY_ID = 0x7020
"""Where the kernel has no such family."""
HW_TC_OFFLOAD: Final = "hw-tc-offload"
ETH_SS_STATS = 1
DUPLEX_FULL, DUPLEX_UNKNOWN, SPEED_UNKNOWN = 1, 0xFF, 0xFFFF_FFFF
ETHTOOL_GPERMADDR = 0x20

_DRVINFO = struct.Struct("=I32s32s32s32s32s12x5I")
"""struct ethtool_drvinfo: command, driver, version, firmware, bus, expansion ROM; private flags, statistics, tests,
EEPROM and register dumps that there are."""
_DO, _DUMP = GENL_CMD_CAP_DO, GENL_CMD_CAP_DUMP


class EthtoolFace:
    """Serves ethtool."""

    def __init__(self, driver: Driver, netdevs: NetDevs) -> None:
        self.driver = driver
        self.netdevs = netdevs
        self._names: list[str] = []

    def register(self, server: Server) -> None:
        """Serve *server*'s clients."""
        self._server = server
        self._family = GenlFamily(
            "ethtool",
            FAMILY_ID,
            ops=(
                (ETHTOOL_MSG_FEATURES_GET, _DO | _DUMP),
                (ETHTOOL_MSG_FEATURES_SET, _DO | GENL_UNS_ADMIN_PERM),
            ),
            groups=(("monitor", FAMILY_ID),),
            handlers={
                ETHTOOL_MSG_FEATURES_GET: self.features_get,
                ETHTOOL_MSG_FEATURES_SET: self.features_set,
                ETHTOOL_MSG_LINKMODES_GET: self.linkmodes_get,
            },
            real=True,
        )
        server.family(self._family)
        server.ethtool_ioctl((ETHTOOL_GDRVINFO, ETHTOOL_GPERMADDR), self.ioctl)

    # ---- features

    def offload(self, device: NetDev) -> bool:
        """Whether TC rules of *device*, an uplink or a representor, go to the eSwitch."""
        assert device.pf is not None
        return device.pf.hw_tc_offload.get(device.offload_key, device.role is Role.REPRESENTOR)

    def set_offload(self, device: NetDev, on: bool) -> bool:
        """Turn hw-tc-offload of *device* on or off; what it is then. An uplink's stays on while rules are offloaded."""
        pf, nic = device.pf, device.nic
        assert pf is not None
        assert nic is not None
        before = self.offload(device)
        if on == before or (not on and self._held(device, nic, pf)):
            return before
        pf.hw_tc_offload[device.offload_key] = on
        self.driver.generation += 1
        return on

    def _held(self, device: NetDev, nic: Nic, pf: Pf) -> bool:
        return device.role is Role.PF and self.driver.hands.offloaded_rules(nic, pf) > 0

    def features_get(self, request: Request, _header: GenlHeader) -> Answer:
        """ETHTOOL_MSG_FEATURES_GET: the kernel's answer with our bit in it."""
        if not self._family.real:
            return PASS
        netns = request.client.netns
        if HW_TC_OFFLOAD not in self._feature_names(netns):
            return PASS
        return Proxy(lambda message: [self._shown(message, netns)])

    def _shown(self, message: NlMsg, netns: Netns) -> Message:
        header, attrs = FEATURES.decode(message.payload)
        device = self._eswitch_port(attrs, netns)
        if header.cmd != ETHTOOL_MSG_FEATURES_GET_REPLY or device is None:
            return Message(message.type, message.payload)
        on = self.offload(device)
        for name, value in (("hw", True), ("wanted", on), ("active", on), ("nochange", False)):
            if name in attrs:
                self._put(attrs[name], value)
        return Message(message.type, FEATURES.encode(header, attrs))

    def _eswitch_port(self, attrs: Attrs, netns: Netns) -> NetDev | None:
        """The uplink or representor that the header of a message is about."""
        index = attrs.get("header", {}).get("dev_index")
        device = self.netdevs.by_ifindex(index, netns.cookie) if index else None
        return device if device is not None and device.role in (Role.PF, Role.REPRESENTOR) else None

    def features_set(self, request: Request, header: GenlHeader) -> Answer:
        """ETHTOOL_MSG_FEATURES_SET: our bit here, all others by the kernel, and its answer with our bit in it."""
        if not self._family.real:
            return PASS
        netns = request.client.netns
        attrs = FEATURES_ATTRS.decode(header.attrs)
        try:
            said = set_bits(attrs.get("wanted", {}), self._feature_names(netns))
        except LookupError:  # no bit set that can be read: the kernel says what is wrong with it
            return PASS
        if HW_TC_OFFLOAD not in said:
            return PASS
        device = self._eswitch_port(self._kernel_features(netns, attrs.get("header", {})), netns)
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
        return [Message(answer.type, self._result(answer.payload, was, on, now)) for answer in answers]

    def _result(self, payload: bytes, was: bool, asked: bool, now: bool) -> bytes:
        """The kernel's answer to a change, with what became of our bit: asked for in vain, or changed."""
        header, attrs = FEATURES.decode(payload)
        if header.cmd == ETHTOOL_MSG_FEATURES_SET_REPLY:
            if now is not asked:
                self._put(attrs["wanted"], asked)
            if now is not was:
                self._put(attrs["active"], now)
        return FEATURES.encode(header, attrs)

    def _notify(self, netns: Netns, device: NetDev) -> None:
        """ETHTOOL_MSG_FEATURES_NTF to those who monitor."""
        flags = {"dev_index": device.ifindex, "flags": ETHTOOL_FLAG_COMPACT_BITSETS}
        attrs = self._kernel_features(netns, flags)
        message = NlMsg(0, 0, 0, 0, FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_GET_REPLY), attrs))
        shown = self._shown(message, netns).payload
        self._server.multicast("ethtool", "monitor", bytes((ETHTOOL_MSG_FEATURES_NTF,)) + shown[1:], netns)

    def _put(self, bitset: dict[Any, Any], value: bool) -> None:
        """Put our bit into a decoded bitset of the kernel's, compact or not, as *value*, and into its mask."""
        index = self._names.index(HW_TC_OFFLOAD)
        if "bits" not in bitset:
            for name, bit in (("value", value), ("mask", True)):
                if name in bitset:
                    number = int.from_bytes(bitset[name], "little") & ~(1 << index) | bit << index
                    bitset[name] = number.to_bytes(len(bitset[name]), "little")
            return
        others = [bit for bit in bitset["bits"].get("bit", []) if bit["index"] != index]
        ours: dict[str, Any] = {"index": index, "name": HW_TC_OFFLOAD}
        if value and not bitset.get("nomask"):
            ours["value"] = True
        if value or not bitset.get("nomask"):
            others.append(ours)
        bitset["bits"]["bit"] = sorted(others, key=lambda bit: bit["index"])

    # ---- link modes

    def linkmodes_get(self, request: Request, _header: GenlHeader) -> Answer:
        """ETHTOOL_MSG_LINKMODES_GET: the kernel's answer with the port's speed."""
        if not self._family.real:
            return PASS
        return Proxy(lambda message: [self._with_speed(message, request.client.netns)])

    def _with_speed(self, message: NlMsg, netns: Netns) -> Message:
        header, attrs = LINKMODES.decode(message.payload)
        index = attrs.get("header", {}).get("dev_index")
        device = self.netdevs.by_ifindex(index, netns.cookie) if index else None
        if header.cmd != ETHTOOL_MSG_LINKMODES_GET_REPLY or device is None or device.port_speed is None:
            return Message(message.type, message.payload)
        asked = LINKSTATE.encode(GenlHdr(ETHTOOL_MSG_LINKSTATE_GET), {"header": {"dev_index": index}})
        link = LINKSTATE.decode(self._ask(netns, asked))[1].get("link")
        attrs["speed"], attrs["duplex"] = (device.port_speed, DUPLEX_FULL) if link else (SPEED_UNKNOWN, DUPLEX_UNKNOWN)
        return Message(message.type, LINKMODES.encode(header, attrs))

    # ---- asking the kernel

    def _ask(self, netns: Netns, payload: bytes) -> bytes:
        """The answer to one request to the kernel's own family, as it is; NetlinkError with its error."""
        kernel = self._server.kernel(netns, NETLINK_GENERIC)
        return kernel.request(self._family.id, 0, payload)[0].payload

    def _feature_names(self, netns: Netns) -> list[str]:
        """The names of the kernel's feature bits, in their order."""
        if not self._names:
            asked = {"header": {}, "stringsets": {"stringset": [{"id": ETH_SS_FEATURES}]}}
            _header, attrs = STRSET.decode(self._ask(netns, STRSET.encode(GenlHdr(ETHTOOL_MSG_STRSET_GET), asked)))
            strings = attrs["stringsets"]["stringset"][0]["strings"]["string"]
            self._names = [string["value"] for string in strings]
        return self._names

    def _kernel_features(self, netns: Netns, header: dict[Any, Any]) -> Attrs:
        self._feature_names(netns)
        answer = self._ask(netns, FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_GET), {"header": header}))
        return FEATURES.decode(answer)[1]

    def _statistics(self, netns: Netns, ifindex: int) -> int:
        """How many statistics ``ethtool -S`` shows; they are the kernel's."""
        if not self._family.real:
            return 0
        asked = {
            "header": {"dev_index": ifindex},
            "stringsets": {"stringset": [{"id": ETH_SS_STATS}]},
            "counts_only": True,
        }
        try:
            answer = self._ask(netns, STRSET.encode(GenlHdr(ETHTOOL_MSG_STRSET_GET), asked))
            sets = STRSET.decode(answer)[1].get("stringsets", {}).get("stringset", [])
        except NetlinkError:
            return 0
        return int(sets[0].get("count", 0)) if sets else 0

    # ---- ioctl(SIOCETHTOOL)

    def ioctl(self, netns: Netns, name: str, command: int, buffer: bytes) -> bytes | None:
        """ETHTOOL_GDRVINFO and ETHTOOL_GPERMADDR of our devices; None leaves all others to the kernel."""
        device = netdev_named(self._server, self.netdevs, netns, name)
        if device is None or device.role is Role.OTHER:
            return None
        if command == ETHTOOL_GDRVINFO:
            return self._driver_information(netns, device)
        if command == ETHTOOL_GPERMADDR and device.role is Role.PF and device.pf is not None:
            if len(buffer) < 8:
                raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
            if struct.unpack_from("=I", buffer, 4)[0] < len(device.pf.mac):
                return None
            return struct.pack("=II", command, len(device.pf.mac)) + device.pf.mac
        return None

    def _driver_information(self, netns: Netns, device: NetDev) -> bytes:
        driver, firmware, bus = "openvswitch", "", ""
        statistics = 0
        if device.nic is not None and device.pf is not None:
            model = device.nic.model
            driver = "mlx5e_rep" if device.role is Role.REPRESENTOR else "mlx5_core"
            firmware = f"{model.firmware} ({model.board_id})"
            bus = device.vf.bdf if device.role is Role.VF and device.vf is not None else device.pf.bdf
            statistics = self._statistics(netns, device.ifindex)
        texts = [text.encode() for text in (driver, os.uname().release[:31], firmware, bus, "")]
        return _DRVINFO.pack(ETHTOOL_GDRVINFO, *texts, 0, statistics, 0, 0, 0)
