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
        import json

        from asap2.host.records import to_data

        data = {"host": host.hostname, "taken": host.taken, "reasons": counted(found), "flows": to_data(found)}
        print(json.dumps(data, indent=2))
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
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    about = f" at {what}" if what else ""
    if not found:
        console.print(f"{host.hostname}: no flow{about} is in software")
        return
    codes = list(dict.fromkeys(one.code for one in found))
    for code in sorted(codes, key=lambda code: -sum(one.code == code for one in found)):
        group = [one for one in found if one.code == code]
        line = Text(f"{code}", "green" if code == "offloaded" else "bold red")
        line.append(f"  {len(group)} flow{'s' if len(group) > 1 else ''}, ", "none")
        line.append(f"{sum(one.packets for one in group)} packets: {group[0].why}", "none")
        console.print(line)
        for one in group if every else group[:SHOWN]:
            where = f"{one.in_port or 'any port'} to {', '.join(one.outputs) or 'nowhere'}"
            console.print(Text(f"    {where}, {one.packets} packets: {one.found}"))
            for behind in one.attachments:
                console.print(Text(f"        {behind.representor}: {behind}", "dim"))
            for seen in one.evidence:
                console.print(Text(f"        {seen.source}: {seen.seen}", "dim"))
            if one.others:
                console.print(Text(f"        in the way next: {', '.join(one.others)}", "dim"))
            console.print(Text(f"        {one.flow}", "dim"), soft_wrap=True)
        if not every and len(group) > SHOWN:
            console.print(Text(f"    and {len(group) - SHOWN} more (--all)", "dim"))
        if code != "offloaded":
            console.print(Text(f"    do: {group[0].fix}"))
        console.print()
    rest = sum(one.code != "offloaded" for one in found)
    console.print(f"{host.hostname}: {rest} flow{'s are' if rest != 1 else ' is'} not in hardware", style="bold")


command = typer.main.get_command(app)
