# SPDX-License-Identifier: Apache-2.0
"""The ways of packets that browsers are shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from asap2.answers import marked
from asap2.errors import UsageError
from asap2.lab.layout import Layout
from asap2.trace import shown
from asap2.trace.shown import Traced, of_file
from asap2.view import packets
from asap2.view.packets import Packets
from asap2.view.sampler import Sampler, Watcher
from tests.view.synthetic import Synthetic
from tests.view.ways import way, written


def test_a_file_of_asap2_trace_is_read(tmp_path: Path) -> None:
    found = of_file(written(tmp_path / "trace.json"))
    assert [(one["number"], one["in_hardware"], len(one["steps"])) for one in found.since(0)] == [
        (1, False, 9),
        (2, True, 6),
    ]
    assert "trace.json" in found.about


def changed(**values: Any) -> str:
    """A file whose one way has these values."""
    return json.dumps(marked("trace", {"lost": 0, "ways": [{**way(1, first=True), **values}]}))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it does not say that it is one"),
        ('{"schema": "urn:asap2:live:1"}', "it does not say that it is one"),
        (json.dumps(marked("trace", {"lost": 0, "ways": 1})), "ways is to be a list, not 1"),
        (json.dumps(marked("trace", {"lost": 0, "ways": [1]})), r"ways\[0\] is to be a table, not 1"),
        (json.dumps(marked("trace", {"ways": []})), "lost is to be a whole number, not None"),
        (changed(ending="lost"), r"ways\[0\].ending is to be one of delivered, dropped, out of sight, not 'lost'"),
        (changed(targets="vm1"), r"ways\[0\].targets is to be a list, not 'vm1'"),
        (changed(steps=[{}]), r"ways\[0\].steps\[0\] has no 'microseconds'"),
        (changed(steps=[]), r"ways\[0\] has no steps"),
        (changed(began=None), r"ways\[0\].began is to be a whole number, not None"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=f"a.json is not what `asap2 trace --json` writes: {why}"):
        of_file(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json cannot be read: No such file or directory"):
        of_file(tmp_path / "none.json")
    (tmp_path / "octets").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not what `asap2 trace --json` writes"):
        of_file(tmp_path / "octets")


def test_the_newest_ways_are_kept_and_numbered_in_their_order() -> None:
    found = Packets("of a test")
    for _ in range(packets.MOST + 5):
        found.add(way(1, first=False))
    numbers = [one["number"] for one in found.since(0)]
    assert numbers == list(range(6, packets.MOST + 6))
    assert [one["number"] for one in found.since(packets.MOST + 3)] == [packets.MOST + 4, packets.MOST + 5]


class Process:
    """In place of a process that traces: it has written *lines*."""

    def __init__(self, *lines: object, ended: bool = False) -> None:
        self.lines = [json.dumps(one).encode() for one in lines]
        self.ended = ended
        self.closed = False

    def read(self) -> list[bytes]:
        """The lines, once."""
        lines, self.lines = self.lines, []
        return lines

    def close(self) -> None:
        """End it."""
        self.closed = True


def test_what_a_trace_tells_is_taken_in_until_it_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[Process] = []
    monkeypatch.setattr(shown, "Lines", lambda *_: started.append(Process()) or started[-1])  # type: ignore[func-returns-value]
    traced = Traced(Layout(tmp_path), "icmp")
    traced.read()
    (process,) = started
    process.lines = [
        b'{"lost":0}',
        json.dumps({"way": way(9, first=True)}).encode(),
        b'{"lost":3}',
        b'{"left_out":8}',
        b"cut",
    ]
    traced.read()
    assert [one["number"] for one in traced.since(0)] == [1]
    assert (traced.lost, traced.left_out, traced.trouble) == (3, 8, None)
    process.lines, process.ended = [b'{"trouble":"another program traces"}'], True
    traced.read()
    assert process.closed
    assert traced.trouble == "another program traces"
    traced.read()
    assert len(started) == 1, "not at once again"


def test_a_trace_runs_only_while_somebody_looks() -> None:
    class Counted(Packets):
        reads = stops = 0

        def read(self) -> None:
            self.reads += 1

        def stop(self) -> None:
            self.stops += 1

    async def looked() -> None:
        found = Counted("of a test")
        sampler = Sampler(Synthetic(2), 0.005, found)
        assert found.reads == 0
        watchers = [sampler.join(), sampler.join()]
        found.add(way(1, first=True))
        assert (await told(watchers[0]))["ways"][0]["number"] == 1
        assert (await told(watchers[1]))["since"] == 0
        found.add(way(1, first=False))
        second = await told(watchers[0])
        assert (second["since"], [one["number"] for one in second["ways"]]) == (1, [2])
        await sampler.leave(watchers[0])
        assert found.stops == 0
        await sampler.leave(watchers[1])
        reads = found.reads
        assert (reads > 0, found.stops) == (True, 1)
        await asyncio.sleep(0.02)
        assert found.reads == reads
        await sampler.close()

    async def told(watcher: Watcher) -> dict[str, Any]:
        while True:
            text = await asyncio.wait_for(watcher.messages.get(), 5)
            assert text is not None
            found: dict[str, Any] = json.loads(text)
            if found["type"] == "packets":
                return found

    asyncio.run(looked())
