# SPDX-License-Identifier: Apache-2.0
"""Options of tunnels in flower's keys and in tunnel_key, with the kernel's errors.

Sources: fl_set_enc_opt() and fl_set_geneve_opt() in net/sched/cls_flower.c, tunnel_key_get_opts_len() and
tunnel_key_copy_geneve_opt() in net/sched/act_tunnel_key.c, of Linux 6.12.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from asap2.netlink.tables.actions import GENEVE_OPT
from asap2.netlink.wire import NetlinkError
from asap2.nic.rules import Masked
from asap2.nic.tunnels.geneve import OPTION_HEADER
from asap2.nic.tunnels.options import KINDS, kind_of

_MOST = 255
"""FLOW_DIS_TUN_OPTS_MAX, IP_TUNNEL_OPTS_MAX."""
_WORD = 4

Back = list[tuple[str, Any]]


def match(key: Mapping[Any, Any], mask: Mapping[Any, Any] | None) -> tuple[dict[str, Masked], Back]:
    """What a flower key with the options *key* matches on, and the attributes that the kernel gives back.

    The kernel compares the octets of all options from the first on, and their length in the bits of the mask's length.

    Raises:
        NetlinkError: EINVAL and ERANGE as the kernel's; EOPNOTSUPP for options that the pipeline cannot match on.
    """
    asked = _only_geneve(key, "key")
    masks = _only_geneve(mask, "mask") if mask is not None else []
    octets = 0
    for option in asked:
        if not {"class", "type", "data"} <= option.keys():
            raise NetlinkError(errno.EINVAL, "Missing tunnel key geneve option class, type or data")
        octets += _check_data(option["data"], octets)
    exact = {"class": 0xFFFF, "type": 0xFF}
    masks = masks or [exact | {"data": b"\xff" * len(option["data"])} for option in asked]
    masked = sum(_check_data(one["data"], 0) if "data" in one else OPTION_HEADER.size + _WORD for one in masks)
    if masked != octets:
        raise NetlinkError(errno.EINVAL, "Key and mask miss aligned")
    if len(asked) != 1 or octets != OPTION_HEADER.size + _WORD:
        raise NetlinkError(errno.EOPNOTSUPP, "geneve_opts other than one option of 4 octets are not supported")
    ((option, bits),) = zip(asked, masks, strict=True)
    fields = {"tun_opts_len": Masked(octets, octets)}
    part = bits.get("class", 0xFFFF), bits.get("type", 0xFF)
    data, data_mask = (int.from_bytes(one, "big") for one in (option["data"], bits.get("data", b"\xff" * _WORD)))
    if part == (0xFFFF, 0xFF):
        number = KINDS.number(kind_of(option["class"], option["type"]))
        if number is None:
            raise NetlinkError(errno.EOPNOTSUPP, "no more kinds of geneve_opts can be matched on")
        fields["tun_option_kind"] = Masked(number, 0xFF)
        if data_mask:
            fields["tun_option"] = Masked(data & data_mask, data_mask)
    elif part != (0, 0) or data_mask:
        raise NetlinkError(errno.EOPNOTSUPP, "geneve_opts with part of a class or type are not supported")
    back = {
        "class": bits.get("class", 0xFFFF),
        "type": bits.get("type", 0xFF),
        "data": data_mask.to_bytes(_WORD, "big"),
    }
    return fields, [("key_enc_opts", {"geneve": [dict(option)]}), ("key_enc_opts_mask", {"geneve": [back]})]


def to_set(options: Mapping[Any, Any]) -> tuple[bytes, Back]:
    """The options that a tunnel_key sets, as on the wire, and the attributes that the kernel gives back.

    Raises:
        NetlinkError: EINVAL and ERANGE as the kernel's; EOPNOTSUPP for those of other tunnels.
    """
    if options.keys() - {"geneve"}:
        raise NetlinkError(errno.EOPNOTSUPP, "tunnel_key with options of other tunnels than Geneve is not supported")
    out = b""
    for option in options.get("geneve", []):
        if not {"class", "type", "data"} <= option.keys():
            raise NetlinkError(errno.EINVAL, "Missing tunnel key geneve option class, type or data")
        data = option["data"]
        if len(data) < _WORD:
            raise NetlinkError(errno.ERANGE, "Tunnel key geneve option data is less than 4 bytes long")
        if len(data) % _WORD:
            raise NetlinkError(errno.ERANGE, "Tunnel key geneve option data is not a multiple of 4 bytes long")
        out += OPTION_HEADER.pack(option["class"], option["type"], len(data) // _WORD) + data
        if len(out) > _MOST:
            raise NetlinkError(errno.EINVAL, "Tunnel options exceeds max size")
    if not out:
        raise NetlinkError(errno.EINVAL, "Empty list of tunnel options")
    # The kernel gives all of them back in one nest, whatever came (tunnel_key_geneve_opts_dump).
    one = b"".join(GENEVE_OPT.encode(option) for option in options["geneve"])
    return out, [("enc_opts", {"geneve": [one]})]


def _only_geneve(options: Mapping[Any, Any], of: str) -> list[Mapping[Any, Any]]:
    kinds = options.keys() - {"geneve"}
    if kinds and "geneve" in options:
        raise NetlinkError(errno.EINVAL, f"Duplicate type for geneve options in {of}" if of == "mask" else None)
    if kinds:
        raise NetlinkError(errno.EOPNOTSUPP, f"{min(map(str, kinds))}_opts are not supported")
    found: list[Mapping[Any, Any]] = options.get("geneve", [])
    return found


def _check_data(data: bytes, before: int) -> int:
    """The octets of an option with this *data*, behind *before* octets of others."""
    if len(data) < _WORD:
        raise NetlinkError(errno.ERANGE, "Tunnel key geneve option data is less than 4 bytes long")
    if len(data) % _WORD:
        raise NetlinkError(errno.ERANGE, "Tunnel key geneve option data is not a multiple of 4 bytes long")
    if before + OPTION_HEADER.size + len(data) > _MOST:
        raise NetlinkError(errno.ERANGE, "Tunnel options exceeds max size")
    return OPTION_HEADER.size + len(data)
