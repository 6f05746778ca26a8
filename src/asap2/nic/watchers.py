# SPDX-License-Identifier: Apache-2.0
"""A node's socket for programs that watch packets: `asap2 trace`, `asap2 capture`.

A client loads the program that tells of each step (:mod:`asap2.nic.silicon.watching`) and sends descriptors of it; the
daemon lets the devices of its pipelines run it for as long as the connection is open. However the client ends, the
kernel closes the connection, and the plain program is back; should the daemon end, the next one sees to that when it
starts. Meanwhile the daemon tells what it does itself with packets of the slow path.

Questions and answers are JSON, one in each message of a SOCK_SEQPACKET socket that only root can open::

    {"do": "describe"}                                   pipelines, where each is pinned, and its ports
    {"do": "watch", "pipelines": ["node", "nic0"]}       with a descriptor of a program for each
    {"do": "rule", "pipeline": "nic0", "handle": 5}      a rule, as asap2.nic.rule_data has it
    {"do": "rules", "pipeline": "nic0", "after": 5}      some of the rules with greater handles
    {"do": "settings", "pipeline": "nic0"}               its ports, and what else a packet's way depends on

An answer has ``error`` where that was refused; a long one is in a file, whose descriptor comes in its place. Unasked
come messages with ``told``: what has happened, and when, in nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asap2.nic import rule_data
from asap2.nic.rules import Rule

if TYPE_CHECKING:  # a client that wants to know where the socket is needs nothing of the daemon
    from asap2.nic.faces.ovs.datapath import Datapath
    from asap2.nic.faces.ovs.families import OvsFace
    from asap2.nic.faces.ovs.flows import Flow
    from asap2.nic.faces.tc.filter import Filter
    from asap2.nic.faces.tc.filters import Filters
    from asap2.nic.silicon.pipeline import Pipeline

log = logging.getLogger(__name__)

NODE: Final = "node"
"""The name of the node's own pipeline; a NIC's has the NIC's."""
_LARGEST: Final = 1 << 16
"""Octets of a message."""
_ROOM: Final = 1 << 21
"""Octets of messages that a client may leave unread; what is told beyond them is lost, and counted."""
_MOST_FDS: Final = 64
_PAGE: Final = 128
"""Rules in one answer."""
_REMEMBERED: Final = 4096
"""Packets given to Open vSwitch that are recognized when it hands them back."""


def path_in(run_dir: Path) -> Path:
    """Where the socket of the daemon of *run_dir* is."""
    return run_dir / "watch.sock"


def _send(client: socket.socket, answer: bytes) -> None:
    """Send an answer, in a file of its own if it is longer than a message may be. OSError."""
    if len(answer) <= _LARGEST:
        client.send(answer, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return
    with os.fdopen(os.memfd_create("answer", os.MFD_CLOEXEC), "wb+") as file:
        file.write(answer)
        file.flush()
        socket.send_fds(client, [b"{}"], [file.fileno()], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class Sources(NamedTuple):
    """The faces that tell what becomes of packets in software, while somebody watches."""

    ovs: OvsFace
    filters: Filters


class Watchers:
    """Serves the socket at *path*. *pipelines* are the node's, by name, and *ports* describes those of one."""

    def __init__(
        self,
        path: Path,
        pipelines: Mapping[str, Pipeline],
        ports: Callable[[str], list[dict[str, Any]]],
        selector: selectors.BaseSelector,
        sources: Sources,
    ) -> None:
        self._pipelines, self._ports, self._selector, self._sources = pipelines, ports, selector, sources
        self._clients: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._watcher: socket.socket | None = None
        self._programs: list[int] = []
        self._given: dict[bytes, int] = {}
        self._lost = 0
        self._path = path
        for pipeline in pipelines.values():  # of an earlier daemon's time
            pipeline.use_program(None)

    def serve(self) -> None:
        """Listen. OSError."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        listener.bind(os.fspath(self._path))
        self._path.chmod(0o600)
        listener.listen()
        self._selector.register(listener, selectors.EVENT_READ, lambda _mask: self._accept(listener))
        self._listener = listener

    def close(self) -> None:
        """Serve nobody any more; devices run their own program."""
        for client in list(self._clients):
            self._drop(client)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    # ---- what the daemon tells

    def tell(self, what: str, **data: Any) -> None:
        """Tell who watches that something has happened; without waiting."""
        if self._watcher is None:
            return
        message = json.dumps({"told": what, "at": time.monotonic_ns(), "lost": self._lost, **data}).encode()
        try:
            self._watcher.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            self._lost += 1

    def given(self, mark: int, frame: bytes, receiver: int) -> None:
        """Open vSwitch was given a packet that the pipeline had marked for user space."""
        while len(self._given) >= _REMEMBERED:
            del self._given[next(iter(self._given))]
        self._given[frame] = mark
        self.tell("given", mark=mark, receiver=receiver)

    def executed(self, began: int, frame: bytes, port: int) -> None:
        """Open vSwitch has handed in a packet, as received on *port*: its way began at *began*, and is over."""
        self.tell("executed", mark=self._given.pop(frame, None), port=port, began=began)

    def filter_put(self, one: Filter, refused: OSError | None) -> None:
        """A program has put a TC filter; *refused* says why it is not in hardware."""
        rules = [self._ruled(placed.pipeline, placed.handle) for placed in one.placed]
        self.tell("filter", in_hw=one.in_hw, rules=rules, refused=refused.strerror if refused is not None else None)

    def flow_put(self, dp: Datapath, flow: Flow) -> None:
        """Open vSwitch has put a flow into the software datapath."""
        self.tell(
            "flow", in_hw=False, rules=[self._ruled(dp.pipeline, handle) for handle in flow.handles], refused=None
        )

    def _ruled(self, pipeline: Pipeline, handle: int) -> dict[str, Any]:
        name = next((name for name, one in self._pipelines.items() if one is pipeline), NODE)
        return {"pipeline": name, "handle": handle, "rule": rule_data.of_rule(pipeline.rule(handle))}

    def _listen(self, on: bool) -> None:
        ovs, filters = self._sources
        ovs.delivery.given = self.given if on else None
        ovs.executed = self.executed if on else None
        ovs.flows.put = self.flow_put if on else None
        filters.was_put = self.filter_put if on else None

    # ---- clients

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = listener.accept()
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
            self._clients.add(client)
            self._selector.register(client, selectors.EVENT_READ, lambda _mask: self._readable(client))

    def _drop(self, client: socket.socket) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._selector.unregister(client)
        client.close()
        if client is self._watcher:
            self._end()

    def _end(self) -> None:
        self._watcher = None
        self._given.clear()
        for pipeline in self._pipelines.values():
            pipeline.use_program(None)
        for program in self._programs:
            os.close(program)
        self._programs = []
        self._listen(False)
        log.info("packets are not watched any more")

    def _readable(self, client: socket.socket) -> None:
        programs: list[int] = []
        try:
            asked, programs, _flags, _address = socket.recv_fds(client, _LARGEST, _MOST_FDS)
            if not asked:
                self._drop(client)
                return
            _send(client, json.dumps(self._answer(client, asked, programs)).encode())
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("a client that watches is gone: %s", error)
            self._drop(client)
        finally:
            for program in programs:
                if program not in self._programs:
                    os.close(program)

    def _answer(self, client: socket.socket, message: bytes, programs: list[int]) -> dict[str, Any]:
        try:
            asked = json.loads(message)
            match asked["do"]:
                case "describe":
                    return {name: self._described(name) for name in self._pipelines}
                case "watch":
                    return self._watch(client, [str(name) for name in asked["pipelines"]], programs)
                case "rule":
                    pipeline, handle = self._pipelines[asked["pipeline"]], int(asked["handle"])
                    return {"rule": rule_data.of_rule(pipeline.rule(handle))}
                case "rules":
                    return self._page(self._pipelines[asked["pipeline"]], int(asked["after"]))
                case "settings":
                    return self._settings(self._pipelines[asked["pipeline"]])
                case other:
                    return {"error": f"{other!r} is nothing to do"}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"not understood: {type(error).__name__} {error}"}
        except OSError as error:
            return {"error": error.strerror or str(error)}

    def _described(self, name: str) -> dict[str, Any]:
        return {"directory": os.fspath(self._pipelines[name].directory), "ports": self._ports(name)}

    def _watch(self, client: socket.socket, names: list[str], programs: list[int]) -> dict[str, Any]:
        if self._watcher is not None:
            pid, _, _ = struct.unpack("=iII", self._watcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return {"error": f"process {pid} watches its packets already"}
        if len(names) != len(programs):
            return {"error": f"{len(programs)} programs for {len(names)} pipelines"}
        pipelines = [self._pipelines[name] for name in names]
        self._watcher, self._programs, self._lost = client, programs, 0
        try:
            for pipeline, program in zip(pipelines, programs, strict=True):
                pipeline.use_program(program)
        except OSError:
            self._programs = []  # they are closed by whoever has received them
            self._end()
            raise
        self._listen(True)
        log.info("packets are watched")
        return {}

    @staticmethod
    def _settings(pipeline: Pipeline) -> dict[str, Any]:
        resumes = pipeline.resumes
        return {
            "ports": [rule_data.of_port(port) for port in pipeline.ports.values()],
            "tunnel_ports": pipeline.tunnel_ports,
            "option_kinds": {str(number): head.hex() for number, head in pipeline.option_kinds.items()},
            "resumes": {str(number): place for number, place in resumes.places.items()},
            "within": {
                str(number): [resumes.rule_of(number), rule_data.of_actions(pipeline.actions_at(entry))]
                for number, entry in resumes.within.items()
            },
        }

    @staticmethod
    def _page(pipeline: Pipeline, after: int) -> dict[str, Any]:
        handles = pipeline.handles_after(after, _PAGE)
        rules: list[tuple[int, Rule]] = [(handle, pipeline.rule(handle)) for handle in handles]
        return {"rules": {str(handle): rule_data.of_rule(rule) for handle, rule in rules}}
