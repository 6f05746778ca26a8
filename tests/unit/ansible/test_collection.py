# SPDX-License-Identifier: Apache-2.0
"""The collection's documentation says what its modules and its role take; its files are what Ansible expects."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from asap2.host.check.audit import CHECKS
from tests.unit.ansible.conftest import COLLECTION

MODULES = sorted(path.stem for path in (COLLECTION / "plugins" / "modules").glob("*.py"))
ROLE = COLLECTION / "roles" / "offload"
SAID = ("type", "elements", "required", "choices", "default")


def load(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text())


def ansible_doc(collections: Path, tmp_path: Path, *words: str) -> Any:
    """What ``ansible-doc --json`` says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-doc"), "--json", *words],
        capture_output=True,
        text=True,
        env={
            **kept,
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_HOME": str(tmp_path),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
            "LC_ALL": "C.UTF-8",
        },
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr, done.stderr
    return json.loads(done.stdout)


class _TakenError(Exception):
    """Raised where a module would begin."""


def argument_spec(module: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the module's code takes."""
    loaded = importlib.import_module(f"ansible_collections.asap2.offload.plugins.modules.{module}")
    taken: dict[str, Any] = {}

    def take(argument_spec: dict[str, Any], **_: Any) -> None:
        taken.update(argument_spec)
        raise _TakenError

    monkeypatch.setattr(loaded, "AnsibleModule", take)
    with pytest.raises(_TakenError):
        loaded.main()
    return taken


def in_words(options: dict[str, Any], inner: str) -> dict[str, Any]:
    """What options are, without descriptions; *inner* is what their own options are called."""
    return {
        name: {
            **{key: one[key] for key in SAID if key in one and (key, one[key]) != ("required", False)},
            **({"inner": in_words(one[inner], inner)} if inner in one else {}),
        }
        for name, one in options.items()
    }


def test_every_module_is_documented_as_it_is(
    collections: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"asap2.offload.{module}" for module in MODULES]
    shown = ansible_doc(collections, tmp_path, "-t", "module", *names)
    assert set(shown) == set(names)
    for module, name in zip(MODULES, names, strict=True):
        documented = in_words(shown[name]["doc"]["options"], "suboptions")
        assert documented == in_words(argument_spec(module, monkeypatch), "options"), name
        assert shown[name]["examples"]
        assert all(one["description"] and one["returned"] for one in shown[name]["return"].values())
        for play in yaml.safe_load(shown[name]["examples"]):
            assert next(key for key in play if key not in ("name", "register")) in (name, "ansible.builtin.debug")


def test_the_group_of_defaults_has_every_module() -> None:
    assert load(COLLECTION / "meta" / "runtime.yml")["action_groups"]["offload"] == MODULES


def test_the_role_documents_every_variable_with_its_default(collections: Path, tmp_path: Path) -> None:
    (shown,) = ansible_doc(collections, tmp_path, "-t", "role", "asap2.offload.offload").values()
    options = shown["entry_points"]["main"]["options"]
    defaults = load(ROLE / "defaults" / "main.yml")
    assert set(options) == set(defaults)
    for name, one in options.items():
        if "default" in one:
            assert one["default"] == defaults[name], name
    for point, entry in shown["entry_points"].items():
        used = set(re.findall(r"offload_[a-z_]+", (ROLE / "tasks" / f"{point}.yml").read_text()))
        if point != "main":
            assert used <= set(entry["options"]), point


def test_the_readme_names_every_variable_and_module() -> None:
    text = (COLLECTION / "README.md").read_text()
    for name in (*load(ROLE / "defaults" / "main.yml"), *(f"asap2.offload.{module}" for module in MODULES)):
        assert f"`{name}`" in text


def test_the_prerequisites_are_findings() -> None:
    assert set(load(ROLE / "defaults" / "main.yml")["offload_prerequisites"]) <= {one.id for one in CHECKS}


def test_the_proofs_of_the_role_are_what_the_module_takes(collections: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert collections
    spec = argument_spec("verify", monkeypatch)
    (task,) = load(ROLE / "tasks" / "verify.yml")
    specs = load(ROLE / "meta" / "argument_specs.yml")["argument_specs"]
    assert set(task["asap2.offload.verify"]) == set(spec)
    for point in ("main", "verify"):
        assert {"program", *specs[point]["options"]["offload_verify"]["options"]} == set(spec)


def test_the_collection_has_the_version_of_asap2() -> None:
    project = tomllib.loads((COLLECTION.parent / "pyproject.toml").read_text())["project"]
    assert load(COLLECTION / "galaxy.yml")["version"] == project["version"]


@pytest.mark.parametrize("path", sorted(COLLECTION.rglob("*.yml")), ids=lambda path: str(path.relative_to(COLLECTION)))
def test_yaml_is_plain(path: Path) -> None:
    """As yamllint would have it: it says where it begins, no tabs, no spaces at the ends, no line too long."""
    lines = path.read_text().splitlines()
    assert lines[:2] == ["# SPDX-License-Identifier: Apache-2.0", "---"]
    assert not [line for line in lines if "\t" in line or line != line.rstrip() or len(line) > 140]
    assert lines[-1]
    assert load(path) is not None
