# SPDX-License-Identifier: Apache-2.0
"""TC's action ct: decode its options, and list the options that the kernel shows in dumps.

Source: net/sched/act_ct.c of Linux 6.12: tcf_ct_fill_params() for what is read and the order of refusals,
tcf_ct_dump() for what is shown, tcf_ct_offload_act_setup() for what is not offered to drivers.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.steps import Beyond, Step
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, CtClear, Masked

HELPERS: Final = frozenset({("ftp", socket.IPPROTO_TCP), ("tftp", socket.IPPROTO_UDP)})
"""Connection tracking helpers by name and protocol; each is for IPv4 and for IPv6."""
_HELPER_NAME: Final = 16
"""NF_CT_HELPER_NAME_LEN: the length limit of a helper's name, including its NUL."""
_NO_OFFLOAD: Final = Beyond(None)
"""Connections with a helper stay in software: no driver is offered such an action."""

Back = list[tuple[str, Any]]


def parse(options: Attrs) -> tuple[list[Step], Back]:
    """The steps of an action with these *options*, and the options that a dump shows.

    Raises:
        NetlinkError: EOPNOTSUPP for NAT of both ends; EINVAL for an unknown helper.
    """
    what = options.get("action", 0)
    back: Back = [("action", what)]
    if what & ta.TCA_CT_ACT_CLEAR:
        return [CtClear()], [*back, ("parms", options["parms"])]
    nat, nat_back = _nat(options, what)
    zone = options.get("zone", 0)
    helper, helper_back = _helper(options)
    mark, labels = _pair(options, "mark", 4), _pair(options, "labels", 16)
    for pair, name in ((mark, "mark"), (labels, "labels")):
        if pair is not None:
            back += [(name, pair[0]), (f"{name}_mask", pair[1])]
    back += [("zone", zone), *nat_back, *helper_back, ("parms", options["parms"])]
    step = Ct(
        zone,
        commit=bool(what & ta.TCA_CT_ACT_COMMIT),
        force=bool(what & ta.TCA_CT_ACT_FORCE),
        mark=None
        if mark is None
        else Masked(mark[0], mark[1] | mark[0]),  # as the kernel, set bits outside the mask, too
        labels=None if labels is None else _masked(*labels),
        nat=nat,
        helper=helper,
        family=options.get("helper_family", socket.AF_INET) if helper else 0,
        offload=True,
    )
    return [_NO_OFFLOAD, step] if helper else [step], back


def _pair(options: Attrs, name: str, octets: int) -> tuple[Any, Any] | None:
    """A value and its mask (default: all bits); None if there is no value or the mask is 0."""
    value = options.get(name)
    if value is None:
        return None
    whole: Any = b"\xff" * octets if isinstance(value, bytes) else (1 << 8 * octets) - 1
    mask = options.get(f"{name}_mask", whole)
    if isinstance(value, bytes):
        return (bytes(value), bytes(mask)) if any(mask) else None  # padded to full length
    return (value, mask) if mask else None


def _masked(value: bytes, mask: bytes) -> Masked:
    bits = int.from_bytes(mask, "big")
    return Masked(int.from_bytes(value, "big") & bits, bits)


def _nat(options: Attrs, what: int) -> tuple[Nat | None, Back]:
    """The NAT of an action, and its options that a dump shows (tcf_ct_fill_params_nat())."""
    if not what & ta.TCA_CT_ACT_NAT:
        return None, []
    ends = what & (ta.TCA_CT_ACT_NAT_SRC | ta.TCA_CT_ACT_NAT_DST)
    if not ends:
        return Nat(None), []
    if ends == ta.TCA_CT_ACT_NAT_SRC | ta.TCA_CT_ACT_NAT_DST:
        raise NetlinkError(errno.EOPNOTSUPP, "act_ct: dnat and snat can't be enabled at the same time")
    back: Back = []
    low = high = b""
    for version in ("ipv4", "ipv6"):
        if f"nat_{version}_min" in options:
            low = options[f"nat_{version}_min"]
            high = options.get(f"nat_{version}_max", low)
            back += [(f"nat_{version}_min", low), (f"nat_{version}_max", high)]
            break
    first = last = 0
    if "nat_port_min" in options:
        first = options["nat_port_min"]
        last = options.get("nat_port_max", first)
        back += [("nat_port_min", first), ("nat_port_max", last)]
    kind = NatKind.SRC if ends == ta.TCA_CT_ACT_NAT_SRC else NatKind.DST
    return Nat(kind, low, high, first, last), back


def _helper(options: Attrs) -> tuple[str, Back]:
    name = options.get("helper_name")
    if name is None:
        return "", []
    if len(name) >= _HELPER_NAME:
        raise NetlinkError(errno.EINVAL, "act_ct: Failed to parse helper name.")
    family = options.get("helper_family", socket.AF_INET)
    protocol = options.get("helper_proto", socket.IPPROTO_TCP)
    if (name, protocol) not in HELPERS or family not in (socket.AF_INET, socket.AF_INET6):
        raise NetlinkError(errno.EINVAL, "act_ct: Failed to add helper")
    return name, [("helper_name", name), ("helper_family", family), ("helper_proto", protocol)]
