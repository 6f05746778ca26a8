# SPDX-License-Identifier: Apache-2.0
"""The ways of packets for `asap2 view`: those in a file, or those of the lab as they pass."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, TypedDict

from asap2.answers import identity
from asap2.errors import UsageError
from asap2.host.records import RecordError, checked
from asap2.lab.layout import ROOT_VARIABLE, Layout
from asap2.live.lines import Lines
from asap2.trace.data import WayData
from asap2.view.packets import Packets

_AGAIN = 3.0
"""Seconds until a trace that has ended is begun again."""


class _Trace(TypedDict):
    lost: int
    ways: list[WayData]


def of_file(path: Path) -> Packets:
    """The ways in a file that ``asap2 trace --json`` has written; UsageError."""
    made = Packets(f"of {path.name}")
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or found.get("schema") != identity("trace"):
            raise RecordError("it does not say that it is one")
        ways = checked(_Trace, {name: found.get(name) for name in ("lost", "ways")})
        for place, way in enumerate(ways["ways"]):
            if not way["steps"]:
                raise RecordError(f"ways[{place}] has no steps")
            made.add(way)
        made.lost = ways["lost"]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is not what `asap2 trace --json` writes: {error}") from None
    return made


class Traced(Packets):
    """The ways of a lab's packets that the filter *text* takes (pcap-filter(7)), as they pass. A process traces while
    somebody looks."""

    def __init__(self, layout: Layout, text: str) -> None:
        super().__init__(f"that {text!r} takes, as they pass")
        self._text = text
        self._environment = {**os.environ, ROOT_VARIABLE: str(layout.root)}
        self._process: Lines | None = None
        self._not_before = 0.0

    def read(self) -> None:
        """Take in what the process has written; start it if there is none."""
        if self._process is None:
            if time.monotonic() >= self._not_before:
                self._start()
            return
        for line in self._process.read():
            with contextlib.suppress(ValueError):
                self._take(json.loads(line))
        if self._process.ended:
            self._ended(self.trouble or "the trace has ended")

    def stop(self) -> None:
        """End the process: devices get their own program back."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _start(self) -> None:
        try:
            self._process = Lines(["asap2.trace.stream", self._text], self._environment)
        except OSError as error:
            self._ended(f"the trace cannot be started: {error.strerror}")

    def _ended(self, why: str) -> None:
        self.stop()
        self._not_before = time.monotonic() + _AGAIN
        self.version += self.trouble != why
        self.trouble = why

    def _take(self, line: dict[str, Any]) -> None:
        if "way" in line:
            self.add(line["way"])
            return
        before = self.lost, self.left_out, self.trouble
        self.lost, self.left_out = line.get("lost", self.lost), line.get("left_out", self.left_out)
        self.trouble = line.get("trouble")
        self.version += before != (self.lost, self.left_out, self.trouble)
