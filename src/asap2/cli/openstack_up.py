# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack up [--network DRIVER] [FILE]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from asap2.cli import typer
from asap2.openstack.mechanism import Mechanism

app = typer.Typer()


@app.command()
def up(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Topology (docs/lab.md; default: two nodes).")
    ] = None,
    network: Annotated[
        Mechanism, typer.Option(help="neutron's mechanism driver: its own Open vSwitch agent, or OVN.")
    ] = Mechanism.OPENVSWITCH,
) -> None:
    """Bring up a lab and start nova, neutron, placement, glance, MariaDB and RabbitMQ on it, and OVN if wanted."""
    from importlib import resources

    from asap2.cli.root import need_root

    need_root("asap2 openstack up")
    from asap2.lab.topology import load, parse
    from asap2.openstack.cloud import Cloud
    from asap2.output import say

    shipped = resources.files("asap2.openstack").joinpath("topology.toml")
    Cloud(say=say).up(load(file) if file else parse(shipped.read_text()), network)
    say(
        "The cloud is up. `asap2 exec controller openstack …` is its client, `asap2 openstack ls` tells how it does, "
        "`asap2 openstack down` takes it down."
    )


command = typer.get_command(app)
