# SPDX-License-Identifier: Apache-2.0
"""The Containerfile, the workflows and Debian's control file: what they name exists, and is what set-up installs."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from asap2 import extras

ROOT = Path(__file__).parents[3]
NATIVE = runpy.run_path(str(ROOT / "scripts/native.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ESSENTIAL = {"sudo", "systemd", "python3-venv"}
"""What set-up installs and a package or image need not: part of every Debian, or for a checkout."""
NAMES_OF_DEBIAN = {"ca-certificates", "git", "make", "libbpf1"}
WORKFLOWS = [*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "docs/examples/github-workflow.yml"]


def needed(*purposes: str) -> set[str]:
    """The packages of scripts/packages that are for *purposes*."""
    lines = [line.split() for line in (ROOT / "scripts/packages").read_text().splitlines() if not line.startswith("#")]
    return {name for words in lines if words and words[0] in purposes for name in words[1].split("|")}


def installed(command: str) -> set[str]:
    """The packages that a shell's command line has APT install."""
    found = set()
    for part in re.split(r"&&|;|\n", command.replace("\\\n", " ")):
        words = shlex.split(part, comments=True)
        if words[:1] == ["sudo"]:
            words = words[1:]
        if words[:2] == ["apt-get", "install"]:
            found |= {word for word in words[2:] if not word.startswith("-")}
    return found


# ---- the Containerfile


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, each with what follows it."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Containerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions from each FROM to the next."""
    found: list[list[tuple[str, str]]] = []
    for one in instructions():
        if one[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(one)
    return found


def test_instructions_are_known() -> None:
    assert {word for word, _ in instructions()} <= {"ARG", "FROM", "RUN", "COPY", "ENV", "ENTRYPOINT", "CMD"}


def test_the_image_has_what_a_lab_uses_and_what_it_is_built_with() -> None:
    build, image = (set().union(*(installed(text) for word, text in one if word == "RUN")) for one in stages())
    assert build == needed("build") | {"python3", "python3-venv"}
    assert image == needed("run") - {"python3-venv", "systemd"} | {"libbpf1"}


def test_copied_paths_exist() -> None:
    names = set(re.findall(r" AS (\w+)", "\n".join(text for word, text in instructions() if word == "FROM")))
    for word, text in instructions():
        if word == "COPY":
            stage = re.match(r"--from=(\w+) ", text)
            assert stage[1] in names if stage else (ROOT / text.split()[0]).exists()


def test_what_is_left_out_of_the_image_is_what_is_made_here() -> None:
    left_out = (ROOT / ".containerignore").read_text().split()
    compiled = {f"src/asap2/{file.output}" for file in NATIVE["FILES"] if "." not in Path(file.output).name}
    assert {".git", ".venv", "build", "**/*.o", "**/*.so"} | compiled <= set(left_out)
    assert not {"src", "scripts", "LICENSES", "README.md", "setup.py", "pyproject.toml"} & set(left_out)
    assert (ROOT / ".dockerignore").read_text() == (ROOT / ".containerignore").read_text()


def test_the_image_runs_the_projects_command() -> None:
    last = dict(stages()[-1])
    assert last["ENTRYPOINT"] == '["asap2"]'
    assert "asap2" in PROJECT["scripts"]
    path = dict(part.split("=", 1) for word, part in stages()[-1] if word == "ENV")["PATH"]
    venv = next(text for word, text in stages()[0] if word == "RUN" and "venv /" in text)
    assert path.split(":")[0].removesuffix("/bin") in venv
    assert re.findall(r"/src\[(\w+)\]", venv) == ["lab"]
    assert "lab" in PROJECT["optional-dependencies"]


# ---- workflows


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> Any:
    return yaml.safe_load(request.param.read_text())


def steps(workflow: Any) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_a_workflow_has_the_form_that_github_reads(workflow: Any) -> None:
    assert set(workflow) <= {"name", True, "permissions", "concurrency", "jobs"}  # YAML takes the key `on` for true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert set(job) <= {"runs-on", "container", "strategy", "timeout-minutes", "steps"}
        assert job["runs-on"] == "ubuntu-24.04"
        assert job["timeout-minutes"] <= 60
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step)
        assert set(step) <= {"name", "run", "uses", "with"}
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


def test_a_workflow_runs_targets_and_commands_that_exist(workflow: Any) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in steps(workflow):
        text = step.get("run", "")
        assert set(re.findall(r"\bmake ([a-z-]+)$", text, re.MULTILINE)) <= targets
        assert installed(text) <= needed("run") | NAMES_OF_DEBIAN
        for extra in re.findall(r"asap2\[(\w+)\]", text):
            assert extra in PROJECT["optional-dependencies"]
        for file in re.findall(r"--file (\S+)", text):
            assert (ROOT / file).exists()


def test_users_install_what_a_lab_uses() -> None:
    example = yaml.safe_load(WORKFLOWS[-1].read_text())
    there = set().union(*(installed(step.get("run", "")) for step in steps(example)))
    assert needed("run") - there <= ESSENTIAL - {"python3-venv"} | {"python3", "sockperf", "nftables"}


# ---- Debian's packages


def control(package: str, *fields: str) -> set[str]:
    """The packages that *fields* of a paragraph of debian/control name."""
    text = next(one for one in (ROOT / "debian/control").read_text().split("\n\n") if one.startswith(package))
    names: set[str] = set()
    for field in fields:
        found = re.search(rf"^{field}:((?:\n? .*)+)", text, re.MULTILINE)
        names |= {re.split(r"[ (]", one.strip())[0] for one in (found[1] if found else "").split(",") if one.strip()}
    return names


def test_debians_packages_depend_on_what_a_lab_uses() -> None:
    depends = control("Package: asap2-lab", "Depends", "Recommends") | control("Package: asap2\n", "Depends")
    assert needed("run") - depends <= ESSENTIAL | {"python3"}


def test_debians_packages_depend_on_the_same_modules() -> None:
    names = {re.split("[<>=]", one)[0].replace("_", "-") for one in PROJECT["dependencies"]}
    debian = {f"python3-{'openvswitch' if name == 'ovs' else name}" for name in names}
    assert debian <= control("Package: asap2\n", "Depends")


def test_debians_package_recommends_what_shows_traffic() -> None:
    assert {extras.DEBIAN["top"], extras.DEBIAN["view"]} <= control("Package: asap2\n", "Recommends")


def test_debian_builds_with_what_set_up_installs() -> None:
    build = control("Source: asap2", "Build-Depends")
    assert build - {"debhelper-compat", "python3"} <= needed("packages", "build")


def test_the_changelog_of_the_package_is_of_this_version() -> None:
    first = (ROOT / "debian/changelog").read_text().splitlines()[0]
    assert re.match(r"asap2 \(([\d.]+)-\d+\)", first)[1] == PROJECT["version"]  # type: ignore[index]
