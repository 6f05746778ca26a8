# SPDX-License-Identifier: Apache-2.0
"""``asap2 shell NODE|GUEST``."""

from __future__ import annotations

import os
from typing import Annotated

from asap2.cli import complete, typer
from asap2.cli.root import need_root
from asap2.lab.enter import replace_process
from asap2.lab.layout import layout

app = typer.Typer()


@app.command()
def shell(
    name: Annotated[
        str, typer.Argument(metavar="NODE|GUEST", help="Name of the node or guest.", complete=complete.places)
    ],
) -> None:
    """Open a shell inside a node or guest."""
    need_root("asap2 shell")
    replace_process(layout().bundle(name), [os.environ.get("SHELL") or "/bin/bash"])


command = typer.get_command(app)
