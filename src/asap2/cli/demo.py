# SPDX-License-Identifier: Apache-2.0
"""``asap2 demo [--openstack [--network DRIVER] | --ovn [--encapsulation KIND]] [--report FILE] [--keep] …``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from asap2.cli import typer
from asap2.openstack.mechanism import Mechanism

app = typer.Typer()


class Encapsulation(StrEnum):
    """The kinds of tunnel between OVN's chassis."""

    GENEVE = "geneve"
    VXLAN = "vxlan"


@app.command()
def demo(
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report as JSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running.")] = False,
    rounds: Annotated[
        int, typer.Option(min=1, max=50, metavar="N", help="Number of rounds with the NIC and without offload.")
    ] = 3,
    openstack: Annotated[
        bool, typer.Option("--openstack", help="Use OpenStack: servers on direct ports, with security groups and OVN.")
    ] = False,
    ovn: Annotated[
        bool, typer.Option("--ovn", help="Use OVN: logical switches, router, ACLs, load balancers, NAT.")
    ] = False,
    encapsulation: Annotated[
        Encapsulation | None,
        typer.Option(metavar="KIND", help="With --ovn: geneve or vxlan (default: geneve if nodes have such devices)."),
    ] = None,
    network: Annotated[
        Mechanism | None, typer.Option(help="With --openstack: neutron's mechanism driver (default: both in turn).")
    ] = None,
) -> None:
    """Run the getting-started procedure on two software hypervisors, and show that it works."""
    from asap2.cli.root import need_root
    from asap2.errors import UsageError
    from asap2.output import say
    from asap2.progress import Progress
    from asap2.screen import Screen

    if openstack and ovn:
        raise UsageError("--openstack and --ovn are two demos: choose one")
    need_root("asap2 demo")
    screen = Screen()
    with Progress() as progress:
        if openstack:
            shown = _on_openstack(screen, network)
        elif ovn:
            shown = _on_ovn(_lab(progress), screen, encapsulation)
        else:
            shown = _on_lab(_lab(progress), screen, rounds)
        try:
            shown.run(keep)
        finally:
            if report is not None:
                report.write_text(json.dumps(shown.report(), indent=2) + "\n")
    shown.print_summary()
    if keep:
        say(f"\n{_stays(openstack=openstack, ovn=ovn)}")
    if shown.failure:
        from asap2.errors import Asap2Error

        raise Asap2Error(shown.failure)


def _stays(*, openstack: bool, ovn: bool) -> str:
    if openstack:
        return (
            "The cloud stays up. To look around: `asap2 openstack ls`, `asap2 exec controller openstack server list`, "
            "`asap2 shell vm1`; to take it down: `asap2 openstack down`."
        )
    look = "`asap2 lab ls`, `asap2 shell hv1`, `asap2 exec vm1 ping 10.57.0.2`"
    if ovn:
        look = "`asap2 exec hv1 ovn-nbctl show`, `asap2 exec hv1 ovn-sbctl show`, `asap2 shell vm1`"
    return f"The lab stays up. To look around: {look}; to take it down: `asap2 lab down`."


def _lab(progress: Any) -> Any:
    """The lab, which shows on a terminal what takes its time, until it is up."""
    from asap2.lab.lab import Lab

    return Lab(tell=progress.step)


def _on_lab(lab: Any, screen: Any, rounds: int) -> Any:
    from asap2.lab.demo import Demo

    return Demo(lab, screen, rounds)


def _on_openstack(screen: Any, network: Mechanism | None) -> Any:
    from asap2.openstack.cloud import Cloud
    from asap2.openstack.demo import Demo

    return Demo(Cloud(say=screen.say), screen, [network] if network else list(Mechanism))


def _on_ovn(lab: Any, screen: Any, encapsulation: str | None) -> Any:
    from asap2.ovn.demo import Demo

    return Demo(lab, screen, encapsulation)


command = typer.get_command(app)
