# SPDX-License-Identifier: Apache-2.0
"""``asap2 host explain [--json] [--all] [--no-trial] [--deep] [--from FILE] [FLOW|PORT]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from asap2.cli.host_subject import AsJson, From, need_root

if TYPE_CHECKING:
    from pathlib import Path

    from asap2.host.explain.explain import Explanation
    from asap2.host.explain.flow import Flow
    from asap2.host.inventory import Host

app = typer.Typer(add_completion=False)
SHOWN = 3
"""Flows of one reason that are shown, without --all."""


@app.command()
def explain(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[FLOW|PORT]",
            help="A flow id, a port, or a flow as dpctl/dump-flows -m prints it; if none, all that are not offloaded.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every flow, not a few of each reason.")] = False,
    trial: Annotated[
        bool, typer.Option(help="Try the flows' rules in TC and in the NIC, with a MAC that nobody has.")
    ] = True,
    deep: Annotated[
        bool, typer.Option("--deep", help="Have the switch's debug log tell what nothing else does.")
    ] = False,
    as_json: AsJson = False,
    file: From = None,
) -> None:
    """Say for each flow in the software datapath why it is not offloaded, with the evidence, and what to do."""
    from asap2.errors import UsageError
    from asap2.host.explain.explain import UNDECIDED, counted
    from asap2.host.explain.explain import explain as reasons

    if deep and file is not None:
        raise UsageError("--deep asks this host's switch, not a capture's: leave out --deep or --from")
    host, flows = subject(file, what, trial)
    found = reasons(host, flows)
    if deep and any(one.code in UNDECIDED and one.dp == "ovs" for one in found):
        from asap2.host.explain.deep import ask_about

        wanted = [flow for flow, one in zip(flows, found, strict=True) if one.code in UNDECIDED]
        ask_about(wanted, host.openvswitch.datapath_ports)
        asked = {flow.ufid for flow in flows}
        host, now = subject(None, what, trial)
        flows = [flow for flow in now if flow.ufid in asked]
        found = reasons(host, flows)
    if as_json:
        from asap2.host.records import to_data
        from asap2.output import say_json

        data = {"host": host.hostname, "taken": host.taken, "reasons": counted(found), "flows": to_data(found)}
        say_json(data)
    else:
        show(host, found, every, what)


def subject(file: Path | None, what: str | None, trial: bool) -> tuple[Host, list[Flow]]:
    """This host or a capture, and the flows that are asked for."""
    from asap2.errors import UsageError
    from asap2.host.explain.explain import flows_of, select
    from asap2.host.explain.flow import named, parse

    if file is not None:
        from asap2.host.capture import read

        host = read(file)
    else:
        need_root()
        from asap2.host.observe import observe

        host = observe(full=True, filters=False, openflow=False)
    if what is not None and "(" in what:
        numbers = {str(one.number): one.name for one in host.openvswitch.datapath_ports}
        flows = [named(parse(what), numbers)]
    else:
        flows = flows_of(host)
        if what is not None:
            flows = select(flows, what)
            if not flows and what not in {one.name for one in host.openvswitch.datapath_ports}:
                raise UsageError(f"{what} is neither a flow of the datapath nor a port of it")
        else:
            flows = [flow for flow in flows if flow.offloaded != "yes"]
    if trial and file is None and host.openvswitch.running:
        from asap2.host.explain.probe import tried

        wanted = [flow for flow in flows if flow.offloaded != "yes" and flow.datapath.startswith("system@")]
        host = tried(host, wanted)
    return host, flows


def show(host: Host, found: list[Explanation], every: bool, what: str | None) -> None:
    """Print explanations for people, those of one reason together."""
    from asap2.screen import Screen

    screen = Screen()
    about = f" at {what}" if what else ""
    if not found:
        screen.say(f"{host.hostname}: no flow{about} is in software")
        return
    codes = list(dict.fromkeys(one.code for one in found))
    for code in sorted(codes, key=lambda code: -sum(one.code == code for one in found)):
        group = [one for one in found if one.code == code]
        flows = f"  {len(group)} flow{'s' if len(group) > 1 else ''}"
        words = f"{flows}, {sum(one.packets for one in group)} packets: {group[0].why}"
        screen.say((code, "green" if code == "offloaded" else "bold red"), words)
        for one in group if every else group[:SHOWN]:
            where = f"{one.in_port or 'any port'} to {', '.join(one.outputs) or 'nowhere'}"
            screen.say(f"    {where}, {one.packets} packets: {one.found}")
            for behind in one.attachments:
                screen.say(f"        {behind.representor}: {behind}", style="dim")
            for seen in one.evidence:
                screen.say(f"        {seen.source}: {seen.seen}", style="dim")
            if one.others:
                screen.say(f"        in the way next: {', '.join(one.others)}", style="dim")
            screen.say(f"        {one.flow}", style="dim")
        if not every and len(group) > SHOWN:
            screen.say(f"    and {len(group) - SHOWN} more (--all)", style="dim")
        if code != "offloaded":
            screen.say(f"    do: {group[0].fix}")
        screen.say()
    rest = sum(one.code != "offloaded" for one in found)
    screen.say(f"{host.hostname}: {rest} flow{'s are' if rest != 1 else ' is'} not in hardware", style="bold")


command = typer.main.get_command(app)
