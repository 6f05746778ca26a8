# SPDX-License-Identifier: Apache-2.0
"""Cables that lose, delay and limit packets while the lab runs, counted."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.lab import gallery
from asap2.lab.cables import cables
from asap2.lab.impairment import GOOD, Impairment
from asap2.lab.lab import Lab
from asap2.lab.layout import ROOT_VARIABLE, Layout
from asap2.lab.namespaces import call_in, identity
from asap2.lab.processes import inside
from tests.schemas import answer

from .conftest import sh, wait_for

PACKETS = 1000


@pytest.fixture(scope="module")
def up() -> Iterator[Lab]:
    """Two nodes, a cable, a guest on each."""
    made = Lab(Layout(Path(f"/run/t-cables-{os.getpid()}")))
    made.up(gallery.named("vlan"))
    sh(made, "vm1", "ping -q -c 3 -i 0.1 -W 10 10.57.0.2")
    yield made
    made.down()


def change(lab: Lab, **words: str) -> dict[str, Any]:
    """Make the cable as bad as *words* say, and no worse; what it is then."""
    return lab.impair("hv1", "hv2", lambda _: GOOD.changed(words))


@pytest.fixture(autouse=True)
def _good_again(up: Lab) -> Iterator[None]:
    yield
    change(up)


def devices(lab: Lab) -> list[str]:
    """The devices in the silicon of the first node."""
    bundle = lab.layout.silicon("hv1", 0).parent
    found: list[str] = call_in(bundle, lambda: [name for _, name in socket.if_nameindex()], ["net"])
    return found


def answers(lab: Lab, options: str) -> int:
    """How many of the pings of vm1 were answered."""
    found = re.search(r"(\d+) received", sh(lab, "vm1", f"ping -q -n {options} 10.57.0.2 || true"))
    assert found
    return int(found[1])


def test_a_cable_loses_the_share_of_packets_that_it_is_told(up: Lab) -> None:
    change(up, loss="10%")
    assert 0 < answers(up, f"-f -c {PACKETS}") < PACKETS
    (cable,) = cables(up.layout)
    for end in cable.counted():
        assert end.received >= 0.7 * PACKETS
        assert 0.05 * end.received < end.lost < 0.15 * end.received  # more than four standard deviations


def test_a_cable_delays_in_both_directions_and_keeps_the_order(up: Lab) -> None:
    change(up, delay="10ms", jitter="5ms")
    output = sh(up, "vm1", "ping -n -c 40 -i 0.002 10.57.0.2")
    times = [float(found) for found in re.findall(r"time=([\d.]+) ms", output)]
    assert len(times) == 40
    assert min(times) >= 2 * (10 - 5)
    assert len({round(each) for each in times}) > 1
    sequence = [int(found) for found in re.findall(r"icmp_seq=(\d+)", output)]
    assert sequence == sorted(sequence)


def test_super_packets_and_unfinished_checksums_pass_a_delay(up: Lab) -> None:
    change(up, delay="1ms")
    sh(up, "vm2", "iperf3 --server --one-off --daemon && until ss -Hltn | grep -q :5201; do :; done")
    assert "receiver" in sh(up, "vm1", "iperf3 --client 10.57.0.2 --bytes 20M")
    assert [end.dropped for end in cables(up.layout)[0].counted()] == [0, 0]


def test_a_rate_holds_packets_back_and_drops_what_is_too_much(up: Lab) -> None:
    change(up, rate="8mbit")
    before, began = received(up), time.monotonic()
    call_in(up.layout.bundle("vm1"), send)
    sh(up, "vm1", "ping -q -c 1 -W 10 10.57.0.2")  # it waits behind the others
    octets = received(up) - before
    assert 32_768 < octets < 2 * 32_768 + 1e6 * (0.05 + time.monotonic() - began)


def send() -> None:
    """4 MB of UDP, at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(4000):
            sock.sendto(bytes(1000), ("10.57.0.2", 9))


def received(lab: Lab) -> int:
    """Octets that vm2 has received."""
    (link,) = json.loads(sh(lab, "vm2", "ip -j -s link show eth0"))
    octets: int = link["stats64"]["rx"]["bytes"]
    return octets


def test_a_bad_cable_stays_bad_without_the_daemon_and_with_the_next(up: Lab) -> None:
    change(up, loss="100%")
    pid_file = up.layout.node("hv2") / "daemon.pid"
    first = pid_file.read_text()
    os.kill(int(first), signal.SIGKILL)
    assert answers(up, "-c 1 -W 0.2") == 0
    wait_for(lambda: pid_file.read_text() not in ("", first))
    sh(up, "hv2", "devlink dev show")
    sh(up, "hv2", "ip link set enp3s0f0 down && ip link set enp3s0f0 up")
    assert answers(up, "-c 1 -W 0.2") == 0
    change(up)
    assert answers(up, "-c 1 -W 10") == 1


def delayers(lab: Lab) -> list[int]:
    """The processes that delay what comes in at the first node."""
    there = inside([identity(lab.layout.silicon("hv1", 0))])
    return [pid for pid in there if b"delay-p0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_delay_goes_on_when_a_process_that_delays_is_killed(up: Lab) -> None:
    change(up, delay="1ms")
    for turn in range(6):
        wait_for(lambda: len(delayers(up)) == 2)
        before = sorted(delayers(up))
        os.kill(before[turn % 2], signal.SIGKILL)
        wait_for(lambda: len(set(delayers(up)) - set(before)) == 1)  # noqa: B023
        assert answers(up, "-c 1 -W 10") == 1
    change(up)
    assert delayers(up) == []


def test_nothing_of_an_impairment_remains_at_a_good_cable(up: Lab) -> None:
    before = devices(up)
    command = [sys.executable, "-m", "asap2.cli.main", "lab", "cable", "hv2", "delay", "1ms", "rate", "1gbit", "--json"]
    environment = os.environ | {ROOT_VARIABLE: str(up.root)}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    (shown,) = answer(printed)["cables"]
    assert shown["impairment"] == Impairment(10**6, rate=10**9).as_data()
    assert {"delay-p0", "shaper-p0", "shaped-p0"} <= set(devices(up))
    assert change(up, loss="1%")["impairment"]["loss_percent"] == 1
    assert devices(up) == before
    assert change(up)["impairment"] is None
    assert not list((up.layout.cables / "bpf").glob("*-p0"))
