# SPDX-License-Identifier: Apache-2.0
"""Setting up and undoing: look, plan, write down what is, do step by step, and go back when one fails."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from asap2.errors import Asap2Error
from asap2.host.inventory import Host
from asap2.host.observe import observe
from asap2.host.setup import journal as journals
from asap2.host.setup.hands import Hands, StepError
from asap2.host.setup.journal import Journal
from asap2.host.setup.plan import NEED_RESTART, Target, plan
from asap2.host.setup.restore import differences, restore_target
from asap2.host.setup.steps import RestartSwitch, SetEswitch, SetOption, Step, title
from asap2.host.setup.target import setup_target
from asap2.host.setup.wanted import Wanted


class Observer(Protocol):
    """Who is told how it goes."""

    def planned(self, steps: tuple[Step, ...], back: bool) -> None:
        """These steps come; *back* when they undo what a failed run did."""

    def begin(self, step: Step) -> None:
        """This step begins."""

    def done(self, step: Step) -> None:
        """This step is done."""

    def failed(self, step: Step, why: str) -> None:
        """This step failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: the steps done, and the host then; ``left`` is what undoing could not bring back."""

    steps: tuple[Step, ...]
    host: Host
    left: tuple[str, ...] = ()


class FailedError(Asap2Error):
    """A step failed; the text says which, why, and what became of the others."""


class _StepFailedError(Exception):
    def __init__(self, step: Step, why: str) -> None:
        super().__init__(why)
        self.step = step
        self.why = why


def prepare(wanted: Wanted, *, force: bool = False, path: Path = journals.PATH) -> tuple[Step, ...]:
    """The steps that :func:`setup` would do."""
    journal = journals.load(path)
    now = observe(openflow=False)
    return plan(now, _target(now, wanted, journal, force))


def _target(now: Host, wanted: Wanted, journal: Journal | None, force: bool, order: str | None = None) -> Target:
    pending = journal is not None and journal.restart_pending
    return setup_target(now, wanted, force=force, restart_pending=pending, order=order)


def setup(wanted: Wanted, observer: Observer, *, force: bool = False, path: Path = journals.PATH) -> Outcome:
    """Bring the host to what is *wanted*.

    Raises:
        RefusedError, UsageError: it cannot be, or should not; nothing was changed.
        FailedError: a step failed; what was done before it was taken back, as far as that went.
    """
    with journals.exclusively():
        try:
            return _setup(wanted, observer, force, path, None)
        except _StepFailedError as failed:
            if not _may_want_other_order(failed.step, wanted):
                raise FailedError(_sentence(failed, "everything is as it was before")) from None
            try:
                return _setup(wanted, observer, force, path, "switchdev-first")
            except _StepFailedError as again:
                words = "VFs after the mode did not do either; everything is as it was before"
                raise FailedError(_sentence(again, words)) from None


def _setup(wanted: Wanted, observer: Observer, force: bool, path: Path, order: str | None) -> Outcome:
    earlier = journals.load(path)
    now = observe(openflow=False)
    target = _target(now, wanted, earlier, force, order)
    steps = plan(now, target)
    observer.planned(steps, False)
    pfs = {nic.pf for nic in target.nics}
    options, bridges = {key for key, _ in target.options}, {name for name, _ in target.bridges}
    journal = journals.extended(earlier, now, wanted, pfs, bridges, options)
    if steps:
        journals.save(journal, path)
    try:
        journal = _do(steps, observer, journal, path)
    except _StepFailedError as failed:
        observer.failed(failed.step, failed.why)
        _take_back(journals.extended(None, now, wanted, pfs, bridges, options), failed, observer, path)
        journals.save(earlier, path)
        raise
    if steps or earlier is not None:
        journals.save(dataclasses.replace(journal, finished=True), path)
    return Outcome(steps, observe(openflow=False))


def _do(steps: tuple[Step, ...], observer: Observer, journal: Journal, path: Path) -> Journal:
    """Do *steps*, keeping in the journal on disk whether the switch must yet be started anew."""
    with Hands() as hands:
        for step in steps:
            if isinstance(step, SetOption) and step.key in NEED_RESTART and not journal.restart_pending:
                journal = dataclasses.replace(journal, restart_pending=True)
                journals.save(journal, path)
            observer.begin(step)
            try:
                hands.do(step)
            except StepError as error:
                raise _StepFailedError(step, str(error)) from None
            if isinstance(step, RestartSwitch):
                journal = dataclasses.replace(journal, restart_pending=False)
                journals.save(journal, path)
            observer.done(step)
    return journal


def _take_back(start: Journal, failed: _StepFailedError, observer: Observer, path: Path) -> None:
    """Go back to where the run began;
    FailedError when that fails too."""
    pending = (journals.load(path) or start).restart_pending
    start = dataclasses.replace(start, restart_pending=pending)
    try:
        _back(start, observer, path, force=True, failed=True)
    except (_StepFailedError, Asap2Error) as error:
        words = f"going back failed too ({error}); `asap2 host undo` tries it again"
        raise FailedError(_sentence(failed, words)) from None


def _back(journal: Journal, observer: Observer, path: Path, *, force: bool, failed: bool) -> Outcome:
    now = observe(openflow=False)
    steps = plan(now, restore_target(journal, now, force=force))
    observer.planned(steps, failed)
    saved = journals.load(path) or journal
    _do(steps, observer, dataclasses.replace(saved, restart_pending=journal.restart_pending), path)
    then = observe(openflow=False)
    return Outcome(steps, then, tuple(differences(journal.before, then, journal.pfs)))


def undo(observer: Observer, *, force: bool = False, path: Path = journals.PATH) -> Outcome | None:
    """Bring back what was before the first set-up; None when there was none.

    Raises:
        RefusedError: a guest uses a VF, Open vSwitch does not run, a bridge of ours has others' ports; nothing was
        changed. FailedError: a step failed; calling again goes on from there.
    """
    with journals.exclusively():
        journal = journals.load(path)
        if journal is None:
            return None
        try:
            outcome = _back(journal, observer, path, force=force, failed=False)
        except _StepFailedError as failed:
            observer.failed(failed.step, failed.why)
            raise FailedError(_sentence(failed, "`asap2 host undo` goes on from there")) from None
        journals.save(None, path)
        return outcome


def prepare_undo(*, force: bool = False, path: Path = journals.PATH) -> tuple[Step, ...] | None:
    """The steps that :func:`undo` would do; None when there is nothing to undo."""
    journal = journals.load(path)
    if journal is None:
        return None
    now = observe(openflow=False)
    return plan(now, restore_target(journal, now, force=force))


def _may_want_other_order(step: Step, wanted: Wanted) -> bool:
    """Whether it was the change of mode that failed, with VFs there, and nobody said the order."""
    return isinstance(step, SetEswitch) and step.attribute == "mode" and all(nic.order == "auto" for nic in wanted.nic)


def _sentence(failed: _StepFailedError, then: str) -> str:
    return f"{title(failed.step)}: {failed.why}; {then}"
