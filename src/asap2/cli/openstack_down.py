# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack down``."""

from __future__ import annotations

import sys

from asap2.cli import typer

app = typer.Typer()


@app.command()
def down() -> None:
    """Take the cloud and its lab down, whatever state they are in. Nothing remains."""
    from asap2.cli.root import need_root
    from asap2.openstack.cloud import Cloud
    from asap2.output import say

    need_root("asap2 openstack down")
    if not Cloud().down():
        say("no cloud is up", file=sys.stderr)


command = typer.get_command(app)
