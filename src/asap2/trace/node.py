# SPDX-License-Identifier: Apache-2.0
"""Watching one node: the records of its programs, and what its daemon tells.

The programs that tell of each step are loaded here; the daemon lets devices run them while the connection is open.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asap2.errors import Asap2Error
from asap2.nic import rule_data
from asap2.nic.rules import Rule
from asap2.nic.silicon.watching import Record, Watching
from asap2.nic.watchers import NODE, path_in

_LARGEST: Final = 1 << 21
_PATIENCE: Final = 30
"""Seconds that a daemon may take to answer."""


@dataclass(frozen=True, slots=True)
class PortOf:
    """A port of a pipeline: *name* is that of the device, for a NIC that of the far end; *netdev* the device of the
    function that it belongs to, *node_port* the port of the node's pipeline at the other end (0: elsewhere)."""

    pipeline: str
    id: int
    name: str
    kind: str
    netdev: str | None
    node_port: int
    tables: tuple[int, ...]
    miss: str
    metadata: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What a daemon has told: *what* happened at *at* (nanoseconds of CLOCK_MONOTONIC)."""

    what: str
    at: int
    data: dict[str, Any]


class NodeWatch:
    """The packets of the node called *name*, whose daemon runs in *run_dir*."""

    def __init__(self, name: str, run_dir: Path) -> None:
        """Asap2Error when the daemon does not answer."""
        self.name = name
        self.lost = 0
        """Records and messages that were lost, so far."""
        self._told: list[Told] = []
        self._told_lost = 0
        self._watching: Watching | None = None
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._sock.settimeout(_PATIENCE)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGEST)
        try:
            self._sock.connect(os.fspath(path_in(run_dir)))
            described = self.ask("describe")
        except OSError as error:
            self._sock.close()
            why = error.strerror or "it does not answer"
            raise Asap2Error(f"the daemon of {name} cannot be asked for its packets ({why}); is the lab up?") from None
        self.pipelines = list(described)
        self.directories = {pipeline: Path(one["directory"]) for pipeline, one in described.items()}
        self.ports: dict[tuple[str, int], PortOf] = {}
        self._learn(described)

    def close(self) -> None:
        """Watch no more: the daemon gives devices their own program back."""
        self._sock.close()
        if self._watching is not None:
            self._watching.close()
            self._watching = None

    def ask(self, what: str, programs: list[int] | None = None, **data: Any) -> dict[str, Any]:
        """The daemon's answer. Asap2Error where it refuses, or is gone."""
        try:
            socket.send_fds(self._sock, [json.dumps({"do": what, **data}).encode()], programs or [])
            self._sock.settimeout(_PATIENCE)
            while True:
                answer = self._receive()
                if answer is None:
                    raise Asap2Error(f"the daemon of {self.name} does not answer")
                if "told" not in answer:
                    break
                self._hear(answer)
        except OSError as error:
            if what == "describe":
                raise
            raise Asap2Error(f"the daemon of {self.name} ended, and the trace with it ({error.strerror})") from None
        if "error" in answer:
            raise Asap2Error(f"{self.name}: {answer['error']}")
        return answer

    def load(self, most: int) -> list[int]:
        """Load the programs, whose records have *most* octets of a packet; descriptors, for :meth:`begin`. It takes a
        second or two for each pipeline. OSError."""
        self._watching = watching = Watching()
        return [watching.load(self.directories[name], number, most) for number, name in enumerate(self.pipelines)]

    def begin(self, programs: list[int]) -> None:
        """Let devices run *programs*, which are closed here. Asap2Error where somebody watches already."""
        try:
            self.ask("watch", programs, pipelines=self.pipelines)
        finally:
            for program in programs:
                os.close(program)

    def port(self, pipeline: str, port: int) -> PortOf:
        """A port by its id; one that nobody knows has a name made of it."""
        found = self.ports.get((pipeline, port))
        if found is None:
            with contextlib.suppress(Asap2Error):
                self._learn(self.ask("describe"))
            unknown = PortOf(pipeline, port, f"port {port:#x}", "NODE", None, 0, (), "DROP")
            found = self.ports.setdefault((pipeline, port), unknown)
        return found

    def rule(self, pipeline: str, handle: int) -> Rule | None:
        """A rule; None: it is no more."""
        try:
            return rule_data.to_rule(self.ask("rule", pipeline=pipeline, handle=handle)["rule"])
        except Asap2Error:
            return None

    def rules(self, pipeline: str, most: int | None = None) -> dict[int, Rule]:
        """The rules of a pipeline by handle, *most* at most."""
        found: dict[int, Rule] = {}
        while most is None or len(found) < most:
            page = self.ask("rules", pipeline=pipeline, after=max(found, default=0))["rules"]
            if not page:
                break
            found |= {int(handle): rule_data.to_rule(data) for handle, data in page.items()}
        return found

    def settings(self, pipeline: str) -> dict[str, Any]:
        """The ports of a pipeline, its tunnels, and where packets of a NIC go on (:mod:`asap2.nic.watchers`)."""
        return self.ask("settings", pipeline=pipeline)

    def read(self) -> Iterator[Record | Told]:
        """What has come since the last call. Asap2Error: the daemon is gone, and with it the watching."""
        if self._watching is not None:
            yield from self._watching.read()
        self._sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    message = self._receive()
                except BlockingIOError:
                    break
                if message is None:
                    raise Asap2Error(f"the daemon of {self.name} ended, and the trace with it")
                self._hear(message)
        told, self._told = self._told, []
        yield from told
        lost = self._watching.lost if self._watching is not None else 0
        self.lost = lost + self._told_lost

    def fileno(self) -> tuple[int, ...]:
        """Descriptors that are readable when there is something to read."""
        return (self._sock.fileno(), *((self._watching.fd,) if self._watching is not None else ()))

    def _receive(self) -> dict[str, Any] | None:
        try:
            data, files, _, _ = socket.recv_fds(self._sock, _LARGEST, 1)
        except ConnectionError:
            return None
        if files:
            with os.fdopen(files[0], "rb") as file:
                file.seek(0)
                data = file.read()
        message: dict[str, Any] | None = json.loads(data) if data else None
        return message

    def _hear(self, message: dict[str, Any]) -> None:
        self._told_lost = message["lost"]
        self._told.append(Told(message["told"], message["at"], message))

    def _learn(self, described: dict[str, Any]) -> None:
        for pipeline, one in described.items():
            for port in one["ports"]:
                known = PortOf(
                    pipeline,
                    port["id"],
                    port["name"],
                    port["kind"],
                    port["netdev"],
                    port["node_port"],
                    tuple(port["tables"]),
                    port["miss"],
                    port["metadata"],
                )
                self.ports[pipeline, known.id] = known


def in_nic(pipeline: str) -> bool:
    """Whether it is a NIC's, not the node's own."""
    return pipeline != NODE
