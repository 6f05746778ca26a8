# SPDX-License-Identifier: Apache-2.0
"""What the operator's half needs, and what extras bring."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from asap2 import extras
from asap2.cli.main import main
from asap2.errors import Asap2Error
from asap2.host.setup.persist import doubt
from asap2.lab import machine
from asap2.openstack import cloud
from asap2.ovn import programs
from asap2.version import version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCAL = {"asap2", "tests", "native", "guest", "ansible_collections", "ovs_guest", "manual", "reference"} | {
    "gallery_pages"
}
"""Modules of this repository, also those that tests copy elsewhere."""
CLOUD = {
    "eventlet",
    "keystoneauth1",
    "neutron",
    "neutron_lib",
    "nova",
    "os_vif",
    "oslo_config",
    "oslo_log",
    "oslo_serialization",
}
"""Of OpenStack's own environment, where nova's virt driver and the questions to its parsers run."""
OPERATOR = ("cli", "host", "netlink")


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ]", name)[0]).lower()


def declared(*groups: str) -> set[str]:
    """The distributions of the operator's half and of these extras."""
    names = set(map(normal, PROJECT["dependencies"]))
    for group in groups:
        for wanted in PROJECT["optional-dependencies"][group]:
            inner = re.fullmatch(r"asap2\[(.*)\]", wanted)
            names |= declared(*inner[1].split(",")) if inner else {normal(wanted)}
    return names


def imported(paths: list[Path]) -> dict[str, str]:
    """The modules of others that files import, and a file of each."""
    found = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top not in LOCAL | CLOUD:
                    found[top] = str(path.relative_to(ROOT))
    return found


def undeclared(paths: list[Path], *groups: str) -> dict[str, str]:
    """What is imported of distributions that neither the operator's half nor *groups* name."""
    providers = importlib.metadata.packages_distributions()
    known = declared(*groups)
    return {
        module: where
        for module, where in imported(paths).items()
        if not known & {normal(one) for one in providers.get(module, [])}
    }


def files(*directories: str) -> list[Path]:
    return [path for directory in directories for path in (ROOT / directory).rglob("*.py")]


def test_nothing_is_imported_that_is_not_declared() -> None:
    assert undeclared(files("src", "tests", "scripts", "ansible"), "dev") == {}


def test_the_operators_half_needs_no_extra() -> None:
    own = [path for name in OPERATOR for path in files(f"src/asap2/{name}")]
    own += [path for path in (ROOT / "src/asap2").glob("*.py") if path.name != "pytest_plugin.py"]  # pytest's own
    assert undeclared(own) == {}


@pytest.mark.parametrize("extra", extras.MODULES)
def test_a_missing_extra_is_one_sentence(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extras.need(extra)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(Asap2Error, match=re.escape(f"`pip install 'asap2[{extra}]'`")):
        extras.need(extra)
    monkeypatch.setattr(extras, "DISTRIBUTION", Path(extras.__file__).parent)
    with pytest.raises(Asap2Error, match=f"`apt install {extras.DEBIAN[extra]}`"):
        extras.need(extra)


def test_a_module_that_is_too_old_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0.1.13")
    with pytest.raises(Asap2Error, match=r"textual 0\.1 is too old, 2\.1 or newer is needed: "):
        extras.need("top")


def test_the_oldest_versions_are_those_of_the_extras() -> None:
    for module, least in extras.LEAST.items():
        wanted = f"{module}>={'.'.join(map(str, least))}"
        assert any(wanted in brought for brought in PROJECT["optional-dependencies"].values()), wanted


def test_what_is_missing_is_mended_by_make_in_a_checkout_and_by_packages_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "PROGRAMS", {"none-such": "its-package"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(programs, "NEEDED", ("/nowhere/ovn-ctl",))
    assert machine.lacking() == "the program none-such is not installed; `make setup` installs it"
    with pytest.raises(Asap2Error, match=r"OVN is not installed \(.*\); `make setup-ovn` installs it"):
        programs.lacking()
    monkeypatch.setattr(extras, "CHECKOUT", tmp_path)
    remedy = "`apt install its-package`, on Debian and Ubuntu,"
    assert machine.lacking() == f"the program none-such is not installed; {remedy} installs it"
    with pytest.raises(Asap2Error, match=r"`apt install ovn-central ovn-host`, on Debian and Ubuntu, installs it"):
        programs.lacking()
    with pytest.raises(Asap2Error, match=r"an OpenStack cloud needs a checkout of asap2, in which `make demo-openst"):
        cloud.lacking()


def test_an_extra_brings_the_modules_that_are_asked_for() -> None:
    providers = importlib.metadata.packages_distributions()
    needed = {"netaddr", "pyparsing"}  # of ovs[flow]
    for extra, modules in extras.MODULES.items():
        for module in set(modules) - needed:
            assert set(map(normal, providers[module])) & declared(extra), module


HELP = """
import sys
sys.argv = ["asap2", *{words!r}]
from asap2.cli.main import main
main()
print(*sys.modules)
"""


@pytest.mark.parametrize("words", [["host", "check", "--help"], ["--version"], ["host", "--help"]])
def test_a_command_imports_what_it_uses_alone(words: list[str]) -> None:
    program = HELP.format(words=words)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    modules = done.stdout.splitlines()[-1].split()
    kept_away = r"(asap2\.(nic|openstack|ovn)|ovs|prometheus_client|mfusepy)(\..*)?"
    assert not [one for one in modules if re.fullmatch(kept_away, one)]


def test_the_version_is_that_of_the_package_and_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"asap2 {version()}\n"
    assert version().startswith(importlib.metadata.version("asap2"))


@pytest.mark.parametrize(
    ("program", "package", "said"),
    [
        ("/usr/bin/python3", "/usr/lib/python3/dist-packages/asap2/host/setup/persist.py", None),
        ("/opt/asap2/bin/python3", "/opt/asap2/lib/python3.11/site-packages/asap2/x.py", None),
        ("/tmp/venv/bin/python3", "/tmp/venv/lib/x.py", "below /tmp, which does not survive a reboot"),
        ("/usr/bin/python3", "/var/tmp/asap2/src/asap2/x.py", "below /var/tmp, which does not survive a reboot"),
        ("/home/me/venv/bin/python3", "/usr/lib/x.py", "below /home, which may not be mounted at boot"),
        ("/home/me/venv/bin/python3", "/tmp/x.py", "below /tmp, which does not survive a reboot"),
        ("/tmpfoo/bin/python3", "/homes/x.py", None),
    ],
)
def test_a_unit_whose_program_may_be_gone_at_boot_is_doubted(program: str, package: str, said: str | None) -> None:
    found = doubt(program, package)
    assert found is None if said is None else found is not None and said in found
