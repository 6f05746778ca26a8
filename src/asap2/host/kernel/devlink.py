# SPDX-License-Identifier: Apache-2.0
"""devlink: the eSwitch's modes, parameters, firmware versions (include/uapi/linux/devlink.h, family version 1)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from asap2.host.inventory import Eswitch
from asap2.netlink.client import Connection, genl_family
from asap2.netlink.tables import devlink as table
from asap2.netlink.tables.devlink import DEVLINK
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NLM_F_DUMP, NetlinkError

MODES = {table.DEVLINK_ESWITCH_MODE_LEGACY: "legacy", table.DEVLINK_ESWITCH_MODE_SWITCHDEV: "switchdev"}
INLINE_MODES = {0: "none", 1: "link", 2: "network", 3: "transport"}
ENCAP_MODES = {0: "none", 1: "basic"}
WORDS = {"mode": MODES, "inline_mode": INLINE_MODES, "encap_mode": ENCAP_MODES}

_NUMBERS = {table.DEVLINK_PARAM_TYPE_U8: 1, table.DEVLINK_PARAM_TYPE_U16: 2, table.DEVLINK_PARAM_TYPE_U32: 4}


class Devlink:
    """devlink over one generic netlink socket. Methods raise NetlinkError; EOPNOTSUPP where there is no devlink."""

    def __init__(self, generic: Connection) -> None:
        self._generic = generic
        self._family: int | None = None

    def _request(self, command: int, attrs: dict[str, Any], flags: int = 0) -> Iterator[dict[Any, Any]]:
        if self._family is None:
            found = genl_family(self._generic, "devlink")
            self._family = found.id if found else 0
        if not self._family:
            raise NetlinkError(errno.EOPNOTSUPP, "this kernel has no devlink")
        payload = DEVLINK.encode(GenlHdr(command), attrs)
        for message in self._generic.request(self._family, flags, payload):
            yield DEVLINK.decode(message.payload)[1]

    def _ask(self, command: int, address: str, attrs: dict[str, Any] | None = None) -> dict[Any, Any]:
        """The one answer about the PCI function at *address*; empty where there is none."""
        return next(self._request(command, {"bus_name": "pci", "dev_name": address, **(attrs or {})}), {})

    def eswitch(self, address: str) -> Eswitch:
        """The eSwitch of a PF. EOPNOTSUPP when it has none, ENODEV without a driver."""
        attrs = self._ask(table.DEVLINK_CMD_ESWITCH_GET, address)
        words = {name: known.get(attrs.get(f"eswitch_{name}", -1)) for name, known in WORDS.items()}
        return Eswitch(words["mode"] or "unknown", words["inline_mode"], words["encap_mode"])

    def set_eswitch(self, address: str, attribute: str, word: str) -> None:
        """Set ``mode``, ``inline_mode`` or ``encap_mode`` to a word of :data:`WORDS`."""
        number = next(number for number, known in WORDS[attribute].items() if known == word)
        attrs = {"bus_name": "pci", "dev_name": address, f"eswitch_{attribute}": number}
        list(self._request(table.DEVLINK_CMD_ESWITCH_SET, attrs))

    def versions(self, address: str) -> dict[str, str]:
        """The versions that run, and those fixed by the board, by devlink's names: "fw.version", "fw.psid"…"""
        attrs = self._ask(table.DEVLINK_CMD_INFO_GET, address)
        listed = [*attrs.get("info_version_fixed", []), *attrs.get("info_version_running", [])]
        return {one["name"]: one["value"] for one in listed if "name" in one and "value" in one}

    def params(self, address: str) -> dict[str, str]:
        """The parameters of a device with their runtime values (those that have one) as text."""
        found = {}
        for attrs in self._request(table.DEVLINK_CMD_PARAM_GET, {}, NLM_F_DUMP):
            if (attrs.get("bus_name"), attrs.get("dev_name")) != ("pci", address):
                continue
            param = attrs.get("param", {})
            for value in param.get("values_list", {}).get("value", []):
                if value.get("cmode") == table.DEVLINK_PARAM_CMODE_RUNTIME:
                    found[str(param["name"])] = _param_text(param.get("type", 0), value.get("data"))
        return found

    def set_param(self, address: str, name: str, word: str) -> None:
        """Set the runtime value of a parameter that is a string, a flag ("true", "false") or a number."""
        kind = self._ask(table.DEVLINK_CMD_PARAM_GET, address, {"param_name": name}).get("param", {}).get("type", 0)
        attrs: dict[str, Any] = {
            "bus_name": "pci",
            "dev_name": address,
            "param_name": name,
            "param_type": kind,
            "param_value_data": _param_bytes(kind, word),
            "param_value_cmode": table.DEVLINK_PARAM_CMODE_RUNTIME,
        }
        list(self._request(table.DEVLINK_CMD_PARAM_SET, attrs))


def _param_text(kind: int, data: bytes | None) -> str:
    if kind == table.DEVLINK_PARAM_TYPE_BOOL:
        return "true" if data is not None else "false"
    if kind == table.DEVLINK_PARAM_TYPE_STRING:
        return (data or b"").rstrip(b"\0").decode(errors="replace")
    return str(int.from_bytes(data or b"", "little"))


def _param_bytes(kind: int, word: str) -> bytes | None:
    if kind == table.DEVLINK_PARAM_TYPE_BOOL:
        return b"" if word == "true" else None
    if kind == table.DEVLINK_PARAM_TYPE_STRING:
        return word.encode() + b"\0"
    return int(word).to_bytes(_NUMBERS.get(kind, 4), "little")
