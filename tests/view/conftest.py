# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, and servers of the picture for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
"""Debian's packages chromium and chromium-driver."""


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """Debian's Chromium, without a screen."""
    options = Options()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1500,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The browser; a test that leaves a message of the console behind fails: a violated content policy is one. That a
    server has gone is none."""
    console(browser)
    yield browser
    said = console(browser)
    assert [one for one in said if "WebSocket connection to" not in one and "ERR_CONNECTION_REFUSED" not in one] == []


def console(browser: webdriver.Chrome) -> list[str]:
    """What the console has said since the last time; the page is left."""
    browser.get("about:blank")
    return [one["message"] for one in browser.get_log("browser")]  # type: ignore[no-untyped-call]


Serve = Callable[..., AbstractContextManager[tuple[str, int]]]


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[tuple[str, int]]:
    """A server of the picture: its URL, and its process id."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            yield next(word for word in words if word.startswith("http")), process.pid
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def synthetic() -> Serve:
    """Serves a lab of so many nodes that is not there, and the ways in a file."""
    return lambda *words: started([sys.executable, "-m", "tests.view.serve", *map(str, words)])


def view(root: Path, *words: str) -> AbstractContextManager[tuple[str, int]]:
    """``asap2 view`` of the lab at *root*, at any free port."""
    command = [sys.executable, "-m", "asap2.cli.main", "view", "--port", "0", *words]
    return started(command, ASAP2_LAB=str(root))


def cpu_seconds(process: int) -> float:
    """The CPU time that a process and its children that have ended have taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
