# SPDX-License-Identifier: Apache-2.0
"""The modules around a program that stands in for ``asap2``: what they ask, and what they make of its answers."""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.host.records import from_data
from asap2.host.setup.wanted import Wanted

STEP = {"title": "a step", "commands": ["true"]}
CHANGE = {"what": "this", "before": "a", "after": "b"}
FINDING = {
    "id": "vfs",
    "verdict": "fail",
    "found": "none",
    "why": "they are needed",
    "fix": "make some",
    "subject": "p0",
}
WARNING = {"id": "iommu", "verdict": "warn", "found": "none", "why": "guests", "fix": None, "subject": None}


class _EndError(Exception):
    """A module ended."""

    def __init__(self, failed: bool, result: dict[str, Any]) -> None:
        super().__init__(result)
        self.failed = failed
        self.result = result


class Module:
    """In place of AnsibleModule, with the arguments of a task and a program's answer."""

    answer: tuple[int, str, str] = (0, "", "")
    arguments: dict[str, Any] = {}
    checking = False
    asked: list[str] = []
    configuration = ""

    def __init__(self, argument_spec: dict[str, Any], **_: Any) -> None:
        self.params = {name: one.get("default") for name, one in argument_spec.items()} | self.arguments
        self.check_mode = self.checking
        self.tmpdir = None

    def get_bin_path(self, name: str) -> str | None:
        """There is such a program."""
        return None if name == "gone" else f"/bin/{name}"

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        """The answer."""
        type(self).asked = command[1:]
        if "--config" in command:
            type(self).configuration = Path(command[command.index("--config") + 1]).read_text()
        return self.answer

    def exit_json(self, **result: Any) -> None:
        """It went well."""
        raise _EndError(False, result)

    def fail_json(self, **result: Any) -> None:
        """It did not."""
        raise _EndError(True, result)


@pytest.fixture
def modules(collections: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a module with arguments and the program's answer; whether it failed, and its result."""
    assert collections

    def run(
        name: str, answer: Any, status: int = 0, stderr: str = "", checking: bool = False, **arguments: Any
    ) -> tuple[bool, dict[str, Any]]:
        module = importlib.import_module(f"ansible_collections.asap2.offload.plugins.modules.{name}")
        monkeypatch.setattr(module, "AnsibleModule", Module)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        monkeypatch.setattr(Module, "answer", (status, text, stderr))
        monkeypatch.setattr(Module, "arguments", arguments)
        monkeypatch.setattr(Module, "checking", checking)
        with pytest.raises(_EndError) as end:
            module.main()
        return end.value.failed, end.value.result

    return run


def checked(*findings: dict[str, Any]) -> dict[str, Any]:
    """What ``asap2 host check`` prints."""
    return {"findings": list(findings), "summary": {}, "checks": ["vfs", "iommu", "mtu"]}


def test_a_bad_verdict_fails_with_what_is_wrong_and_its_fix(modules: Any) -> None:
    failed, result = modules("check", checked(FINDING, WARNING), 1)
    assert failed
    assert result["msg"] == "hardware offload is not ready here: vfs: p0: none (fix: make some)"


@pytest.mark.parametrize(
    ("arguments", "bad"),
    [
        ({}, ["vfs"]),
        ({"strict": True}, ["vfs", "iommu"]),
        ({"accept": ["vfs"]}, []),
        ({"only": ["mtu"]}, []),
        ({"only": ["vfs", "iommu"], "accept": ["vfs"], "strict": True}, ["iommu"]),
    ],
)
def test_what_counts_can_be_chosen(modules: Any, arguments: dict[str, Any], bad: list[str]) -> None:
    failed, result = modules("check", checked(FINDING, WARNING), 1, gate=False, **arguments)
    assert not failed
    assert [one["id"] for one in result["bad"]] == bad
    assert result["verdict"] == ("fail" if bad else "ok")


def test_a_finding_that_does_not_exist_is_an_error(modules: Any) -> None:
    assert modules("check", checked(), only=["vf"]) == (
        True,
        {"msg": "there is no finding 'vf'; there are vfs, iommu, mtu"},
    )


def test_no_rule_is_tried_in_check_mode(modules: Any) -> None:
    modules("check", checked(), pfs=["p0"])
    assert Module.asked == ["host", "check", "--trial", "p0", "--json"]
    modules("check", checked(), checking=True)
    assert Module.asked == ["host", "check", "--no-trial", "--json"]


@pytest.mark.parametrize("checking", [False, True])
def test_setting_up_tells_steps_and_their_difference(modules: Any, checking: bool) -> None:
    answer = {"changed": not checking, "steps": [STEP], "changes": [CHANGE], "seconds": 1.5}
    failed, result = modules("setup", answer, checking=checking, nics=[{"pf": "p0"}])
    assert not failed
    assert result["changed"] is True
    assert (result["diff"]["before"], result["diff"]["after"]) == ("this: a\n", "this: b\n")
    assert ("--dry-run" in Module.asked) is checking


def test_nothing_done_is_nothing_changed(modules: Any) -> None:
    answer = {"changed": False, "steps": [], "changes": [], "seconds": 0.1}
    assert modules("setup", answer, nics=[{"pf": "p0"}])[1]["changed"] is False
    assert modules("undo", {**answer, "removed": [], "left": []})[1]["changed"] is False
    assert modules("persist", {"changed": False, "files": []})[1]["changed"] is False


def test_a_refusal_is_its_sentence(modules: Any) -> None:
    failed, result = modules("setup", "", 1, "warning\nasap2: p0 has at most 8 VFs, not 9\n", nics=[{"pf": "p0"}])
    assert (failed, result) == (True, {"msg": "p0 has at most 8 VFs, not 9", "rc": 1})


def test_a_program_that_says_nothing_is_told_with_all_that_it_said(modules: Any) -> None:
    failed, result = modules("status", "Traceback", 1, "boom")
    assert failed
    assert result["msg"] == "`/bin/asap2 host status --json` printed no JSON, and no reason"
    assert (result["stdout"], result["stderr"]) == ("Traceback", "boom")


def test_a_host_without_asap2_is_told_so(modules: Any) -> None:
    failed, result = modules("status", {}, program="gone")
    assert failed
    assert result["msg"].startswith("there is no program gone on this host; install asap2 there")


def test_what_undoing_leaves_is_a_failure(modules: Any) -> None:
    answer = {"changed": True, "steps": [STEP], "changes": [], "removed": ["/f"], "left": ["mtu: was 1, is 2"]}
    failed, result = modules("undo", {**answer, "seconds": 1}, 1)
    assert (failed, result["changed"]) == (True, True)
    assert result["msg"] == "not everything is as it was before: mtu: was 1, is 2"
    assert "/f: present\n" in result["diff"]["before"]


def test_a_proof_that_fails_is_told_with_its_reasons(modules: Any) -> None:
    flow = {"reason": "ct", "found": "tracks"}
    proof = {"protocol": "tcp", "verdict": "not offloaded", "offloaded": False, "flows": [flow, flow, {"reason": None}]}
    answer = {"offloaded": False, "vf": 1, "representor": "eth1", "results": [proof]}
    arguments = {"vf": "eth1", "peer": "10.0.0.2", "netns": "vm1", "protocols": ["icmp", "tcp"]}
    failed, result = modules("verify", answer, 1, **arguments)
    assert failed
    assert result["msg"] == "VF 1 at eth1 is not offloaded: tcp: not offloaded (ct: tracks)"
    assert Module.asked == (
        [
            "host",
            "verify",
            "--netns=vm1",
            "--protocol=icmp,tcp",
            "--count=1000",
            "--port=7",
            "eth1",
            "10.0.0.2",
            "--json",
        ]
    )
    assert not modules("verify", answer, 1, **arguments, gate=False)[0]


def test_files_of_persist_are_a_difference_each(modules: Any) -> None:
    files = [{"path": "/a", "before": None, "after": "x\n"}]
    failed, result = modules("persist", {"changed": True, "files": files}, state="absent")
    assert (failed, result["changed"]) == (False, True)
    assert result["diff"] == [{"before_header": "/a", "after_header": "/a", "before": "", "after": "x\n"}]
    assert Module.asked == ["host", "persist", "--remove", "--json"]


def test_all_that_can_be_wanted_reaches_the_program(modules: Any) -> None:
    """By way of a configuration that asap2 reads strictly."""
    nic = {
        "pf": 'a "PF"',
        "vfs": 3,
        "order": "vfs-first",
        "encap": False,
        "steering": "smfs",
        "bridge": "br-ünt",
        "uplink": False,
        "representors": True,
        "representor_names": ["r0", "r\\1"],
        "vf": [{"index": 2, "mac": "02:00:00:00:00:01", "trust": True, "spoofchk": None}],
    }
    switch = {"tc_policy": "none", "max_idle": 30000, "restart": False}
    empty: dict[str, Any] = {"pf": "b", "vfs": None, "bridge": None, "vf": [], "representor_names": []}
    answer = {"steps": [], "changes": [], "seconds": 0}
    modules("setup", answer, nics=[nic, empty], openvswitch=switch, nic_only=True, force=True)
    assert {"--nic-only", "--force"} <= set(Module.asked)
    wanted = from_data(Wanted, tomllib.loads(Module.configuration))
    assert wanted == from_data(Wanted, {"nic": [nic, {"pf": "b"}], "openvswitch": switch})


plain = st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
keys = st.from_regex(r"[a-z_]{1,5}", fullmatch=True)
tables = st.recursive(
    st.dictionaries(keys, plain | st.lists(plain), max_size=3),
    lambda inner: st.dictionaries(keys, plain | inner | st.lists(inner, min_size=1, max_size=3), max_size=3),
    max_leaves=8,
)


@given(tables)
def test_toml_is_read_as_it_was_written(collections: Path, data: dict[str, Any]) -> None:
    assert collections
    toml = importlib.import_module("ansible_collections.asap2.offload.plugins.module_utils.toml")
    assert tomllib.loads(toml.tables(data)) == data
