# SPDX-License-Identifier: Apache-2.0
"""TC's action police: decode its options, and list the options that the kernel shows in dumps.

Source: net/sched/act_police.c of Linux 6.1: tcf_police_init() for what is read, and in which order it is refused,
tcf_police_dump() for what comes back, tcf_police_offload_act_setup() for what no driver gets to see.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass, replace
from typing import Any, Final

from asap2.netlink.codec import Attrs
from asap2.netlink.tables import actions as ta
from asap2.netlink.wire import NetlinkError
from asap2.nic.faces.tc.steps import Beyond, Police, Step
from asap2.nic.silicon.metering import Counting, Limit, Price

NS_OF_TICK: Final = 64
"""PSCHED_TICKS2NS."""
_TABLE_SIZE: Final = 1024
"""TC_RTAB_SIZE."""
_MOST: Final = 0xFFFF_FFFF
_LINKLAYER_MASK, _UNAWARE, _ETHERNET, _ATM = 0x0F, 0, 1, 2
_INACCURATE: Final = 100_000_000 // 8
"""Rates above which a table does not reveal the link layer (__detect_linklayer())."""
_CELL: Final = 48
_MODULE: Final = "act_police: "

Back = list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class _Rate:
    """struct tc_ratespec as the kernel keeps it (struct psched_ratecfg)."""

    octets: int = 0
    overhead: int = 0
    least: int = 0
    linklayer: int = 0


def parse(options: Attrs) -> tuple[list[Step], int, Back]:
    """The steps of an action, its verdict on packets over the rate, and the options that a dump shows.

    Raises:
        NetlinkError: EINVAL, ENOMEM, ERANGE, as the kernel gives them.
    """
    for name in ("rate", "peakrate"):
        if name in options and len(options[name]) < _TABLE_SIZE:
            raise NetlinkError(errno.ERANGE)
    if 0 in (options.get("pktrate64"), options.get("pktburst64")):
        raise NetlinkError(errno.ERANGE)
    tbf: ta.Police = options["tbf"]
    rate, peak = _Rate(), _Rate()
    if tbf.rate:
        rate = _rate(tbf, options, "rate")
        if tbf.peakrate:
            peak = _rate(tbf, options, "peakrate")
    if "avrate" in options:  # there is no estimator
        raise NetlinkError(errno.EINVAL)
    conform = options.get("result", ta.TC_ACT_OK)
    if ta.has_opcode(conform, ta.TC_ACT_GOTO_CHAIN):
        raise NetlinkError(errno.EINVAL, "goto chain not allowed on fallback")
    packets, packet_burst = options.get("pktrate64"), options.get("pktburst64")
    if (packets is None) != (packet_burst is None):
        raise NetlinkError(errno.EINVAL, "Both or neither packet-per-second burst and rate must be provided")
    if packets is not None and tbf.rate:
        raise NetlinkError(errno.EINVAL, "packet-per-second and byte-per-second rate limits not allowed in same action")
    longest = tbf.mtu or (255 << tbf.rate_cell_log if tbf.rate else _MOST)
    limit = Limit(
        rate.octets,
        tbf.burst * NS_OF_TICK,
        peak=peak.octets,
        peak_burst=Price.at(peak.octets).of(longest),
        most=0 if longest == _MOST else longest,
        overhead=rate.overhead,
        least=rate.least,
        cells=rate.linklayer == _ATM,
        counting=Counting.TC,
    )
    back: Back = [
        (name, value) for name, value in (("rate64", rate.octets), ("peakrate64", peak.octets)) if value > _MOST
    ]
    if packets and packet_burst:
        limit = replace(limit, rate=packets, burst=packet_burst * NS_OF_TICK, packets=True, empty=True)
        back += [("pktrate64", packets), ("pktburst64", packet_burst)]
    shown = ta.Police(
        action=tbf.action,
        burst=tbf.burst,
        mtu=longest,
        rate_linklayer=rate.linklayer,
        rate_overhead=rate.overhead,
        rate_mpu=rate.least,
        rate=min(rate.octets, _MOST),
        peakrate_linklayer=peak.linklayer,
        peakrate_overhead=peak.overhead,
        peakrate_mpu=peak.least,
        peakrate=min(peak.octets, _MOST),
    )
    back += [("tbf", shown), *([("result", conform)] if conform else [])]
    steps: list[Step] = [Beyond(text) for text in map(_not_offered, (tbf.action, conform)) if text]
    return [*steps[:1], Police(0, limit, tbf.action, conform)], tbf.action, back


def _rate(tbf: ta.Police, options: Attrs, name: str) -> _Rate:
    """One of the two rates; raises NetlinkError ENOMEM if its table is invalid (qdisc_get_rtab())."""
    cell_log, layer, overhead, least, octets = (
        getattr(tbf, f"{name}_cell_log"),
        getattr(tbf, f"{name}_linklayer") & _LINKLAYER_MASK,
        getattr(tbf, f"{name}_overhead"),
        getattr(tbf, f"{name}_mpu"),
        getattr(tbf, name),
    )
    table = options.get(name)
    if table is None or len(table) != _TABLE_SIZE or not 0 < cell_log < 32:
        raise NetlinkError(errno.ENOMEM)
    if layer == _UNAWARE:
        layer = _detected(octets, least, cell_log, table)
    return _Rate(max(octets, options.get(f"{name}64", 0)), overhead, least, layer)


def _detected(octets: int, least: int, cell_log: int, table: bytes) -> int:
    """The link layer that a rate table reveals (__detect_linklayer())."""
    prices = struct.unpack(f"={_TABLE_SIZE // 4}I", table)
    if octets > _INACCURATE or not prices[0]:
        return _ETHERNET
    low = -(-least // _CELL) * _CELL
    high = -(-(low + 1) // _CELL) * _CELL
    first, last = low >> cell_log, (high >> cell_log) - 1
    if first < last < len(prices) and prices[first] == prices[last]:
        return _ATM
    return _ETHERNET


def _not_offered(verdict: int) -> str | None:
    """Why no driver is offered an action with this verdict (tcf_police_act_to_flow_act()); None if one is."""
    if verdict in (ta.TC_ACT_OK, ta.TC_ACT_SHOT, ta.TC_ACT_PIPE, ta.TC_ACT_UNSPEC):
        return None
    if ta.has_opcode(verdict, ta.TC_ACT_GOTO_CHAIN) or ta.has_opcode(verdict, ta.TC_ACT_JUMP):
        return None
    if verdict == ta.TC_ACT_RECLASSIFY:
        return f'{_MODULE}Offload not supported when conform/exceed action is "reclassify"'
    return f"{_MODULE}Unsupported conform/exceed action offload"
