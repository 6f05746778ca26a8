# SPDX-License-Identifier: Apache-2.0
"""/proc/net/dev as a node's programs see it, with the counters that a NIC's netdevs show.

Source: net/core/net-procfs.c of Linux 6.12, dev_seq_printf_stats().
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from asap2.nic.kinds.links import FAR_NAMES
from asap2.nic.netdevs import Counters

_ZEROES = {"rx": (4, 5, 10), "tx": (4, 5, 7, 10)}
"""Widths of the columns behind ``drop`` of what is received, but for ``multicast``, and of what is sent."""


def net_dev(text: str, shown: Callable[[str], Counters | None]) -> str:
    """The content *text* of /proc/net/dev with other lines for the devices that *shown* gives counters of, by name."""
    lines = []
    for line in text.rstrip("\n").split("\n"):
        name, colon, _ = line.partition(":")
        if colon and FAR_NAMES.fullmatch(name.strip()):
            continue
        counters = shown(name.strip()) if colon else None
        lines.append(line if counters is None else f"{name}:{_columns(counters)}")
    return "".join(f"{line}\n" for line in lines)


def _columns(c: Counters) -> str:
    received = f" {c.rx_bytes:7} {c.rx_packets:7} {c.rx_errors:4} {c.rx_dropped:4} {_zeroes('rx')} {c.multicast:9}"
    return f"{received} {c.tx_bytes:8} {c.tx_packets:7} {c.tx_errors:4} {c.tx_dropped:4} {_zeroes('tx')}"


def _zeroes(way: str) -> str:
    return " ".join(f"{0:{width}}" for width in _ZEROES[way])


def net_dev_of(process: int, shown: Callable[[str], Counters | None]) -> str:
    """What *process*, or this one's thread with that number, is to read in /proc/net/dev. OSError if it has gone."""
    text = Path(f"/proc/{process}/net/dev").read_text(errors="surrogateescape")
    here = os.path.samestat(os.stat(f"/proc/{process}/ns/net"), os.stat("/proc/self/ns/net"))
    return net_dev(text, shown if here else lambda _name: None)
