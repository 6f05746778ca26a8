# SPDX-License-Identifier: Apache-2.0
"""``python -m asap2.lab.supervisor DIRECTORY NOTIFY``: keeps the processes of a node running, including itself.

It runs in the network namespace of the node whose directory is DIRECTORY. It starts the node's daemon, waits until the
daemon has made the file ``ready``, lays its FUSE tree over the node's /sys, and writes ``ready`` to the file descriptor
NOTIFY. Whenever the daemon dies, it starts another; whenever a program of Open vSwitch dies that the node's systemctl
started, it has the node's systemctl do what systemd would. It also keeps a redirectd waiting, which begins when those
before it are dead (:mod:`asap2.lab.redirector`). SIGTERM ends supervisor and daemon.

There are two of them. The second waits for the end of the first, takes its place with the daemon as it is, and forks
another second. Whoever kills both leaves the daemon at work and nothing to watch it, until an ``asap2`` command looks
at the node (:mod:`asap2.lab.revive`). The socket that programs ask is held by all three: while one of them lives, who
asks while there is no daemon waits for the next. So does who uses /sys (:mod:`asap2.lab.fuse`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from asap2.lab import fuse
from asap2.lab.filesystem import show_faces
from asap2.lab.layout import REAL_SYSFS
from asap2.lab.redirector import Redirector
from asap2.lab.services import Services
from asap2.lab.watched import Watched
from asap2.logfile import shorten
from asap2.netlink import listener
from asap2.syscalls import descriptor_of, detach

COMMAND, LOCK, REFUSED = "daemon.command", "supervisor.lock", "refused"
"""Files of the node: the command that runs its daemon, as JSON; what a supervisor holds a lock of while it lives; why
its daemon will never serve."""
SHORT_LIFE = 2.0
"""Seconds: a daemon that died sooner did not work, so the next one is started after a pause."""
LONGEST_PAUSE = 5.0
STUCK_SECONDS = 120.0
"""Seconds without CPU time after which a daemon that does not serve yet is given up."""
PROGRAMS_WAIT = 100.0
"""How long the redirect library surely waits for a daemon while somebody listens (GREETING_S in redirect.h)."""
MOST_LOGGED = 8 << 20
"""Octets of each log of the node."""
_MOST_FORMER = 8
"""FUSE file systems of dead daemons whose users are still answered."""
_LOOK_AT_LOGS = 10.0
_LOOK_FOR_READY = 0.005
_TRY_AGAIN = 1.0
_PID_WIDTH = 16


class TookOver(Exception):  # noqa: N818
    """This process, which was waiting, has replaced the dead supervisor."""


class Supervisor:
    """Keeps one node running."""

    def __init__(self, directory: Path, notify: int | None) -> None:
        self.directory = directory
        self.notify = notify
        self.command: list[str] = json.loads((directory / COMMAND).read_text())
        self.services = Services(directory)
        self.redirector = Redirector(directory)
        self.daemon: Watched | None = None
        self.standby: Watched | None = None
        self.serving = False
        self._faces: fuse.Connection | None = None
        """That of the daemon, or of the last one."""
        self._former: list[fuse.Connection] = []
        self._start_at = 0.0
        self._pause = 0.0
        self._began = 0.0
        self._progress = (0, 0.0)
        self._complained = False
        self._logs_at = 0.0
        self._pid_file = os.open(directory / "daemon.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.daemon = self._running_daemon()
        self.listener = self._lent_listener() if self.daemon is not None else None
        self._patience_ends = math.inf
        """When requests are refused instead of waiting for a daemon."""
        if self.listener is None and notify is None:
            self._patience_ends = 0.0
        if self.listener is None:
            self.listener = listener.listen(listener.path_in(directory)).detach()
            if self.daemon is not None:  # it serves a socket that nobody finds any more
                self.daemon.kill()

    def run(self) -> int:
        """Keep the node running until told to stop, or until the first daemon fails; the exit status."""
        while True:
            try:
                return self._run()
            except TookOver:
                self.daemon = self._running_daemon()
                self.serving = False
                if self.daemon is None and self._faces is not None:
                    self._faces.server = 0

    def _run(self) -> int:
        signal.signal(signal.SIGTERM, self._stop)
        self._note("supervisor.pid")
        self._began = time.monotonic()
        self._progress = (0, self._began)
        while True:
            now = time.monotonic()
            if self.standby is not None and self.standby.ended():
                self.standby.close()
                self.standby = None
            if self.standby is None and self.notify is None:
                self._start_standby()
            if self.daemon is not None and self.daemon.ended():
                if self.notify is not None:
                    return 1
                self._daemon_ended(now)
            if self.daemon is None and now >= self._start_at:
                self._start_daemon(now)
            if self.daemon is not None and not self.serving:
                self._look_whether_it_serves(now)
            self._answer_former()
            self.redirector.look(now)
            self.services.look()
            if now >= self._logs_at:
                self._logs_at = now + _LOOK_AT_LOGS
                self._shorten_logs()
            self._wait(now)

    def _wait(self, now: float) -> None:
        """Sleep until there is something to do."""
        wake_at = min(self._logs_at, self.services.look_at, self.redirector.look_at)
        if self.daemon is None:
            wake_at = min(wake_at, self._start_at)
        elif not self.serving:
            wake_at = min(wake_at, now + _LOOK_FOR_READY)
        if self.standby is None and self.notify is None:
            wake_at = min(wake_at, now + _TRY_AGAIN)
        waiting = select.poll()
        for process in (self.daemon, self.standby):
            if process is not None:
                waiting.register(process.descriptor, select.POLLIN)
        for descriptor in (
            *self.services.descriptors(),
            *self.redirector.descriptors(),
            *(former.descriptor for former in self._former),
        ):
            waiting.register(descriptor, select.POLLIN)
        waiting.poll(max(0.0, wake_at - time.monotonic()) * 1000 + 1)

    # ---- the second supervisor

    def _start_standby(self) -> None:
        """Fork the process that waits for this one to end. TookOver is raised there when it does."""
        first = os.pidfd_open(os.getpid())
        try:
            pid = os.fork()
        except OSError as error:
            _say(f"cannot start another supervisor: {error.strerror}")
            os.close(first)
            return
        if pid:
            os.close(first)
            self.standby = Watched(pid)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._note("standby.pid")
        select.select([first], [], [])
        os.close(first)
        for process in (self.daemon, self.standby):
            if process is not None:
                process.close()
        self.services.forget()
        self.redirector.forget()
        self.daemon = self.standby = None
        _say("the supervisor was killed; another takes its place")
        raise TookOver

    # ---- the daemon

    def _lock_of_daemon(self) -> int | None:
        """A descriptor of the file that a daemon has locked while it lives, locked; None when it lives."""
        file = os.open(self.directory / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file

    def _running_daemon(self) -> Watched | None:
        """The daemon that an earlier supervisor started."""
        while (lock := self._lock_of_daemon()) is None:
            numbers = [name for name in os.listdir("/proc") if name.isdecimal()]
            with contextlib.suppress(OSError):
                numbers.insert(0, os.pread(self._pid_file, _PID_WIDTH, 0).decode())
            for number in numbers:
                with contextlib.suppress(OSError, ValueError):
                    process = Watched(int(number))
                    if process.pid != os.getpid() and _has_open(process.pid, self.directory / "daemon.lock"):
                        return process
                    process.close()
        os.close(lock)
        return None

    def _lent_listener(self) -> int | None:
        """The socket that the running daemon was lent by an earlier supervisor."""
        assert self.daemon is not None
        with contextlib.suppress(OSError, ValueError):
            variables = Path(f"/proc/{self.daemon.pid}/environ").read_bytes().split(b"\0")
            name = f"{listener.VARIABLE}=".encode()
            (number,) = (int(one.removeprefix(name)) for one in variables if one.startswith(name))
            return descriptor_of(self.daemon.descriptor, number)
        return None

    def _start_daemon(self, now: float) -> None:
        assert self.listener is not None
        try:
            self._clear()
            lock = self._lock_of_daemon()
            if lock is None:
                self._start_at = now + _LOOK_FOR_READY
                return
            try:
                started = subprocess.Popen(
                    [*self.command, str(self.directory / "daemon.json")],
                    stdin=subprocess.DEVNULL,
                    cwd="/",
                    env=os.environ | {listener.VARIABLE: str(self.listener)},
                    pass_fds=[self.listener, lock],
                    preexec_fn=lambda: _write(self._pid_file, os.getpid()),
                )
            finally:
                os.close(lock)
            self.daemon = Watched(started.pid)
            started.returncode = 0  # it is ours to wait for, not Popen's
            self._began = now
            self._progress = (0, now)
            self._complained = False
        except (OSError, subprocess.SubprocessError) as error:
            _say(f"cannot start the daemon: {error}")
            self._start_at = now + _TRY_AGAIN

    def _daemon_ended(self, now: float) -> None:
        assert self.daemon is not None
        _say(f"the daemon, process {self.daemon.pid}, has ended")
        self.daemon.close()
        self.daemon = None
        if self._faces is not None:
            self._faces.server = 0
        if (self.directory / REFUSED).exists():
            self._give_up()
            return
        if self.serving:
            self._patience_ends = now + PROGRAMS_WAIT
        self.serving = False
        short = now - self._began < SHORT_LIFE
        self._start_at = now + self._pause if short else now
        self._pause = min(LONGEST_PAUSE, max(0.1, 2 * self._pause)) if short else 0.0

    def _give_up(self) -> None:
        """No daemon will serve this node: let go of what programs wait at, so that they are refused."""
        _say(f"no daemon is started any more: {(self.directory / REFUSED).read_text().strip()}")
        self._start_at, self.serving = math.inf, False
        if self.listener is not None:
            listener.path_in(self.directory).unlink(missing_ok=True)
            os.close(self.listener)
            self.listener = None
        for connection in (self._faces, *self._former):
            if connection is not None:
                connection.close()
        self._faces, self._former = None, []
        if self.standby is not None:  # the next one holds nothing
            self.standby.kill()

    def _look_whether_it_serves(self, now: float) -> None:
        """Show its /sys and tell, when it is ready; give it up when it makes no progress."""
        assert self.daemon is not None
        if (self.directory / "ready").exists():
            try:
                if not self._shows(self.daemon):
                    self._show_faces()
            except (OSError, RuntimeError) as error:  # it is dying, if this is not a fault of ours
                if not self._complained:
                    _say(f"cannot show /sys: {error}")
                self._complained = True
                return
            self.serving = True
            self._hold_faces()
            self._tell()
            if now > self._patience_ends:
                self.services.switch_was_refused()
            self._patience_ends = math.inf
            return
        used, since = self._progress
        if (uses := self.daemon.cpu_time()) != used:
            self._progress = uses, now
        elif now - since > STUCK_SECONDS:
            _say(f"the daemon does not serve, and has done nothing for {STUCK_SECONDS:g} s")
            self.daemon.kill()

    def _show_faces(self) -> None:
        """Mount what the daemon serves over /sys of the node and of its guests."""
        served = self.directory / "sys"
        show_faces(self.directory / "ns", served, self.directory / REAL_SYSFS)
        for guest in json.loads((self.directory / "daemon.json").read_text()).get("guests", []):
            show_faces(Path(guest["netns"]).parent, served / "guests" / guest["name"], Path(guest["sysfs"]))

    def _shows(self, daemon: Watched) -> bool:
        """Whether the daemon's FUSE file system is shown and held. It must not be used any more then, by us: when the
        daemon dies, nobody else ends our waiting."""
        return self._faces is not None and self._faces.server == daemon.pid

    def _hold_faces(self) -> None:
        """Hold the daemon's FUSE file system, which is shown now; who waits for the last one goes on in this one."""
        assert self.daemon is not None
        last = self._faces
        if self._shows(self.daemon):
            return
        self._faces = fuse.Connection.of(self.daemon)
        if last is not None:
            if last.replaced():
                self._former.append(last)
            else:
                last.close()
            for former in self._former[:-_MOST_FORMER]:
                former.close()
            del self._former[:-_MOST_FORMER]
        if self.standby is not None:  # the next one holds it too
            self.standby.kill()

    def _answer_former(self) -> None:
        for former in list(self._former):
            if not former.retry():
                former.close()
                self._former.remove(former)

    def _clear(self) -> None:
        """Remove what a dead daemon left: its ready mark and its FUSE mount."""
        (self.directory / "ready").unlink(missing_ok=True)
        while True:
            try:
                detach(self.directory / "sys")
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return

    # ---- the rest

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        if self.standby is not None:
            self.standby.kill()
        self.redirector.end()
        if self.daemon is not None:
            self.daemon.kill(signal.SIGTERM)
            select.select([self.daemon.descriptor], [], [])
        sys.exit(0)

    def _note(self, name: str) -> None:
        """Write this process's number into a file of the node, if there is room for it."""
        with contextlib.suppress(OSError):
            file = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _write(file, os.getpid())
            finally:
                os.close(file)

    def _tell(self) -> None:
        if self.notify is not None:
            with contextlib.suppress(OSError):
                os.write(self.notify, b"ready")
            os.close(self.notify)
            self.notify = None

    def _shorten_logs(self) -> None:
        logs: Iterable[Path] = ()
        with contextlib.suppress(OSError):
            logs = [self.directory / "daemon.log", *(self.directory / "log").iterdir()]
        for log in logs:
            with contextlib.suppress(OSError):
                descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    shorten(descriptor, MOST_LOGGED)
                finally:
                    os.close(descriptor)


def _write(file: int, pid: int) -> None:
    """Write a process id into a file in place, which works even in a full file system."""
    os.pwrite(file, f"{pid}\n".rjust(_PID_WIDTH).encode(), 0)


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has the file open. Its other files are not looked at: of a FUSE file system without a server,
    no stat() returns."""
    wanted = path.stat()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            descriptor = f"/proc/{pid}/fd/{name}"
            if os.readlink(descriptor).endswith(f"/{path.name}") and os.path.samestat(os.stat(descriptor), wanted):
                return True
    return False


def _say(words: str) -> None:
    """Log a line, if there is room for it."""
    with contextlib.suppress(OSError):
        print(f"supervisor: {words}", file=sys.stderr, flush=True)


def hold_lock(directory: Path, seconds: float = 1.0) -> bool:
    """Hold the lock of the node's supervisors as long as this process and those that it forks live; False when others
    do. One that only looks (:mod:`asap2.lab.revive`) has it for a moment."""
    file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(file)
                return False
            time.sleep(_LOOK_FOR_READY)


def main() -> int:
    """Run with the process's arguments."""
    directory = Path(sys.argv[1])
    notify = int(sys.argv[2]) if len(sys.argv) > 2 else None
    if notify is not None:
        os.set_inheritable(notify, False)
    if not hold_lock(directory):
        return 0
    return Supervisor(directory, notify).run()


if __name__ == "__main__":
    sys.exit(main())
