# SPDX-License-Identifier: Apache-2.0
"""The socket of a node for programs that watch packets."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asap2.nic.rules import Output, Rule
from asap2.nic.silicon.pipeline import Pipeline
from asap2.nic.watchers import Sources, Watchers


class Standin:
    """A pipeline that remembers which program devices were to run."""

    def __init__(self, rules: int) -> None:
        self.directory = Path("/pins/nic0")
        self.programs: list[int | None] = []
        self.refuses = False
        self.rules = {handle: Rule(0, handle, 1, actions=(Output(7),)) for handle in range(1, rules + 1)}
        self.rule = self.rules.__getitem__

    def use_program(self, program: int | None) -> None:
        """As the pipeline's."""
        if self.refuses and program is not None:
            raise OSError(1, "not now")
        self.programs.append(program)

    def handles_after(self, handle: int, most: int) -> list[int]:
        """As the pipeline's."""
        return [one for one in self.rules if one > handle][:most]


class Served:
    """A node's socket, and what becomes of its messages."""

    def __init__(self, path: Path, ports: int) -> None:
        self.path, self.pipeline = path, Standin(rules=200)
        self.selector = selectors.DefaultSelector()
        delivery, flows = SimpleNamespace(given=None), SimpleNamespace(put=None)
        self.ovs = SimpleNamespace(delivery=delivery, executed=cast(Any, None), flows=flows)
        sources = Sources(cast(Any, self.ovs), cast(Any, SimpleNamespace(was_put=None)))
        self.watchers = Watchers(
            path,
            {"nic0": cast(Pipeline, self.pipeline)},
            lambda name: [{"id": number, "name": f"{name}-{number}"} for number in range(ports)],
            self.selector,
            sources,
        )
        self.watchers.serve()

    def client(self) -> socket.socket:
        """A connection."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.connect(os.fspath(self.path))
        self.turn()
        return made

    def turn(self) -> None:
        """Serve what there is to serve."""
        for key, mask in self.selector.select(0):
            key.data(mask)

    def close(self) -> None:
        """End."""
        self.watchers.close()
        self.selector.close()
        assert not self.path.exists()

    def ask(self, client: socket.socket, message: bytes, *programs: int) -> dict[str, Any]:
        """The answer to a message."""
        socket.send_fds(client, [message], programs)
        self.turn()
        data, files, _, _ = socket.recv_fds(client, 1 << 20, 1)
        if files:
            with os.fdopen(files[0], "rb") as file:
                file.seek(0)
                data = file.read()
        answer: dict[str, Any] = json.loads(data)
        return answer


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A node with one pipeline."""
    made = Served(tmp_path / "watch.sock", ports=3)
    yield made
    made.close()


WATCH = json.dumps({"do": "watch", "pipelines": ["nic0"]}).encode()


def test_a_new_daemon_gives_devices_their_own_program_back(served: Served) -> None:
    assert served.pipeline.programs == [None]
    assert os.stat(served.path).st_mode & 0o777 == 0o600


def test_devices_run_the_other_program_while_the_connection_is_open(served: Served) -> None:
    client, program = served.client(), os.open(os.devnull, os.O_RDONLY)
    assert served.ask(client, WATCH, program) == {}
    (_, running) = served.pipeline.programs
    assert running is not None
    assert os.fstat(running).st_rdev == os.stat(os.devnull).st_rdev
    assert served.ovs.executed is not None
    served.watchers.given(5, b"frame", 9)
    served.watchers.executed(1, b"frame", 7)
    given, executed = (json.loads(client.recv(1 << 16)) for _ in range(2))
    assert (given["told"], given["mark"], executed["told"], executed["mark"]) == ("given", 5, "executed", 5)
    client.close()
    served.turn()
    assert served.pipeline.programs[2:] == [None]
    assert served.ovs.executed is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(running)
    os.close(program)


def test_a_second_watcher_is_told_who_watches(served: Served) -> None:
    one, other, program = served.client(), served.client(), os.open(os.devnull, os.O_RDONLY)
    served.ask(one, WATCH, program)
    assert served.ask(other, WATCH, program) == {"error": f"process {os.getpid()} watches its packets already"}
    other.close()
    served.turn()
    assert served.pipeline.programs[-1] is not None, "the first one watches on"
    one.close()
    served.turn()
    os.close(program)


def test_what_the_kernel_refuses_changes_nothing(served: Served) -> None:
    client, program = served.client(), os.open(os.devnull, os.O_RDONLY)
    served.pipeline.refuses = True
    assert served.ask(client, WATCH, program) == {"error": "not now"}
    assert served.pipeline.programs[-1] is None
    served.pipeline.refuses = False
    assert served.ask(client, WATCH, program) == {}
    client.close()
    served.turn()
    os.close(program)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"\xff", "not understood: UnicodeDecodeError"),
        (b"[1]", "not understood: TypeError"),
        (b"{}", "not understood: KeyError 'do'"),
        (b'{"do": "dance"}', "'dance' is nothing to do"),
        (b'{"do": "rule", "pipeline": "nic9", "handle": 1}', "not understood: KeyError 'nic9'"),
        (b'{"do": "rule", "pipeline": "nic0", "handle": 999}', "not understood: KeyError 999"),
        (b'{"do": "rules", "pipeline": "nic0", "after": "x"}', "not understood: ValueError"),
        (WATCH, "0 programs for 1 pipelines"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(served: Served, message: bytes, error: str) -> None:
    client = served.client()
    assert served.ask(client, message)["error"].startswith(error)
    assert served.ask(client, b'{"do": "describe"}')["nic0"]["directory"] == "/pins/nic0"
    client.close()


def test_rules_come_in_pages(served: Served) -> None:
    client = served.client()
    handles: list[int] = []
    while True:
        asked = {"do": "rules", "pipeline": "nic0", "after": max(handles, default=0)}
        page = served.ask(client, json.dumps(asked).encode())["rules"]
        if not page:
            break
        handles += map(int, page)
    assert handles == list(range(1, 201))
    client.close()


def test_an_answer_that_is_longer_than_a_message_comes_in_a_file(tmp_path: Path) -> None:
    served = Served(tmp_path / "watch.sock", ports=20_000)
    client = served.client()
    assert len(served.ask(client, b'{"do": "describe"}')["nic0"]["ports"]) == 20_000
    client.close()
    served.close()


def test_who_reads_nothing_loses_messages_and_the_daemon_waits_for_nobody(served: Served) -> None:
    client, program = served.client(), os.open(os.devnull, os.O_RDONLY)
    served.ask(client, WATCH, program)
    for number in range(20_000):
        served.watchers.tell("given", mark=number, receiver=1)
    client.setblocking(False)
    read = []
    with contextlib.suppress(BlockingIOError):
        while True:
            read.append(json.loads(client.recv(1 << 16)))
    assert [one["mark"] for one in read] == list(range(len(read)))
    served.watchers.tell("given", mark=0, receiver=1)
    assert json.loads(client.recv(1 << 16))["lost"] == 20_000 - len(read) > 0
    client.close()
    served.turn()
    os.close(program)
