# SPDX-License-Identifier: Apache-2.0
"""A node's daemon that is fed random messages through its own dispatch, beside those that programs send.

It runs in the place of ``asap2.nic.daemon``. SIGUSR1 begins what fuzz.json in the run directory asks for: a seed and a
number of messages. Between batches the daemon serves as ever. After every so many messages its state is checked; what
was found, and how many messages went where, is in fuzz-result.json in the end.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import itertools
import json
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asap2.netlink.client import Connection
from asap2.netlink.request import Client
from asap2.netlink.wire import NLMSG_ERROR, attribute, build, error_of, spans
from asap2.nic import daemon
from asap2.nic.faces.ovs.families import DATAPATH_ID
from asap2.nic.faces.tc.templates import Templates
from asap2.nic.function import Role
from asap2.nic.silicon import actioncodes
from asap2.nic.silicon.indices import Indices
from tests.system.fuzz.asks import Asks
from tests.system.fuzz.checks import TroubleError, check, check_empty
from tests.system.fuzz.material import World
from tests.system.fuzz.source import Source

BATCH = 64
CHECK_EVERY = 4000
MOST_TRACEBACKS = 100
MOST_TYPES = 12
FRESH_EVERY = 20_000
"""Messages after which everything that was put in is taken out, so that memory can be compared."""
UNKNOWN = {19: "ENODEV"}
BESIDE = 0.05
"""How often something comes beside a message."""


class Heard(logging.Handler):
    """What the daemon logs that is no daily business."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.tracebacks: list[str] = []
        self.warnings: collections.Counter[str] = collections.Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            if len(self.tracebacks) < MOST_TRACEBACKS:
                self.tracebacks.append(self.format(record))
        else:
            self.warnings[self.format(record)[:400]] += 1


class Collector:
    """Takes the replies in the place of a client's socket."""

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self.errors: list[int] = []

    def reply(self, protocol: int, portid: int, *messages: bytes, dump: bool = False) -> None:
        """Read replies as a client would."""
        del protocol, portid, dump
        for message in messages:
            told = 0
            for _start, end, one in spans(message):
                told = max(told, end)
                if one.type == NLMSG_ERROR:
                    error = error_of(one)
                    self.errors.append(error.errno or 0 if error is not None else 0)
            if told != len(message):
                raise TroubleError(f"a reply is no messages: {message.hex()}")

    def stream(self, protocol: int, portid: int, chunks: Iterator[bytes]) -> None:
        """Read a dump as a client would."""
        self.reply(protocol, portid, *chunks, dump=True)

    def busy_dumping(self, protocol: int, portid: int) -> bool:
        """Never: dumps are taken whole."""
        del protocol, portid
        return False

    def kernel(self, protocol: int) -> Connection:
        """The kernel in the node's namespace."""
        return self._feeder.kernel(protocol)


class Feeder:
    """Feeds one daemon."""

    def __init__(self, fuzzed: daemon.Daemon, settings: dict[str, Any]) -> None:
        self.daemon = fuzzed
        self.settings = settings
        self.heard = Heard()
        self.heard.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger().addHandler(self.heard)
        self.dispatcher = fuzzed.server._dispatcher
        self.world = World({}, [], [], [])
        self.source = Source(settings["seed"], self.world)
        self.collector = Collector(self)
        self.sent = self.reached = self.passed = self.unknown = 0
        self.errors: collections.Counter[int] = collections.Counter()
        self.kinds: collections.Counter[str] = collections.Counter()
        self.trouble: list[str] = []
        self.memory: list[int] = []
        """KiB that the process has for itself, at each look."""
        self.objects: list[tuple[int, int]] = []
        """After a quarter of the messages, and in the end, with the caches emptied: how many small objects there were
        (obmalloc's blocks), and the KiB of longer ones (malloc's heap)."""
        self.types: list[collections.Counter[str]] = []
        """What the collector knew of then, by type."""
        self.began = time.monotonic()
        self.clients = {
            (protocol, privileged): [
                Client(protocol, 4711, fuzzed.server.netns, ext_ack, cap_ack, strict, privileged)
                for ext_ack, cap_ack, strict in itertools.product((True, False), repeat=3)
            ]
            for protocol in (0, 16)
            for privileged in (True, False)
        }
        self.asks = Asks(fuzzed, self.source)
        self.ready = os.eventfd(1, os.EFD_CLOEXEC)
        for handlers, name in self._handler_tables():
            for key, handler in list(handlers.items()):
                handlers[key] = self._counting(handler, f"{name}.{key}")
        fuzzed.selector.register(self.ready, selectors.EVENT_READ, self.feed)
        self._fresh()

    def _handler_tables(self) -> list[tuple[dict[int, Any], str]]:
        families = self.dispatcher.families.values()
        for family in families:
            family.handlers = dict(family.handlers)
        return [(self.dispatcher.route, "route"), *((family.handlers, family.name) for family in families)]  # type: ignore[list-item]

    def _counting(self, handler: Any, name: str) -> Any:
        def counted(*arguments: Any) -> Any:
            self.reached += 1
            self.kinds[name] += 1
            return handler(*arguments)

        return counted

    def kernel(self, protocol: int) -> Connection:
        """The kernel in the node's namespace."""
        return self.daemon.server.kernel(self.daemon.server.netns, protocol)

    # ---- one round

    def feed(self, _mask: int) -> None:
        """Some messages more; the last ones end it."""
        self._look()
        if len(self.world.ports) < 3:
            self._furnish()
        for _ in range(BATCH):
            if self.sent >= self.settings["messages"]:
                self._end()
                return
            self._one()
            if self.sent % CHECK_EVERY == 0:
                self._check()
            if self.sent % FRESH_EVERY == 0:
                self._fresh()

    def _one(self) -> None:
        made = self.source.next()
        self.sent += 1
        before = self.reached
        client = self._client(made.protocol, self.source.rng.random() > 0.01)
        self.collector.errors.clear()
        message = build(made.type, made.flags, self.sent & 0xFFFF_FFFF, 0, made.payload)
        self.passed += self._submit(client, message) > 0
        self.errors.update(self.collector.errors)
        if self.reached == before or any(number in UNKNOWN for number in self.collector.errors):
            self.unknown += 1
        if self.source.rng.random() < BESIDE:
            self._beside()

    def _client(self, protocol: int, privileged: bool) -> Client:
        return self.source.rng.choice(self.clients[protocol, privileged])

    def _submit(self, client: Client, data: bytes) -> int:
        """Have messages served: how many bytes of them are the kernel's."""
        failed = len(self.heard.tracebacks)
        try:
            _done, passed = self.dispatcher.submit(self.collector, client, data)
        except Exception as error:
            self.trouble.append(f"{error!r} out of the dispatch of {data.hex()}")
            raise
        if len(self.heard.tracebacks) > failed:
            self.heard.tracebacks[-1] += f"\n  by {data.hex()}"
        return passed

    def _beside(self) -> None:
        """What comes beside single messages: several at once, some of them cut, and what else the library asks."""
        if self.source.rng.random() < 0.5:
            protocol, data = self.source.batch()
            self._submit(self._client(protocol, True), data)
            return
        failed = len(self.heard.tracebacks)
        wrong = self.asks.one()
        if wrong:
            self.trouble.append(wrong)
        if len(self.heard.tracebacks) > failed:
            self.heard.tracebacks[-1] += f"\n  by {self.asks.last}"

    def _look(self) -> None:
        """What there is to name now."""
        world, fuzzed = self.world, self.daemon
        devices = fuzzed.netdevs.all()
        world.devices = [device.ifindex for device in devices]
        world.representors = [device.ifindex for device in devices if device.role in (Role.REPRESENTOR, Role.PF)]
        world.functions = [function.bdf for function in fuzzed.driver.functions()]
        world.families = {family.name: family.id for family in self.dispatcher.families.values()}
        datapath = fuzzed.ovs.datapath
        world.datapath = datapath.ifindex if datapath is not None else 0
        world.ports = list(datapath.vports) if datapath is not None else []
        if self.sent % (BATCH * 8) == 0:
            world.filters = [
                (
                    proto.block.ifindex,
                    0xFFFF_FFF3 if proto.block.egress else 0xFFFF_FFF2,
                    proto.prio,
                    proto.protocol,
                    one.handle,
                    proto.chain,
                )
                for (proto, one), _ in zip(fuzzed.filters.all(), range(64), strict=False)
            ]
            world.flows = [flow.ufid for flow, _ in zip(self._flows(), range(64), strict=False) if flow.ufid]

    def _flows(self) -> list[Any]:
        datapath = self.daemon.ovs.datapath
        return list(datapath.flows) if datapath is not None else []

    # ---- checks

    def _check(self) -> None:
        try:
            check(self.daemon)
        except Exception as error:
            self.trouble.append(f"after {self.sent} messages: {error!r}")
        self._progress(False)

    def _fresh(self) -> None:
        """Take out what is in, look at memory, and put a datapath with ports in again."""
        self.daemon._tidy()
        for ifindex in list(self.daemon.filters.blocks.qdiscs):
            self._valid(0, 37, ifindex.to_bytes(4, "little"))
        if self.daemon.ovs.datapath is not None:
            self._generic(DATAPATH_ID, 2, self.daemon.ovs.datapath.ifindex, b"")
        for kind in list(self.daemon.filters.actions.table._kinds):
            self._flush_actions(kind)
        self._check_empty()
        gc.collect()
        self.memory.append(_resident())
        if self.sent >= self.settings["messages"] * (len(self.objects) * 3 + 1) // 4:
            self._forget()
            self.objects.append((sys.getallocatedblocks() - self._resting(), _heap()))
            self.types.append(collections.Counter(type(one).__qualname__ for one in gc.get_objects()))
        self._furnish()

    def _forget(self) -> None:
        """Empty the caches that fill slowly, so that objects can be counted that nothing would ever take back."""
        self.daemon.tc._templates = Templates()
        actioncodes._unsupported_actions.cache_clear()
        for silicon in self.daemon.netdevs.silicon.values():
            silicon.seen = {place: name for place, name in silicon.seen.items() if name in silicon.far}
        gc.collect()

    def _resting(self) -> int:
        """Numbers that wait to be used again: there are many of them before the first one is."""
        resting = 0
        for found in filter(lambda one: isinstance(one, Indices), gc.get_objects()):
            resting += len(found._free) + len(found._resting)
        return resting

    def _furnish(self) -> None:
        """Put in a datapath with ports, and qdiscs, what of them is missing."""
        body = attribute(1, b"ovs-system\0") + attribute(2, bytes(4)) + attribute(5, (9).to_bytes(4, "little"))
        self._generic(DATAPATH_ID, 1, 0, body)
        self._look()
        ports = [device for device in self.daemon.netdevs.all() if device.role in (Role.PF, Role.REPRESENTOR)]
        for device in ports:
            named = attribute(3, os.fsencode(device.name) + b"\0")
            options = attribute(2, (1).to_bytes(4, "little")) + named + attribute(5, bytes(4))
            self._generic(self.world.families["ovs_vport"], 1, self.world.datapath, options)
            self._valid(0, 36, device.ifindex.to_bytes(4, "little"))
        self._look()

    def _valid(self, protocol: int, type_: int, ifindex: bytes) -> None:
        """Add or remove an ingress qdisc."""
        payload = (
            bytes(4) + ifindex + (0xFFFF_0000).to_bytes(4, "little") + (0xFFFF_FFF1).to_bytes(4, "little") + bytes(4)
        )
        flags = 0x0605 if type_ == 36 else 5
        self.dispatcher.submit(
            self.collector,
            self.clients[protocol, True][0],
            build(type_, flags, 1, 0, payload + (attribute(1, b"ingress\0") if type_ == 36 else b"")),
        )

    def _flush_actions(self, kind: str) -> None:
        """Remove every action of a kind."""
        one = attribute(1, attribute(1, attribute(1, kind.encode() + b"\0")))
        message = build(49, 0x0305, 1, 0, bytes(4) + one)
        self.dispatcher.submit(self.collector, self.clients[0, True][0], message)

    def _generic(self, family: int, cmd: int, header: int, body: bytes) -> None:
        payload = bytes((cmd, 1, 0, 0)) + header.to_bytes(4, "little", signed=True) + body
        self.dispatcher.submit(self.collector, self.clients[16, True][0], build(family, 5, 1, 0, payload))

    def _check_empty(self) -> None:
        left = [f"qdisc of {ifindex}" for ifindex in self.daemon.filters.blocks.qdiscs]
        left += ["the datapath"] if self.daemon.ovs.datapath is not None else []
        if left:
            self.trouble.append(f"after {self.sent} messages these do not go: {', '.join(left)}")
        try:
            check_empty(self.daemon)
        except TroubleError as error:
            self.trouble.append(f"after {self.sent} messages: {error}")

    # ---- telling

    def _progress(self, ended: bool) -> None:
        told = {
            "ended": ended,
            "sent": self.sent,
            "reached": self.reached,
            "passed": self.passed,
            "unknown": self.unknown,
            "seconds": round(time.monotonic() - self.began, 1),
            "errors": {os.strerror(number) if number else "none": n for number, n in self.errors.most_common()},
            "handlers": dict(self.kinds.most_common()),
            "warnings": dict(self.heard.warnings),
            "tracebacks": self.heard.tracebacks[:20],
            "trouble": self.trouble[:20],
            "asks": dict(self.asks.counts.most_common()),
            "memory": self.memory,
            "objects": self.objects,
            "more": (self.types[-1] - self.types[0]).most_common(MOST_TYPES) if self.types else [],
            "files": len(os.listdir("/proc/self/fd")),
        }
        part = self.daemon.run_dir / "fuzz-result.part"
        part.write_text(json.dumps(told, indent=1))
        part.rename(self.daemon.run_dir / "fuzz-result.json")

    def _end(self) -> None:
        self._check()
        self.daemon.selector.unregister(self.ready)
        os.close(self.ready)
        self._fresh()
        self._progress(True)


class _MallInfo2(ctypes.Structure):
    """``struct mallinfo2`` (mallinfo(3)), in octets."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _heap() -> int:
    """KiB that malloc() has given out: what is longer than 512 octets, as obmalloc keeps what is shorter."""
    asked = ctypes.CDLL(None).mallinfo2
    asked.restype = _MallInfo2
    told = asked()
    return int(told.uordblks + told.hblkhd) // 1024


def _resident() -> int:
    """KiB of memory that this process has for itself: not what it shares with the silicon, nor the journals."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    return 0


class FuzzedDaemon(daemon.Daemon):
    """A daemon that waits for SIGUSR1."""

    def start(self) -> None:
        """As the daemon's own."""
        super().start()
        begin = os.eventfd(0, os.EFD_CLOEXEC)
        self.selector.register(begin, selectors.EVENT_READ, lambda _mask: self._begin(begin))
        signal.signal(signal.SIGUSR1, lambda _number, _frame: os.eventfd_write(begin, 1))

    def _begin(self, begin: int) -> None:
        self.selector.unregister(begin)
        Feeder(self, json.loads((self.run_dir / "fuzz.json").read_text()))


if __name__ == "__main__":
    daemon.Daemon = FuzzedDaemon  # type: ignore[misc]
    sys.exit(daemon.main())
