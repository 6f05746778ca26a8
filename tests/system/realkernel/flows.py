# SPDX-License-Identifier: Apache-2.0
"""Random flower filters, with a chance to match frames that were seen, as the rtnetlink requests of a case."""

from __future__ import annotations

from random import Random
from typing import Any

from asap2.netlink.tables import tc
from asap2.netlink.tables.flower import TCA_CLS_FLAGS_SKIP_HW
from asap2.nic.silicon import packet
from tests.system.realkernel import guest, rewrites
from tests.system.realkernel.actions import Action, actions
from tests.system.realkernel.keys import ETH_P_ALL, keys
from tests.system.realkernel.machine import Ask, ask

NLM_F_CREATE, NLM_F_EXCL, NLM_F_ECHO, NLM_F_DUMP = 0x400, 0x200, 0x8, 0x300
CHAINS = (0, 0, 0, 1, 7)
PRIORITIES = (1, 2, 3)


def add_qdisc(port: int) -> Ask:
    """A clsact on *port*."""
    header = tc.Tcmsg(0, guest.NEAR + port, tc.TC_INGRESS_PARENT, tc.TC_H_CLSACT, 0)
    return ask(tc.RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, tc.TC.encode(header, {"kind": "clsact"}))


def remove_qdisc(port: int) -> Ask:
    """Its removal, with all filters."""
    header = tc.Tcmsg(0, guest.NEAR + port, tc.TC_INGRESS_PARENT, tc.TC_H_CLSACT, 0)
    return ask(tc.RTM_DELQDISC, 0, tc.TC.encode(header, {"kind": "clsact"}))


def dump(port: int, info: int = 0, **attrs: Any) -> Ask:
    """All filters of *port*, or those of the priority and protocol in *info*; *attrs* may say of which chain, and
    tersely."""
    header = tc.Tcmsg(0, guest.NEAR + port, 0, tc.TC_H_MIN_INGRESS, info)
    return ask(tc.RTM_GETTFILTER, NLM_F_DUMP, tc.TC.encode(header, attrs))


def get(request: Ask, handle: int) -> Ask:
    """The filter *handle* of the priority that *request* adds to."""
    header, attrs = tc.TC.decode(request[3])
    kept = {name: attrs[name] for name in ("kind", "chain") if name in attrs}
    return ask(tc.RTM_GETTFILTER, 0, tc.TC.encode(header._replace(handle=handle), kept))


def chain(kind: int, port: int, number: int) -> Ask:
    """RTM_NEWCHAIN, RTM_DELCHAIN or RTM_GETCHAIN of *port*'s chain *number*."""
    header = tc.Tcmsg(0, guest.NEAR + port, 0, tc.TC_H_MIN_INGRESS, 0)
    return ask(kind, NLM_F_CREATE * (kind == tc.RTM_NEWCHAIN), tc.TC.encode(header, {"chain": number}))


def remove(request: Ask, handle: int = 0) -> Ask:
    """The removal of the filter (with *handle* 0: of the priority) that *request* adds."""
    header, attrs = tc.TC.decode(request[3])
    kept = {name: attrs[name] for name in ("kind", "chain") if name in attrs}
    return ask(tc.RTM_DELTFILTER, 0, tc.TC.encode(header._replace(handle=handle), kept))


def rewrite(request: Ask, handle: int, actions: list[Action]) -> Ask:
    """*request* again, for filter *handle*, with other *actions*."""
    header, attrs = tc.TC.decode(request[3])
    attrs["options"] = {**attrs["options"], "act": actions}
    return ask(tc.RTM_NEWTFILTER, NLM_F_CREATE, tc.TC.encode(header._replace(handle=handle), attrs))


class Scene:
    """Filters for a case in which the frames *seen* come in; without *pushes*, none of them adds a tag; if *rewriting*,
    most of them rewrite headers.

    (A super-packet with two tags is cut into segments before it leaves by a veth device, so what comes out is another
    thing than the software NIC's super-packet.)
    """

    def __init__(self, random: Random, seen: list[bytes], *, pushes: bool = True, rewriting: bool = False) -> None:
        self.random = random
        self.pushes = pushes
        self._rewriting = rewriting
        self._seen = seen
        self._places: dict[tuple[int, int, int], tuple[str, int]] = {}

    def add_filter(self, port: int) -> Ask:
        """A filter on *port*. All of a priority share their kind and protocol, or nearly so."""
        random = self.random
        frame = random.choice(self._seen)
        place = port, random.choice(CHAINS), random.choice(PRIORITIES)
        if place not in self._places or random.random() < 0.02:
            protocol = random.choice((_outer(frame), _outer(frame), _outer(frame), ETH_P_ALL, 0x0800))
            self._places[place] = "matchall" if random.random() < 0.04 else "flower", protocol
        kind, protocol = self._places[place]
        frame = self._like(protocol) or frame
        options = keys(random, frame, protocol) if kind == "flower" and random.random() < 0.95 else {}
        options["act"] = actions(random, port, place[1], pushes=self.pushes)
        if self._rewriting and kind == "flower" and random.random() < 0.7:
            found = rewrites.keys(random, frame)
            options = found | {"act": rewrites.actions(random, found) + options["act"]}
        options["flags"] = random.choice((0, TCA_CLS_FLAGS_SKIP_HW))
        header = tc.Tcmsg(0, guest.NEAR + port, 0, tc.TC_H_MIN_INGRESS, tc.info(place[2], protocol))
        attrs: dict[str, Any] = {"kind": kind, "options": options}
        if place[1] or random.random() < 0.5:
            attrs["chain"] = place[1]
        flags = NLM_F_CREATE | random.choice((NLM_F_EXCL,) * 4 + (0,))
        if kind == "flower" and random.random() < 0.2:  # of a new matchall the kernel's echo shows nothing
            flags |= NLM_F_ECHO
        return ask(tc.RTM_NEWTFILTER, flags, tc.TC.encode(header, attrs))

    def _like(self, protocol: int) -> bytes | None:
        """A frame that a filter of *protocol* sees."""
        found = [frame for frame in self._seen if protocol in (ETH_P_ALL, _outer(frame))]
        return self.random.choice(found) if found else None


def _outer(frame: bytes) -> int:
    """The protocol that a frame has for TC: that of its outer tag, or its type."""
    fields = packet.parse(frame)
    return fields.get("vlan_tpid") or fields.get("eth_type", 0)
