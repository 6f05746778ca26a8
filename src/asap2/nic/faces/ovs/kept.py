# SPDX-License-Identifier: Apache-2.0
"""What of the datapath, its ports and its flows is kept over a daemon's restart: the records of its journal."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from asap2.nic.faces.ovs.flows import Flow
from asap2.nic.faces.ovs.vport import Vport
from asap2.nic.faces.refusal import as_netlink
from asap2.nic.journal import Journal

_DATAPATH: Final = b"d"
_FLOW = struct.Struct("<8I")
"""Numbers of rule handles and of cookies, lengths of UFID, exact key, key, mask, and of the key and the mask that the
actions were checked for (0: those of the flow); they follow, then the actions."""


class KeptDatapath(NamedTuple):
    """The datapath's own attributes."""

    name: str
    features: int
    cpu_pids: tuple[int, ...]
    masks_cache: int


class KeptFlow(NamedTuple):
    """A flow, with the handles of its rules and the cookies of its steps to user space."""

    handles: tuple[int, ...]
    cookies: tuple[int, ...]
    ufid: bytes | None
    exact: bytes
    key: bytes
    mask: bytes
    actions: bytes
    checked: tuple[bytes, bytes] | None


class Kept:
    """The records, in the node's *journal*."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def reserve(self) -> None:
        """Refuse a change that could not be kept, before it is made. NetlinkError ENOSPC."""
        with as_netlink():
            self._journal.reserve()

    def clear(self) -> None:
        """Forget all."""
        self._journal.clear()

    # ---- writing

    def put_datapath(self, datapath: KeptDatapath) -> None:
        """Remember the datapath's own attributes."""
        self._journal.put(_DATAPATH, json.dumps(datapath._asdict()).encode())

    def put_port(self, vport: Vport) -> None:
        """Remember a port."""
        state = [vport.number, vport.type, vport.name, vport.ifindex, vport.pids, vport.far, vport.port]
        self._journal.put(_port_key(vport.number), json.dumps(state).encode())

    def drop_port(self, vport: Vport) -> None:
        """Forget it."""
        self._journal.delete(_port_key(vport.number))

    def put_flow(self, flow: Flow) -> None:
        """Remember a flow."""
        parts = flow.ufid or b"", flow.exact, flow.key, flow.mask, *(flow.checked or (b"", b""))
        record = _FLOW.pack(len(flow.handles), len(flow.cookies), *map(len, parts))
        numbers = b"".join(number.to_bytes(4, "little") for number in (*flow.handles, *flow.cookies))
        self._journal.put(b"f" + flow.identity, record + numbers + b"".join(parts) + flow.actions)

    def drop_flow(self, flow: Flow) -> None:
        """Forget it."""
        self._journal.delete(b"f" + flow.identity)

    # ---- reading

    def datapath(self) -> KeptDatapath | None:
        """The datapath of an earlier run; None: there was none."""
        state = self._journal.get(_DATAPATH)
        if state is None:
            return None
        kept = KeptDatapath(**json.loads(state))
        return kept._replace(cpu_pids=tuple(kept.cpu_pids))

    def ports(self) -> Iterator[Vport]:
        """Its ports, as they were."""
        for value in self._of(b"v"):
            number, kind, name, ifindex, pids, far, port = json.loads(value)
            yield Vport(number, kind, name, ifindex, tuple(pids), far, port)

    def flows(self) -> Iterator[KeptFlow]:
        """Its flows."""
        for value in self._of(b"f"):
            rules, count, *lengths = _FLOW.unpack_from(value)
            at = _FLOW.size
            numbers = struct.unpack_from(f"<{rules + count}I", value, at)
            at += 4 * len(numbers)
            parts = []
            for length in lengths:
                parts.append(value[at : at + length])
                at += length
            ufid, exact, key, mask, *checked = parts
            named = ufid or None, exact, key, mask, value[at:]
            yield KeptFlow(numbers[:rules], numbers[rules:], *named, (checked[0], checked[1]) if any(checked) else None)

    def _of(self, letter: bytes) -> Iterator[bytes]:
        return (value for key, value in self._journal.items() if key[:1] == letter)


def _port_key(number: int) -> bytes:
    return b"v" + number.to_bytes(4, "little")
