# SPDX-License-Identifier: Apache-2.0
"""``asap2 openstack ls [--json]``."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def ls(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Tell which services there are, which run, and where they write what they do."""
    from rich.console import Console
    from rich.table import Table

    from asap2.cli.tables import print_json
    from asap2.openstack.cloud import Cloud

    found = Cloud().describe()
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("service", "host", "process", "log"):
        table.add_column(title, no_wrap=True)
    for each in found:
        table.add_row(each["service"], each["host"], str(each["pid"] or "does not run"), each["log"])
    Console(soft_wrap=True).print(table)


command = typer.main.get_command(app)
