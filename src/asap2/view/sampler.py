# SPDX-License-Identifier: Apache-2.0
"""Samples once for all browsers, and only while there is one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asap2.errors import Asap2Error
from asap2.live import Collector, Detail, Snapshot
from asap2.view import stream

if TYPE_CHECKING:
    from asap2.view.packets import Packets

EVERY = 0.1
"""Seconds between two samples."""
FLOWS_EVERY = 2.0
"""Seconds between two readings of flows: to ask the switch and the NIC for them costs more than all else."""
MOST_WAITING = 50
"""Messages that a browser may be behind; then it gets the structure and all counters again."""


@dataclass(eq=False)
class Watcher:
    """One browser. ``wants`` is the node whose details it shows, ``listed`` has the words of the connections that it
    shows one by one; ``messages`` are for it, None ends them."""

    wants: str | None = None
    listed: str | None = None
    messages: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    whole: bool = True
    """Whether it needs the structure and all counters."""
    shown: dict[str, float] = field(default_factory=dict)
    """When the details that it has of a node were taken."""
    packets: tuple[int, int] = 0, -1
    """The number of the newest way of a packet that it has, and the version of what it knows of them."""


class Sampler:
    """Samples *collector* every *every* seconds for all watchers, and tells them of *packets*."""

    def __init__(self, collector: Collector, every: float = EVERY, packets: Packets | None = None) -> None:
        self._collector = collector
        self._packets = packets
        self._every = every
        self._thread = ThreadPoolExecutor(1, "sampler")
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._wanted: frozenset[str] = frozenset()
        self._listed: dict[str, frozenset[str]] = {}
        self._called: asyncio.Future[object] | None = None
        """The last call of the collector, which may go on after its task was cancelled."""

    @property
    def idle(self) -> bool:
        """Whether nothing is sampled."""
        return self._task is None and not self._watchers and (self._called is None or self._called.done())

    def join(self) -> Watcher:
        """A new watcher, to which messages come from now on."""
        watcher = Watcher()
        self._watchers.add(watcher)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return watcher

    async def leave(self, watcher: Watcher) -> None:
        """The watcher is gone. After the last one nothing is sampled."""
        self._watchers.discard(watcher)
        if not self._watchers and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self._want(frozenset())
            await self._rest()

    async def close(self) -> None:
        """End all watchers' messages, and the collector."""
        for watcher in list(self._watchers):
            watcher.messages.put_nowait(None)
            await self.leave(watcher)
        await self._call(self._collector.close)
        self._thread.shutdown()

    async def _call(self, call: Callable[[], object]) -> object:
        """Call in the one thread that owns the collector: calls never overlap, also when cancelled."""
        self._called = asyncio.get_running_loop().run_in_executor(self._thread, call)
        return await asyncio.shield(self._called)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        before: Snapshot | None = None
        generation = -1
        due = loop.time()
        while True:
            try:
                now = await self._sample()
            except Exception as error:
                await self._rest()
                why = str(error) if isinstance(error, (Asap2Error, OSError)) else f"{type(error).__name__}: {error}"
                self._end(why)
                return
            current = self._collector.generation
            self._tell(now, before if current == generation else None)
            before, generation = now, current
            due = max(due + self._every, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _sample(self) -> Snapshot:
        collector = self._collector
        wanted = frozenset(one.wants for one in self._watchers if one.wants is not None)
        if (known := wanted & frozenset(collector.nodes)) != self._wanted:  # a host knows its name once it was sampled
            await self._want(known)
        listed = {
            node: frozenset(one.listed for one in self._watchers if one.wants == node and one.listed is not None)
            for node in self._wanted
        }
        if listed != self._listed:
            self._listed = listed
            await self._call(lambda: collector.want_connections(listed))
        found = await self._call(collector.sample)
        assert isinstance(found, Snapshot)
        if self._packets is not None:
            await self._call(self._packets.read)
        return found

    async def _want(self, nodes: frozenset[str]) -> None:
        with contextlib.suppress(LookupError):
            await self._call(lambda: self._collector.want_flows(nodes))
        self._wanted, self._listed = nodes, {}

    async def _rest(self) -> None:
        """Nobody looks at packets any more."""
        if self._packets is not None:
            await self._call(self._packets.stop)

    def _end(self, why: str) -> None:
        self._task = None
        for watcher in list(self._watchers):
            watcher.messages.put_nowait(stream.end(why))
            watcher.messages.put_nowait(None)

    def _tell(self, now: Snapshot, before: Snapshot | None) -> None:
        """Give each watcher what it has not yet; *before* None: the structure is another. A collector that gives the
        same moment again has nothing new."""
        changed = stream.counters(now, before) if before is not None else None
        whole: tuple[str, str] | None = None
        for watcher in self._watchers:
            if watcher.messages.qsize() > MOST_WAITING:
                watcher.messages = _emptied(watcher.messages)
                watcher.whole = True
            if watcher.whole or changed is None:
                whole = whole or (stream.structure(now), stream.counters(now, None))
                watcher.messages.put_nowait(whole[0])
                watcher.messages.put_nowait(whole[1])
                watcher.whole = False
                watcher.shown.clear()
                watcher.packets = 0, -1
            elif now is not before:
                watcher.messages.put_nowait(changed)
            self._tell_detail(watcher, now)
            self._tell_packets(watcher)

    def _tell_packets(self, watcher: Watcher) -> None:
        found = self._packets
        if found is not None and watcher.packets[1] != found.version:
            watcher.messages.put_nowait(stream.packets(found, watcher.packets[0]))
            watcher.packets = found.newest, found.version

    @staticmethod
    def _tell_detail(watcher: Watcher, now: Snapshot) -> None:
        for node in now.nodes:
            found: Detail | None = node.detail
            if found is not None and node.name == watcher.wants and watcher.shown.get(node.name) != found.taken:
                watcher.shown[node.name] = found.taken
                watcher.messages.put_nowait(stream.detail(node.name, found, watcher.listed))


def _emptied(queue: asyncio.Queue[str | None]) -> asyncio.Queue[str | None]:
    """*queue*, after what waits in it was thrown away."""
    while not queue.empty():
        queue.get_nowait()
    return queue
