# SPDX-License-Identifier: Apache-2.0
"""ioctl(SIOCETHTOOL) on a NIC's netdevs: structures of include/uapi/linux/ethtool.h, filled as the driver fills them.

``ethtool -S`` and ``-i`` ask so, and Open vSwitch for the speed of its ports.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Callable
from typing import Final

from asap2.netlink.request import Netns
from asap2.netlink.tables.ethtool import (
    ETH_SS_FEATURES,
    ETH_SS_PRIV_FLAGS,
    ETH_SS_RSS_HASH_FUNCS,
    ETH_SS_STATS,
    ETHTOOL_GDRVINFO,
    ETHTOOL_MSG_CHANNELS_GET,
    ETHTOOL_MSG_COALESCE_GET,
    ETHTOOL_MSG_PAUSE_GET,
    ETHTOOL_MSG_RINGS_GET,
    words_of,
)
from asap2.netlink.wire import NetlinkError
from asap2.nic.device import Driver
from asap2.nic.faces.ethtool import link as ethtool_link
from asap2.nic.faces.ethtool import settings as ethtool_settings
from asap2.nic.faces.ethtool import stats as ethtool_stats
from asap2.nic.faces.ethtool.kernel import EthtoolKernel
from asap2.nic.faces.ethtool.messages import EthtoolMessages
from asap2.nic.function import Role
from asap2.nic.kinds.kind import LinkKind
from asap2.nic.model import MAX_MTU, SHOWN_UPCALL_MTU, UPCALL_MTU
from asap2.nic.netdevs import NetDev

ETHTOOL_GSET: Final = 0x1
ETHTOOL_GCOALESCE: Final = 0xE
ETHTOOL_SCOALESCE: Final = 0xF
ETHTOOL_GRINGPARAM: Final = 0x10
ETHTOOL_SRINGPARAM: Final = 0x11
ETHTOOL_GPAUSEPARAM: Final = 0x12
ETHTOOL_SPAUSEPARAM: Final = 0x13
ETHTOOL_GSTRINGS: Final = 0x1B
ETHTOOL_GSTATS: Final = 0x1D
ETHTOOL_GPERMADDR: Final = 0x20
ETHTOOL_GPFLAGS: Final = 0x27
ETHTOOL_SPFLAGS: Final = 0x28
ETHTOOL_GRXFH: Final = 0x29
ETHTOOL_GRXRINGS: Final = 0x2D
ETHTOOL_GRXCLSRLCNT: Final = 0x2E
ETHTOOL_GRXCLSRLALL: Final = 0x30
ETHTOOL_FLASHDEV: Final = 0x33
ETHTOOL_GSSET_INFO: Final = 0x37
ETHTOOL_GCHANNELS: Final = 0x3C
ETHTOOL_SCHANNELS: Final = 0x3D
ETHTOOL_GRSSH: Final = 0x46
ETHTOOL_SRSSH: Final = 0x47
ETHTOOL_GLINKSETTINGS: Final = 0x4C
SETTING: Final = (
    *(ETHTOOL_SCOALESCE, ETHTOOL_SRINGPARAM, ETHTOOL_SPAUSEPARAM, ETHTOOL_SPFLAGS, ETHTOOL_SCHANNELS),
    *(ETHTOOL_SRSSH, ETHTOOL_FLASHDEV),
)
SIOCGIFMTU: Final = 0x8921
SIOCSIFMTU: Final = 0x8922

_DRVINFO = struct.Struct("=I32s32s32s32s32s12x5I")
"""struct ethtool_drvinfo: command, driver, version, firmware, bus, expansion ROM; private flags, statistics, tests,
EEPROM and register dumps that there are."""
_CMD = struct.Struct("=IIIHBBBBBBIIHBBI2I")
"""struct ethtool_cmd: command, supported, advertising, speed, duplex, port, phy_address, transceiver, autoneg,
mdio_support, maxtxpkt, maxrxpkt, speed_hi, eth_tp_mdix, eth_tp_mdix_ctrl, lp_advertising, reserved."""
_LINK_SETTINGS = struct.Struct("=II7Bb4B7I")
"""struct ethtool_link_settings: command, speed, duplex, port, phy_address, autoneg, mdio_support, eth_tp_mdix,
eth_tp_mdix_ctrl, link_mode_masks_nwords, transceiver, master_slave_cfg, master_slave_state, rate_matching, reserved."""
_WORDS = 4
"""32-bit words of a mask of link modes, of which there were 121 in Linux 6.12."""
_RXNFC = struct.Struct("=IIQ168xI4x")
"""struct ethtool_rxnfc: command, flow_type, data, a flow, rule_cnt."""

_MOST_RULES = 1024
"""MAX_NUM_OF_ETHTOOL_RULES (mlx5/core/en_fs_ethtool.c)."""
_ADDRESSES, _PORTS = 1 << 4 | 1 << 5, 1 << 6 | 1 << 7
"""RXH_IP_SRC and RXH_IP_DST, RXH_L4_B_0_1 and RXH_L4_B_2_3."""
_HASHED: Final = {
    **dict.fromkeys((0x01, 0x02, 0x05, 0x06), _ADDRESSES | _PORTS),
    **dict.fromkeys((0x09, 0x0A, 0x0B, 0x0C, 0x10, 0x11), _ADDRESSES),
}
"""TCP_V4_FLOW, UDP_V4_FLOW, TCP_V6_FLOW, UDP_V6_FLOW; AH and ESP of both versions, IPV4_FLOW, IPV6_FLOW."""
_RXFH = struct.Struct("=IIIIB7x")
"""struct ethtool_rxfh: command, context, entries of the table and octets of the key that follow, hash function."""
_RSS_TABLE, _RSS_KEY, _NO_CHANGE = 128, 40, 0xFFFF_FFFF
"""MLX5E_INDIR_MIN_RQT_SIZE, the key's octets, ETH_RXFH_INDIR_NO_CHANGE."""
_ANYONES: Final = (ETH_SS_FEATURES, ETH_SS_RSS_HASH_FUNCS)
"""String sets that are the same for every device."""

_COALESCE_FIELDS = (
    *("rx_usecs", "rx_max_frames", "rx_usecs_irq", "rx_max_frames_irq"),
    *("tx_usecs", "tx_max_frames", "tx_usecs_irq", "tx_max_frames_irq"),
    *("stats_block_usecs", "use_adaptive_rx", "use_adaptive_tx", "pkt_rate_low"),
    *("rx_usecs_low", "rx_max_frames_low", "tx_usecs_low", "tx_max_frames_low", "pkt_rate_high"),
    *("rx_usecs_high", "rx_max_frames_high", "tx_usecs_high", "tx_max_frames_high", "rate_sample_interval"),
)
"""struct ethtool_coalesce, after the command."""


def _refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _driver_of(kind: LinkKind) -> bytes:
    driver, version, firmware = kind.driver
    texts = [text.encode() for text in (driver or kind.name, version or os.uname().release[:31], firmware, "", "")]
    return _DRVINFO.pack(ETHTOOL_GDRVINFO, *texts, 0, 0, 0, 0, 0)


class EthtoolIoctl:
    """Serves the ioctl."""

    def __init__(
        self,
        driver: Driver,
        kernel: EthtoolKernel,
        messages: EthtoolMessages,
        kind_of: Callable[[Netns, str], LinkKind | None],
    ) -> None:
        """*kind_of* gives the kind of the device with a name, where that is one of our own."""
        self._kind_of = kind_of
        self._driver = driver
        self._kernel = kernel
        self._messages = messages
        self._commands: dict[int, Callable[[Netns, NetDev, bytes], bytes | None]] = {
            ETHTOOL_GDRVINFO: self._driver_information,
            ETHTOOL_GPERMADDR: self._permanent_address,
            ETHTOOL_GSSET_INFO: self._string_sets,
            ETHTOOL_GSTRINGS: self._strings,
            ETHTOOL_GSTATS: self._statistics,
            ETHTOOL_GSET: self._settings,
            ETHTOOL_GLINKSETTINGS: self._link_settings,
            ETHTOOL_GCOALESCE: self._coalesce,
            ETHTOOL_GRINGPARAM: self._rings,
            ETHTOOL_GPAUSEPARAM: self._pause,
            ETHTOOL_GCHANNELS: self._channels,
            ETHTOOL_GPFLAGS: self._private_flags,
            ETHTOOL_GRXRINGS: self._classifier,
            ETHTOOL_GRXCLSRLCNT: self._classifier,
            ETHTOOL_GRXCLSRLALL: self._classifier,
            ETHTOOL_GRXFH: self._hash_fields,
            ETHTOOL_FLASHDEV: self._flash,
            ETHTOOL_GRSSH: self._receive_hash,
            ETHTOOL_SCOALESCE: self._set_coalesce,
            ETHTOOL_SRINGPARAM: self._set_rings,
            ETHTOOL_SPAUSEPARAM: self._set_pause,
            ETHTOOL_SCHANNELS: self._set_channels,
            ETHTOOL_SPFLAGS: self._set_private_flags,
            ETHTOOL_SRSSH: self._set_receive_hash,
        }

    @property
    def commands(self) -> tuple[int, ...]:
        """The commands that are served."""
        return tuple(self._commands)

    def __call__(self, netns: Netns, name: str, command: int, buffer: bytes) -> bytes | None:
        """The caller's buffer filled in; None leaves the command, or the device, to the kernel. OSError."""
        device = self._kernel.device(netns, {"dev_name": name})
        if command == SIOCGIFMTU:
            return self._shown_mtu(netns, name, device, buffer)
        if device is None:
            kind = self._kind_of(netns, name) if command == ETHTOOL_GDRVINFO else None
            return None if kind is None else _driver_of(kind)
        if len(buffer) < 4:
            raise _refuse(errno.EFAULT)
        if command == SIOCSIFMTU:
            if device.pf is not None and struct.unpack_from("=i", buffer)[0] > MAX_MTU:
                raise _refuse(errno.EINVAL)
            return None
        if command not in self._commands:
            return None
        if device.pf is None and command != ETHTOOL_GDRVINFO:
            if command == ETHTOOL_FLASHDEV:  # a device without devlink "succeeds" (ethtool_flash_device)
                return None
            raise _refuse(errno.EOPNOTSUPP)
        try:
            return self._commands[command](netns, device, buffer)
        except NetlinkError as error:
            raise _refuse(error.errno or errno.EINVAL) from None
        except struct.error:
            raise _refuse(errno.EFAULT) from None

    def _shown_mtu(self, netns: Netns, name: str, device: NetDev | None, buffer: bytes) -> bytes | None:
        """The MTU to show where the kernel's is the one in the buffer; None: that one."""
        (mtu,) = struct.unpack_from("=i", buffer)
        if device is not None:
            shown = SHOWN_UPCALL_MTU if device.role is Role.INTERNAL and mtu == UPCALL_MTU else mtu
        else:
            kind = self._kind_of(netns, name)
            shown = kind.shown_mtu(mtu) if kind is not None else mtu
        return struct.pack("=i", shown) if shown != mtu else None

    # ---- who drives it

    def _driver_information(self, _netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        driver, firmware, bus = "openvswitch", "", ""
        if device.parent is not None:
            model = device.parent.nic.model
            driver = "mlx5e_rep" if device.role is Role.REPRESENTOR else "mlx5_core"
            firmware = f"{model.firmware} ({model.board_id})"
            bus = device.parent.bdf
        texts = [text.encode() for text in (driver, os.uname().release[:31], firmware, bus, "")]
        flags, statistics = (len(EthtoolMessages.string_set(device, s)) for s in (ETH_SS_PRIV_FLAGS, ETH_SS_STATS))
        return _DRVINFO.pack(ETHTOOL_GDRVINFO, *texts, flags, statistics, 0, 0, 0)

    def _permanent_address(self, _netns: Netns, device: NetDev, buffer: bytes) -> bytes | None:
        if device.role is not Role.PF or device.pf is None:
            return None
        if struct.unpack_from("=I", buffer, 4)[0] < len(device.pf.mac):
            return None
        return struct.pack("=II", ETHTOOL_GPERMADDR, len(device.pf.mac)) + device.pf.mac

    # ---- strings and statistics

    def _string_sets(self, netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        """struct ethtool_sset_info: of the sets asked for, which there are, and how long each is."""
        (mask,) = struct.unpack_from("=Q", buffer, 8)
        asked = [bit for bit in range(64) if mask >> bit & 1]
        lengths = {
            bit: len(self._kernel.strings(netns, bit) if bit in _ANYONES else EthtoolMessages.string_set(device, bit))
            for bit in asked
        }
        found = {bit: length for bit, length in lengths.items() if length}
        there = sum(1 << bit for bit in found)
        return struct.pack(f"=IIQ{len(found)}I", ETHTOOL_GSSET_INFO, 0, there, *found.values())

    def _strings(self, _netns: Netns, device: NetDev, buffer: bytes) -> bytes | None:
        (number,) = struct.unpack_from("=I", buffer, 4)
        names = EthtoolMessages.string_set(device, number)
        if not names:
            return None if number not in (0, ETH_SS_STATS, ETH_SS_PRIV_FLAGS) else self._nothing()
        width = ethtool_stats.ETH_GSTRING_LEN
        strings = b"".join(name.encode().ljust(width, b"\0")[:width] for name in names)
        return struct.pack("=III", ETHTOOL_GSTRINGS, number, len(names)) + strings

    @staticmethod
    def _nothing() -> bytes:
        raise _refuse(errno.EOPNOTSUPP)

    def _statistics(self, _netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        channels = ethtool_settings.of(device)["combined_count"]
        figures = ethtool_stats.figures(device, channels, self._kernel.netdevs)
        return struct.pack(f"=II{len(figures)}Q", ETHTOOL_GSTATS, len(figures), *figures)

    # ---- link settings

    def _settings(self, netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        ethtool_link.has_settings(device)
        speed, duplex = ethtool_link.speed(device, self._kernel.has_link(netns, device))
        modes = sum(1 << mode for mode in ethtool_link.modes(device) if mode < 32)
        low, high = speed & 0xFFFF, speed >> 16
        port = ethtool_link.PORT_DA
        return _CMD.pack(ETHTOOL_GSET, modes, modes, low, duplex, port, 0, 0, 1, 0, 0, 0, high, 0, 0, 0, 0, 0)

    def _link_settings(self, netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        """The caller asks for how long the masks are first, with none: it is told by a negative number."""
        ethtool_link.has_settings(device)
        words = struct.unpack_from("=b", buffer, 15)[0]
        if words != _WORDS:
            return _LINK_SETTINGS.pack(ETHTOOL_GLINKSETTINGS, *[0] * 8, -_WORDS, *[0] * 11)
        speed, duplex = ethtool_link.speed(device, self._kernel.has_link(netns, device))
        modes = words_of(sum(1 << mode for mode in ethtool_link.modes(device)), 4 * _WORDS)
        fixed = _LINK_SETTINGS.pack(
            ETHTOOL_GLINKSETTINGS, speed, duplex, ethtool_link.PORT_DA, 0, 1, 0, 0, 0, _WORDS, *[0] * 11
        )
        return fixed + modes + modes + bytes(4 * _WORDS)

    # ---- settings

    def _coalesce(self, _netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        now = ethtool_settings.coalesce(device)
        figures = [now["rx_usecs"], now["rx_max_frames"], 0, 0, now["tx_usecs"], now["tx_max_frames"], 0, 0, 0]
        figures += [now["use_adaptive_rx"], now["use_adaptive_tx"], *[0] * 11]
        return struct.pack("=23I", ETHTOOL_GCOALESCE, *figures)

    def _rings(self, _netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        now = ethtool_settings.rings(device)
        return struct.pack("=9I", ETHTOOL_GRINGPARAM, now["rx_max"], 0, 0, now["tx_max"], now["rx"], 0, 0, now["tx"])

    def _pause(self, _netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        now = ethtool_settings.pause(device)
        return struct.pack("=4I", ETHTOOL_GPAUSEPARAM, now["autoneg"], now["rx"], now["tx"])

    def _channels(self, _netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        now = ethtool_settings.channels(device)
        return struct.pack("=9I", ETHTOOL_GCHANNELS, 0, 0, 0, now["combined_max"], 0, 0, 0, now["combined_count"])

    def _private_flags(self, _netns: Netns, device: NetDev, _buffer: bytes) -> bytes:
        flags = ethtool_settings.private_flags(device).values()
        return struct.pack("=II", ETHTOOL_GPFLAGS, sum(on << i for i, on in enumerate(flags)))

    def _set_coalesce(self, netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        """What mlx5e has not may be 0, which is what it is told of as."""
        figures = dict(zip(_COALESCE_FIELDS, struct.unpack_from("=22I", buffer, 4), strict=True))
        known = ethtool_settings.coalesce(device)
        asked = {name: value for name, value in figures.items() if value or name in known}
        self._messages.change(ETHTOOL_MSG_COALESCE_GET, netns, device, asked)
        return b""

    def _set_rings(self, netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        rx, mini, jumbo, tx = struct.unpack_from("=4I", buffer, 20)
        asked = {"rx": rx, "rx_mini": mini, "rx_jumbo": jumbo, "tx": tx}
        self._messages.change(ETHTOOL_MSG_RINGS_GET, netns, device, asked)
        return b""

    def _set_pause(self, netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        asked = dict(zip(("autoneg", "rx", "tx"), struct.unpack_from("=3I", buffer, 4), strict=True))
        self._messages.change(ETHTOOL_MSG_PAUSE_GET, netns, device, asked)
        return b""

    def _set_channels(self, netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        names = ("rx_count", "tx_count", "other_count", "combined_count")
        asked = dict(zip(names, struct.unpack_from("=4I", buffer, 20), strict=True))
        self._messages.change(ETHTOOL_MSG_CHANNELS_GET, netns, device, asked)
        return b""

    def _set_private_flags(self, netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        (flags,) = struct.unpack_from("=I", buffer, 4)
        names = list(ethtool_settings.private_flags(device))
        if flags >> len(names):
            raise _refuse(errno.EINVAL)
        on = {name: bool(flags >> place & 1) for place, name in enumerate(names)}
        self._messages.change_private_flags(netns, device, on)
        return b""

    def _classifier(self, _netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        """Receive rings there are as many as channels, rules for them none; a representor has no classifier."""
        if device.role is Role.REPRESENTOR:
            raise _refuse(errno.EOPNOTSUPP)
        (command,) = struct.unpack_from("=I", buffer)
        rings = ethtool_settings.of(device)["combined_count"]
        data = {ETHTOOL_GRXRINGS: rings, ETHTOOL_GRXCLSRLALL: _MOST_RULES}.get(command, 0)
        return _RXNFC.pack(command, 0, data, 0)

    def _hash_fields(self, _netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        """What of a packet of some kind decides about its receive ring (mlx5e_get_rss_hash_opts)."""
        if device.role is Role.REPRESENTOR:
            raise _refuse(errno.EOPNOTSUPP)
        _command, flow_type = struct.unpack_from("=II", buffer)
        if flow_type not in _HASHED:
            raise _refuse(errno.EINVAL)
        return struct.pack("=IIQ", ETHTOOL_GRXFH, flow_type, _HASHED[flow_type])

    def _flash(self, _netns: Netns, _device: NetDev, _buffer: bytes) -> bytes:
        """There is no firmware to write. A veth, which has neither firmware nor devlink, would say that it was done."""
        return self._nothing()

    def _receive_hash(self, _netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        """How packets are spread over receive rings; who asks for nothing is told how long table and key are."""
        if device.role is Role.REPRESENTOR or device.function is None:
            raise _refuse(errno.EOPNOTSUPP)
        _command, context, entries, octets, *_ = _RXFH.unpack_from(buffer)
        now = ethtool_settings.of(device)
        table = self._spread_over(device)
        fixed = _RXFH.pack(ETHTOOL_GRSSH, context, table, _RSS_KEY, now["rss_function"])
        if (entries, octets) == (0, 0):
            return fixed
        if context or entries not in (0, table) or octets not in (0, _RSS_KEY):
            raise _refuse(errno.EINVAL)
        key = hashlib.sha512(device.function.bdf.encode() + device.function.pf.mac).digest()[:_RSS_KEY]
        if now["rss_key"] >= 0:
            key = now["rss_key"].to_bytes(_RSS_KEY, "big")
        spread = struct.pack(f"={table}I", *ethtool_settings.spread(device, table))
        return fixed + (spread if entries else b"") + (key if octets else b"")

    @staticmethod
    def _spread_over(device: NetDev) -> int:
        """Entries of the table by which packets are spread over receive rings (mlx5e_rqt_size)."""
        rings = ethtool_settings.of(device)["combined_count"]
        return max(_RSS_TABLE, 1 << (2 * rings - 1).bit_length())

    def _set_receive_hash(self, _netns: Netns, device: NetDev, buffer: bytes) -> bytes:
        """Another table, key or function (ethtool_set_rxfh, mlx5e_set_rxfh); no entries: the table that was first."""
        if device.role is Role.REPRESENTOR or device.pf is None:
            raise _refuse(errno.EOPNOTSUPP)
        _command, context, entries, octets, function = _RXFH.unpack_from(buffer)
        if context:
            raise _refuse(errno.EOPNOTSUPP)
        table = self._spread_over(device)
        if entries not in (0, table, _NO_CHANGE) or octets not in (0, _RSS_KEY):
            raise _refuse(errno.EINVAL)
        if entries == _NO_CHANGE and not octets and not function:
            raise _refuse(errno.EINVAL)
        rings = () if entries == _NO_CHANGE else struct.unpack_from(f"={entries}I", buffer, _RXFH.size)
        key = buffer[_RXFH.size + 4 * len(rings) :][:octets]
        if len(key) < octets:
            raise _refuse(errno.EFAULT)
        wanted = ethtool_settings.wanted_receive_hash(device, function, key, None if entries == _NO_CHANGE else rings)
        if ethtool_settings.keep(device, wanted):
            self._driver.generation += 1
        return b""
