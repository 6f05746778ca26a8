# SPDX-License-Identifier: Apache-2.0
"""TC by rtnetlink: ingress qdiscs, their filters, and a rule put in and taken out again (linux/pkt_cls.h)."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asap2.netlink.client import Connection
from asap2.netlink.tables.actions import Bitfield32
from asap2.netlink.tables.flower import (
    TCA_CLS_FLAGS_IN_HW,
    TCA_CLS_FLAGS_NOT_IN_HW,
    TCA_CLS_FLAGS_SKIP_HW,
    TCA_CLS_FLAGS_SKIP_SW,
)
from asap2.netlink.tables.tc import (
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TC,
    TC_H_CLSACT,
    TC_H_INGRESS,
    TC_H_MIN_EGRESS,
    TC_H_MIN_INGRESS,
    TC_INGRESS_PARENT,
    TCA_DUMP_FLAGS_TERSE,
    TCM_IFINDEX_MAGIC_BLOCK,
    Tcmsg,
    info,
)
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NetlinkError

KINDS = ("ingress", "clsact")
BLOCK = TCM_IFINDEX_MAGIC_BLOCK - (1 << 32)
"""The interface index, signed, of a message about a shared block."""
CLASSIFIERS = ("flower", "matchall")
MAKEABLE = ("gact", "mirred", "vlan", "skbedit", "tunnel_key", "csum")
"""Actions that can be asked for as they are dumped."""
KEPT = ("classid", "indev", "act", "flags")
"""Options of a filter that are asked for, besides its keys."""
LAST_PRIO = 16
"""Highest priority that every eSwitch takes (FDB_TC_MAX_PRIO in mlx5's en_tc.h)."""


@dataclass(frozen=True, slots=True)
class QdiscRow:
    """An ingress or clsact qdisc of the device with interface index *index*."""

    index: int
    kind: str
    block: int


@dataclass(frozen=True, slots=True)
class FilterRow:
    """A filter as dumped: *key* names it for deletion; *attrs* are of :data:`asap2.netlink.tables.tc.TCA`."""

    key: Tcmsg
    attrs: dict[Any, Any]
    message: bytes

    @property
    def kind(self) -> str:
        """The classifier."""
        return str(self.attrs.get("kind", ""))

    @property
    def chain(self) -> int:
        """The chain."""
        return int(self.attrs.get("chain", 0))

    @property
    def flags(self) -> int:
        """TCA_CLS_FLAGS_*."""
        options = self.attrs.get("options")
        return int(options.get("flags", 0)) if isinstance(options, dict) else 0

    @property
    def in_hw(self) -> bool | None:
        """Whether a NIC has it; None where the kernel does not say."""
        return True if self.flags & TCA_CLS_FLAGS_IN_HW else False if self.flags & TCA_CLS_FLAGS_NOT_IN_HW else None

    @property
    def skip_hw(self) -> bool:
        """Whether it is not for the NIC."""
        return bool(self.flags & TCA_CLS_FLAGS_SKIP_HW)

    @property
    def skip_sw(self) -> bool:
        """Whether it is for the NIC alone."""
        return bool(self.flags & TCA_CLS_FLAGS_SKIP_SW)

    @property
    def actions(self) -> list[dict[Any, Any]]:
        """Its actions in order."""
        options = self.attrs.get("options")
        return list(options.get("act", {}).values()) if isinstance(options, dict) else []

    @property
    def cookie(self) -> bytes:
        """The first action's cookie; Open vSwitch's is the flow's UFID."""
        return next((bytes(action["cookie"]) for action in self.actions if "cookie" in action), b"")

    @property
    def counters(self) -> tuple[int, int]:
        """Packets and bytes of the first action, which every packet of the filter passes."""
        stats: dict[Any, Any] = next((action["stats"] for action in self.actions if "stats" in action), {})
        basic = stats.get("basic")
        return (int(stats.get("pkt64", basic.packets)), int(basic.bytes)) if basic else (0, 0)


def qdiscs(route: Connection) -> list[QdiscRow]:
    """The ingress and clsact qdiscs of this network namespace."""
    found = []
    for message in route.request(RTM_GETQDISC, NLM_F_DUMP, TC.encode(Tcmsg(), {})):
        header, attrs = TC.decode(message.payload)
        if attrs.get("kind") in KINDS:
            found.append(QdiscRow(header.ifindex, str(attrs["kind"]), int(attrs.get("ingress_block", 0))))
    return found


def filters(route: Connection, qdisc: QdiscRow, *, terse: bool = True) -> Iterator[FilterRow]:
    """The filters of a qdisc, ingress then egress; with *terse* (Linux 5.8, before that ignored) without keys."""
    attrs = {"dump_flags": Bitfield32(TCA_DUMP_FLAGS_TERSE, TCA_DUMP_FLAGS_TERSE)} if terse else {}
    for header in _places(qdisc):
        for message in route.request(RTM_GETTFILTER, NLM_F_DUMP, TC.encode(header, attrs)):
            key, decoded = TC.decode(message.payload)
            if key.handle:  # a dump also has a line without a handle for each priority
                yield FilterRow(key, decoded, message.payload)


def _places(qdisc: QdiscRow) -> Iterator[Tcmsg]:
    if qdisc.block:
        yield Tcmsg(ifindex=BLOCK, parent=qdisc.block)
    else:  # an ingress qdisc takes clsact's parent, too, by which Open vSwitch puts its filters there
        yield Tcmsg(ifindex=qdisc.index, parent=TC_H_MIN_INGRESS)
    if not qdisc.block and qdisc.kind != "ingress":
        yield Tcmsg(ifindex=qdisc.index, parent=TC_H_MIN_EGRESS)


def delete_filter(route: Connection, row: FilterRow) -> None:
    """Delete one filter; one that is gone already is no error."""
    attrs = {"kind": row.kind, **({"chain": row.chain} if row.chain else {})}
    try:
        route.request(RTM_DELTFILTER, 0, TC.encode(row.key, attrs))
    except NetlinkError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            raise


def delete_qdisc(route: Connection, row: QdiscRow) -> None:
    """Delete an ingress or clsact qdisc with all its filters; one that is gone already is no error."""
    header = Tcmsg(ifindex=row.index, handle=TC_INGRESS_PARENT, parent=TC_H_CLSACT)
    try:
        route.request(RTM_DELQDISC, 0, TC.encode(header, {"kind": row.kind}))
    except NetlinkError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            raise


def add_qdisc(route: Connection, index: int, kind: str) -> None:
    """Give a device an ingress or clsact qdisc; EEXIST when it has one."""
    header = Tcmsg(ifindex=index, handle=TC_INGRESS_PARENT, parent=TC_H_INGRESS)
    route.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, TC.encode(header, {"kind": kind}))


def add_filter(route: Connection, index: int, message: bytes) -> None:
    """Put a filter, *message* as it was dumped, back on a device; NetlinkError EEXIST when it is there."""
    header, attrs = TC.decode(message)
    options = {name: value for name, value in attrs["options"].items() if name in KEPT or str(name).startswith("key_")}
    options["flags"] = options.get("flags", 0) & (TCA_CLS_FLAGS_SKIP_HW | TCA_CLS_FLAGS_SKIP_SW)
    options["act"] = [asked(one) for one in options.get("act", {}).values()]
    new = {"kind": attrs["kind"], "options": options, **({"chain": attrs["chain"]} if attrs.get("chain") else {})}
    route.request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, TC.encode(header._replace(ifindex=index), new))


def can_be_put_back(message: bytes) -> bool:
    """Whether :func:`add_filter` can put such a filter back: it knows its classifier, and how to make its actions."""
    _header, attrs = TC.decode(message)
    options = attrs.get("options")
    if attrs.get("kind") not in CLASSIFIERS or not isinstance(options, dict):
        return False
    return all(one.get("kind") in MAKEABLE for one in options.get("act", {}).values())


def asked(dumped: Mapping[Any, Any], *, cookie: bool = True) -> dict[str, Any]:
    """An action as it is asked for: without its index, times and counters, and with its *cookie* if that is wanted."""
    options = {name: value for name, value in dumped["options"].items() if name != "tm"}
    for name in ("parms", "parms_ex"):
        if name in options:
            options[name] = options[name]._replace(index=0, refcnt=0, bindcnt=0)
    kept = {"cookie": dumped["cookie"]} if cookie and "cookie" in dumped else {}
    return {"kind": dumped["kind"], "options": options, **kept}


def try_rule(
    route: Connection,
    qdisc: QdiscRow,
    flower: Mapping[str, Any],
    protocol: int,
    *,
    chain: int = 0,
    flags: int = TCA_CLS_FLAGS_SKIP_SW,
    egress: bool = False,
) -> NetlinkError | None:
    """Put a flower rule, by default with skip_sw, into *qdisc*'s ingress (or *egress*, where it has one) and take it
    out; why it was refused, or None.

    *flower* is of :data:`asap2.netlink.tables.flower.FLOWER`; what it matches should be what no packet has. The rule
    gets a priority of its own, the last that is free; *protocol* is an Ethernet protocol as a host integer.
    """
    place = list(_places(qdisc))[-1 if egress else 0]
    rows = list(filters(route, qdisc))
    beside = next((row.key.parent for row in rows if (row.key.parent == TC_H_MIN_EGRESS) == egress), place.parent)
    place = place._replace(parent=beside)  # dumps tell that by which a filter was put there last, of all of them
    used = {row.key.prio for row in rows if row.chain == chain}
    prio = next((one for one in range(LAST_PRIO, 0, -1) if one not in used), max(used, default=0) + 1)
    key = place._replace(info=info(prio, protocol))
    where = {"kind": "flower", **({"chain": chain} if chain else {})}
    options = {**flower, "flags": flags}
    try:
        route.request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, TC.encode(key, {**where, "options": options}))
    except NetlinkError as error:
        return error
    route.request(RTM_DELTFILTER, 0, TC.encode(key, where))
    return None


def orphans(rows: Iterable[FilterRow]) -> list[FilterRow]:
    """Those of *rows* that look like flows of Open vSwitch: flower, with a UFID for a cookie."""
    return [row for row in rows if row.kind == "flower" and len(row.cookie) == 16]
