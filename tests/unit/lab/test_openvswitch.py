# SPDX-License-Identifier: Apache-2.0
"""A node's systemctl: which daemons a unit means, and what it says of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.lab import openvswitch
from asap2.lab.openvswitch import main


class Daemons:
    """Open vSwitch's daemons, as far as ovs-ctl and their pidfiles tell."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.calls: list[str] = []

    def ovs_ctl(self, _name: str, *arguments: str) -> int:
        """Start or stop as ovs-ctl would with *arguments*."""
        daemon = "ovsdb-server" if "--no-ovs-vswitchd" in arguments else "ovs-vswitchd"
        self.calls.append(f"{arguments[-1]} {daemon}")
        (self.running.add if arguments[-1] == "start" else self.running.discard)(daemon)
        return 0

    def pid_of(self, daemon: str) -> int | None:
        """A number for those that run."""
        return 1 if daemon in self.running else None


@pytest.fixture
def daemons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Daemons:
    """Daemons that systemctl works on, and a place for its links."""
    made = Daemons()
    monkeypatch.setattr(openvswitch, "_ovs_ctl", made.ovs_ctl)
    monkeypatch.setattr(openvswitch, "pid_of", made.pid_of)
    monkeypatch.setattr(openvswitch, "WANTS", str(tmp_path / "wants"))
    return made


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
    assert "Active: active (running)" in capsys.readouterr().out


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
