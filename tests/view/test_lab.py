# SPDX-License-Identifier: Apache-2.0
"""The page in Chromium, with a real lab: what it shows is what passes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from asap2.lab.bench.paths import SwitchingHost
from asap2.lab.layout import Layout
from asap2.testing import Lab, lab
from tests.view.conftest import cpu_seconds, view
from tests.view.test_picture import all_of, label, opened, until, vertex


@pytest.fixture(scope="module")
def vxlan() -> Iterator[Lab]:
    """Two nodes whose guests share a tunnel."""
    with lab("vxlan") as made:
        made.guest("vm1").ping(made.guest("vm2"), count=3)
        yield made


def test_the_picture_is_there_in_3_seconds_and_moves(page: Chrome, vxlan: Lab) -> None:
    vm1, vm2 = vxlan.guest("vm1"), vxlan.guest("vm2")
    page.get("about:blank")
    with vm1.running(["ping", "-i", "0.01", vm2.address]):
        began = time.monotonic()
        with view(vxlan.root) as (url, _):
            opened(page, url)
            until(page, lambda: "in hardware" in label(page, "cable 0"))
            seconds = time.monotonic() - began
            print(f"{seconds:.1f} s from the command to a picture with moving numbers")
            assert seconds < 3
            assert [one.text for one in all_of(page, ".box")] == ["hv1", "hv2"]
            assert all_of(page, '[data-edge^="tunnel"]')
            until(page, lambda: packets(label(page, "cable 0")) > 50)
            until(page, lambda: packets(label(page, "tunnel hv1/tun0")) > 50)


def packets(words: str) -> float:
    """The packets per second in hardware that a line tells of."""
    found = re.search(r"([\d.]+) (k?)packets/s in hardware", words)
    return float(found[1]) * (1000 if found[2] else 1) if found else 0.0


def test_a_click_shows_the_flows_and_why_one_is_in_software(page: Chrome, vxlan: Lab) -> None:
    vm1, vm2 = vxlan.guest("vm1"), vxlan.guest("vm2")
    vxlan.node("hv1").forget_flows()
    nobody = "10.57.0.99"
    with (
        vm1.running(["ping", "-i", "0.1", vm2.address]),
        vm1.running(["ping", "-i", "0.3", nobody]),
        view(vxlan.root) as (url, _),
    ):
        opened(page, url)
        representor = vxlan.node("hv1").representor("vm1")
        ActionChains(page).move_to_element(vertex(page, f"hv1/{representor}")).click().perform()
        until(page, lambda: all_of(page, ".flow.software"), 60)
        until(page, lambda: all_of(page, ".flow.hardware"))
        reasons = {one.code for one in vxlan.node("hv1").explain()}
        flow = all_of(page, ".flow.software")[0]
        flow.find_element(By.TAG_NAME, "summary").click()
        assert flow.find_element(By.CSS_SELECTOR, ".reason").text in reasons


def test_a_packet_is_told_as_it_happens(page: Chrome, vxlan: Lab) -> None:
    vm1, vm2 = vxlan.guest("vm1"), vxlan.guest("vm2")
    with view(vxlan.root, "--trace", "icmp[icmptype] == icmp-echo") as (url, process):
        opened(page, url)
        vm1.ping(vm2)
        with vm1.running(["ping", "-i", "0.2", vm2.address]):
            until(page, lambda: all_of(page, "#ways td.hardware"), 180)
        page.execute_script("document.querySelector('#ways tr:has(td.hardware) button').click()")
        steps = [one.text for one in all_of(page, "#story li")]
        assert "HW hv1 vm1: sent by VF" in steps[0]
        assert "HW hv2 vm2: received by VF" in steps[-1]
        told = {one.get_attribute("data-id") for one in all_of(page, '.vertex[data-way="hardware"]')}
        assert {"guest vm1", "nic hv1/nic0", "nic hv2/nic0", "guest vm2"} <= told
        tracers = subprocess.run(
            ["pgrep", "-P", str(process), "-f", "trace.stream"], capture_output=True, text=True, check=True
        ).stdout
        os.kill(process, signal.SIGKILL)
        until(page, lambda: not any(Path(f"/proc/{one}").exists() for one in tracers.split()))


def test_looking_takes_less_than_3_percent_of_the_cpus(vxlan: Lab) -> None:
    """What the view takes of the CPUs, traffic that needs them all has to do without: the server, what reads flows, and
    the programs of the node that are asked. (A browser's CPU time is spent where it runs, which need not be here.)
    `asap2 bench --suite view` measures the throughput itself, which a busy machine changes by more than this."""
    vm1, vm2 = vxlan.guest("vm1"), vxlan.guest("vm2")
    asked = SwitchingHost(Layout(vxlan.root), "hv1").processes()

    def cores(processes: list[int]) -> float:
        before, began = sum(map(cpu_seconds, processes)), time.monotonic()
        time.sleep(10)
        return (sum(map(cpu_seconds, processes)) - before) / (time.monotonic() - began)

    with (
        vm2.running(["iperf3", "-s", "-1"], until="listening"),
        vm1.running(["iperf3", "-c", vm2.address, "-t", "60"]),
        view(vxlan.root) as (url, server),
    ):
        quiet = cores(asked)
        with reading(url):
            readers = until_read(server)
            looked = cores([server, *readers, *asked])
    taken = (looked - quiet) / (os.cpu_count() or 1)
    print(f"{100 * taken:.1f} % of the CPUs: {looked:.3f} cores, of which {quiet:.3f} also while nobody looks")
    assert 0 < taken < 0.03


def until_read(server: int) -> list[int]:
    """The process that reads flows, once it has begun."""
    for _ in range(200):
        files = Path(f"/proc/{server}/task").glob("*/children")
        found = [int(one) for file in files for one in file.read_text().split()]
        if found:
            time.sleep(5)
            return found
        time.sleep(0.1)
    raise AssertionError("nothing reads flows")


@contextmanager
def reading(url: str) -> Iterator[None]:
    """A program that reads what a browser would, which wants the flows of a node."""
    command = [sys.executable, "-m", "asap2.view.reader", url, "hv1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        yield
        process.terminate()
        messages = int(process.stdout.read())
    assert messages > 20


def test_nothing_is_left_when_the_view_is_killed(page: Chrome, vxlan: Lab) -> None:
    def agents() -> str:
        return vxlan.node("hv1").run(["pgrep", "-f", "asap2.live.agent"], check=False).stdout

    with view(vxlan.root) as (url, process):
        opened(page, url)
        ActionChains(page).move_to_element(vertex(page, "bridge hv1/br-int")).click().perform()
        until(page, agents)
        os.kill(process, signal.SIGKILL)
        until(page, lambda: not agents())
