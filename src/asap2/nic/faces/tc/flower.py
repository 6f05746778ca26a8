# SPDX-License-Identifier: Apache-2.0
"""The flower classifier's keys: attributes to a rule's match, and to what the kernel gives back.

Source: net/sched/cls_flower.c of Linux 6.1: fl_set_key() says what attributes mean, fl_dump_key() what comes back and
in which order. A key without a mask attribute is matched exactly; an attribute whose mask is all zero is not a key.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.actions import ENC_OPTS
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import ETH_P_ALL, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, ETH_P_MPLS, ETH_P_RARP, VLAN_TYPES
from asap2.nic.faces.tc import mpls_keys, port_ranges, tunnel_options
from asap2.nic.faces.tc.mpls_keys import NEVER as NEVER
from asap2.nic.faces.tc.port_ranges import PortRange
from asap2.nic.fields import FIELD_BITS, FIELDS, flower_keys
from asap2.nic.rules import VLAN_PRESENT, CtState, Frag, Masked, Match


def _octets(key: str) -> int:
    size = FLOWER.fields[FLOWER.numbers[key]][1].size
    assert size is not None
    return size


FIELD_OF: Final = {key: field.name for field in FIELDS for key in field.flower}
"""The field that each key with a mask is compared with."""

_CT_NEW, _CT_EST, _CT_REL, _CT_TRK, _CT_INV, _CT_RPL = (1 << bit for bit in range(6))
"""TCA_FLOWER_KEY_CT_FLAGS_*."""
_CT_STATES: Final = {
    _CT_NEW: CtState.NEW,
    _CT_EST: CtState.EST,
    _CT_REL: CtState.REL,
    _CT_TRK: CtState.TRK,
    _CT_INV: CtState.INV,
    _CT_RPL: CtState.RPL,
}

_WIDTHS: Final = {key: _octets(key) for key in (*FIELD_OF, "key_flags", "key_ct_state")}
"""Octets of each key that has a mask attribute."""

_IFNAMSIZ: Final = 16
_GONE: Final = -1

Identity = tuple[Any, ...]
"""A masked key: what two filters of one priority may not share."""

RANGES: Final = "ranges"
_WITH_PORTS: Final = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP)

_SUPPORTED: Final = frozenset(
    {"classid", "indev", "act", "flags", "in_hw_count", "key_eth_type", "key_ip_proto", "key_enc_key_id"}
    | {"key_enc_opts", "key_enc_opts_mask"}
    | {f"key_{tag}_{part}" for tag in ("vlan", "cvlan") for part in ("id", "prio", "eth_type")}
    | {name for key in _WIDTHS for name in (key, f"{key}_mask")}
    | {*port_ranges.KEYS, *mpls_keys.KEYS}
)
"""Attributes that the pipeline can match."""


@dataclass(frozen=True, slots=True)
class FlowerKey:
    """A filter's key: its match; what it is, masked; and the attributes that the kernel gives back for it, in order
    (none here for a key that :mod:`asap2.nic.faces.tc.templates` has read: they are in its request)."""

    match: Match
    identity: Identity
    """Its last part is :attr:`canon`."""
    masks: tuple[tuple[str, int], ...]
    """The key's masks, which a filter keeps for life (fl_check_assign_mask)."""
    dump: tuple[tuple[str, Any], ...] = ()
    ranges: tuple[PortRange, ...] = ()
    """Ranges of ports, beside the match."""
    indev: int = 0
    """The device by which packets come in (0: any; -1: one that is no more)."""

    def shown(self) -> dict[str, Any]:
        """What the kernel gives back; a device by the name that it has now."""
        try:
            device = {"indev": socket.if_indextoname(self.indev)} if self.indev > 0 else {}
        except OSError:
            device = {}
        return {**device, **dict(self.dump)}

    @property
    def canon(self) -> bytes:
        """The masked key as attributes, in the order of :attr:`dump`."""
        canon: bytes = self.identity[-1]
        return canon


class _Keys:
    """The keys of one filter by name: value and mask as integers."""

    def __init__(self, options: Attrs) -> None:
        self._options = options
        self.values: dict[str, tuple[int, int]] = {}

    def masked(self, name: str) -> tuple[int, int]:
        """Value, as it was given, and mask of a key with a mask attribute; (0, 0) for none."""
        found = self.values.get(name)
        if found is not None:
            return found
        raw = self._options.get(name)
        if raw is None:
            return 0, 0
        width = _WIDTHS[name]
        mask_raw = self._options.get(f"{name}_mask")
        value = int.from_bytes(raw, "big") if isinstance(raw, bytes) else int(raw)
        if mask_raw is None:
            mask = (1 << 8 * width) - 1
        else:
            mask = int.from_bytes(mask_raw, "big") if isinstance(mask_raw, bytes) else int(mask_raw)
        self.values[name] = (value, mask)
        return self.values[name]


def parse(options: Attrs, protocol: int, *, again: bool = False) -> FlowerKey:
    """The key in a filter's options; *protocol* is the filter's (0x0003: all). *again*: a device that the key names may
    be gone.

    Raises:
        NetlinkError: EOPNOTSUPP for a key that the pipeline has not; EINVAL where the kernel refuses the key;
            ENODEV for a device that is not there.
    """
    unknown = [name for name in options if name not in _SUPPORTED and _counts(options, name)]
    if unknown:
        text = f"flower key {str(unknown[0]).removeprefix('key_')} is not supported"
        raise NetlinkError(errno.EOPNOTSUPP, text)
    if any(options.get(name, 0) & ~sum(_CT_STATES) for name in ("key_ct_state", "key_ct_state_mask")):
        raise NetlinkError(errno.EINVAL, "reserved bit set")
    keys = _Keys(options)
    fields: dict[str, Masked] = {}
    dump: list[tuple[str, Any]] = []
    flags, flags_mask = keys.masked("key_flags")
    flags_mask &= Frag.IS_FRAGMENT | Frag.FIRST
    if flags_mask:
        fields["ip_frag"] = Masked(flags & flags_mask, flags_mask)
    _put(keys, fields, dump, flower_keys("eth"))
    ethertype, tags = _ethertype_and_vlans(options, fields, dump, protocol)
    if ethertype in ETH_P_MPLS:
        found, given = mpls_keys.parse(options)
        fields |= found
        at = next((place for place, (name, _) in enumerate(dump) if name == "key_eth_type"), len(dump) - 1) + 1
        dump[at:at] = given
    _ip(keys, options, fields, dump, ethertype)
    version = _addresses(keys, options, fields, dump)
    _ports(keys, fields, dump, ethertype, options.get("key_ip_proto"))
    if ethertype in (ETH_P_ARP, ETH_P_RARP):
        _arp(keys, fields, dump)
    ranges: tuple[PortRange, ...] = ()
    if ethertype in (ETH_P_IP, ETH_P_IPV6) and options.get("key_ip_proto") in _WITH_PORTS:
        ranges = port_ranges.parse(options)
        dump += [(name, options[name]) for name in port_ranges.KEYS if name in options]
    _tunnel(keys, options, fields, dump)
    _tracking(keys, fields, dump)
    if flags_mask:
        dump += [("key_flags", flags & flags_mask), ("key_flags_mask", int(flags_mask))]
    indev = _device(options["indev"], again=again) if "indev" in options else 0
    named = [*tags, ("indev", indev)] if indev else tags
    masks, canon = _canonical(dump)
    return FlowerKey(
        Match(**fields),
        (version, *named, canon),
        (("addresses", int(bool(version))), *((tag, 0xFFFF) for tag, _ in named), *masks, *_order(ranges)),
        tuple(dump),
        ranges,
        indev,
    )


def _device(name: str, *, again: bool) -> int:
    """The index of a device (tcf_change_indev())."""
    if len(name) >= _IFNAMSIZ:
        raise NetlinkError(errno.EINVAL, "Interface name too long")
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError):
        if again:
            return _GONE
        raise NetlinkError(errno.ENODEV, "Network device not found") from None


def _order(ranges: tuple[PortRange, ...]) -> tuple[tuple[str, int], ...]:
    """Filters with ranges are met in the order in which they came (fl_lookup_range), as if each had a mask of its own:
    one that tells ranges apart."""
    return ((RANGES, port_ranges.number(ranges)),) if ranges else ()


def masks_of(key_masks: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """A key's masks as the kernel has them."""
    return tuple(one for one in key_masks if one[0] != RANGES)


def _canonical(dump: list[tuple[str, Any]]) -> tuple[list[tuple[str, int]], bytes]:
    """The key as the kernel compares it: not what it means beside the filter's protocol, but what was given. Its
    masks (-1 for a key that has none) in the order of the names, and the masked key as attributes."""
    given = dict(dump)
    masks: dict[str, int] = {}
    for name, value in dump:
        mask = given.get(f"{name}_mask")
        if name.endswith("_mask"):
            continue
        if isinstance(value, dict) and mask is not None:  # options of a tunnel: their octets are compared
            whole, bits = (ENC_OPTS.encode(one) for one in (value, mask))
            masks[name] = int.from_bytes(bits, "big")
            given[name] = ENC_OPTS.decode(bytes(one & bit for one, bit in zip(whole, bits, strict=True)))
            continue
        masks[name] = -1 if mask is None else _number(mask)
        if mask is not None:
            masked = _number(value) & masks[name]
            given[name] = masked.to_bytes(len(value), "big") if isinstance(value, bytes) else masked
    return sorted(masks.items()), FLOWER.encode(given)


def _counts(options: Attrs, name: Any) -> bool:
    """Whether an attribute that is not supported asks for anything: a mask of zero does not."""
    if isinstance(name, str) and name.endswith("_mask"):
        return bool(_number(options[name])) and name.removesuffix("_mask") not in options
    mask = options.get(f"{name}_mask")
    return mask is None or bool(_number(mask))


def _number(value: Any) -> int:
    if isinstance(value, bytes):
        return int.from_bytes(value, "big")
    return value if isinstance(value, int) else 1


def _put(keys: _Keys, fields: dict[str, Masked], dump: list[tuple[str, Any]], names: Iterable[str]) -> None:
    """Match and dump each key; a field may have fewer bits than it, and the others of a packet are 0."""
    for name in names:
        value, mask = keys.masked(name)
        if not mask:
            continue
        target = FIELD_OF[name]
        limit = (1 << FIELD_BITS[target]) - 1
        if mask & limit:
            fields[target] = Masked(value & mask & limit, mask & limit)
        if value & mask & ~limit:
            fields.update(NEVER)
        width = _WIDTHS[name]
        if isinstance(keys._options[name], bytes):
            dump += [(name, value.to_bytes(width, "big")), (f"{name}_mask", mask.to_bytes(width, "big"))]
        else:
            dump += [(name, value), (f"{name}_mask", mask)]


def _ethertype_and_vlans(
    options: Attrs, fields: dict[str, Masked], dump: list[tuple[str, Any]], protocol: int
) -> tuple[int | None, list[tuple[str, int]]]:
    """Match tags and the payload's type; the type (None: any), and the tags. The filter's protocol is part of it."""
    ethertype = options.get("key_eth_type")
    tags: list[tuple[str, int]] = []
    if ethertype in VLAN_TYPES:
        tags.append(("vlan", ethertype))
        ethertype = options.get("key_vlan_eth_type")
        if ethertype in VLAN_TYPES:
            tags.append(("cvlan", ethertype))
            ethertype = options.get("key_cvlan_eth_type")
    if ethertype is not None:
        fields["eth_type"] = Masked(ethertype, 0xFFFF)
        dump.append(("key_eth_type", ethertype))
    for tag, tpid in tags:
        _vlan(options, fields, dump, tag, tpid)
    if len(tags) == 2:
        dump.append(("key_vlan_eth_type", tags[1][1]))
        if ethertype is not None:
            dump.append(("key_cvlan_eth_type", ethertype))
    elif tags and ethertype is not None:
        fields["cvlan_tci"] = Masked(0, VLAN_PRESENT)
        dump.append(("key_vlan_eth_type", ethertype))
    if protocol != ETH_P_ALL:
        _protocol(fields, protocol)
    return ethertype, tags


def _protocol(fields: dict[str, Masked], protocol: int) -> None:
    """What the filter's protocol, compared with the outermost type of the packet, says of tags (skb_protocol).

    A key of another type never matches, as in the kernel.
    """
    if protocol in VLAN_TYPES:
        wanted = {"vlan_tci": Masked(VLAN_PRESENT, VLAN_PRESENT), "vlan_tpid": Masked(protocol, 0xFFFF)}
    else:
        wanted = {"vlan_tci": Masked(0, VLAN_PRESENT), "eth_type": Masked(protocol, 0xFFFF)}
    for name, masked in wanted.items():
        found = fields.setdefault(name, masked)
        if (found.value ^ masked.value) & masked.mask & found.mask:
            fields.update(NEVER)


def _vlan(options: Attrs, fields: dict[str, Masked], dump: list[tuple[str, Any]], tag: str, tpid: int) -> None:
    value, mask = VLAN_PRESENT, VLAN_PRESENT
    vid, prio = options.get(f"key_{tag}_id"), options.get(f"key_{tag}_prio")
    if vid is not None:
        value, mask = value | vid & 0xFFF, mask | 0xFFF
        dump.append((f"key_{tag}_id", vid & 0xFFF))
    if prio is not None:
        value, mask = value | (prio & 7) << 13, mask | 7 << 13
        dump.append((f"key_{tag}_prio", prio & 7))
    fields[f"{tag}_tci"] = Masked(value, mask)
    if tag == "vlan":
        fields["vlan_tpid"] = Masked(tpid, 0xFFFF)
    else:
        fields["cvlan_tpid"] = Masked(tpid >> 8, 0xFF)


def _ip(
    keys: _Keys, options: Attrs, fields: dict[str, Masked], dump: list[tuple[str, Any]], ethertype: int | None
) -> None:
    if ethertype not in (ETH_P_IP, ETH_P_IPV6):
        return
    proto = options.get("key_ip_proto")
    if proto is not None:
        fields["ip_proto"] = Masked(proto, 0xFF)
        dump.append(("key_ip_proto", proto))
    _put(keys, fields, dump, flower_keys("ip"))


def _addresses(keys: _Keys, options: Attrs, fields: dict[str, Masked], dump: list[tuple[str, Any]]) -> int:
    """Match IP addresses: of packets that have such addresses, whatever else the key says. The version, 0 for none."""
    for version, ethertype in ((4, ETH_P_IP), (6, ETH_P_IPV6)):
        source, destination = f"key_ipv{version}_src", f"key_ipv{version}_dst"
        if source not in options and destination not in options:
            continue
        if fields.setdefault("eth_type", Masked(ethertype, 0xFFFF)).value != ethertype:
            fields.update(NEVER)
        _put(keys, fields, dump, (source, destination))
        return version
    return 0


def _ports(
    keys: _Keys, fields: dict[str, Masked], dump: list[tuple[str, Any]], ethertype: int | None, proto: int | None
) -> None:
    if ethertype not in (ETH_P_IP, ETH_P_IPV6):
        return
    version = "ipv4" if ethertype == ETH_P_IP else "ipv6"
    if proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP):
        _put(keys, fields, dump, flower_keys({IPPROTO_TCP: "tcp", IPPROTO_UDP: "udp", IPPROTO_SCTP: "sctp"}[proto]))
    elif (version, proto) in (("ipv4", IPPROTO_ICMP), ("ipv6", IPPROTO_ICMPV6)):
        _put(keys, fields, dump, flower_keys(f"icmp{version.removeprefix('ip')}"))


def _arp(keys: _Keys, fields: dict[str, Masked], dump: list[tuple[str, Any]]) -> None:
    _put(keys, fields, dump, flower_keys("arp"))


def _tunnel(keys: _Keys, options: Attrs, fields: dict[str, Masked], dump: list[tuple[str, Any]]) -> None:
    for version in ("ipv4", "ipv6"):
        _put(keys, fields, dump, flower_keys(f"enc_{version}"))
    key_id = options.get("key_enc_key_id")
    if key_id is not None:
        fields["tun_id"] = Masked(key_id, 0xFFFFFFFF)
        dump.append(("key_enc_key_id", key_id))
    _put(keys, fields, dump, (*flower_keys("enc_udp"), *flower_keys("enc_ip")))
    if "key_enc_opts" in options:
        matched, back = tunnel_options.match(options["key_enc_opts"], options.get("key_enc_opts_mask"))
        fields |= matched
        dump += back


def _tracking(keys: _Keys, fields: dict[str, Masked], dump: list[tuple[str, Any]]) -> None:
    """What connection tracking says of a packet (fl_set_key_ct). EINVAL for a state that no packet has."""
    state, mask = keys.masked("key_ct_state")
    _check_state(state & mask)
    if mask:
        dump += [("key_ct_state", state), ("key_ct_state_mask", mask)]
        counted = _translated(mask)
        if counted:
            fields["ct_state"] = Masked(_translated(state & mask), counted)
    _put(keys, fields, dump, ("key_ct_zone", "key_ct_mark", "key_ct_labels"))


def _translated(state: int) -> int:
    """Flower's bits of a state as those of :class:`asap2.nic.rules.CtState`."""
    return sum(ours for theirs, ours in _CT_STATES.items() if state & theirs)


def _check_state(state: int) -> None:
    """fl_validate_ct_state()."""
    refused = None
    if state and not state & _CT_TRK:
        refused = "no trk, so no other flag can be set"
    elif state & _CT_NEW and state & _CT_EST:
        refused = "new and est are mutually exclusive"
    elif state & _CT_INV and state & ~(_CT_TRK | _CT_INV):
        refused = "when inv is set, only trk may be set"
    elif state & _CT_NEW and state & _CT_RPL:
        refused = "new and rpl are mutually exclusive"
    if refused is not None:
        raise NetlinkError(errno.EINVAL, refused)
