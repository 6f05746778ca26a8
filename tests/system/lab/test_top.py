# SPDX-License-Identifier: Apache-2.0
"""``asap2 top`` beside a ping: on a terminal, whose state it leaves as it was, and in a pipe."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asap2.errors import InterruptError
from asap2.lab.layout import ROOT_VARIABLE
from asap2.testing import Lab
from tests.schemas import answer
from tests.system.patience import PATIENCE

pytestmark = pytest.mark.asap2_topology("vlan")
ASAP2 = (sys.executable, "-m", "asap2.cli.main")
SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07)")
RATE = 100
"""Echo requests per second."""
LEFT = ("\x1b[?1049l", "\x1b[?25h", "\x1b[?1003l", "\x1b[?1006l", "\x1b[?2004l")
"""What a terminal gets at the end: its own screen again, a cursor, no reports of the mouse, and no marks around what is
pasted (xterm's control sequences)."""


class Session:
    """The command with *words* on a terminal of 80 columns."""

    def __init__(self, lab: Lab, *words: str) -> None:
        self.output = ""
        self.master, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(terminal)
        self.terminal = terminal
        self.process = subprocess.Popen(
            [*ASAP2, *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {ROOT_VARIABLE: str(lab.root), "TERM": "xterm-256color", "LANG": "C.UTF-8"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read until the text that comes from now on, without control sequences, has *pattern*."""
        begin, deadline = len(self.output), time.monotonic() + PATIENCE
        while not (found := re.search(pattern, SEQUENCES.sub(" ", self.output[begin:]))):
            assert self._read(deadline - time.monotonic()), f"no {pattern} in {self.output[begin:]!r}"
        return found

    def type(self, keys: str) -> None:
        """Press *keys*."""
        os.write(self.master, keys.encode())

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        while self.process.poll() is None:
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.returncode

    def is_clean(self) -> bool:
        """Whether the terminal is as it was."""
        same = termios.tcgetattr(self.terminal) == self.before
        return same and all(self.output.rfind(end) > self.output.rfind(end[:-1] + "hl"[end[-1] == "h"]) for end in LEFT)

    def close(self) -> None:
        """End it in any case."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.terminal)

    def _read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], max(0.0, seconds))[0]:
            return False
        self.output += os.read(self.master, 65536).decode(errors="replace")
        return True


@pytest.fixture(scope="module")
def pinging(asap2_module_lab: Lab) -> Iterator[Lab]:
    """A lab with a ping that goes on."""
    lab = asap2_module_lab
    vm1, vm2 = lab.guest("vm1"), lab.guest("vm2")
    vm1.ping(vm2, count=3)
    with vm1.running(f"ping -q -i {1 / RATE} {vm2.address}", until="PING"):  # silent: nobody reads its output
        yield lab


@pytest.fixture
def session(pinging: Lab) -> Iterator[Session]:
    made = Session(pinging, "top", "--interval", "0.5")
    yield made
    made.close()


def test_numbers_move_and_q_leaves_the_terminal_as_it_was(session: Session) -> None:
    seen: set[str] = set()
    for _ in range(100):
        seen |= {session.read_until(r", ([\d.]+k?) packets/s")[1]} - {"0"}  # the comma: a whole number
        if len(seen) > 1:
            break
    assert len(seen) > 1
    assert re.search(r"vm1 +vf", SEQUENCES.sub(" ", session.output))
    session.type("f")
    session.read_until(r"NIC +eth\(src=")
    session.type("q")
    assert session.wait() == 0
    assert session.is_clean()


@pytest.mark.parametrize("how", ["key", "SIGTERM", "SIGHUP"])
def test_however_it_ends_the_terminal_is_as_it_was(session: Session, how: str) -> None:
    session.read_until("in hardware")
    if how == "key":
        session.type("\x03")
        assert session.wait() == InterruptError.status
    else:
        number = signal.Signals[how]
        session.process.send_signal(number)
        assert session.wait() == 128 + number
    assert session.is_clean()
    assert "Traceback" not in session.output


def test_rounds_in_a_pipe_are_plain_text(pinging: Lab) -> None:
    done = pinging.asap2("top", "--batch", "2", "--interval", "0.5", "--sort", "guest", "--filter", "vf vm")
    assert "\x1b" not in done.stdout
    rounds = [text.splitlines() for text in done.stdout.strip().split("\n\nlab ")]
    assert len(rounds) == 2
    for lines in rounds:
        assert "% in hardware" in lines[1]
        assert [line.split()[:3] for line in lines[-2:]] == [["hv1", "eth0", "vm1"], ["hv2", "eth0", "vm2"]]
        assert RATE / 4 < float(lines[-1].split()[-6]) < 4 * RATE


def test_rounds_as_json_follow_their_schema_and_have_the_flows(pinging: Lab) -> None:
    done = pinging.asap2("top", "--batch", "3", "--interval", "1", "--flows", "--json")
    rounds = [answer(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 3
    for one in rounds:
        assert one["totals"]["hardware"] > 0.9
    busy = [flow for flow in rounds[-1]["flows"] if flow["packets"]]
    assert {(flow["node"], flow["where"]) for flow in busy} == {("hv1", "NIC"), ("hv2", "NIC")}


def test_a_reader_that_goes_ends_it_silently(pinging: Lab) -> None:
    command = [*ASAP2, "top", "--interval", "0.2"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {ROOT_VARIABLE: str(pinging.root)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("lab ")
        process.stdout.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""


def test_a_host_is_watched_as_a_lab_is(pinging: Lab) -> None:
    found = pinging.node("hv1").asap2("host", "top", "--batch", "2", "--interval", "0.5", "--json")
    last = answer(found.stdout.splitlines()[-1])
    assert (last["source"], last["name"]) == ("host", "hv1")
    [vf] = [port for port in last["ports"] if port["kind"] == "vf" and port["in_packets"]]
    assert vf["hardware"] > 0.9


def test_without_a_lab_it_says_so(tmp_path: Path) -> None:
    for words in (["top"], ["top", "--batch", "1"]):
        done = subprocess.run(
            [*ASAP2, *words], capture_output=True, text=True, env=os.environ | {ROOT_VARIABLE: str(tmp_path / "none")}
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "no lab is up" in done.stderr
        assert len(done.stderr.splitlines()) == 1
