# SPDX-License-Identifier: Apache-2.0
"""``asap2 lab up FILE | down | ls``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, help="Nodes, NICs, cables and guests from a TOML file.", no_args_is_help=True)


@app.command()
def up(file: Annotated[Path, typer.Argument(metavar="FILE", help="A topology (docs/lab.md).")]) -> None:
    """Bring up the lab that FILE describes."""
    from asap2.lab.lab import Lab
    from asap2.lab.topology import load

    Lab().up(load(file))


@app.command()
def down() -> None:
    """Take the lab down, whatever state it is in. Nothing remains."""
    from asap2.lab.lab import Lab
    from asap2.output import say

    if not Lab().down():
        say("no lab is up", file=sys.stderr)


@app.command()
def ls(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the lab's nodes, NICs, cables and guests."""
    from asap2.cli.tables import print_lab
    from asap2.lab.lab import Lab
    from asap2.output import say, say_json

    description = Lab().describe()
    if as_json:
        say_json(description)
    elif description is None:
        say("no lab is up", file=sys.stderr)
    else:
        print_lab(description)


command = typer.main.get_command(app)
