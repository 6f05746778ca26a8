# SPDX-License-Identifier: Apache-2.0
"""pytest's plugin: labs as fixtures (docs/testing.md). pytest imports it in every run, so it imports the lab on use."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asap2.testing import Lab
    from asap2.testing.sources import Source

FIXTURES = ("asap2_lab", "asap2_module_lab", "asap2_session_lab")
MARKER = "asap2_topology"
DEFAULT = "one-node"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line and of the configuration file."""
    group = parser.getgroup("asap2", "labs of software NICs")
    group.addoption(
        "--asap2-topology", metavar="NAME|NODES|FILE", help=f"Topology of labs without a marker (default: {DEFAULT})"
    )
    group.addoption("--asap2-skip", action="store_true", help="Skip, not fail, tests where no lab can be brought up")
    parser.addini("asap2_topology", "topology of labs without a marker: a built-in name, a number of nodes, or a file")


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    kinds = "a built-in name, a number of nodes, a file, the text of one, or a Topology"
    config.addinivalue_line("markers", f"{MARKER}(topology): of the test's lab: {kinds}")


@pytest.fixture
def asap2_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab for one test, by its marker ``asap2_topology``."""
    with _lab(request) as lab:
        yield lab


@pytest.fixture(scope="module")
def asap2_module_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab for all tests of a module, by the module's ``pytestmark``."""
    with _lab(request) as lab:
        yield lab


@pytest.fixture(scope="session")
def asap2_session_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab for all tests of a run (with pytest-xdist: of a worker), by the option or the configuration."""
    with _lab(request) as lab:
        yield lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the lab looks like to the report of a test that failed in it."""
    report = yield
    if call.when == "call" and report.failed:
        for name in FIXTURES:
            if lab := getattr(item, "funcargs", {}).get(name):
                report.sections.append((name, lab.report()))
    return report


@contextlib.contextmanager
def _lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab; the test fails, or is skipped, with one sentence where there can be none."""
    from asap2.errors import Asap2Error

    _check_machine(request.config)
    with contextlib.ExitStack() as stack:
        try:
            from asap2.testing import lab

            found = stack.enter_context(lab(_topology(request)))
        except Asap2Error as error:
            pytest.fail(f"asap2: {error}", pytrace=False)
        yield found


def _check_machine(config: pytest.Config) -> None:
    try:
        from asap2.lab import machine
        from asap2.testing import lab  # noqa: F401
    except ImportError as error:
        lacking: str | None = f"a lab needs more packages, `pip install 'asap2[lab]'` installs them ({error})"
    else:
        lacking = machine.lacking()
    if lacking and config.getoption("--asap2-skip"):
        pytest.skip(f"asap2: {lacking}")
    if lacking:
        pytest.fail(f"asap2: {lacking}", pytrace=False)


def _topology(request: pytest.FixtureRequest) -> Source:
    """By the nearest marker, the option, or the configuration. A file's path is relative to where it is written."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is not None:
        return _resolved(marker.args[0], request.path.parent)
    if given := request.config.getoption("--asap2-topology"):
        return _resolved(given, request.config.invocation_params.dir)
    configured = request.config.getini("asap2_topology") or DEFAULT
    return _resolved(configured, request.config.rootpath)


def _resolved(source: Source, directory: Path) -> Source:
    if isinstance(source, str) and source.isdecimal():
        return int(source)
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith(".toml")):
        return directory / source
    return source
