# SPDX-License-Identifier: Apache-2.0
"""The first program of the user-mode kernel for kills of ovs-vswitchd, as tests/system/realkernel/guest.py is for TC.

DIRECTORY has ``cases`` and gets ``results``, streams of pickles. A case is ``((offload, rounds),)``: so often
ovs-vswitchd, forwarding between two namespaces, is killed and started again, with or without hw-offload; its result is
``("case", [(sent, lost, outage in ms), …], milliseconds)``, the last what :func:`program_ms` takes here.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "realkernel"))

import guest  # type: ignore[import-not-found]

STREAM = Path(__file__).with_name("stream.py")
_OVS = "/tmp/ovs"
INTERVAL = 0.005
"""Seconds between packets: this kernel has one CPU, whose system calls are slow, and no time for more."""
_AFTERWARDS = 0.5
_PATIENCE = 60.0
_CPUS_COUNTED = 11.0
"""Seconds from boot after which ovs-vswitchd may start. It counts processors every 10 s, the first time when the clock
says 10 s (count_cpu_cores() in ovs-thread.c); before that it believes that there are none, and has no thread for
upcalls."""


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _start_switch() -> None:
    """Start ovs-vswitchd as Debian's ovs-ctl does."""
    options = ["-vconsole:emer", "-vsyslog:off", "-vfile:info", "--mlockall", "--no-chdir", "--detach"]
    files = (f"--log-file={_OVS}/vswitchd.log", f"--pidfile={_OVS}/ovs-vswitchd.pid")
    _run("ovs-vswitchd", f"unix:{_OVS}/db.sock", *options, *files)


def _set_up() -> None:
    os.makedirs(_OVS)
    os.environ.update(OVS_RUNDIR=_OVS, OVS_LOGDIR=_OVS, OVS_DBDIR=_OVS)
    guest._mount("tmpfs", "/run", "tmpfs")
    _run("ovsdb-tool", "create", f"{_OVS}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
    options = ("-vconsole:emer", "-vsyslog:off", f"--remote=punix:{_OVS}/db.sock", "--detach")
    _run("ovsdb-server", f"{_OVS}/conf.db", *options, f"--pidfile={_OVS}/ovsdb-server.pid")
    _run("ovs-vsctl", "--no-wait", "init")
    for number in (1, 2):
        _run("ip", "netns", "add", f"g{number}")
        _run("ip", "link", "add", f"r{number}", "type", "veth", "peer", "name", "e0", "netns", f"g{number}")
        _run("ip", "-n", f"g{number}", "addr", "add", f"10.57.0.{number}/24", "dev", "e0")
        _run("ip", "-n", f"g{number}", "link", "set", "e0", "up")
        _run("ip", "link", "set", f"r{number}", "up")
    time.sleep(max(0.0, _CPUS_COUNTED - time.clock_gettime(time.CLOCK_MONOTONIC)))
    _start_switch()
    _run("ovs-vsctl", "add-br", "br0", "--", "add-port", "br0", "r1", "--", "add-port", "br0", "r2")


def _program(namespace: str, *arguments: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, "/usr/bin/python3", "-S", "-E", str(STREAM), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for_line(program: subprocess.Popen[str]) -> None:
    """Return when a program has written its first line. OSError when it does not."""
    assert program.stdout is not None
    if not select.select([program.stdout], [], [], _PATIENCE)[0]:
        log = Path(f"{_OVS}/vswitchd.log").read_text().splitlines()
        raise OSError("\n".join(["no packet comes through; the switch's last words:", *log[-10:]]))
    program.stdout.readline()


def program_ms() -> float:
    """Milliseconds that a program of Open vSwitch takes to start and end: how slow the kernel is."""
    took = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run(["ovs-vsctl", "--version"], stdout=subprocess.DEVNULL, check=True)
        took.append(time.perf_counter() - began)
    return sorted(took)[len(took) // 2] * 1000


def _flows() -> int:
    return sum("eth_type(0x0800)" in flow for flow in _run("ovs-appctl", "dpctl/dump-flows").splitlines())


def _wait_for_flows() -> None:
    deadline = time.monotonic() + _PATIENCE
    while _flows() < 2:
        if time.monotonic() > deadline:
            raise OSError("the switch forwards no packets")
        time.sleep(0.02)


def _kill() -> None:
    """Kill ovs-vswitchd, and start it when it has ended."""
    pid = int(Path(f"{_OVS}/ovs-vswitchd.pid").read_text())
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([ended], [], [])
    os.close(ended)
    _start_switch()


def one_round() -> tuple[int, int, int]:
    """Packets sent and lost over a kill, and the milliseconds for which none came back."""
    with _program("g2", "echo") as echoing:
        _wait_for_line(echoing)
        with _program("g1", "send", "10.57.0.2", str(INTERVAL)) as sending:
            _wait_for_line(sending)
            _wait_for_flows()
            _kill()
            _wait_for_flows()
            time.sleep(_AFTERWARDS)
            assert sending.stdout is not None
            sending.send_signal(signal.SIGINT)
            said = sending.stdout.read()
        echoing.kill()
    found = re.search(r"(\d+) sent, (\d+) lost, longest outage (\d+) ms", said)
    if not found:
        raise OSError(f"stream.py ended with {sending.returncode}: {said}")
    return int(found[1]), int(found[2]), int(found[3])


def do(case: list[tuple[bool, int]]) -> tuple[Any, ...]:
    """Kill ovs-vswitchd as often as the case says."""
    ((offload, rounds),) = case
    _run("ovs-vsctl", "set", "Open_vSwitch", ".", f"other_config:hw-offload={str(offload).lower()}")
    _kill()
    return "case", [one_round() for _ in range(rounds)], program_ms()


def _start() -> guest.Do:
    _set_up()
    return do


if __name__ == "__main__":
    guest.main(_start, (*guest.MODULES, "openvswitch"))
