# SPDX-License-Identifier: Apache-2.0
"""``asap2 demo [--report FILE] [--keep]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what happened as JSON.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab up.")] = False,
) -> None:
    """Do the getting-started procedure on two software hypervisors, and show that it works."""
    from rich.console import Console

    from asap2.lab.demo import Demo
    from asap2.lab.lab import Lab

    console = Console(soft_wrap=True)
    shown = Demo(Lab(), console)
    try:
        shown.run(keep)
    finally:
        if report is not None:
            report.write_text(json.dumps(shown.report(), indent=2) + "\n")
    shown.print_summary()
    if keep:
        console.print(
            "\nThe lab stays up. To look around: `asap2 lab ls`, `asap2 shell hv1`, "
            "`asap2 exec vm1 ping 10.57.0.2`; to take it down: `asap2 lab down`.",
            highlight=False,
        )
    if shown.failure:
        from asap2.errors import Asap2Error

        raise Asap2Error(shown.failure)


command = typer.main.get_command(app)
