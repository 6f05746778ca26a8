# SPDX-License-Identifier: Apache-2.0
"""``asap2 bench [--json FILE] [--rounds N] [--plot FILE]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def bench(
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="How often each path is measured.")] = 5,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a PNG; beside the JSON when not given.")
    ] = None,
) -> None:
    """Compare five paths from guest to guest, in turns: throughput, packet rate, latency, CPU. About 45 s a round."""
    from rich.console import Console

    from asap2.cli.tables import print_bench
    from asap2.lab.bench.plot import plot as draw
    from asap2.lab.bench.run import run
    from asap2.lab.lab import Lab

    console = Console(stderr=True, soft_wrap=True)

    def tell(number: int, name: str, figures: dict[str, float]) -> None:
        words = f"{figures['tcp_gbps']:6.2f} Gbit/s, {figures['packets_per_second']:8.0f} packets/s"
        words += f", {figures['transactions_per_second']:7.0f} transactions/s"
        console.print(f"round {number} of {rounds}: {name:14} {words}", highlight=False)

    result = run(Lab(), rounds, tell)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
        plot = plot or json_file.with_suffix(".png")
    if plot is not None:
        draw(result, plot)
    print_bench(result)


command = typer.main.get_command(app)
