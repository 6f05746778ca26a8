# SPDX-License-Identifier: Apache-2.0
"""What commands print: text from the system is never markup, an emoji, a link or a terminal's command."""

from __future__ import annotations

import ast
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asap2
from asap2.cli import host_check, host_explain, host_status, host_verify, lab_tables, openstack_config
from asap2.cli.host_steps import Shown
from asap2.cli.main import main
from asap2.host.check.finding import Finding, Verdict
from asap2.host.explain.explain import explain, flows_of
from asap2.host.inventory import DatapathPort, Host
from asap2.host.setup.run import Planned
from asap2.host.setup.steps import DeletePorts
from asap2.host.status import status
from asap2.host.verify.endpoint import Port
from asap2.host.verify.verify import FlowSeen, Result
from asap2.lab.layout import Layout, layout
from asap2.lab.terminal import Terminal
from asap2.output import say, visible
from asap2.screen import Screen
from tests.unit.host.hosts import offloading, with_netdev, with_pf, with_switch

SOURCES = Path(asap2.__file__).parent
TITLE = "\x1b]0;owned\x07"
HOSTILE = f":ab: [red]x[/red] [link=http://a]y[/link] {TITLE}\x9b2J\u202e\udcff\r"
SHOWN = ":ab: [red]x[/red] [link=http://a]y[/link] \\x1b]0;owned\\x07\\x9b2J\\u202e\\xff\\x0d"
STYLES = re.compile(r"\x1b\[[\d;]*m")
"""What a screen may send to a terminal besides text."""


def hostile() -> Host:
    """A host that has what an attacker wrote wherever one could."""
    host = with_netdev(offloading(), "eth0", name=HOSTILE, up=False)
    vf = dataclasses.replace(host.pfs[0].vfs[0], mac="96:ab:fd:12:34:56", opened_by=HOSTILE)
    host = with_pf(host, vfs=(vf, host.pfs[0].vfs[1]), firmware=HOSTILE)
    flow = f"ufid:1-2, in_port({HOSTILE}),eth_type(0x0800), packets:5, bytes:9, dp:ovs, actions:trunc(64),eth1"
    ports = (DatapathPort(1, HOSTILE), DatapathPort(2, "eth1"))
    host = with_switch(host, datapath_flows=(flow,), datapath_ports=ports, version=HOSTILE)
    return dataclasses.replace(host, hostname=HOSTILE, taken=HOSTILE)


def checked() -> None:
    host = hostile()
    found = Finding("vfs", Verdict.FAIL, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    host_check.show(host, host.pfs, [found])


def explained() -> None:
    host = hostile()
    host_explain.show(host, explain(host, flows_of(host)), True, HOSTILE)


def shown_status() -> None:
    host = hostile()
    Screen(wrap=True).print(host_status.drawn(status(host, host.pfs)))


def verified() -> None:
    host = hostile()
    port = Port(host.pfs[0], host.pfs[0].vfs[0], host.netdevs[1])
    flows = (FlowSeen("1", "out", 9, False, (HOSTILE,), HOSTILE, HOSTILE),)
    host_verify.show(port, [Result("icmp", False, HOSTILE, 9, 9, "echo", flows)])


def stepped() -> None:
    shown = Shown(False)
    step = DeletePorts(HOSTILE, (HOSTILE,))
    shown.planned(Planned((step,)), False)
    shown.done(step)
    shown.failed(step, HOSTILE)
    shown.nics(hostile())


def listed() -> None:
    lab_tables.print_lab(lab(HOSTILE))


def lab(text: str) -> dict[str, Any]:
    """What describes a lab whose every text is *text*."""
    port = {"netdev": text, "pci": text, "mode": text, "num_vfs": 4, "used_vfs": 2}
    nic = {"name": text, "model": text, "total_vfs": 8, "ports": [port]}
    node = {"name": text, "state": text, "daemon": None, "processes": 1, "nics": [nic]}
    guest = dict.fromkeys(("name", "node", "vf", "device", "mac", "address"), text)
    bad = {"delay_ms": 1.5, "jitter_ms": 0.0, "loss_percent": 0.1, "rate_mbit": 1000.0}
    packets = {text: {"received": 5, "lost": 2, "dropped": 0}}
    cable = {"ends": [text, text], "impairment": bad, "packets": packets}
    return {"name": text, "state": "up", "since": text, "nodes": [node], "cables": [cable], "guests": [guest]}


def configured() -> None:
    openstack_config._show([Finding("x", Verdict.FAIL, HOSTILE, HOSTILE, HOSTILE, HOSTILE)], HOSTILE)


def typed() -> None:
    terminal = Terminal(Layout(Path("/nowhere")), Screen())
    terminal.heading(HOSTILE)
    terminal.say(HOSTILE)
    terminal.conclude(HOSTILE, HOSTILE, 0, HOSTILE, lambda _: HOSTILE, 0.1)
    terminal.failed(HOSTILE, HOSTILE, HOSTILE)
    terminal.summary([(HOSTILE, HOSTILE)], 1.0, None)


def refused() -> None:
    main(["exec", HOSTILE, "true"])


def refused_by_a_lab() -> None:
    layout().root.mkdir()
    main(["exec", HOSTILE, "true"])


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize(
    "show",
    [checked, explained, shown_status, verified, stepped, listed, configured, typed, refused, refused_by_a_lab],
)
def test_text_of_the_system_is_shown_as_it_is(
    show: Callable[[], None], terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    monkeypatch.setenv("TERM", "xterm-256color")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    show()
    captured = capsys.readouterr()
    text = captured.out + captured.err
    plain = STYLES.sub("", text)
    assert SHOWN in plain or (show is typed and SHOWN.replace("\\x0d", "") in plain)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", plain)
    assert bool(STYLES.search(text)) == (terminal and show not in (refused, refused_by_a_lab))


def test_a_mac_is_no_emoji(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown_status()
    assert "96:ab:fd:12:34:56" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["0", "", "-3", "wide"])
def test_a_width_that_is_none_counts_as_not_said(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown_status()
    assert "96:ab:fd:12:34:56" in capsys.readouterr().out


def test_no_encoding_makes_a_command_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(raw, encoding="ascii"))
    assert main(["exec", "sömewhere\udcff", "true"]) == 2
    assert raw.getvalue().startswith(b"asap2: there is no s\\xf6mewhere\\xff")


def test_lines_and_tabs_stay_where_a_text_has_them() -> None:
    assert visible("a\tb\nc") == "a\tb\nc"
    assert visible("ü 文 … ✓ \U0001f18e") == "ü 文 … ✓ \U0001f18e"


def test_said_is_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    assert capsys.readouterr().out == f"{SHOWN}\n"


def calls(path: Path) -> set[str]:
    """The functions that a module calls by a plain name or as ``typer.NAME``, and what it imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
        elif isinstance(node, ast.ImportFrom):
            found.add(f"from {node.module}")
        elif isinstance(node, ast.Import):
            found |= {f"from {one.name}" for one in node.names}
    return found


def test_no_command_prints_by_itself() -> None:
    for path in SOURCES.rglob("*.py"):
        name = str(path.relative_to(SOURCES))
        found = calls(path)
        if name.startswith("cli/"):
            allowed = {"json.dumps"} if name in ("cli/bench.py", "cli/demo.py", "cli/schemas.py") else set()
            allowed |= {"click.echo"} if name == "cli/typer.py" else set()
            printing = {"print", "click.echo", "click.secho", "json.dumps", "sys.stdout.write"}
            assert not found & printing - allowed, name
