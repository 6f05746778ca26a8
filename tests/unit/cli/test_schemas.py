# SPDX-License-Identifier: Apache-2.0
"""Every --json has a schema, and what commands print is as it says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator

from asap2.answers import answer as say_answer
from asap2.answers import begin, fail
from asap2.cli import schemas
from asap2.cli.host_steps import Shown
from asap2.cli.host_verify import as_data
from asap2.cli.main import VERBS, main
from asap2.cli.shapes import SHAPES
from asap2.cli.verbs import Verbs
from asap2.host import capture
from asap2.host.setup.run import Planned
from asap2.host.setup.steps import DeletePorts
from asap2.host.verify.endpoint import Port
from asap2.host.verify.verify import FlowSeen, Result
from asap2.lab import gallery
from asap2.lab.topology import TopologyError, parse
from asap2.lab.topology_schema import EVERY_KEY
from tests.schemas import DIRECTORY, answer
from tests.unit.host.hosts import offloading

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def captured(tmp_path: Path) -> str:
    """The file of a host that offloads."""
    capture.write(offloading(), tmp_path / "hv1.json")
    return str(tmp_path / "hv1.json")


def commands(group: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """Every command below *group*, by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        if hasattr(one, "list_commands"):
            yield from commands(one, *words, name)
        else:
            yield "-".join((*words, name)), one


def test_every_answer_has_a_schema_and_every_schema_an_answer() -> None:
    root = Verbs(name="asap2")
    root.verbs = VERBS
    with_json = {name for name, one in commands(root) if any("--json" in param.opts for param in one.params)}
    assert with_json == set(SHAPES) - {"error", "live"}


def test_the_files_are_current() -> None:
    assert {path.name: path.read_text() for path in DIRECTORY.glob("*.json")} == schemas.files()


@pytest.mark.parametrize("name", schemas.files())
def test_each_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(json.loads((DIRECTORY / name).read_text()))


@pytest.mark.parametrize("verb", ["check", "status", "explain"])
def test_answers_about_a_host(verb: str, captured: str, capsys: Capture) -> None:
    main(["host", verb, "--from", captured, "--json"])
    found = answer(capsys.readouterr().out)
    assert found["schema"] == f"urn:asap2:host-{verb}:1"
    assert found["host"] == offloading().hostname


def test_answers_of_setup_and_undo(capsys: Capture) -> None:
    step = DeletePorts("br0", ("eth0",))
    shown = Shown(True)
    shown.planned(Planned((step,)), False)
    shown.done(step)
    host, pf = offloading(), offloading().pfs[0]
    representor = host.representor(pf, 0)
    assert representor
    flow = FlowSeen("ufid:1", "out", 5, False, ("vlan",), "nic.match", "x")
    proof = as_data(host, Port(pf, pf.vfs[0], representor), [Result("icmp", True, "x", 5, 0, "x", (flow,))], True)
    shown.end({"changed": True, "verify": proof})
    assert answer(capsys.readouterr().out)["steps"][0]["commands"]
    shown.end({"changed": True, "verify": {"offloaded": False, "error": "no peer"}})
    assert answer(capsys.readouterr().out)
    Shown(True, "undo").end({"changed": False, "removed": ["/etc/x"], "left": []})
    assert answer(capsys.readouterr().out)["schema"] == "urn:asap2:host-undo:1"
    say_answer("host-verify", proof)
    assert answer(capsys.readouterr().out)


def test_answers_about_labs_and_topologies(capsys: Capture) -> None:
    for words in (["ls"], ["topologies"], ["topologies", "vlan"]):
        assert main(["lab", *words, "--json"]) == 0
        assert answer(capsys.readouterr().out)["schema"] == f"urn:asap2:lab-{words[0]}:1"


def test_answers_about_openstack(captured: str, capsys: Capture) -> None:
    words = ["openstack", "config", "--role", "compute", "--json", "--from", captured]
    assert main([*words, "enp3s0f0"]) == 0
    assert answer(capsys.readouterr().out)["files"]


@pytest.mark.parametrize(
    ("words", "status", "error", "what_to_do"),
    [
        (["lab", "cable", "--json"], 2, "no lab is up", "`asap2 lab up TOPOLOGY` makes one"),
        (["lab", "ls", "--json", "x"], 2, None, None),
        (["host", "check", "--json", "--from", "/nowhere"], 1, "/nowhere: No such file or directory", None),
    ],
)
def test_an_error_is_an_answer_too(
    words: list[str], status: int, error: str | None, what_to_do: str | None, capsys: Capture
) -> None:
    assert main(words) == status
    captured = capsys.readouterr()
    found = answer(captured.out)
    assert (found["schema"], found["status"]) == ("urn:asap2:error:1", status)
    assert error is None or (found["error"], found["what_to_do"]) == (error, what_to_do)
    assert captured.err.startswith(f"asap2: {found['error']}")


def test_who_is_not_root_gets_an_answer(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["host", "status", "--json"]) == 1
    assert answer(capsys.readouterr().out)["what_to_do"] == "say `sudo asap2 host …`"


def test_an_error_after_an_answer_is_on_standard_error_alone(capsys: Capture) -> None:
    begin()
    say_answer("lab-ls", {"labs": []})
    fail("it broke; mend it", 1)
    assert answer(capsys.readouterr().out)["schema"] == "urn:asap2:lab-ls:1"
    begin()
    fail("it broke; mend it", 1)
    assert answer(capsys.readouterr().out)["what_to_do"] == "mend it"


def topology_errors(text: str) -> list[str]:
    """What the schema of topologies says of a file."""
    import tomllib

    schema = json.loads((DIRECTORY / "topology.json").read_text())
    return [error.message for error in Draft202012Validator(schema).iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize("text", [EVERY_KEY, *(gallery.text_of(name) for name in gallery.names())])
def test_the_schema_of_topologies_takes_what_the_reader_takes(text: str) -> None:
    assert topology_errors(text) == []
    assert parse(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ports = 2", "ports = 3"),
        ("ports = 2", 'ports = "2"'),
        ("ports = 2", "colour = 2"),
        ('mode = "switchdev"', 'mode = "fast"'),
        ('name = "a" ', 'name = "A" '),
        ('node = "a" ', ""),
        ('ends = ["a/nic0/p0", "a/nic0/p1"]', 'ends = ["a/nic0/p0"]'),
        ("vf = 0 ", "vf = -1 "),
    ],
)
def test_the_schema_of_topologies_refuses_what_the_reader_refuses(old: str, new: str) -> None:
    text = EVERY_KEY.replace(old, new)
    assert topology_errors(text)
    with pytest.raises(TopologyError):
        parse(text)
