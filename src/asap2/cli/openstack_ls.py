# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack ls [--json]``."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import typer

app = typer.Typer()


@app.command()
def ls(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the services, whether they run, and their log files."""
    from asap2.answers import answer
    from asap2.cli.root import need_root
    from asap2.openstack.cloud import Cloud
    from asap2.output import say

    need_root("asap2 openstack ls")
    found = Cloud().describe()
    if as_json:
        answer("openstack-ls", {"services": found})
        return
    for each in found:
        state = f"pid {each['pid']}" if each["pid"] else "does not run"
        say(f"{each['host']:<18}{each['service']:<28}{state:<16}{each['log']}")


command = typer.get_command(app)
