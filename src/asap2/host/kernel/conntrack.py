# SPDX-License-Identifier: Apache-2.0
"""Connections that the kernel tracks in this network namespace: how many there are, and how many a NIC carries."""

from __future__ import annotations

from pathlib import Path

from asap2.host.inventory import Connections
from asap2.netlink.client import Connection
from asap2.netlink.tables.ctnetlink import CT_GET, CT_REQUEST
from asap2.netlink.tables.nfnetlink import Nfgenmsg
from asap2.netlink.wire import NETLINK_NETFILTER, NLA_TYPE_MASK, NLM_F_DUMP, attributes

SYSCTLS = Path("/proc/sys/net/netfilter")
_HW_OFFLOAD = 1 << 15
"""IPS_HW_OFFLOAD, since Linux 5.8."""
_HEADER_LEN = 4
_STATUS = 3
"""CTA_STATUS."""


def connections() -> Connections | None:
    """The counts; None where connection tracking is not loaded. Nothing is loaded for it."""
    try:
        tracked, most = (int((SYSCTLS / f"nf_conntrack_{name}").read_text()) for name in ("count", "max"))
    except (OSError, ValueError):
        return None
    return Connections(tracked, most, _in_hardware() if tracked else 0)


def _in_hardware() -> int | None:
    """How many a NIC carries; None if that may not be known (without CAP_NET_ADMIN). Kernels before 5.9 do not filter:
    then each connection is looked at here."""
    filtered = CT_REQUEST.encode(Nfgenmsg(), {"status": _HW_OFFLOAD, "status_mask": _HW_OFFLOAD})
    try:
        with Connection(NETLINK_NETFILTER) as netfilter:
            answers = netfilter.request(CT_GET, NLM_F_DUMP, filtered)
    except OSError:
        return None
    return sum(
        type_ & NLA_TYPE_MASK == _STATUS and bool(int.from_bytes(value, "big") & _HW_OFFLOAD)
        for answer in answers
        for type_, value in attributes(answer.payload, _HEADER_LEN)
    )
