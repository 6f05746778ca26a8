# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack config [--format FORMAT] [--role ROLE] … [PF…]`` and ``asap2 openstack config --check [FILE…]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.cli.host_subject import AsJson, From
from asap2.errors import UsageError
from asap2.openstack.config.generate import Format, Role
from asap2.openstack.mechanism import Mechanism
from asap2.output import say

if TYPE_CHECKING:
    from asap2.host.check.finding import Finding
    from asap2.host.inventory import Host, Pf
    from asap2.openstack.config.nodes import Node

app = typer.Typer()


@app.command()
def config(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PF|FILE]…",
            help="NICs, as network devices or PCI addresses (default: all); with --check, files or directories.",
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="How OpenStack is installed.")] = Format.PLAIN,
    role: Annotated[Role | None, typer.Option(help="Only the files of one role.")] = None,
    physical_network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="neutron's name for the network at each NIC, in the NICs' order (default: `default`)."
        ),
    ] = None,
    vlan_range: Annotated[
        list[str] | None,
        typer.Option(metavar="FIRST:LAST", help="VLANs for tenants' networks, one range for each physical network."),
    ] = None,
    bridge: Annotated[
        list[str] | None,
        typer.Option(metavar="BR", help="Bridge of each physical network (default: the uplink's, or br-UPLINK)."),
    ] = None,
    tunnel: Annotated[
        bool,
        typer.Option("--tunnel", help="Add VXLAN networks (OVN: Geneve); without a physical network, only these."),
    ] = False,
    local_ip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NODE=]ADDRESS", help="A node's tunnel endpoint (default: its uplink's or bridge's address)."
        ),
    ] = None,
    tunnel_vfs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="VFs of each NIC for VXLAN networks, counted from the last (default: half)."
        ),
    ] = None,
    controller: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address of the controller, for devstack and OVN.")
    ] = None,
    network: Annotated[
        Mechanism, typer.Option(help="neutron's mechanism driver: its own Open vSwitch agent, or OVN.")
    ] = Mechanism.OPENVSWITCH,
    topology: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Use the nodes of a lab (docs/lab.md), not this host.")
    ] = None,
    node: Annotated[list[str] | None, typer.Option(metavar="NODE", help="Only this node of the topology.")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the files to DIR, by node.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files with other contents.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check existing settings: FILEs, or those in /etc/nova and /etc/neutron."),
    ] = False,
    python: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="With --check: the Python that has nova and neutron.")
    ] = None,
    as_json: AsJson = False,
    file: From = None,
) -> int:
    """Generate OpenStack's settings for these NICs, for nova, neutron and deployment tools. Or check existing settings
    with nova's and neutron's own parsers; exit status 0: nothing is wrong with them."""
    if check:
        if topology or output or node:
            raise UsageError("--check reads files, for this host or a capture (--from): leave out the other options")
        return _check(what or [], file, python, as_json)
    if python is not None:
        raise UsageError("--python is for --check")
    from asap2.openstack.config.files import shown, write
    from asap2.openstack.config.generate import generate
    from asap2.openstack.config.values import Wanted, resolve

    wanted = Wanted(
        physical_networks=tuple(physical_network or ()),
        vlan_ranges=tuple(vlan_range or ()),
        bridges=tuple(bridge or ()),
        tunnel=tunnel,
        tunnel_vfs=tunnel_vfs,
        local_ips=tuple(_local_ip(text) for text in local_ip or ()),
        controller=controller,
        mechanism=network,
    )
    values = resolve(
        wanted,
        () if role is Role.CONTROLLER and not _names_nics(what, topology, file) else _nodes(what, topology, node, file),
    )
    files = generate(values, format, role)
    for note in values.notes:
        say(f"note: {note}", file=sys.stderr)
    if as_json:
        from asap2.answers import answer
        from asap2.host.records import to_data

        answer("openstack-config", {"format": format, "values": to_data(values), "files": to_data(files)})
    elif output is None:
        say(shown(files), end="")
    if output is not None:
        for path in write(files, output, force=force):
            say(f"wrote {path}", file=sys.stderr if as_json else sys.stdout)
    return 0


def _local_ip(text: str) -> tuple[str, str]:
    name, _, address = text.rpartition("=")
    return name, address


def _names_nics(what: list[str] | None, topology: Path | None, file: Path | None) -> bool:
    """Whether NICs are named: a controller need have none."""
    return bool(what or topology or file)


def _nodes(
    what: list[str] | None, topology: Path | None, names: list[str] | None, file: Path | None
) -> tuple[Node, ...]:
    """The nodes that settings are for."""
    from asap2.openstack.config.nodes import of_host, of_topology

    if topology is None:
        if names:
            raise UsageError("--node is of a topology: say --topology FILE, too")
        return (of_host(*_host(what, file)),)
    if what or file:
        raise UsageError("a topology's NICs are all meant: leave out PFs and --from")
    from asap2.lab.topology import load

    nodes = of_topology(load(topology))
    missing = set(names or ()) - {one.name for one in nodes}
    if missing:
        raise UsageError(
            f"{topology} has no node {', '.join(sorted(missing))}; it has {', '.join(one.name for one in nodes)}"
        )
    return tuple(one for one in nodes if not names or one.name in names)


def _host(what: list[str] | None, file: Path | None) -> tuple[Host, tuple[Pf, ...]]:
    """This host or a capture."""
    from asap2.cli.host_subject import subject
    from asap2.cli.root import need_root

    if file is None:
        need_root("asap2 openstack config", ", or give --from FILE")
    return subject(file, what)


def _check(files: list[str], capture: Path | None, python: str | None, as_json: bool) -> int:
    """Check *files*, and say what was found."""
    from asap2.host.check.audit import summary
    from asap2.host.check.finding import Verdict
    from asap2.openstack.config.check.run import check as judge

    # who is not root sees no NICs: the names are checked all the same
    host, pfs = _host(None, capture) if capture or not os.geteuid() else (None, ())
    settings, findings = judge(files, host, pfs, here=capture is None, python=python)
    counts = summary(findings)
    bad = counts[Verdict.FAIL]
    if as_json:
        from asap2.answers import answer
        from asap2.host.records import to_data

        data = {
            "host": host.hostname if host else None,
            "versions": dict(settings.versions),
            "settings": len(settings.entries),
            "verdict": "fail" if bad else "ok",
            "summary": dict(counts),
            "findings": to_data(findings),
        }
        answer("openstack-config", data)
    else:
        by = ", ".join(f"{service} {version}" for service, version in settings.versions)
        _show(findings, f"{len(settings.entries)} settings, by {by}: {'not right' if bad else 'nothing is wrong'}")
    return 1 if bad else 0


def _show(findings: list[Finding], end: str) -> None:
    """Print findings for people: where, what, why, what to do."""
    from asap2.host.check.finding import Verdict
    from asap2.screen import Screen

    screen = Screen()
    styles = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "dim"}
    for one in findings:
        where = f"{one.subject}: " if one.subject else ""
        screen.say((f"{one.verdict:8}", styles[one.verdict]), (where, "bold"), one.found)
        if one.verdict is not Verdict.OK and one.why:
            screen.say(f"{'':8}because {one.why}", style="dim")
        if one.fix:
            screen.say(f"{'':8}fix: {one.fix}")
    bad = any(one.verdict is Verdict.FAIL for one in findings)
    screen.say(end, style="bold red" if bad else "bold green")


command = typer.get_command(app)
