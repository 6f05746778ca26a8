# SPDX-License-Identifier: Apache-2.0
"""``asap2 host check [--json] [--strict] [--no-trial] [--from FILE] [PF…]``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.cli.host_subject import AsJson, From, Pfs, subject

if TYPE_CHECKING:
    from asap2.host.check.finding import Finding
    from asap2.host.inventory import Host, Pf

app = typer.Typer()


@app.command()
def check(
    pfs: Pfs = None,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 for warnings, too.")] = False,
    trial: Annotated[
        bool, typer.Option(help="Put rules into the NIC and remove them, to see whether it accepts them.")
    ] = True,
    file: From = None,
) -> int:
    """Check what hardware offload needs, and how to fix what is missing. Exit status 0: nothing prevents offload."""
    from asap2.host.check.audit import CHECKS, audit, summary
    from asap2.host.check.finding import Verdict

    host, chosen = subject(file, pfs)
    if trial and file is None:
        from asap2.host.trial import attempt_all

        host = dataclasses.replace(host, trials=attempt_all(host, chosen))
    findings = audit(host, chosen)
    counts = summary(findings)
    bad = counts[Verdict.FAIL] + (counts[Verdict.WARN] if strict else 0)
    if as_json:
        from asap2.answers import answer
        from asap2.host.records import to_data

        data = {
            "host": host.hostname,
            "taken": host.taken,
            "pfs": [pf.address for pf in chosen],
            "verdict": "fail" if bad else "ok",
            "summary": dict(counts),
            "checks": [one.id for one in CHECKS],
            "findings": to_data(findings),
        }
        answer("host-check", data)
    else:
        show(host, chosen, findings)
    return 1 if bad else 0


def show(host: Host, pfs: tuple[Pf, ...], findings: list[Finding]) -> None:
    """Print findings for people: one line for what is in order; reason and fix for everything else."""
    from asap2.host.check.audit import summary
    from asap2.host.check.finding import Verdict
    from asap2.screen import Screen

    screen = Screen()
    styles = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "dim"}
    several = len(pfs) > 1
    for one in findings:
        named = one.subject and (several or one.subject not in [pf.name for pf in pfs])
        where = f"{one.subject}: " if named else ""
        screen.say((f"{one.verdict:8}", styles[one.verdict]), (f"{one.id:21} ", "bold"), where, one.found)
        if one.verdict in (Verdict.WARN, Verdict.FAIL):
            screen.say(f"{'':30}because {one.why}", style="dim")
            if one.fix:
                screen.say(f"{'':30}fix: {one.fix}")
    counts = summary(findings)
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    verdict = "hardware offload is not ready here" if counts[Verdict.FAIL] else "nothing stands in the way of offload"
    screen.say()
    screen.say(f"{host.hostname}: {verdict} ({words})", style="bold red" if counts[Verdict.FAIL] else "bold green")


command = typer.get_command(app)
