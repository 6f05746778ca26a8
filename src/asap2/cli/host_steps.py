# SPDX-License-Identifier: Apache-2.0
"""Show setup and undo: the plan with its commands, each step as it is done, and finally the NICs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from asap2.answers import answer
from asap2.errors import InterruptError
from asap2.host.setup.steps import Step, title
from asap2.screen import Screen, styled

if TYPE_CHECKING:
    from asap2.host.inventory import Host
    from asap2.host.setup.run import Planned
    from asap2.host.setup.wanted import Wanted


class _Lasting(Screen):
    """A screen whose program continues when the reader of its pipe has gone."""

    def on_broken_pipe(self) -> None:
        """Print nothing more, where the usual handler ends the program."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Shown:
    """Prints for people or, with *as_json*, one object at the end."""

    def __init__(self, as_json: bool, verb: Literal["setup", "undo"] = "setup") -> None:
        self.as_json = as_json
        self._verb = verb
        self._began = time.monotonic()
        self._data: dict[str, Any] = {"steps": [], "changes": []}
        self._back = False
        self._done = 0
        self._begun = False
        self._screen = _Lasting()

    def say(self, words: str) -> None:
        """Print a line."""
        self._screen.say(words)

    def planned(self, planned: Planned, back: bool) -> None:
        """Print the plan, each step with the commands that a person would type."""
        self._back = back
        if self.as_json:
            if not back:
                self._done = 0
                self._data = {
                    "steps": [_as_data(step) for step in planned.steps],
                    "changes": [dataclasses.asdict(one) for one in planned.changes],
                }
            return
        if back:
            self.say("going back:")
            return
        if not planned.steps:
            self.say("nothing to do: everything is set up already")
        for number, step in enumerate(planned.steps, 1):
            self.say(f"{number:3}  {title(step)}")
            for command in step.commands:
                self._screen.say("       ", (command, "dim"))

    def begin(self, step: Step) -> None:
        """Report that a step begins; a terminal shows its line until the step ends."""
        self._begun = True
        if not self.as_json and self._screen.is_terminal:
            self._screen.print(styled(f" …   {title(step)}"), end="\r")

    def done(self, step: Step) -> None:
        """Report that a step is done. By now its network devices have names."""
        if not self.as_json:
            self.say(f"done {title(step)}")
        elif not self._back:
            self._data["steps"][self._done] = _as_data(step)
            self._done += 1

    def failed(self, step: Step, why: str) -> None:
        """Report that a step failed."""
        if not self.as_json:
            self.say(f"FAIL {title(step)}: {why}")

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Convert Ctrl-C to an InterruptError that says what to do next."""
        try:
            yield
        except KeyboardInterrupt:
            left = "it goes on when it is run again, and `asap2 host undo` takes back what was done"
            raise InterruptError(f"interrupted: {left if self._begun else 'nothing was changed'}") from None

    def end(self, data: dict[str, Any], words: str | None = None) -> None:
        """Print the end: the JSON, or *words* and the time that it took."""
        seconds = round(time.monotonic() - self._began, 2)
        if self.as_json:
            answer(f"host-{self._verb}", {**data, **self._data, "seconds": seconds})
        elif words is not None:
            self.say(f"{words} ({seconds:.1f} s)")

    def nics(self, host: Host) -> None:
        """Print the NICs in switchdev mode, with their VFs and representors."""
        for pf in host.pfs:
            if not pf.switchdev:
                continue
            self.say("")
            self.say(f"{pf.name} ({pf.address}) is in switchdev mode:")
            for vf in pf.vfs:
                representor = host.representor(pf, vf.index)
                place = host.openvswitch.port_of(representor.name) if representor else None
                words = f"  VF {vf.index:<3} {vf.address}  {vf.netdev or vf.driver or 'no driver':16}"
                words += f" representor {representor.name if representor else 'missing'}"
                self.say(words + (f" in {place[0].name}" if place else ""))

    def failures(self, wanted: Wanted) -> None:
        """Print what `asap2 host check` still finds wrong with the NICs that were set up."""
        from asap2.host.check.audit import audit
        from asap2.host.check.finding import Verdict
        from asap2.host.observe import observe
        from asap2.host.trial import attempt_all

        host = observe()
        pfs = tuple(pf for nic in wanted.nic if (pf := host.pf(nic.pf)))
        host = dataclasses.replace(host, trials=attempt_all(host, pfs))
        bad = [one for one in audit(host, pfs) if one.verdict is Verdict.FAIL]
        self.say("")
        for one in bad:
            self.say(f"check: {one.id}: {one.found}" + (f"; fix: {one.fix}" if one.fix else ""))
        seconds = time.monotonic() - self._began
        self.say(f"check: {'not ready' if bad else 'nothing stands in the way of offload'} ({seconds:.1f} s)")


def _as_data(step: Step) -> dict[str, Any]:
    return {"title": title(step), "commands": list(step.commands)}
