# SPDX-License-Identifier: Apache-2.0
"""Connections that the kernel tracks in this network namespace: how many there are, and how many a NIC carries."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from asap2.host.connections import Connections, Entry, Listing, Tracked
from asap2.netlink.client import Connection
from asap2.netlink.tables.ctnetlink import CT, CT_GET, CT_REQUEST
from asap2.netlink.tables.nfnetlink import Nfgenmsg
from asap2.netlink.wire import NETLINK_NETFILTER, NLA_TYPE_MASK, NLM_F_DUMP, NlMsg, attributes

SYSCTLS = Path("/proc/sys/net/netfilter")
_HW_OFFLOAD = 1 << 15
"""IPS_HW_OFFLOAD, since Linux 5.8."""
_OF_NO_IMPORT = 0x3F8
"""IPS_* from CONFIRMED to DYING, which do not affect where a connection is."""
_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 58: "icmpv6", 132: "sctp"}
_TCP_STATES = dict(
    enumerate(
        "NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2".split()  # noqa: SIM905
    )
)
"""TCP_CONNTRACK_* (include/uapi/linux/netfilter/nf_conntrack_tcp.h)."""
_HEADER_LEN = 4
_STATUS = 3
"""CTA_STATUS."""


def connections(*, each: bool = False) -> Connections | None:
    """The counts; None if connection tracking is not loaded (asking does not load it). With *each*, also the
    connections, grouped."""
    try:
        tracked, most = (int((SYSCTLS / f"nf_conntrack_{name}").read_text()) for name in ("count", "max"))
    except (OSError, ValueError):
        return None
    if not tracked:
        return Connections(tracked, most, 0)
    if not each:
        return Connections(tracked, most, _in_hardware())
    answers = _dump()
    if answers is None:
        return Connections(tracked, most, None)
    found = tuple(_grouped(answers))
    return Connections(tracked, most, sum(one.count for one in found if one.status & _HW_OFFLOAD), found)


def listings(wanted: Iterable[str], most: int) -> tuple[Listing, ...]:
    """For each of the texts *wanted*, the connections that have all of its words in them; at most so many of each."""
    texts = sorted(set(wanted))
    if not texts:
        return ()
    words = {text: text.lower().split() for text in texts}
    matching = dict.fromkeys(texts, 0)
    found: dict[str, list[Entry]] = {text: [] for text in texts}
    for answer in _dump() or ():
        entry = _entry(CT.decode(answer.payload)[1])
        line = entry.text
        for text in texts:
            if all(word in line for word in words[text]):
                matching[text] += 1
                if len(found[text]) < most:
                    found[text].append(entry)
    return tuple(Listing(text, matching[text], tuple(found[text])) for text in texts)


def _entry(attrs: Any) -> Entry:
    original, status = attrs["tuple_orig"], attrs["status"]
    number = original["proto"]["num"]
    tcp = attrs.get("protoinfo", {}).get("tcp")
    if tcp:
        state = _TCP_STATES.get(tcp["state"], str(tcp["state"]))
    else:
        state = "ASSURED" if status & _ASSURED else "REPLIED" if status & _SEEN_REPLY else "UNREPLIED"
    protocol = _PROTOCOLS.get(number, str(number))
    hardware = bool(status & _HW_OFFLOAD)
    return Entry(protocol, _written(original), attrs.get("zone", 0), state, attrs.get("mark", 0), hardware)


def _dump(**conditions: int) -> list[NlMsg] | None:
    """All connections, or those that meet *conditions* where the kernel filters; None without the permission to list
    them (CAP_NET_ADMIN)."""
    try:
        with Connection(NETLINK_NETFILTER) as netfilter:
            return netfilter.request(CT_GET, NLM_F_DUMP, CT_REQUEST.encode(Nfgenmsg(), conditions))
    except OSError:
        return None


def _grouped(answers: list[NlMsg]) -> Iterator[Tracked]:
    """The connections grouped by what decides where they are."""
    found: dict[tuple[int, int, int, int | None, bool], tuple[int, Any]] = {}
    for answer in answers:
        _header, attrs = CT.decode(answer.payload)
        original = attrs["tuple_orig"]
        tcp = attrs.get("protoinfo", {}).get("tcp")
        key = (
            original["proto"]["num"],
            attrs.get("zone", 0),
            attrs["status"] & ~_OF_NO_IMPORT,
            tcp["state"] if tcp else None,
            "help" in attrs,
        )
        count, example = found.get(key, (0, original))
        found[key] = count + 1, example
    for key, (count, example) in found.items():
        yield Tracked(*key, count, _written(example))


def _written(original: Any) -> str:
    """An original tuple as conntrack(8) writes it."""
    ip, proto = original["ip"], original["proto"]
    family = socket.AF_INET if "v4_src" in ip else socket.AF_INET6
    version = "v4" if family == socket.AF_INET else "v6"
    ways = [f"{way}={socket.inet_ntop(family, ip[f'{version}_{way}'])}" for way in ("src", "dst")]
    ports = [f"{name}={proto[key]}" for name, key in (("sport", "src_port"), ("dport", "dst_port")) if key in proto]
    return " ".join((*ways, *ports))


def _in_hardware() -> int | None:
    """The number that a NIC carries; None if it is unknown. Kernels before 5.9 do not filter, so the status of each
    connection is checked here."""
    answers = _dump(status=_HW_OFFLOAD, status_mask=_HW_OFFLOAD)
    if answers is None:
        return None
    return sum(
        type_ & NLA_TYPE_MASK == _STATUS and bool(int.from_bytes(value, "big") & _HW_OFFLOAD)
        for answer in answers
        for type_, value in attributes(answer.payload, _HEADER_LEN)
    )
