# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack start SERVICE HOST``."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import typer

app = typer.Typer()


@app.command()
def start(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Name, as `asap2 openstack ls` shows it.")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="Host that it runs on.")],
) -> None:
    """Start a service that is not running."""
    from asap2.cli.root import need_root
    from asap2.openstack.cloud import Cloud

    need_root("asap2 openstack start")
    Cloud().start(Cloud().service(service, host))


command = typer.get_command(app)
