# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch's daemons as systemd runs them by Debian's units, in a node, where there is no systemd.

What systemd knows of a unit is in a file of the directory :data:`DIRECTORY`, written in place. One job at a time
changes something. The node's supervisor (:mod:`asap2.lab.services`) reads the files too: when a main process has ended,
it runs :func:`main_exited` here.

The units are ovsdb-server, ovs-vswitchd and openvswitch-switch of Debian's package openvswitch-switch. What they say
besides the commands: ``Restart=on-failure``; ovs-vswitchd ``Requires=ovsdb-server``, so it is restarted with that. What
systemd adds (systemd-system.conf(5)): ``RestartSec=100ms``, and ``StartLimitBurst=5`` in ``StartLimitIntervalSec=10s``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from asap2.lab.watched import started_at

DIRECTORY = Path("/run/asap2-units")
"""In the node; in the node's directory it is ``units``."""
CHANGED = "changed"
"""A fifo there: an octet in it tells the supervisor that something has changed."""
_ROOM = 1024
"""Octets of a file, which has them from the start: a full file system does not stand in the way."""

OVS_CTL = "/usr/share/openvswitch/scripts/ovs-ctl"
RELOAD = "/usr/share/openvswitch/scripts/ovs-systemd-reload"
DEFAULTS = "/etc/default/openvswitch-switch"
"""EnvironmentFile= of the units; OVS_CTL_OPTS in it goes to ovs-ctl."""
RUN_DIRECTORY = "/var/run/openvswitch"

DATABASE, SWITCH, BOTH = "ovsdb-server", "ovs-vswitchd", "openvswitch-switch"
DAEMONS = (DATABASE, SWITCH)
"""In the order of their start."""

_OTHER = {DATABASE: "--no-ovs-vswitchd", SWITCH: "--no-ovsdb-server"}
_NEW = ("--no-monitor", "--system-id=random", "--no-record-hostname")
RESTART_SECONDS = 0.1
START_LIMIT, START_INTERVAL = 5, 10.0
_EXIT_SECONDS = 2.0
"""As long as ovs-ctl waits for a daemon that was asked to exit, before it sends signals (ovs-lib, stop_daemon)."""
_CLEAN_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}
JOB_SECONDS = 300
"""TimeoutSec= of the units."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a unit. ``state`` is systemd's, with the sub-state ``auto-restart`` as a state of its own."""

    state: str = "inactive"
    result: str = "success"
    pid: int = 0
    started: int = 0
    """When the main process started, in the kernel's clock ticks."""
    since: float = 0.0
    """Of the state, as seconds since the epoch."""
    restarts: int = 0
    starts: tuple[float, ...] = ()
    """When it was started lately, by the monotonic clock."""

    @property
    def runs(self) -> bool:
        """Whether its main process runs."""
        return self.state == "active" and self.started == started_at(self.pid)


def prepare(directory: Path) -> None:
    """Make the files of a node in *directory*."""
    directory.mkdir(exist_ok=True)
    os.mkfifo(directory / CHANGED, 0o600)
    for name in (*DAEMONS, BOTH):
        (directory / name).write_text("".ljust(_ROOM))


def read(directory: Path, name: str) -> Record:
    """What is known of unit *name*."""
    try:
        known = json.loads((directory / name).read_text())
        return Record(**{**known, "starts": tuple(known["starts"])})
    except (OSError, ValueError, TypeError, KeyError):
        return Record()


def _write(name: str, record: Record) -> None:
    file = os.open(DIRECTORY / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(file, json.dumps(asdict(record)).ljust(_ROOM).encode(), 0)
    finally:
        os.close(file)
    with contextlib.suppress(OSError):  # ENXIO: there is no supervisor; the next one reads all
        fifo = os.open(DIRECTORY / CHANGED, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fifo, "wb", buffering=0) as pipe:
            pipe.write(b".")


def _become(name: str, state: str, result: str = "success", pid: int = 0) -> None:
    record = replace(read(DIRECTORY, name), state=state, result=result, since=time.time())
    if state == "active" or pid:
        record = replace(record, pid=pid, started=started_at(pid))
    _write(name, record)


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Hold off other jobs."""
    DIRECTORY.mkdir(exist_ok=True)
    with open(DIRECTORY / "job", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pid_of(daemon: str) -> int | None:
    """The process id of *daemon* while it runs, from its pidfile."""
    pid = _written_pid(daemon)
    if pid is None or not started_at(pid):
        return None
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return pid if file.read().strip() == daemon.encode() else None
    except OSError:
        return None


def _written_pid(daemon: str) -> int | None:
    try:
        with open(f"{RUN_DIRECTORY}/{daemon}.pid") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


# ---- jobs, to be called in :func:`job`


def start(daemon: str) -> str:
    """Start *daemon* if it does not run; what went wrong, or nothing."""
    pid = pid_of(daemon)
    if pid is not None:
        if not read(DIRECTORY, daemon).runs:
            _become(daemon, "active", pid=pid)
        return ""
    record = read(DIRECTORY, daemon)
    now = time.monotonic()
    lately = tuple(at for at in record.starts if now - START_INTERVAL < at <= now)
    if len(lately) >= START_LIMIT:
        _become(daemon, "failed", "start-limit-hit")
        return "start of the service was attempted too often."
    _write(daemon, replace(record, state="activating", since=time.time(), starts=(*lately, now)))
    with contextlib.suppress(
        OSError
    ):  # ovs-ctl takes a dead process for one that runs until somebody has waited for it
        os.unlink(f"{RUN_DIRECTORY}/{daemon}.pid")
    said = _ovs_ctl(_OTHER[daemon], *_NEW, "start", *_options())
    pid = pid_of(daemon)
    if said is not None or pid is None:
        _become(daemon, "auto-restart", "exit-code")
        return said or f"{daemon} does not run."
    _become(daemon, "active", pid=pid)
    return ""


def stop(daemon: str) -> str:
    """Stop *daemon* if it runs; what went wrong, or nothing."""
    pid = pid_of(daemon)
    if pid is not None:
        _exit(daemon, pid)
    if pid_of(daemon) is not None and (said := _ovs_ctl(_OTHER[daemon], "stop")) is not None:
        return said
    if read(DIRECTORY, daemon).state != "failed":
        _become(daemon, "inactive")
    return ""


def _exit(daemon: str, pid: int) -> None:
    """Ask *daemon* to exit and wait for its end, as ovs-ctl does first of all.

    ovs-ctl takes an ended process for one that runs until its parent has waited for it. Some machines' init does that
    seconds later, and so long packets would wait for the next daemon.
    """
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        command = ["ovs-appctl", "-T", "1", "-t", f"{RUN_DIRECTORY}/{daemon}.{pid}.ctl", "exit"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not done.returncode:
            select.select([ended], [], [], _EXIT_SECONDS)
    finally:
        os.close(ended)


def reload(daemon: str) -> str:
    """Have ovs-ctl restart *daemon*, which keeps its flows; what went wrong, or nothing."""
    said = _ovs_ctl(_OTHER[daemon], *_NEW, "restart", *_options())
    pid = pid_of(daemon)
    if pid is not None:
        _become(daemon, "active", pid=pid)
    return said or ""


def reset(name: str) -> None:
    """Forget failures and earlier starts (systemctl reset-failed)."""
    record = replace(read(DIRECTORY, name), starts=(), restarts=0)
    _write(name, replace(record, state="inactive", result="success") if record.state == "failed" else record)


def mark(active: bool) -> None:
    """Note whether the unit that stands for both daemons is active."""
    if (read(DIRECTORY, BOTH).state == "active") != active:
        _become(BOTH, "active" if active else "inactive")


def main_exited(daemon: str, status: int | None = None) -> None:
    """Do what systemd does when the main process of *daemon* has ended, or when it has failed to start.

    *status* is what wait(2) tells of the end. When that is not known, it was a failure if the pidfile is still there:
    Open vSwitch's daemons remove it when they exit.
    """
    with job():
        record = read(DIRECTORY, daemon)
        if record.state == "active":
            if record.runs:
                return
            result = result_of(status) if status is not None else "signal" * (_written_pid(daemon) == record.pid)
            if not result:
                _become(daemon, "inactive")
                return
            _become(daemon, "auto-restart", result)
    while read(DIRECTORY, daemon).state == "auto-restart":
        time.sleep(RESTART_SECONDS)
        with job():
            record = read(DIRECTORY, daemon)
            if record.state != "auto-restart":
                return
            _write(daemon, replace(record, restarts=record.restarts + 1))
            if said := _restart(daemon):
                print(f"systemctl: {daemon}: {said}", file=sys.stderr, flush=True)


def result_of(status: int) -> str:
    """Result= of a service whose main process ended so; nothing when that was clean (systemd.service(5), Restart=)."""
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) in _CLEAN_SIGNALS:
            return ""
        return "core-dump" if os.WCOREDUMP(status) else "signal"
    return "exit-code" if os.WEXITSTATUS(status) else ""


def switch_was_refused() -> None:
    """Restart ovs-vswitchd, if it runs: nobody answered it for so long that it has taken its ports for gone."""
    with job():
        if read(DIRECTORY, SWITCH).runs and (said := stop(SWITCH) or start(SWITCH)):
            print(f"systemctl: {SWITCH}: {said}", file=sys.stderr, flush=True)


def _restart(daemon: str) -> str:
    """Start *daemon*, and what depends on it or it depends on, after its failure; what went wrong, or nothing."""
    if daemon == DATABASE:
        with_switch = read(DIRECTORY, SWITCH).state in ("active", "auto-restart")
        said = stop(SWITCH) if with_switch else ""
        said = start(DATABASE) or said
        return said or (start(SWITCH) if with_switch else "")
    said = start(DATABASE)
    if said and read(DIRECTORY, DATABASE).state == "failed":
        _become(SWITCH, "inactive")  # a job that it depends on has failed
    return said or start(SWITCH)


def _options() -> list[str]:
    """OVS_CTL_OPTS of the units' EnvironmentFile=."""
    found: list[str] = []
    with contextlib.suppress(OSError), open(DEFAULTS) as file:
        for line in file:
            name, _, value = line.partition("=")
            if name.strip() == "OVS_CTL_OPTS":
                with contextlib.suppress(ValueError):
                    found = [word for part in shlex.split(value, comments=True) for word in part.split()]
    return found


def _ovs_ctl(*arguments: str) -> str | None:
    """Run ovs-ctl; None, or what it said when it failed."""
    try:
        done = subprocess.run(
            [OVS_CTL, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=JOB_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return "a timeout was exceeded."
    return " ".join(done.stdout.split()) if done.returncode else None
