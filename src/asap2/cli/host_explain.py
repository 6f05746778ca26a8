# SPDX-License-Identifier: Apache-2.0
"""``asap2 host explain [--json] [--all] [--no-trial] [--deep] [--from FILE] [FLOW|PORT]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.cli.host_subject import AsJson, From
from asap2.cli.root import need_root

if TYPE_CHECKING:
    from pathlib import Path

    from asap2.host.explain.explain import Explanation
    from asap2.host.explain.flow import Flow
    from asap2.host.inventory import Host
    from asap2.host.refused import Refused
    from asap2.screen import Screen

app = typer.Typer()
SHOWN = 3
"""Flows of one reason that are shown, without --all."""


@app.command()
def explain(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="FLOW|PORT",
            help="A flow id, a port, or a flow as dpctl/dump-flows -m prints it (default: all that are not offloaded).",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show all flows, not only a few for each reason.")] = False,
    trial: Annotated[bool, typer.Option(help="Try the flows' rules in TC and in the NIC, with an unused MAC.")] = True,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Install unexplained flows again, and read the reason from the switch's debug log."
        ),
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
        from asap2.answers import answer
        from asap2.host.explain.connections import placed
        from asap2.host.records import to_data

        data = {
            "host": host.hostname,
            "taken": host.taken,
            "reasons": counted(found),
            "flows": to_data(found),
            "connections": to_data(placed(host)) if what is None else [],
            "refused": to_data(without_flow(host, what)),
            "logical_trouble": host.logical_trouble,
        }
        answer("host-explain", data)
    else:
        show(host, found, every, what)


def without_flow(host: Host, what: str | None) -> list[Refused]:
    """Refused requests, for which there is no flow: those that concern *what*; none if that is a flow."""
    from asap2.host.refused import refused

    place = host.openvswitch.port_of(what) if what else None
    names = {what, place[0].name if place else what}
    return [one for one in refused(host) if what is None or one.about in names]


def subject(file: Path | None, what: str | None, trial: bool) -> tuple[Host, list[Flow]]:
    """This host or a capture, and the requested flows."""
    from asap2.errors import UsageError
    from asap2.host.explain.explain import flows_of, select
    from asap2.host.explain.flow import named, parse

    if file is not None:
        from asap2.host.capture import read

        host = read(file)
    else:
        need_root("asap2 host")
        from asap2.host.observe import observe

        host = observe(full=True, filters=False, openflow=False, connections="each" if what is None else None)
    if what is not None and "(" in what:
        numbers = {str(one.number): one.name for one in host.openvswitch.datapath_ports}
        flows = [named(parse(what), numbers)]
    else:
        flows = flows_of(host)
        if what is not None:
            flows = select(flows, what)
            if not flows and what not in {one.name for one in host.openvswitch.datapath_ports}:
                raise UsageError(f"{what!r} is neither a flow of the datapath nor a port of it")
        else:
            flows = [flow for flow in flows if flow.offloaded != "yes"]
    if trial and file is None and host.openvswitch.running:
        from asap2.host.explain.probe import tried

        wanted = [flow for flow in flows if flow.offloaded != "yes" and flow.datapath.startswith("system@")]
        host = tried(host, wanted)
    if file is None:
        from asap2.host.explain.ovn import traced

        host = traced(host, flows)
    return host, flows


def show(host: Host, found: list[Explanation], every: bool, what: str | None) -> None:
    """Print explanations for people, grouped by reason."""
    from asap2.screen import Screen

    screen = Screen()
    about = f" at {what}" if what else ""
    missing = without_flow(host, what)
    show_refused(missing, every, screen)
    if what is None:
        show_connections(host, screen)
    if host.logical_trouble:
        screen.say(f"OVN's logical flows are not known, because its database does not answer: {host.logical_trouble}")
    rest = f"; refused, so that there is no flow: {len(missing)}" if missing else ""
    if not found:
        screen.say(f"{host.hostname}: no flow{about} is in software{rest}")
        return
    codes = list(dict.fromkeys(one.code for one in found))
    for code in sorted(codes, key=lambda code: -sum(one.code == code for one in found)):
        group = [one for one in found if one.code == code]
        flows = f"  {len(group)} flow{'s' if len(group) > 1 else ''}"
        words = f"{flows}, {_packets(sum(one.packets for one in group))}: {group[0].why}"
        screen.say((code, "green" if code == "offloaded" else "bold red"), words)
        for fix in dict.fromkeys(one.fix for one in group):
            some = [one for one in group if one.fix == fix]
            for one in some if every else some[:SHOWN]:
                show_flow(one, screen)
            if not every and len(some) > SHOWN:
                screen.say(f"    and {len(some) - SHOWN} more (--all)", style="dim")
            if code != "offloaded":
                screen.say(f"    do: {fix}")
        screen.say()
    soft = sum(one.code != "offloaded" for one in found)
    screen.say(f"{host.hostname}: {soft} flow{'s are' if soft != 1 else ' is'} not in hardware{rest}", style="bold")


def show_flow(one: Explanation, screen: Screen) -> None:
    """Print an explanation for people."""
    where = f"{one.in_port or 'any port'} to {', '.join(one.outputs) or 'nowhere'}"
    screen.say(f"    {where}, {_packets(one.packets)}: {one.found}")
    for behind in one.attachments:
        screen.say(f"        {behind.representor}: {behind}", style="dim")
    if one.logical is not None:
        if one.logical.ports:
            screen.say(f"        ovn: ports {', '.join(one.logical.ports)}", style="dim")
        for logical in one.logical.flows:
            if not logical.is_plain:
                screen.say(f"        ovn: {logical}", style="dim")
    for seen in one.evidence:
        screen.say(f"        {seen.source}: {seen.seen}", style="dim")
    if one.others:
        screen.say(f"        in the way next: {', '.join(one.others)}", style="dim")
    screen.say(f"        {one.flow}", style="dim")


def _packets(number: int) -> str:
    return f"{number} packet{'s' * (number != 1)}"


def show_connections(host: Host, screen: Screen) -> None:
    """Print where connections are, and why."""
    from asap2.host.explain.connections import HARDWARE, placed

    rows = placed(host)
    for code in dict.fromkeys(row.code for row in rows):
        some = [row for row in rows if row.code == code]
        count = sum(row.count for row in some)
        words = f"  {count} connection{'s' * (count != 1)}: {some[0].why}"
        screen.say((code, "green" if code == HARDWARE else "bold"), words)
        for row in some:
            screen.say(f"    {row.count} of {row.what}, such as {row.example}", style="dim")
        if code != HARDWARE:
            screen.say(f"    do: {some[0].fix}")
    if rows:
        screen.say()


def show_refused(missing: list[Refused], every: bool, screen: Screen) -> None:
    """Print refused requests for people."""
    from asap2.host.explain.reasons import REASONS

    for code in dict.fromkeys(one.code for one in missing):
        group = [one for one in missing if one.code == code]
        screen.say((code, "bold red"), f"  {REASONS[code].why}")
        for one in group if every else group[:SHOWN]:
            times = f", {one.times} times" if one.times > 1 else ""
            screen.say(f"    {one.about}{times}: {one.found}")
            screen.say(f"        {one.evidence}", style="dim")
        if not every and len(group) > SHOWN:
            screen.say(f"    and {len(group) - SHOWN} more (--all)", style="dim")
        screen.say(f"    do: {REASONS[code].fix.replace('{port}', group[0].about)}")
        screen.say()


command = typer.get_command(app)
