# SPDX-License-Identifier: Apache-2.0
"""ethtool's generic netlink family: ETHTOOL_MSG_* and ETHTOOL_A_* (include/uapi/linux/ethtool_netlink.h)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from asap2.netlink.body import Body
from asap2.netlink.codec import Table, be16, binary, flag, nested, repeated, string, u8, u32
from asap2.netlink.tables.genl import GenlHdr

ETHTOOL_MSG_STRSET_GET = 1
ETHTOOL_MSG_LINKINFO_GET = 2
ETHTOOL_MSG_LINKMODES_GET = 4
ETHTOOL_MSG_LINKSTATE_GET = 6
ETHTOOL_MSG_FEATURES_GET = 11
ETHTOOL_MSG_FEATURES_SET = 12
ETHTOOL_MSG_PRIVFLAGS_GET = 13
ETHTOOL_MSG_PRIVFLAGS_SET = 14
ETHTOOL_MSG_RINGS_GET = 15
ETHTOOL_MSG_RINGS_SET = 16
ETHTOOL_MSG_CHANNELS_GET = 17
ETHTOOL_MSG_CHANNELS_SET = 18
ETHTOOL_MSG_COALESCE_GET = 19
ETHTOOL_MSG_COALESCE_SET = 20
ETHTOOL_MSG_PAUSE_GET = 21
ETHTOOL_MSG_PAUSE_SET = 22
ETHTOOL_MSG_TUNNEL_INFO_GET = 28
ETHTOOL_MSG_FEC_GET = 29

ETHTOOL_MSG_STRSET_GET_REPLY = 1
ETHTOOL_MSG_LINKINFO_GET_REPLY = 2
ETHTOOL_MSG_LINKMODES_GET_REPLY = 4
ETHTOOL_MSG_LINKSTATE_GET_REPLY = 6
ETHTOOL_MSG_FEATURES_GET_REPLY = 11
ETHTOOL_MSG_FEATURES_SET_REPLY = 12
ETHTOOL_MSG_FEATURES_NTF = 13
ETHTOOL_MSG_PRIVFLAGS_GET_REPLY = 14
ETHTOOL_MSG_PRIVFLAGS_NTF = 15
ETHTOOL_MSG_RINGS_GET_REPLY = 16
ETHTOOL_MSG_RINGS_NTF = 17
ETHTOOL_MSG_CHANNELS_GET_REPLY = 18
ETHTOOL_MSG_CHANNELS_NTF = 19
ETHTOOL_MSG_COALESCE_GET_REPLY = 20
ETHTOOL_MSG_COALESCE_NTF = 21
ETHTOOL_MSG_PAUSE_GET_REPLY = 22
ETHTOOL_MSG_PAUSE_NTF = 23
ETHTOOL_MSG_TUNNEL_INFO_GET_REPLY = 29
ETHTOOL_MSG_FEC_GET_REPLY = 30

ETHTOOL_FLAG_COMPACT_BITSETS = 1
ETHTOOL_FLAG_OMIT_REPLY = 2
ETHTOOL_FLAG_STATS = 4

ETH_SS_TEST = 0
ETH_SS_STATS = 1
ETH_SS_PRIV_FLAGS = 2
ETH_SS_FEATURES = 4
ETH_SS_RSS_HASH_FUNCS = 5
ETH_SS_LINK_MODES = 9

ETHTOOL_GDRVINFO = 0x3
"""Command of ioctl(SIOCETHTOOL): driver information."""

HEADER = Table(
    "ethtool_header", {1: ("dev_index", u32), 2: ("dev_name", string), 3: ("flags", u32), 4: ("phy_index", u32)}
)
BITSET_BIT = Table("bitset_bit", {1: ("index", u32), 2: ("name", string), 3: ("value", flag)})
BITSET_BITS = Table("bitset_bits", {1: ("bit", repeated(nested(BITSET_BIT, flagged=True)))})
BITSET = Table(
    "bitset",
    {
        1: ("nomask", flag),
        2: ("size", u32),
        3: ("bits", nested(BITSET_BITS, flagged=True)),
        4: ("value", binary),
        5: ("mask", binary),
    },
)
"""A set of bits, compact (value and mask: 32-bit words in host order) or as a list of names."""
STRING = Table("ethtool_string", {1: ("index", u32), 2: ("value", string)})
STRINGS = Table("ethtool_strings", {1: ("string", repeated(nested(STRING, flagged=True)))})
STRINGSET = Table("stringset", {1: ("id", u32), 2: ("count", u32), 3: ("strings", nested(STRINGS, flagged=True))})
STRINGSETS = Table("stringsets", {1: ("stringset", repeated(nested(STRINGSET, flagged=True)))})

_header = nested(HEADER, flagged=True)
_bitset = nested(BITSET, flagged=True)
STRSET_ATTRS = Table(
    "strset", {1: ("header", _header), 2: ("stringsets", nested(STRINGSETS, flagged=True)), 3: ("counts_only", flag)}
)
LINKINFO_ATTRS = Table(
    "linkinfo",
    {
        1: ("header", _header),
        2: ("port", u8),
        3: ("phyaddr", u8),
        4: ("tp_mdix", u8),
        5: ("tp_mdix_ctrl", u8),
        6: ("transceiver", u8),
    },
)
LINKMODES_ATTRS = Table(
    "linkmodes",
    {
        1: ("header", _header),
        2: ("autoneg", u8),
        3: ("ours", _bitset),
        4: ("peer", _bitset),
        5: ("speed", u32),
        6: ("duplex", u8),
        7: ("master_slave_cfg", u8),
        8: ("master_slave_state", u8),
        9: ("lanes", u32),
        10: ("rate_matching", u8),
    },
)
LINKSTATE_ATTRS = Table(
    "linkstate",
    {
        1: ("header", _header),
        2: ("link", u8),
        3: ("sqi", u32),
        4: ("sqi_max", u32),
        5: ("ext_state", u8),
        6: ("ext_substate", u8),
        7: ("ext_down_cnt", u32),
    },
)
FEATURES_ATTRS = Table(
    "features",
    {
        1: ("header", _header),
        2: ("hw", _bitset),
        3: ("wanted", _bitset),
        4: ("active", _bitset),
        5: ("nochange", _bitset),
    },
)
PRIVFLAGS_ATTRS = Table("privflags", {1: ("header", _header), 2: ("flags", _bitset)})
RINGS_ATTRS = Table(
    "rings",
    {
        1: ("header", _header),
        2: ("rx_max", u32),
        3: ("rx_mini_max", u32),
        4: ("rx_jumbo_max", u32),
        5: ("tx_max", u32),
        6: ("rx", u32),
        7: ("rx_mini", u32),
        8: ("rx_jumbo", u32),
        9: ("tx", u32),
        10: ("rx_buf_len", u32),
        11: ("tcp_data_split", u8),
        12: ("cqe_size", u32),
        13: ("tx_push", u8),
        14: ("rx_push", u8),
    },
)
CHANNELS_ATTRS = Table(
    "channels",
    {
        1: ("header", _header),
        2: ("rx_max", u32),
        3: ("tx_max", u32),
        4: ("other_max", u32),
        5: ("combined_max", u32),
        6: ("rx_count", u32),
        7: ("tx_count", u32),
        8: ("other_count", u32),
        9: ("combined_count", u32),
    },
)
COALESCE_ATTRS = Table(
    "coalesce",
    {
        1: ("header", _header),
        2: ("rx_usecs", u32),
        3: ("rx_max_frames", u32),
        4: ("rx_usecs_irq", u32),
        5: ("rx_max_frames_irq", u32),
        6: ("tx_usecs", u32),
        7: ("tx_max_frames", u32),
        8: ("tx_usecs_irq", u32),
        9: ("tx_max_frames_irq", u32),
        10: ("stats_block_usecs", u32),
        11: ("use_adaptive_rx", u8),
        12: ("use_adaptive_tx", u8),
        13: ("pkt_rate_low", u32),
        14: ("rx_usecs_low", u32),
        15: ("rx_max_frames_low", u32),
        16: ("tx_usecs_low", u32),
        17: ("tx_max_frames_low", u32),
        18: ("pkt_rate_high", u32),
        19: ("rx_usecs_high", u32),
        20: ("rx_max_frames_high", u32),
        21: ("tx_usecs_high", u32),
        22: ("tx_max_frames_high", u32),
        23: ("rate_sample_interval", u32),
        24: ("use_cqe_mode_tx", u8),
        25: ("use_cqe_mode_rx", u8),
    },
)
PAUSE_ATTRS = Table("pause", {1: ("header", _header), 2: ("autoneg", u8), 3: ("rx", u8), 4: ("tx", u8)})
FEC_ATTRS = Table("fec", {1: ("header", _header), 2: ("modes", _bitset), 3: ("auto", u8), 4: ("active", u32)})
TUNNEL_UDP_ENTRY = Table("tunnel_udp_entry", {1: ("port", be16), 2: ("type", u32)})
TUNNEL_UDP_TABLE = Table(
    "tunnel_udp_table",
    {1: ("size", u32), 2: ("types", _bitset), 3: ("entry", repeated(nested(TUNNEL_UDP_ENTRY, flagged=True)))},
)
TUNNEL_UDP = Table("tunnel_udp", {1: ("table", repeated(nested(TUNNEL_UDP_TABLE, flagged=True)))})
TUNNEL_INFO_ATTRS = Table("tunnel_info", {1: ("header", _header), 2: ("udp_ports", nested(TUNNEL_UDP, flagged=True))})
HEADER_ONLY_ATTRS = Table("ethtool_any", {1: ("header", _header)})

STRSET: Body[GenlHdr] = Body(GenlHdr, "=BBH", STRSET_ATTRS)
LINKINFO: Body[GenlHdr] = Body(GenlHdr, "=BBH", LINKINFO_ATTRS)
LINKMODES: Body[GenlHdr] = Body(GenlHdr, "=BBH", LINKMODES_ATTRS)
LINKSTATE: Body[GenlHdr] = Body(GenlHdr, "=BBH", LINKSTATE_ATTRS)
FEATURES: Body[GenlHdr] = Body(GenlHdr, "=BBH", FEATURES_ATTRS)
PRIVFLAGS: Body[GenlHdr] = Body(GenlHdr, "=BBH", PRIVFLAGS_ATTRS)
RINGS: Body[GenlHdr] = Body(GenlHdr, "=BBH", RINGS_ATTRS)
CHANNELS: Body[GenlHdr] = Body(GenlHdr, "=BBH", CHANNELS_ATTRS)
COALESCE: Body[GenlHdr] = Body(GenlHdr, "=BBH", COALESCE_ATTRS)
PAUSE: Body[GenlHdr] = Body(GenlHdr, "=BBH", PAUSE_ATTRS)
FEC: Body[GenlHdr] = Body(GenlHdr, "=BBH", FEC_ATTRS)
TUNNEL_INFO: Body[GenlHdr] = Body(GenlHdr, "=BBH", TUNNEL_INFO_ATTRS)
ANY: Body[GenlHdr] = Body(GenlHdr, "=BBH", HEADER_ONLY_ATTRS)
"""Any request of the family: which device, and the flags; all else as bytes."""


def set_bits(bitset: Mapping[Any, Any], names: Iterable[str]) -> dict[str, bool]:
    """What a decoded bitset says of each of *names*, which are in the order of their bits.

    Those that it says nothing of are left out. With a mask (or a list of bits) only the bits named there count;
    without (``nomask``), all.
    """
    known = list(names)
    if "bits" in bitset:
        said = {}
        for bit in bitset["bits"].get("bit", []):
            name = bit["name"] if "name" in bit else known[bit["index"]] if bit.get("index", -1) < len(known) else None
            if name is not None:
                said[name] = bool(bit.get("value", False) or bitset.get("nomask", False))
        return {**dict.fromkeys(known, False), **said} if bitset.get("nomask") else said
    value = number_of(bitset.get("value", b""))
    mask = number_of(bitset["mask"]) if "mask" in bitset else -1
    return {name: bool(value >> i & 1) for i, name in enumerate(known) if mask >> i & 1}


def number_of(bits: bytes) -> int:
    """The *bits* of a compact bitset as one number; they come in words of 32, each in the machine's byte order."""
    words = [bits[at : at + 4] for at in range(0, len(bits), 4)]
    return sum(int.from_bytes(word, sys.byteorder) << 32 * place for place, word in enumerate(words))


def words_of(number: int, length: int) -> bytes:
    """The same as so many octets, a multiple of four."""
    words = [number >> 8 * at & 0xFFFF_FFFF for at in range(0, length, 4)]
    return b"".join(word.to_bytes(4, sys.byteorder) for word in words)


def compact_bitset(size: int, value: int, mask: int | None = None) -> dict[str, Any]:
    """A compact bitset of *size* bits to encode; without *mask* it says all bits (``nomask``)."""
    length = (size + 31) // 32 * 4
    bitset: dict[str, Any] = {} if mask is not None else {"nomask": True}
    bitset["size"] = size
    bitset["value"] = words_of(value, length)
    if mask is not None:
        bitset["mask"] = words_of(mask, length)
    return bitset


def verbose_bitset(size: int, bits: Iterable[tuple[int, str, bool]], *, nomask: bool = False) -> dict[str, Any]:
    """A bitset as a list of (index, name, value) to encode; with *nomask*, those listed are those set."""
    listed = [
        {"index": index, "name": name, **({"value": True} if value and not nomask else {})}
        for index, name, value in bits
    ]
    return {**({"nomask": True} if nomask else {}), "size": size, "bits": {"bit": listed}}
