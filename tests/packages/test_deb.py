# SPDX-License-Identifier: Apache-2.0
"""Debian's packages in a Debian that has nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.packages.conftest import Place, made, offloads

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y")


def install(place: Place, pattern: str) -> None:
    """Install the package that *pattern* finds, with what it depends on."""
    package = made(pattern)
    shutil.copy(package, place.directory / "root" / package.name)
    place.run(*APT, "--no-install-recommends", f"/root/{package.name}")


@pytest.fixture(scope="module")
def operator(debian: Place) -> Place:
    """A Debian with the operator's package, man and shells."""
    documentation = debian.directory / "etc/dpkg/dpkg.cfg.d"
    for file in documentation.glob("*"):
        file.unlink()
    install(debian, "asap2_*.deb")
    debian.run(*APT, "--no-install-recommends", "man-db", "bash-completion", "zsh", "fish")
    return debian


def test_the_operators_package_works_alone(operator: Place) -> None:
    assert operator.run("asap2", "--version").startswith("asap2 0.")
    checked = operator.try_("asap2", "host", "check")
    assert checked.returncode == 1, checked.stderr
    assert "hardware offload is not ready here" in checked.stdout


def test_man_has_a_page_for_each_verb(operator: Place) -> None:
    for page in ("asap2", "asap2-host", "asap2-lab", "asap2-operator", "asap2-topology"):
        assert "NAME" in operator.run("man", page)


@pytest.mark.parametrize(
    "ask",
    [
        ["bash", "-ic", "COMP_WORDS=(asap2 host ch); COMP_CWORD=2; _asap2_completion asap2; echo ${COMPREPLY[*]}"],
        ["fish", "-c", "complete -C 'asap2 host ch'"],
        [
            "zsh",
            "-ic",
            'autoload -Uz compinit; compinit -u; test "$_comps[asap2]" = _asap2 && '
            "COMP_WORDS='asap2 host ch' COMP_CWORD=2 _ASAP2_COMPLETE=zsh_complete asap2",
        ],
    ],
    ids=["bash", "fish", "zsh"],
)
def test_shells_complete(operator: Place, ask: list[str]) -> None:
    if ask[0] == "bash":
        ask = [*ask[:2], f". /usr/share/bash-completion/completions/asap2; {ask[2]}"]
    assert "check" in operator.run(*ask)


def test_the_exporters_unit_is_right(operator: Place) -> None:
    unit = operator.directory / "lib/systemd/system/asap2-exporter.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={operator.directory}", "asap2-exporter.service"],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert unit.exists()
    assert not re.findall(r"asap2-exporter\.service:\d+:.*", done.stderr)


SEE = """
import re, subprocess, urllib.request
with subprocess.Popen(["asap2", "host", "view", "--port", "0"], stdout=subprocess.PIPE, text=True) as serving:
    try:
        url = re.search(r"http://\\S+", serving.stdout.readline())[0]
        for name in ("", "view.js", "view.css", "licences.txt"):
            print(name, len(urllib.request.urlopen(url + name, timeout=60).read()))
    finally:
        serving.terminate()
"""


def test_the_picture_in_a_browser_is_there_with_what_is_recommended(operator: Place) -> None:
    said = operator.try_("asap2", "host", "view").stderr
    assert said == "asap2: python3-aiohttp is not installed: `apt install python3-aiohttp`\n"
    operator.run(*APT, "--no-install-recommends", "python3-aiohttp")
    sizes = dict(line.split(" ") for line in operator.run("python3", "-c", SEE).splitlines())
    assert int(sizes["view.js"]) > 20_000
    assert all(map(int, sizes.values()))


def test_a_lab_is_of_another_package(operator: Place) -> None:
    done = operator.try_("asap2", "lab", "up", "one-node")
    assert done.returncode == 1
    assert done.stderr == "asap2: asap2-lab is not installed: `apt install asap2-lab`\n"


def test_with_that_package_a_lab_offloads(operator: Place) -> None:
    install(operator, "asap2-lab_*.deb")
    offloads(operator)


def test_lintian_finds_nothing(debian: Place) -> None:
    del debian
    command = ["lintian", "--allow-root", "--fail-on", "error,warning"]
    command += [str(made("asap2_*.deb")), str(made("asap2-lab_*.deb"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
