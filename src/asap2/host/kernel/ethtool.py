# SPDX-License-Identifier: Apache-2.0
"""ethtool: the feature hw-tc-offload, and the firmware's version.

By ethtool's generic netlink family (Linux 5.6 and later); where the kernel has none, by the program ethtool.
"""

from __future__ import annotations

import array
import fcntl
import os
import re
import socket
import struct
import subprocess
from collections.abc import Iterable
from typing import Any

from asap2.netlink.client import Connection, genl_family
from asap2.netlink.tables.ethtool import (
    ETH_SS_FEATURES,
    ETHTOOL_FLAG_COMPACT_BITSETS,
    ETHTOOL_GDRVINFO,
    ETHTOOL_MSG_FEATURES_GET,
    ETHTOOL_MSG_FEATURES_SET,
    ETHTOOL_MSG_STRSET_GET,
    FEATURES,
    STRSET,
    number_of,
)
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NLM_F_DUMP, NetlinkError

HW_TC_OFFLOAD = "hw-tc-offload"
SIOCETHTOOL = 0x8946
_DRVINFO_SIZE = 196
_FIRMWARE = slice(68, 100)
_BUS = slice(100, 132)
"""Where fw_version and bus_info lie in struct ethtool_drvinfo."""


class Ethtool:
    """Features over one generic netlink socket."""

    def __init__(self, generic: Connection) -> None:
        self._generic = generic
        found = genl_family(generic, "ethtool")
        self._family = found.id if found else None
        self._bit: int | None = None

    def _feature_bit(self) -> int:
        """The number of hw-tc-offload among the kernel's feature bits; -1 when it has none."""
        if self._bit is None:
            asked = {"header": {}, "stringsets": {"stringset": [{"id": ETH_SS_FEATURES}]}}
            payload = STRSET.encode(GenlHdr(ETHTOOL_MSG_STRSET_GET), asked)
            (answer,) = self._generic.request(self._family or 0, 0, payload)
            sets = STRSET.decode(answer.payload)[1]["stringsets"]["stringset"]
            names = [one["value"] for one in sets[0]["strings"]["string"]]
            self._bit = names.index(HW_TC_OFFLOAD) if HW_TC_OFFLOAD in names else -1
        return self._bit

    def offload(self, names: Iterable[str] | None = None) -> dict[str, bool]:
        """Whether hw-tc-offload is on, by device: of all, or where each must be asked by itself, of *names*."""
        if self._family is None:
            return {name: state for name in names or () if (state := _offload_by_program(name)) is not None}
        bit = self._feature_bit()
        header = {"header": {"flags": ETHTOOL_FLAG_COMPACT_BITSETS}}
        payload = FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_GET), header)
        found = {}
        for message in self._generic.request(self._family, NLM_F_DUMP, payload):
            attrs = FEATURES.decode(message.payload)[1]
            active = number_of(attrs.get("active", {}).get("value", b""))
            found[str(attrs["header"]["dev_name"])] = bit >= 0 and bool(active >> bit & 1)
        return found

    def set_offload(self, name: str, on: bool) -> None:
        """Turn hw-tc-offload of the device called *name* on or off; whether it then is must be read.

        Raises:
            OSError: the kernel or the program ethtool refused.
        """
        if self._family is None:
            done = subprocess.run(
                ["ethtool", "-K", name, HW_TC_OFFLOAD, "on" if on else "off"], capture_output=True, text=True
            )
            if done.returncode:
                raise OSError(0, done.stderr.strip() or f"ethtool failed on {name}")
            return
        bit: dict[str, Any] = {"name": HW_TC_OFFLOAD, **({"value": True} if on else {})}
        attrs = {"header": {"dev_name": name}, "wanted": {"bits": {"bit": [bit]}}}
        self._generic.request(self._family, 0, FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_SET), attrs))


def _offload_by_program(name: str) -> bool | None:
    try:
        done = subprocess.run(["ethtool", "-k", name], capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(rf"^{HW_TC_OFFLOAD}: (on|off)", done.stdout, re.MULTILINE)
    return None if found is None else found[1] == "on"


def firmware(name: str) -> str | None:
    """The firmware version that the driver of the device called *name* tells (ETHTOOL_GDRVINFO); None when none."""
    return _driver_info(name, _FIRMWARE)


def bus_address(name: str) -> str | None:
    """The PCI address, or other name of its place, that the driver of the device called *name* tells."""
    return _driver_info(name, _BUS)


def _driver_info(name: str, part: slice) -> str | None:
    buffer = array.array("B", struct.pack("=I", ETHTOOL_GDRVINFO).ljust(_DRVINFO_SIZE, b"\0"))
    address, _ = buffer.buffer_info()
    request = struct.pack("16sP16x", os.fsencode(name), address)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            fcntl.ioctl(asked, SIOCETHTOOL, request)
    except (OSError, NetlinkError):
        return None
    return buffer.tobytes()[part].split(b"\0")[0].decode(errors="replace") or None
