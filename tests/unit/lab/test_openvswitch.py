# SPDX-License-Identifier: Apache-2.0
"""A node's systemctl: which daemons a unit means, and what it says of others."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from asap2.lab import openvswitch, units
from asap2.lab.openvswitch import main
from asap2.lab.units import DATABASE, SWITCH


class Daemons:
    """Open vSwitch's daemons, as far as ovs-ctl, their pidfiles and the process table tell; and a clock."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.alive: dict[int, str] = {}
        self.calls: list[str] = []
        self.time = 1000.0
        self.refuses: set[str] = set()
        self._last_pid = 0

    @property
    def running(self) -> set[str]:
        """Those that run."""
        return set(self.alive.values())

    def ovs_ctl(self, *arguments: str) -> str | None:
        """Start or stop as ovs-ctl would with *arguments*."""
        daemon = DATABASE if "--no-ovs-vswitchd" in arguments else SWITCH
        self.calls.append(f"{arguments[-1]} {daemon}")
        if arguments[-1] == "start":
            if daemon in self.refuses:
                return f"{daemon} says no."
            self._last_pid += 1
            self.alive[self._last_pid] = daemon
            (self.run / f"{daemon}.pid").write_text(f"{self._last_pid}\n")
        else:
            self.end(daemon)
        return None

    def end(self, daemon: str) -> None:
        """As a daemon that is told to end does."""
        self.kill(daemon)
        (self.run / f"{daemon}.pid").unlink()

    def kill(self, daemon: str) -> None:
        """As SIGKILL does."""
        self.alive = {pid: name for pid, name in self.alive.items() if name != daemon}

    def pid_of(self, daemon: str) -> int | None:
        """The process id of those that run."""
        return next((pid for pid, name in self.alive.items() if name == daemon), None)

    def started_at(self, pid: int) -> int:
        """A number for those that run."""
        return pid + 5 if pid in self.alive else 0

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


def _now(_name: str, work: Callable[[], str]) -> int:
    with units.job():
        return 1 if work() else 0


@pytest.fixture
def daemons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Daemons:
    """Daemons that systemctl works on, and a place for its links."""
    run = tmp_path / "run"
    run.mkdir()
    made = Daemons(run)
    units.prepare(tmp_path / "units")
    monkeypatch.setattr(units, "DIRECTORY", tmp_path / "units")
    monkeypatch.setattr(units, "RUN_DIRECTORY", str(run))
    monkeypatch.setattr(units, "_ovs_ctl", made.ovs_ctl)
    monkeypatch.setattr(units, "pid_of", made.pid_of)
    monkeypatch.setattr(units, "started_at", made.started_at)
    monkeypatch.setattr("asap2.lab.units.time.sleep", made.sleep)
    monkeypatch.setattr("asap2.lab.units.time.monotonic", lambda: made.time)
    monkeypatch.setattr(openvswitch, "_as_job", _now)
    monkeypatch.setattr(openvswitch, "WANTS", str(tmp_path / "wants"))
    return made


def record(name: str) -> units.Record:
    """What is known of a unit."""
    return units.read(units.DIRECTORY, name)


@pytest.mark.parametrize(
    "unit", ["openvswitch", "openvswitch.service", "openvswitch-switch", "openvswitch-switch.service"]
)
def test_restart_stops_the_switch_first_and_starts_the_database_first(daemons: Daemons, unit: str) -> None:
    assert main(["start", unit]) == 0
    assert main(["restart", unit]) == 0
    assert daemons.calls == [
        "start ovsdb-server",
        "start ovs-vswitchd",
        "stop ovs-vswitchd",
        "stop ovsdb-server",
        "start ovsdb-server",
        "start ovs-vswitchd",
    ]


def test_the_switch_alone_can_be_restarted(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    daemons.calls.clear()
    assert main(["restart", "ovs-vswitchd"]) == 0
    assert daemons.calls == ["stop ovs-vswitchd", "start ovs-vswitchd"]


def test_the_switch_brings_the_database_it_requires(daemons: Daemons) -> None:
    assert main(["start", "ovs-vswitchd.service"]) == 0
    assert daemons.running == {"ovsdb-server", "ovs-vswitchd"}


def test_the_database_takes_the_switch_with_it_and_brings_it_back(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    assert main(["stop", "ovsdb-server"]) == 0
    assert not daemons.running
    main(["start", "openvswitch"])
    assert main(["restart", "ovsdb-server"]) == 0
    assert daemons.running == {"ovsdb-server", "ovs-vswitchd"}


def test_what_runs_is_not_started_again(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    daemons.calls.clear()
    assert main(["start", "openvswitch-switch"]) == 0
    assert daemons.calls == []


@pytest.mark.usefixtures("daemons")
def test_is_active_tells_by_word_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["is-active", "openvswitch"]) == 3
    main(["start", "openvswitch"])
    assert main(["is-active", "openvswitch"]) == 0
    assert main(["is-active", "--quiet", "openvswitch"]) == 0
    assert capsys.readouterr().out == "inactive\nactive\n"


@pytest.mark.usefixtures("daemons")
def test_status_has_systemctls_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "openvswitch-switch"]) == 3
    assert "Active: inactive (dead)" in capsys.readouterr().out
    main(["start", "openvswitch"])
    assert main(["status", "openvswitch-switch"]) == 0
    assert "Active: active (exited) since" in capsys.readouterr().out
    assert main(["status", "ovs-vswitchd"]) == 0
    assert "Active: active (running) since" in capsys.readouterr().out


@pytest.mark.usefixtures("daemons")
def test_enabling_makes_the_link_and_disabling_removes_it() -> None:
    assert main(["is-enabled", "openvswitch"]) == 1
    assert main(["enable", "openvswitch.service"]) == 0
    assert main(["enable", "openvswitch.service"]) == 0
    assert main(["is-enabled", "openvswitch-switch"]) == 0
    assert main(["disable", "openvswitch"]) == 0
    assert main(["is-enabled", "openvswitch"]) == 1


def test_now_also_starts(daemons: Daemons) -> None:
    assert main(["enable", "--now", "openvswitch"]) == 0
    assert daemons.running == {"ovsdb-server", "ovs-vswitchd"}


@pytest.mark.usefixtures("daemons")
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["start", "nginx"], 5, "Failed to start nginx.service: Unit nginx.service not found."),
        (["status", "nginx"], 4, "Unit nginx.service could not be found."),
        (["start"], 1, "Too few arguments."),
        (["dance", "openvswitch"], 1, "Unknown command verb dance."),
    ],
)
def test_what_it_does_not_know_it_refuses_in_systemctls_words(
    words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    assert capsys.readouterr().err.strip() == said


@pytest.mark.usefixtures("daemons")
def test_reloading_its_configuration_is_nothing_to_do() -> None:
    assert main(["daemon-reload"]) == 0


def test_a_killed_switch_is_started_again_after_the_delay(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    daemons.kill(SWITCH)
    daemons.calls.clear()
    before = daemons.time
    units.main_exited(SWITCH)
    assert daemons.calls == ["start ovs-vswitchd"]
    assert daemons.time - before == pytest.approx(0.1)
    assert record(SWITCH).runs
    assert record(SWITCH).restarts == 1


def test_a_killed_database_is_started_again_and_the_switch_with_it(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    daemons.kill(DATABASE)
    daemons.calls.clear()
    units.main_exited(DATABASE)
    assert daemons.calls == ["stop ovs-vswitchd", "start ovsdb-server", "start ovs-vswitchd"]
    assert record(DATABASE).runs
    assert record(SWITCH).runs


@pytest.mark.parametrize("order", [(DATABASE, SWITCH), (SWITCH, DATABASE)])
def test_both_killed_come_back_whoever_is_seen_first(daemons: Daemons, order: tuple[str, str]) -> None:
    main(["start", "openvswitch"])
    daemons.kill(DATABASE)
    daemons.kill(SWITCH)
    daemons.calls.clear()
    for daemon in order:
        units.main_exited(daemon)
    assert daemons.calls == ["start ovsdb-server", "start ovs-vswitchd"]
    assert record(DATABASE).runs
    assert record(SWITCH).runs


def test_one_that_has_exited_of_itself_stays_so(daemons: Daemons, capsys: pytest.CaptureFixture[str]) -> None:
    main(["start", "openvswitch"])
    daemons.end(SWITCH)
    units.main_exited(SWITCH)
    assert daemons.running == {DATABASE}
    assert main(["is-active", SWITCH]) == 3
    assert capsys.readouterr().out == "inactive\n"
    assert main(["is-active", "openvswitch-switch"]) == 0  # as systemd: it stands for a command that has ended


@pytest.mark.parametrize(
    ("status", "result"), [(1 << 8, "exit-code"), (signal.SIGKILL, "signal"), (signal.SIGSEGV | 0x80, "core-dump")]
)
def test_one_that_has_failed_is_started_again_though_it_has_removed_its_pidfile(
    daemons: Daemons, status: int, result: str
) -> None:
    main(["start", "openvswitch"])
    daemons.end(SWITCH)
    assert main(["main-exited", SWITCH, str(status)]) == 0
    assert record(SWITCH).runs
    assert record(SWITCH).restarts == 1
    assert units.result_of(status) == result


@pytest.mark.parametrize("status", [0, signal.SIGTERM, signal.SIGHUP])
def test_a_clean_end_is_none_to_mend_though_the_pidfile_is_there(daemons: Daemons, status: int) -> None:
    main(["start", "openvswitch"])
    daemons.kill(SWITCH)
    assert main(["main-exited", SWITCH, str(status)]) == 0
    assert daemons.running == {DATABASE}
    assert record(SWITCH).state == "inactive"


def test_one_that_was_stopped_or_started_meanwhile_is_left_alone(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    daemons.kill(SWITCH)
    main(["restart", SWITCH])
    daemons.calls.clear()
    units.main_exited(SWITCH)
    assert daemons.calls == []
    main(["stop", SWITCH])
    daemons.calls.clear()
    units.main_exited(SWITCH)
    assert daemons.calls == []


def test_five_starts_in_ten_seconds_are_enough(daemons: Daemons, capsys: pytest.CaptureFixture[str]) -> None:
    main(["start", "openvswitch"])
    for _ in range(5):
        daemons.kill(SWITCH)
        units.main_exited(SWITCH)
    assert record(SWITCH).result == "start-limit-hit"
    assert main(["is-failed", SWITCH]) == 0
    assert main(["status", SWITCH]) == 3
    assert "Active: failed (Result: start-limit-hit)" in capsys.readouterr().out
    assert main(["start", SWITCH]) == 1
    assert main(["reset-failed", SWITCH]) == 0
    assert main(["start", SWITCH]) == 0
    daemons.time += 11
    daemons.kill(SWITCH)
    units.main_exited(SWITCH)
    assert record(SWITCH).runs


def test_one_that_cannot_start_is_tried_again_until_the_limit(daemons: Daemons) -> None:
    daemons.refuses.add(SWITCH)
    assert main(["start", "openvswitch"]) == 1
    assert record(SWITCH).state == "auto-restart"
    units.main_exited(SWITCH)
    assert daemons.calls.count("start ovs-vswitchd") == 5
    assert record(SWITCH).state == "failed"


def test_without_its_database_the_switch_does_not_start(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    daemons.kill(DATABASE)
    daemons.kill(SWITCH)
    daemons.refuses.add(DATABASE)
    units.main_exited(DATABASE)
    units.main_exited(SWITCH)
    assert record(DATABASE).state == "failed"
    assert not daemons.running


def test_jobs_may_leave_other_units_alone(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    assert main(["--job-mode=ignore-dependencies", "stop", DATABASE]) == 0
    assert daemons.running == {SWITCH}
    assert main(["--job-mode=ignore-dependencies", "start", DATABASE]) == 0
    assert main(["is-active", "--quiet", "openvswitch-switch"]) == 0


@pytest.mark.usefixtures("daemons")
def test_show_prints_properties(capsys: pytest.CaptureFixture[str]) -> None:
    main(["start", "openvswitch"])
    assert main(["show", "-p", "ActiveState,NRestarts", SWITCH]) == 0
    assert capsys.readouterr().out == "NRestarts=0\nActiveState=active\n"
    assert main(["show", "--property=SubState", "--value", SWITCH]) == 0
    assert capsys.readouterr().out == "running\n"


def test_a_record_that_is_damaged_is_none(tmp_path: Path) -> None:
    for damage in ("", "{", "[]", '{"pid": 1}', '{"starts": 1}', '{"starts": [], "colour": "red"}', "\udcff"):
        (tmp_path / "one").write_text(damage, errors="surrogateescape")
        assert units.read(tmp_path, "one") == units.Record()


def test_a_switch_that_was_refused_is_restarted_if_it_runs(daemons: Daemons) -> None:
    main(["start", "openvswitch"])
    daemons.calls.clear()
    assert main(["switch-was-refused"]) == 0
    assert daemons.calls == ["stop ovs-vswitchd", "start ovs-vswitchd"]
    main(["stop", "openvswitch"])
    daemons.calls.clear()
    assert main(["switch-was-refused"]) == 0
    assert daemons.calls == []
