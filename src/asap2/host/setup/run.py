# SPDX-License-Identifier: Apache-2.0
"""Run a setup or an undo: inspect, plan, save the state, do each step, and roll back if one fails."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asap2.errors import Asap2Error
from asap2.host.inventory import Host
from asap2.host.setup import journal as journals
from asap2.host.setup.changes import Change, changes
from asap2.host.setup.failure import StepError
from asap2.host.setup.journal import Journal
from asap2.host.setup.plan import NEED_RESTART, Target, named, nameless, plan
from asap2.host.setup.restore import differences, restore_target
from asap2.host.setup.steps import RestartSwitch, SetEswitch, SetOption, Step, title
from asap2.host.setup.target import setup_target
from asap2.host.setup.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Planned:
    """The planned steps, and the settings that they change."""

    steps: tuple[Step, ...] = ()
    changes: tuple[Change, ...] = ()


class Machine(Protocol):
    """The machine to set up: this host (:class:`asap2.host.setup.hands.Hands`), or a model of one."""

    def look(self) -> Host:
        """Its current state, including TC filters."""

    def do(self, step: Step) -> None:
        """Do a step; raises StepError if it fails or has no effect."""


class Observer(Protocol):
    """Receives the progress of a run."""

    def planned(self, planned: Planned, back: bool, /) -> None:
        """The run will do these steps; *back*: they undo what a failed run did."""

    def begin(self, step: Step, /) -> None:
        """This step begins."""

    def done(self, step: Step, /) -> None:
        """This step is done."""

    def failed(self, step: Step, why: str, /) -> None:
        """This step failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result: the steps done, and the host afterwards; ``left`` is what undo could not restore."""

    steps: tuple[Step, ...]
    host: Host
    left: tuple[str, ...] = ()


AS_BEFORE = "everything is as it was before"
RESTARTING = 15.0
"""Seconds to wait for Open vSwitch if a run was killed during its restart."""


class FailedError(Asap2Error):
    """A step failed; the text says which and why, and what happened to the others."""


class _StepFailedError(Exception):
    def __init__(self, step: Step, why: str) -> None:
        super().__init__(why)
        self.step = step
        self.why = why


def prepare(wanted: Wanted, machine: Machine, *, force: bool = False, path: Path = journals.PATH) -> Planned:
    """What :func:`setup` would do."""
    journal = journals.load(path)
    now = _look(machine, None if wanted.nic_only else journal)
    return _planned(now, _target(now, wanted, journal, force))


def _planned(now: Host, target: Target) -> Planned:
    steps = plan(now, target)
    return Planned(tuple(named(step, now) for step in steps), changes(now, steps))


def _look(machine: Machine, journal: Journal | None) -> Host:
    """The machine's state. If an earlier run was killed while it restarted the switch, wait for the switch, because the
    service manager completes the restart."""
    now = machine.look()
    end = time.monotonic() + RESTARTING
    while journal is not None and journal.restart_pending and not now.openvswitch.running and time.monotonic() < end:
        time.sleep(0.2)
        now = machine.look()
    return now


def _target(now: Host, wanted: Wanted, journal: Journal | None, force: bool, order: str | None = None) -> Target:
    pending = journal is not None and journal.restart_pending
    return setup_target(now, wanted, force=force, restart_pending=pending, order=order)


def setup(
    wanted: Wanted, machine: Machine, observer: Observer, *, force: bool = False, path: Path = journals.PATH
) -> Outcome:
    """Set *machine* up as *wanted*; the caller holds the lock (:func:`journal.exclusively`).

    Raises:
        RefusedError, UsageError: it is impossible or unsafe; nothing was changed.
        FailedError: a step failed; the steps before it were undone as far as possible.
    """
    run = _Run(machine, observer, path)
    try:
        return run.setup(wanted, force, None)
    except _StepFailedError as failed:
        if not _may_want_other_order(failed.step, wanted):
            raise FailedError(_sentence(failed, AS_BEFORE)) from None
        try:
            return run.setup(wanted, force, "switchdev-first")
        except _StepFailedError as again:
            words = f"with the VFs made after the mode it did not do either; {AS_BEFORE}"
            raise FailedError(_sentence(again, words)) from None


def prepare_undo(machine: Machine, *, force: bool = False, path: Path = journals.PATH) -> Planned | None:
    """What :func:`undo` would do; None when there is nothing to undo."""
    journal = journals.load(path)
    if journal is None:
        return None
    now = _look(machine, journal)
    return _planned(now, restore_target(journal, now, force=force))


def undo(machine: Machine, observer: Observer, *, force: bool = False, path: Path = journals.PATH) -> Outcome | None:
    """Restore the state before the first setup of *machine*; None if there was none.

    Raises:
        RefusedError: a guest uses a VF, Open vSwitch does not run, or a bridge that setup created has ports of others;
            nothing was changed.
        FailedError: a step failed; another call continues from there.
    """
    journal = journals.load(path)
    if journal is None:
        return None
    try:
        outcome = _Run(machine, observer, path).back(journal, force=force, failed=False)
    except _StepFailedError as failed:
        observer.failed(failed.step, failed.why)
        raise FailedError(_sentence(failed, "`asap2 host undo` goes on from there")) from None
    journals.save(None, path)
    return outcome


class _Run:
    """One run: its machine, its observer, and the journal's path."""

    def __init__(self, machine: Machine, observer: Observer, path: Path) -> None:
        self.machine = machine
        self.observer = observer
        self.path = path

    def setup(self, wanted: Wanted, force: bool, order: str | None) -> Outcome:
        """Set up; raises _StepFailedError if a step failed and the steps before it were undone."""
        earlier = journals.load(self.path)
        now = _look(self.machine, None if wanted.nic_only else earlier)
        target = _target(now, wanted, earlier, force, order)
        planned = _planned(now, target)
        steps = planned.steps
        self.observer.planned(planned, False)
        touched = (
            {nic.pf for nic in target.nics},
            {name for name, _ in target.bridges},
            {key for key, _ in target.options},
        )
        if not steps:
            if earlier is not None and not wanted.nic_only and (earlier.wanted, earlier.finished) != (wanted, True):
                journals.save(dataclasses.replace(earlier, wanted=wanted, finished=True), self.path)
            return Outcome((), now)
        journal = journals.extended(earlier, now, wanted, *touched)
        journals.save(journal, self.path)
        try:
            journal = self._do(steps, journal)
        except _StepFailedError as failed:
            self.observer.failed(failed.step, failed.why)
            self._take_back(journals.extended(None, now, wanted, *touched), failed)
            journals.save(earlier, self.path)
            raise
        journals.save(dataclasses.replace(journal, finished=True), self.path)
        return Outcome(steps, self.machine.look())

    def back(self, journal: Journal, *, force: bool, failed: bool) -> Outcome:
        """Go back to the state before *journal*; *failed*: because a step of a setup failed."""
        now = _look(self.machine, journal)
        planned = _planned(now, restore_target(journal, now, force=force))
        self.observer.planned(planned, failed)
        saved = journals.load(self.path) or journal
        self._do(planned.steps, dataclasses.replace(saved, restart_pending=journal.restart_pending))
        then = self.machine.look()
        return Outcome(planned.steps, then, tuple(differences(journal.before, then, journal.pfs)))

    def _take_back(self, start: Journal, failed: _StepFailedError) -> None:
        """Go back to where the run began; raises FailedError if that fails, too."""
        pending = (journals.load(self.path) or start).restart_pending
        try:
            self.back(dataclasses.replace(start, restart_pending=pending), force=True, failed=True)
        except (_StepFailedError, Asap2Error) as error:
            words = f"going back failed too ({error}); `asap2 host undo` tries it again"
            raise FailedError(_sentence(failed, words)) from None

    def _do(self, steps: tuple[Step, ...], journal: Journal) -> Journal:
        """Do *steps*, and note in the journal on disk whether the switch must still be restarted."""
        for step in steps:
            if isinstance(step, SetOption) and step.key in NEED_RESTART and not journal.restart_pending:
                journal = dataclasses.replace(journal, restart_pending=True)
                journals.save(journal, self.path)
            if nameless(step):
                step = named(step, self.machine.look())
            self.observer.begin(step)
            try:
                self.machine.do(step)
            except StepError as error:
                raise _StepFailedError(step, str(error)) from None
            if isinstance(step, RestartSwitch):
                journal = dataclasses.replace(journal, restart_pending=False)
                journals.save(journal, self.path)
            self.observer.done(step)
        return journal


def _may_want_other_order(step: Step, wanted: Wanted) -> bool:
    """Whether the change of mode failed while there were VFs, and the order is automatic."""
    return isinstance(step, SetEswitch) and step.attribute == "mode" and all(nic.order == "auto" for nic in wanted.nic)


def _sentence(failed: _StepFailedError, then: str) -> str:
    return f"{title(failed.step)}: {failed.why}; {then}"
